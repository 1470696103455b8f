"""Margin matching: fine-tune each model until its margins are those that its oracle is predicted to have.

With t_i the predicted oracle margin of example i for this member and h the Huber function of width delta:

    theta <- theta - lr * grad [ mean_{B of F} h(m_i(theta) - t_i) + weight * mean_{B of R} h(m_i(theta) - t_i) ]

A step takes one batch of R and one of F; an epoch is a pass over R (or a share of it), with F going round beside it.
Targets come from outside: the pretrained margins plus the change that a datamodel predicts (datamodel matching), or an
oracle's own margins (oracle matching: a bound on what matching can reach, of no use where oracles are to be avoided).

Source: Georgiev et al., "Attribute-to-Delete" (arXiv 2410.23232), sec. 4 and 5: squared distance of all logits, Adam,
batch 256. Differs from the source: margins, which is what datamodels predict; Huber, so that one target that is far
off does not outweigh all others; the optimiser that trained the models by default.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.core import Recipe
from expunge.core.checks import between, non_negative, positive
from expunge.core.margins import margins_with_gradient
from expunge.core.outcomes import Classes, Outcome
from expunge.core.renamed import renamed
from expunge.ensembles import Loss, Objective, WrittenLoss
from expunge.ensembles.chain import MATCH, Known
from expunge.methods.method import Method, Need, OptimizerOption, Trained
from expunge.methods.problem import Checkpoint, Problem, Treatment


@renamed("batch", "forget_batch", "optimiser")
@dataclass(frozen=True, kw_only=True)
class MarginMatching(Trained):
    """Fine-tune to predicted oracle margins on the forget set and on the retain set."""

    lr: float = 0.01
    """Learning rate, at least 0."""
    epochs: int = 10
    """Passes over R (or a share of it), at least 1."""
    batch_size: int = 64
    """Retain examples a step, at least 1."""
    forget_batch_size: int = 64
    """Forget examples a step, at least 1."""
    retain_share: float = 1.0
    """Share of R that an epoch visits, above 0 and at most 1; another in each epoch."""
    retain_weight: float = 1.0
    """Weight of the retain examples beside the forget examples, at least 0."""
    delta: float = 1.0
    """Distance from the target beyond which the loss grows linearly, in units of margins, above 0."""
    optimizer: OptimizerOption = "recipe"
    """`sgd`, `adam` (the source), `adamw`, or `recipe`: the one that trained the models."""
    momentum: float = 0.9
    """Momentum of SGD, or the first beta of Adam; 0 to 1."""
    weight_decay: float = 0.0
    """L2 coefficient, at least 0: 0, since the targets say where to end."""
    statistics: Treatment = "frozen"
    """Normalisation statistics: `frozen`, `updated` or `recalibrated`."""

    name: ClassVar[str] = "margin_matching"
    label: ClassVar[str] = "Margin matching"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "forget", "weights", "targets"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite", "visited", "approached")

    def __post_init__(self) -> None:
        """Check the options."""
        self.check_steps()
        non_negative(retain_weight=self.retain_weight)
        between(1e-6, 1.0, retain_share=self.retain_share)
        positive(delta=self.delta)
        between(0, 1e15, delta=self.delta)  # float32 holds its square

    def planned_examples(self, forget: int, retain: int) -> float:
        """Return what all epochs visit: a share of R, and a batch of F beside each batch of R."""
        visited = math.ceil(self.retain_share * retain)
        return self.epochs * (visited + math.ceil(visited / self.batch_size) * min(self.forget_batch_size, forget))

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint after every epoch."""
        problem.pay_for_targets()
        descent = self.descent(problem)
        start = problem.target_distance(descent)
        for epoch in range(1, self.epochs + 1):
            noise = problem.noise(epoch)
            problem.take_joint_pass(
                descent,
                epoch,
                problem.forget_rounds(self.forget_batch_size, f"{epoch}-"),
                self.batch_size,
                self.lr,
                lambda forgotten: ToTargets(self, problem.outcome, problem.targets, forgotten),
                share=self.retain_share,
                noise=noise,
            )
            problem.approached(start, problem.target_distance(descent))
            yield problem.checkpoint(epoch, descent, self.statistics)

    def loss(self, outcome: Outcome, labels: Tensor, weights: Tensor) -> Loss:
        """Return what a step descends.

        Args:
            outcome: What outputs mean.
            labels: Of the batch, (members, batch, ...).
            weights: Of its examples in the sum, (members, batch).
        """
        if isinstance(outcome, Classes):
            return Matching(self.delta, labels, weights)

        def loss(logits: Tensor, targets: Tensor) -> Tensor:
            margins = outcome.statistic(logits, labels).to(logits.dtype)
            # Masked before the loss: behind a factor of 0 a NaN would still come back as a gradient of NaN.
            difference = torch.where(torch.isnan(targets), 0.0, margins - targets.nan_to_num())
            return (weights.to(logits.dtype) * huber(difference, self.delta)).sum(1)

        return loss

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return rates across what works; every epoch is a stopping time."""
        shares = (0.03, 0.1, 0.3)
        return [
            cls(lr=share * recipe.lr, batch_size=recipe.batch_size, forget_batch_size=recipe.batch_size)
            for share in shares
        ]


@dataclass(frozen=True)
class ToTargets(Objective):
    """What the steps of a pass descend."""

    method: MarginMatching
    outcome: Outcome
    targets: Tensor
    """Target margins (members, training examples), NaN where unknown."""
    forgotten: Sequence[int]
    """How many examples of each step are to be forgotten; they come first."""

    @property
    def known(self) -> Known | None:
        """Margins of classes."""
        if not isinstance(self.outcome, Classes):
            return None
        return Known(MATCH, self.targets, (self.method.delta,))

    def of_batch(self, index: Tensor, labels: Tensor, shares: Tensor) -> tuple[Loss, Tensor]:
        """Return the loss with the targets of a batch."""
        return self.method.loss(self.outcome, labels, shares), self.targets.gather(1, index)

    def shares(self, order: Tensor, ends: Sequence[int]) -> Tensor:
        """Return 1 for forget and the weight for retain examples, each over how many of them are known in a step."""
        steps = zip(ends, ends[1:], self.forgotten, strict=False)
        sizes = [size for begin, end, count in steps for size in (count, end - begin - count)]
        part = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(order.device)
        known = (~torch.isnan(self.targets.gather(1, order))).double()
        counts = known.new_zeros(len(order), len(sizes)).index_add_(1, part, known)
        factors = known.new_tensor([1.0, self.method.retain_weight]).repeat(len(self.forgotten))
        return (factors / counts.clamp(min=1))[:, part]


@dataclass(frozen=True)
class Matching(WrittenLoss):
    """The loss for classes with its gradient: h'(m - t) cut off at delta, times that of the margin."""

    delta: float
    labels: Tensor
    """Labels of the batch (members, batch)."""
    weights: Tensor
    """Of its examples in the sum, (members, batch)."""

    def with_gradient(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses against target margins (members, batch), NaN where unknown, and their gradient."""
        margins, gradient = margins_with_gradient(logits, self.labels)
        difference = torch.where(torch.isnan(target), 0.0, margins - target)
        weights = self.weights.to(difference.dtype)
        losses = (weights * huber(difference, self.delta)).sum(1)
        slope = difference.clamp_(-self.delta, self.delta).mul_(weights)
        return losses, gradient.mul_(slope.unsqueeze(2))


def huber(difference: Tensor, delta: float) -> Tensor:
    """Return difference^2 / 2 up to `delta`, and delta (|difference| - delta / 2) beyond.

    >>> huber(torch.tensor([0.5, -3.0]), 1.0).tolist()
    [0.125, 2.5]
    """
    size = difference.abs()
    near = size.clamp(max=delta)
    return near * (size - near / 2)
