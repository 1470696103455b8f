"""Statistics alone: pass the forget set through in training mode and take no step, a control of gradient ascent.

In training mode batch norm replaces its statistics by those of the batches it sees. Public ascent does so, and part of
what it is credited with is this drift; the batches here are those that gradient ascent sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from expunge.core import Recipe
from expunge.core.checks import whole
from expunge.methods.gradient_ascent import GradientAscent
from expunge.methods.method import Choice, Method, Need, Role
from expunge.methods.problem import Checkpoint, Problem


@dataclass(frozen=True, kw_only=True)
class StatisticsAlone(Method):
    """Change the normalisation statistics to those of the forget set, and no weight."""

    epochs: int = 10
    """Passes over F, at least 1."""
    batch_size: int = 64
    """Forget examples a batch, at least 1."""

    name: ClassVar[str] = "statistics_alone"
    label: ClassVar[str] = "Statistics alone"
    role: ClassVar[Role] = "control"
    needs: ClassVar[frozenset[Need]] = frozenset({"forget", "weights", "statistics"})
    checks: ClassVar[tuple[str, ...]] = ("still", "finite", "visited")
    chosen: ClassVar[Choice] = "last"
    forecastable: ClassVar[bool] = False
    order: ClassVar[str] = GradientAscent.name

    def __post_init__(self) -> None:
        """Check the options."""
        whole(epochs=self.epochs, batch_size=self.batch_size)

    @property
    def statistics(self) -> str:
        """Those of the last batches."""
        return "updated"

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Only the forget set is visited."""
        return {"forget": self.batch_size}

    @property
    def planned_stops(self) -> int:
        """Every pass is a stopping time."""
        return self.epochs

    def planned_cost(self, forget: int, retain: int, epochs: int) -> float:
        """Return the examples of all passes."""
        return self.epochs * forget / (retain * epochs)

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint after every pass over F."""
        descent = problem.descent(statistics="updated")
        for epoch in range(1, self.epochs + 1):
            problem.take_pass(descent, "forget", epoch, self.batch_size, 0.0, noise=problem.noise(epoch))
            yield problem.checkpoint(epoch, descent, "updated")

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return the one setting there is."""
        return [cls()]
