"""Fine-tuning on the retain set: forgetting by drift and weight decay alone, the baseline at equal cost.

    theta <- theta - lr * grad mean_{B of R} l(theta)

Source: the `FT` baseline of Jia et al., "Model Sparsity Can Simplify Machine Unlearning" (arXiv 2304.04934), sec. 5.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from expunge.core import Recipe
from expunge.core.renamed import renamed
from expunge.methods.method import Method, Need, OptimizerOption, Role, Trained
from expunge.methods.problem import Checkpoint, Problem, Treatment


@renamed("batch")
@dataclass(frozen=True, kw_only=True)
class FineTune(Trained):
    """Continue training on the retain set at a constant rate."""

    lr: float = 0.01
    """Learning rate, at least 0 (2304.04934: .01 for ResNet-18 trained at .1)."""
    epochs: int = 10
    """Passes over R, at least 1 (2304.04934: 10)."""
    batch_size: int = 64
    """Examples a step, at least 1."""
    momentum: float = 0.9
    """Momentum of SGD, or the first beta of Adam, 0 to 1."""
    weight_decay: float = 5e-4
    """L2 coefficient, at least 0."""
    statistics: Treatment = "frozen"
    """Normalisation statistics: `frozen`, `updated` or `recalibrated`."""
    optimizer: OptimizerOption = "recipe"
    """`sgd`, `adam`, `adamw`, or `recipe`: the one that trained the models."""

    name: ClassVar[str] = "fine_tune"
    label: ClassVar[str] = "Fine-tune on R"
    role: ClassVar[Role] = "control"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "weights"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "statistics", "finite")

    def __post_init__(self) -> None:
        """Check the options."""
        self.check_steps()

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Only the retain set is visited."""
        return {"retain": self.batch_size}

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint after every pass over R."""
        descent = self.descent(problem)
        for epoch in range(1, self.epochs + 1):
            noise = problem.noise(epoch)
            problem.take_pass(descent, "retain", epoch, self.batch_size, self.lr, noise=noise)
            yield problem.checkpoint(epoch, descent, self.statistics)

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return rates from a tenth of the recipe's peak rate to three times the peak, up to 30 % of retraining."""
        epochs = max(5, math.ceil(0.3 * recipe.epochs))
        return [
            cls(lr=share * recipe.lr, epochs=epochs, batch_size=recipe.batch_size) for share in (0.1, 0.3, 1.0, 3.0)
        ]
