"""NegGrad+: descend on R and climb on F in one step, with a fixed weight between the two.

    theta <- theta - lr * grad [ a * mean_{B of R} l(theta) - (1 - a) * mean_{B of F} l(theta) ]

A step takes one batch of R and one of F; an epoch is a pass over R, with F going round and round beside it, so that all
of both sets is used whichever is the shorter. Means are over each batch: a forget example weighs as much as
(1 - a) / a * |R| / |F| retain examples, 1 at the defaults where F is a twentieth of the data.

Source: Kurmanji et al., "Towards Unbounded Machine Unlearning" (arXiv 2302.09880), the baseline of sec. 4 and of the
official code; defaults of the unlearning benchmarks that took it over: a .95, lr .01, momentum .9, no weight decay, 10
epochs, batch 256. Differs from the source: passes over F go on from one epoch to the next, each in a new order (the
code repeats the batches of one shuffle, from the first in every epoch); both batches go forward together, which matters
under `updated` statistics alone; batches of 64 and the optimiser that trained the models by default.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.core import Recipe
from expunge.core.checks import between
from expunge.ensembles import Objective, Weighted
from expunge.methods.method import Method, OptimizerOption, Raises, Trained, going_round
from expunge.methods.problem import Checkpoint, Problem, Treatment


@dataclass(frozen=True, kw_only=True)
class NegGradPlus(Trained):
    """Descend on the retain set and climb on the forget set at once, in every step."""

    lr: float = 0.01
    """Learning rate, at least 0 (benchmarks: .01)."""
    epochs: int = 10
    """Passes over R, at least 1 (benchmarks: 10)."""
    retain_weight: float = 0.95
    """Weight a of the mean over R, from 0 to 1; that over F has 1 - a (benchmarks: .95; source: .9 to .9999)."""
    batch_size: int = 64
    """Retain examples a step, at least 1 (benchmarks: 256)."""
    forget_batch_size: int = 64
    """Forget examples a step, at least 1 (benchmarks: 256)."""
    momentum: float = 0.9
    """Momentum of SGD, or the first beta of Adam; 0 to 1 (benchmarks: .9)."""
    weight_decay: float = 0.0
    """L2 coefficient, at least 0 (benchmarks: 0)."""
    statistics: Treatment = "frozen"
    """Normalisation statistics: `frozen`, `updated` or `recalibrated`."""
    optimizer: OptimizerOption = "recipe"
    """`sgd`, `adam`, `adamw`, or `recipe`: the one that trained the models."""

    name: ClassVar[str] = "neg_grad_plus"
    label: ClassVar[str] = "NegGrad+"
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite", "visited", "ascended")
    raises: ClassVar[Raises] = "forget loss"

    def __post_init__(self) -> None:
        """Check the options."""
        self.check_steps()
        between(0.0, 1.0, retain_weight=self.retain_weight)

    def planned_examples(self, forget: int, retain: int) -> float:
        """Return what all epochs visit: all of R in each, and a batch of F beside each batch of R."""
        steps = self.epochs * -(-retain // self.batch_size)
        return self.epochs * retain + going_round(steps, forget, self.forget_batch_size)

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint after every epoch."""
        descent = self.descent(problem)
        start = problem.forget_loss(descent)
        forget = problem.forget_rounds(self.forget_batch_size)

        def sides(forgotten: Sequence[int]) -> Objective:
            return Sides(problem.outcome, self.retain_weight, forgotten)

        for epoch in range(1, self.epochs + 1):
            noise = problem.noise(epoch)
            problem.take_joint_pass(descent, epoch, forget, self.batch_size, self.lr, sides, noise=noise)
            if self.retain_weight < 1:
                # Ascent has no passes of its own here: what must have risen is the loss since the start.
                problem.raised(start, problem.forget_loss(descent))
            yield problem.checkpoint(epoch, descent, self.statistics)

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return rates across what works, each with two weights; every epoch is a stopping time."""
        shares, weights = (0.03, 0.1, 0.3, 1.0), (0.95, 0.99)
        return [
            cls(
                lr=share * recipe.lr,
                retain_weight=weight,
                batch_size=recipe.batch_size,
                forget_batch_size=recipe.batch_size,
            )
            for share in shares
            for weight in weights
        ]


@dataclass(frozen=True)
class Sides(Weighted):
    """What the steps of a pass descend: the mean loss of retain less that of forget examples, each with its weight."""

    retain_weight: float
    forgotten: Sequence[int]
    """How many examples of each step are to be forgotten; they come first."""

    def shares(self, order: Tensor, ends: Sequence[int]) -> Tensor:
        """Return (a - 1) / batch for forget and a / batch for retain examples."""
        counts, sizes = torch.tensor(self.forgotten), torch.tensor(ends).diff()
        sides = torch.stack([counts, sizes - counts], 1)
        weights = torch.tensor([self.retain_weight - 1, self.retain_weight], dtype=torch.float64) / sides
        return weights.flatten().repeat_interleave(sides.flatten()).to(order.device).expand(len(order), -1)
