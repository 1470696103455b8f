"""Gradient descent-ascent (GDA): in each epoch a pass of ascent on F, then a pass of descent on R.

    for epoch t = 1, 2, ...:
        if t <= ascent_epochs:   theta <- theta + lr * grad mean_{B of F} l(theta)   over one pass of F
        theta <- theta - lr * grad mean_{B of R} l(theta)                            over one pass of R

Source: "Ascent Fails to Forget" (arXiv 2509.26427), sec. 5: batch 64 on R, 32 or 64 on F, 3 or 5 ascent epochs of
5, 7 or 10, plain SGD, the same rate for both passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from expunge.core import Recipe
from expunge.core.renamed import renamed
from expunge.ensembles import Descent
from expunge.methods.method import Method, OptimizerOption, Raises, Trained, first_epochs
from expunge.methods.problem import Checkpoint, Problem, Treatment


@renamed("batch", "forget_batch")
@dataclass(frozen=True, kw_only=True)
class GradientDescentAscent(Trained):
    """Alternate a pass of ascent on the forget set with a pass of descent on the retain set."""

    lr: float = 0.01
    """Learning rate of both passes, at least 0."""
    epochs: int = 10
    """Epochs, at least 1; each has a descent pass over R (paper: 5, 7, 10)."""
    ascent_epochs: int | None = None
    """Epochs that begin with an ascent pass over F, from 0 to `epochs` (paper: 3, 5); left out, 5 or all of fewer."""
    batch_size: int = 64
    """Retain examples a step, at least 1 (paper: 64)."""
    forget_batch_size: int = 64
    """Forget examples a step, at least 1 (paper: 32, 64)."""
    momentum: float = 0.0
    """Momentum of SGD, or the first beta of Adam, 0 to 1 (paper: 0); the velocity is shared by both passes."""
    weight_decay: float = 0.0
    """L2 coefficient, at least 0 (paper: 0)."""
    statistics: Treatment = "frozen"
    """Normalisation statistics: `frozen`, `updated` (the public code) or `recalibrated`."""
    optimizer: OptimizerOption = "recipe"
    """`sgd`, `adam`, `adamw`, or `recipe`: the one that trained the models."""

    name: ClassVar[str] = "gradient_descent_ascent"
    label: ClassVar[str] = "Descent-ascent"
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite", "visited", "ascended")
    raises: ClassVar[Raises] = "forget loss"

    def __post_init__(self) -> None:
        """Check the options."""
        self.check_steps()
        first_epochs(self, 5, "ascent_epochs")

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Both sets are visited."""
        return {"forget": self.forget_batch_size, "retain": self.batch_size}

    def planned_examples(self, forget: int, retain: int) -> float:
        """Return what all passes visit."""
        return (self.ascent_epochs or 0) * forget + self.epochs * retain

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint after every epoch."""
        descent, descend = self.descent(problem), self.retain_pass(problem)
        for epoch in range(1, self.epochs + 1):
            noise = problem.noise(epoch)
            if epoch <= (self.ascent_epochs or 0):
                before = problem.forget_loss(descent)
                problem.take_pass(descent, "forget", epoch, self.forget_batch_size, self.lr, ascend=True, noise=noise)
                problem.raised(before, problem.forget_loss(descent))
            descend(descent, epoch, noise)
            yield problem.checkpoint(epoch, descent, self.statistics)

    def retain_pass(self, problem: Problem) -> Callable[[Descent, int, Sequence[torch.Generator]], None]:
        """Return what takes the descent pass of an epoch; it is asked for before the first epoch."""

        def take(descent: Descent, epoch: int, noise: Sequence[torch.Generator]) -> None:
            problem.take_pass(descent, "retain", epoch, self.batch_size, self.lr, noise=noise)

        return take

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return rates across what works, and ascent in most epochs or only at first, so that descent can repair.

        Steps are plain SGD: ten times the peak rate is what a recipe with momentum .9 moves at its peak.
        """
        shares, ascents = (0.3, 1.0, 3.0, 10.0), (3, 5)
        return [
            cls(
                lr=share * recipe.lr,
                epochs=7,
                ascent_epochs=ascent,
                batch_size=recipe.batch_size,
                forget_batch_size=recipe.batch_size,
            )
            for share in shares
            for ascent in ascents
        ]
