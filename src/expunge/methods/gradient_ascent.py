"""Gradient ascent (GA, NegGrad): climb the loss on the forget set.

    theta <- theta + lr * grad mean_{B of F} l(theta)

Source: the GA baseline of "Ascent Fails to Forget" (arXiv 2509.26427), sec. 5: plain SGD, batch 64, lr from 1e-5 to
5e-2 and 1 to 10 epochs for a model trained at a peak rate of .4.
Differs from the public code: the order is shuffled, and normalisation statistics stay frozen unless asked otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from expunge.core import Recipe
from expunge.core.renamed import renamed
from expunge.methods.method import Method, Need, OptimizerOption, Raises, Trained
from expunge.methods.problem import Checkpoint, Problem, Treatment


@renamed("batch")
@dataclass(frozen=True, kw_only=True)
class GradientAscent(Trained):
    """Climb the cross-entropy of the forget set with SGD."""

    lr: float = 0.01
    """Learning rate, at least 0."""
    epochs: int = 10
    """Passes over F, at least 1 (paper: 1, 3, 5, 7, 10)."""
    batch_size: int = 64
    """Forget examples a step, at least 1 (paper: 64)."""
    momentum: float = 0.0
    """Momentum of SGD, or the first beta of Adam, 0 to 1 (paper: 0)."""
    weight_decay: float = 0.0
    """L2 coefficient, at least 0 (paper: 0)."""
    statistics: Treatment = "frozen"
    """Normalisation statistics: `frozen`, `updated` (the public code) or `recalibrated`."""
    optimizer: OptimizerOption = "recipe"
    """`sgd`, `adam`, `adamw`, or `recipe`: the one that trained the models."""

    name: ClassVar[str] = "gradient_ascent"
    label: ClassVar[str] = "Gradient ascent"
    needs: ClassVar[frozenset[Need]] = frozenset({"forget", "weights"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite", "visited", "ascended")
    raises: ClassVar[Raises] = "forget loss"

    def __post_init__(self) -> None:
        """Check the options."""
        self.check_steps()

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Only the forget set is visited."""
        return {"forget": self.batch_size}

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint after every pass over F."""
        descent = self.descent(problem)
        after = problem.forget_loss(descent)
        for epoch in range(1, self.epochs + 1):
            before, noise = after, problem.noise(epoch)
            problem.take_pass(descent, "forget", epoch, self.batch_size, self.lr, ascend=True, noise=noise)
            after = problem.forget_loss(descent)
            problem.raised(before, after)
            yield problem.checkpoint(epoch, descent, self.statistics)

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return rates from far too small to far too large; every epoch up to 10 is a stopping time."""
        shares = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
        return [cls(lr=share * recipe.lr) for share in shares]
