"""Evidential repair: the last layer is fitted again on R, with less weight on what a head is sure of and gets wrong.

With z the logits of a head, K classes, e = softplus(z), alpha = e + 1, S = sum alpha, and Dir a Dirichlet law:

    1. a second last layer, from the pretrained one, on R:
           - log(alpha_y / S) + min(t / annealing, 1) * KL(Dir(alpha~) || Dir(1))         in epoch t = 1, 2, ...
           alpha~ = alpha with the true class set to 1; its uncertainty is u(x) = K / S
    2. the last layer, from the pretrained one, on R:
           mean_B c_y w_i l_i + anchor * |theta_last - theta_last,0|^2
           w_i = 1 where the pretrained model is right about i, else u(x_i);   c_y = |R| / (K * rows of class y in R)

A row of R that the pretrained model gets wrong though the evidence is strong is what that model holds to for another
reason, such as the rows to be forgotten: it pulls less. All layers before the last stay bit by bit, and with them what
they know of the forget set: like CF-k, of which this is a weighted form, it can only repair the head.

Source: Ye, Zheng, Zhang, "Evidential Alignment" (arXiv 2506.11347), for spurious features without group labels; its use
for unlearning is ours. Differs from the source: both stages read R instead of data that were held back, since these
judge the result; the anchor is the pretrained layer; epochs and rates are our choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.core import ForgetSet, InputError, Network, Recipe, Task
from expunge.core.checks import non_negative, positive, whole
from expunge.ensembles import Loss, Objective, Rule, Weighted, WrittenLoss
from expunge.methods.last_layers import layers_of
from expunge.methods.method import Method, Need, OptimizerOption, Trained
from expunge.methods.problem import FORWARD_SHARE, Checkpoint, Problem


@dataclass(frozen=True, kw_only=True)
class EvidentialRepair(Trained):
    """Fit the last layer again on the retain set, with weights from an evidential head."""

    lr: float = 0.01
    """Learning rate of both stages, at least 0."""
    epochs: int = 10
    """Passes over R of the repair, at least 1; each is a stopping time."""
    evidence_epochs: int = 3
    """Passes over R of the evidential head before it, at least 1."""
    annealing: float = 10.0
    """Epochs after which the divergence of the evidential loss has its full weight, above 0."""
    anchor: float = 0.0
    """The weight of the squared distance from the pretrained last layer, at least 0."""
    batch_size: int = 64
    """Examples a step, at least 1."""
    momentum: float = 0.9
    """Momentum of SGD, or the first beta of Adam, 0 to 1."""
    weight_decay: float = 0.0
    """L2 coefficient, at least 0; the frozen layers do not decay."""
    statistics: Literal["frozen"] = "frozen"
    """Normalisation statistics: those of the frozen layers must stay, so `frozen`."""
    optimizer: OptimizerOption = "recipe"
    """`sgd`, `adam`, `adamw`, or `recipe`: the one that trained the models."""

    name: ClassVar[str] = "evidential_repair"
    label: ClassVar[str] = "Evidential repair"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "weights", "classes", "layers"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite")
    forecastable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        self.check_steps()
        whole(evidence_epochs=self.evidence_epochs)
        positive(annealing=self.annealing)
        non_negative(anchor=self.anchor)

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Only the retain set is visited."""
        return {"retain": self.batch_size}

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse a model without a layer whose weights can be trained."""
        super().check(network, task, forget)
        if not layers_of(task):
            raise InputError(f"the model of {task.name} has no layer with trainable weights, expected at least one.")

    def planned_examples(self, forget: int, retain: int) -> float:
        """Return what both stages visit, and one pass forward of both heads for the weights."""
        return (self.evidence_epochs + self.epochs + 2 * FORWARD_SHARE) * retain

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint after every pass of the repair over R."""
        last = layers_of(problem.task)[-1].weights
        weights = self._weights(problem, last)
        descent = self.descent(problem, only=last)
        descent.follow(Rule(anchor=2 * self.anchor))
        doubted = Doubted(problem.outcome, weights)
        for epoch in range(1, self.epochs + 1):
            size, noise = self.batch_size, problem.noise(epoch)
            problem.take_pass(descent, "retain", epoch, size, self.lr, objective=doubted, noise=noise)
            yield problem.checkpoint(epoch, descent, self.statistics)

    def _weights(self, problem: Problem, last: Sequence[str]) -> Tensor:
        """Return what each member's loss on each training row counts, (members, training examples); 0 outside R."""
        head = self.descent(problem, only=last)
        pretrained = problem.logits(head, problem.retain)
        for epoch in range(1, self.evidence_epochs + 1):
            evidence, noise = Evidence(min(epoch / self.annealing, 1.0)), problem.noise(-epoch)
            problem.take_pass(head, "retain", -epoch, self.batch_size, self.lr, objective=evidence, noise=noise)
        doubt = uncertainty(problem.logits(head, problem.retain))
        problem.forward_only(2 * len(problem.retain))
        labels = problem.labels_at(problem.retain.expand(len(problem.start), -1)).long()
        counts = F.one_hot(labels, pretrained.shape[2]).sum(1).to(doubt)
        balance = labels.shape[1] / (counts.shape[1] * counts.gather(1, labels))
        found = doubt.new_zeros(len(problem.start), len(problem.task.train))
        found[:, problem.retain.to(found.device)] = balance * torch.where(pretrained.argmax(2) == labels, 1.0, doubt)
        return found

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return the rates of fine-tuning, with and without an anchor."""
        epochs = max(5, math.ceil(0.3 * recipe.epochs))
        return [
            cls(lr=share * recipe.lr, epochs=epochs, anchor=anchor, batch_size=recipe.batch_size)
            for share in (0.1, 0.3, 1.0)
            for anchor in (0.0, 0.1)
        ]


def evidential(logits: Tensor, labels: Tensor, share: float) -> Tensor:
    """Return the evidential loss of each example, the shape of the labels.

    Args:
        logits: Shape (..., classes).
        labels: Shape (...).
        share: Weight of the divergence, 0 to 1.

    >>> round(float(evidential(torch.zeros(1, 2), torch.tensor([0]), 0.0)), 6)
    0.693147
    """
    alpha = F.softplus(logits) + 1
    true = F.one_hot(labels.long(), logits.shape[-1]).to(alpha)
    fit = alpha.sum(-1).log() - (alpha * true).sum(-1).log()
    return fit + share * divergence(alpha * (1 - true) + true)


def divergence(alpha: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of a Dirichlet law from the uniform one, nats.

    Args:
        alpha: Concentrations, above 0, shape (..., classes).

    >>> float(divergence(torch.ones(3)))
    0.0
    """
    total, classes = alpha.sum(-1), alpha.shape[-1]
    spread = ((alpha - 1) * (torch.digamma(alpha) - torch.digamma(total).unsqueeze(-1))).sum(-1)
    return torch.lgamma(total) - math.lgamma(classes) - torch.lgamma(alpha).sum(-1) + spread


def uncertainty(logits: Tensor) -> Tensor:
    """Return K / S, from 0 to 1: 1 where there is no evidence at all.

    Args:
        logits: Shape (..., classes).
    """
    return logits.shape[-1] / (F.softplus(logits) + 1).sum(-1)


@dataclass(frozen=True)
class Doubted(Weighted):
    """What the repair descends: the mean of losses, each times the weight of its row."""

    weights: Tensor
    """Of each member's rows, (members, training examples)."""

    def shares(self, order: Tensor, ends: Sequence[int]) -> Tensor:
        """Return the weights over the size of each batch."""
        return super().shares(order, ends) * self.weights.gather(1, order.to(self.weights.device))


@dataclass(frozen=True)
class Evidence(WrittenLoss, Objective):
    """What the evidential head descends, with its gradient: that of the divergence takes trigammas alone."""

    share: float

    def of_batch(self, index: Tensor, labels: Tensor, shares: Tensor) -> tuple[Loss, Tensor]:
        """Return itself and the labels."""
        return self, labels

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of each member against labels (members, batch)."""
        return evidential(logits, target, self.share).mean(1)

    def slope(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return its gradient."""
        alpha, index = F.softplus(logits) + 1, target.long().unsqueeze(2)
        fit = (1 / alpha.sum(2, keepdim=True)).expand_as(alpha)
        fit = fit.scatter_add(2, index, -1 / alpha.gather(2, index))
        others = alpha.scatter(2, index, 1.0)
        total = others.sum(2, keepdim=True)
        apart = (others - 1) * torch.polygamma(1, others) - (total - alpha.shape[2]) * torch.polygamma(1, total)
        slope = fit + self.share * apart.scatter_(2, index, 0.0)
        return slope.mul_(torch.sigmoid(logits)).div_(target.shape[1])
