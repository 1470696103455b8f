"""Recall inputs: forget F without any retain data, by holding the outputs on inputs that the model itself recalls.

With f_0 the pretrained model, in every step of a pass over F:

    z ~ N(0, 1),  y ~ uniform over classes,  x = mean(F) + spread(F) * z
    S times:   z <- z - input_lr * grad_z [ l(f_0(x), y) - disagreement * KL(f_0(x) || f_theta(x)) + prior/2 mean z^2 ]
    theta <- theta - lr * grad [ l_forget(B of F) + retain_weight * mean KL(f_0(x) || f_theta(x)) ]

with l_forget minus the loss (`ascent`), or the divergence of the outputs from uniform ones (`uniform`). The recalled
inputs are those that the pretrained model is sure of, and on which the model of now has come to differ from it: what
forgetting damages is mended before it is large. R is not read; F gives the mean of each feature and one spread.

Source: Ji et al., "Automatic Recall Machines" (arXiv 2006.12323), a method of continual learning: S = 10 input steps of
rate 10 for a mean over 100 inputs (.1 an input), distillation by cross-entropy to f_0. Differs from the source: the
real batch is forgotten, not learned; inputs begin at noise, not at that batch; classes are drawn, which takes the place
of its terms for diversity and for classes that are not in the batch (for single rows "not of this class" has no
meaning); KL in place of the Jensen-Shannon divergence; a prior on z in place of total variation and norm.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.core import Network, Recipe
from expunge.core.checks import non_negative, one_of, positive, whole
from expunge.core.seeds import generator
from expunge.core.tree import State
from expunge.ensembles import Descent
from expunge.methods.distillation import Divergence, divergence
from expunge.methods.gradient_ascent import GradientAscent
from expunge.methods.method import Method, Need, OptimizerOption, Raises, Trained
from expunge.methods.problem import FORWARD_SHARE, Checkpoint, Problem

ForgetTerm = Literal["ascent", "uniform"]
"""What a step does on F: climb its loss, or descend to uniform outputs."""


@dataclass(frozen=True, kw_only=True)
class RecallInputs(Trained):
    """Forget while the pretrained outputs are held on inputs that are made from the pretrained model."""

    lr: float = 0.01
    """Learning rate of the weights, at least 0."""
    epochs: int = 10
    """Passes over F, at least 1."""
    forget: ForgetTerm = "ascent"
    """What a step does on F: `ascent`, or `uniform`, which has an end."""
    retain_weight: float = 1.0
    """Weight of the divergence on recalled inputs, at least 0; 0 recalls nothing and protects nothing."""
    input_steps: int = 10
    """Gradient steps on the inputs of every batch, at least 1 (source: 10)."""
    input_lr: float = 0.1
    """Rate of those steps, in units of the spread of F, above 0 (source: .1 an input)."""
    disagreement: float = 1.0
    """Weight with which inputs are sought where the model of now differs from the start, at least 0 (source: 1)."""
    prior: float = 0.1
    """Weight that keeps inputs near the mean of F, at least 0."""
    batch_size: int = 64
    """Recalled inputs a step, at least 1 (source: 100)."""
    forget_batch_size: int = 64
    """Forget examples a step, at least 1."""
    momentum: float = 0.0
    """Momentum of SGD, or the first beta of Adam, 0 to 1."""
    weight_decay: float = 0.0
    """L2 coefficient, at least 0."""
    statistics: Literal["frozen"] = "frozen"
    """Normalisation statistics: there are no retain data to compute others from, so `frozen`."""
    optimizer: OptimizerOption = "recipe"
    """`sgd`, `adam`, `adamw`, or `recipe`: the one that trained the models."""

    name: ClassVar[str] = "recall_inputs"
    label: ClassVar[str] = "Recall inputs"
    needs: ClassVar[frozenset[Need]] = frozenset({"forget", "weights", "classes", "real_inputs"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite", "visited", "ascended")
    raises: ClassVar[Raises] = "forget loss"
    forecastable: ClassVar[bool] = False
    order: ClassVar[str] = GradientAscent.name

    def __post_init__(self) -> None:
        """Check the options."""
        self.check_steps()
        one_of(get_args(ForgetTerm), forget=self.forget)
        non_negative(retain_weight=self.retain_weight, disagreement=self.disagreement, prior=self.prior)
        positive(input_lr=self.input_lr)
        whole(input_steps=self.input_steps)

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Only the forget set is visited."""
        return {"forget": self.forget_batch_size}

    def planned_examples(self, forget: int, retain: int) -> float:
        """Return what all epochs visit, and what it takes to recall a batch beside each batch of F and to hold it."""
        recalled = -(-forget // self.forget_batch_size) * self.batch_size * (self.retain_weight > 0)
        return self.epochs * (forget + recalled * (2 * self.input_steps + 1 + FORWARD_SHARE))

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint after every pass over F."""
        descent = self.descent(problem)
        forget = uniform if self.forget == "uniform" else None
        step = 0
        for epoch in range(1, self.epochs + 1):
            before, noise = problem.forget_loss(descent), problem.noise(epoch)
            for x, y, _ in problem.forget_batches(epoch, self.forget_batch_size):
                _, pull = descent.gradients(x, y, forget, ascend=forget is None, noise=noise)
                if self.retain_weight > 0:
                    inputs = self.recalled(problem, descent, step)
                    with torch.no_grad():
                        held = outputs(problem.start.network, problem.start.params, problem.start.buffers, inputs)
                    _, hold = descent.gradients(inputs, held, Divergence(1.0), noise=noise)
                    pull = {name: own + self.retain_weight * hold[name] for name, own in pull.items()}
                    problem.made(self.batch_size)
                    problem.forward_only(self.batch_size)
                descent.apply(pull, self.lr)
                step += 1
            problem.raised(before, problem.forget_loss(descent))
            yield problem.checkpoint(epoch, descent, self.statistics)

    def recalled(self, problem: Problem, descent: Descent, step: int) -> Tensor:
        """Return one batch of recalled inputs of every member, (members, batch, ...).

        Args:
            problem: Where the pretrained models are, and F.
            descent: The models of now.
            step: Number of the step; each draws others.
        """
        start, forgotten = problem.start, problem.x[problem.forget.to(problem.x.device)]
        kind = next(iter(start.params.values())).dtype
        forgotten = forgotten.to(kind)
        centre, spread = forgotten.mean(0), forgotten.std(correction=0)
        spread = torch.where(spread > 0, spread, 1.0)
        draws = [generator(seed, "recall", step) for seed in problem.seeds]
        shape = (self.batch_size, *forgotten.shape[1:])
        z = torch.stack([torch.randn(shape, generator=draw, dtype=torch.float64) for draw in draws]).to(forgotten)
        classes = problem.task.classes
        drawn = torch.stack([torch.randint(classes, (self.batch_size,), generator=draw) for draw in draws])
        labels = drawn.to(problem.y.device)
        now = {name: tensor.detach() for name, tensor in descent.params.items()}
        for _ in range(self.input_steps):
            with torch.enable_grad():
                z = z.requires_grad_(True)
                x = centre + spread * z
                sure = outputs(start.network, start.params, start.buffers, x)
                apart = divergence(outputs(start.network, now, descent.buffers, x), sure, 1.0)
                fitted = problem.outcome.loss(sure, labels).mean(1)
                near = z.square().flatten(1).mean(1)
                # The mean over the batch, times its size: every input takes its own step, whatever the batch.
                objective = self.batch_size * (fitted - self.disagreement * apart + self.prior / 2 * near)
                (slope,) = torch.autograd.grad(objective.sum(), z)
            z = z.detach() - self.input_lr * slope
        problem.made(2 * self.input_steps * self.batch_size)
        return centre + spread * z

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return rates across what works, with both forget terms."""
        shares, terms = (0.03, 0.1, 0.3, 1.0), get_args(ForgetTerm)
        return [
            cls(lr=share * recipe.lr, forget=term, batch_size=recipe.batch_size, forget_batch_size=recipe.batch_size)
            for share in shares
            for term in terms
        ]


def outputs(network: Network, params: State, buffers: State, x: Tensor) -> Tensor:
    """Return logits (members, batch, classes) with stored statistics, through which gradients reach the inputs."""
    return network({name: t.detach() for name, t in params.items()}, {n: t.detach() for n, t in buffers.items()}, x)


def uniform(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the divergence KL(uniform || softmax) of each member, averaged over its batch, (members,), in nats.

    >>> uniform(torch.zeros(1, 2, 4), torch.zeros(1, 2)).abs().tolist()
    [0.0]
    """
    return -F.log_softmax(logits, -1).mean(-1).mean(1) - math.log(logits.shape[-1])
