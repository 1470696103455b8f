"""Retraining stopped early: what plain training on the retain set reaches for the price of an unlearning method.

Public benchmarks stop the full schedule in the middle (`truncated`), at a rate at which no model was meant to be used.
A schedule squeezed into the same number of epochs (`compressed`) is the stronger baseline at equal cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from expunge.core import Recipe
from expunge.core.checks import between, one_of
from expunge.methods.method import Choice, Method, Need
from expunge.methods.problem import Checkpoint, Problem
from expunge.methods.retrain import FromScratch, train_from_scratch


@dataclass(frozen=True, kw_only=True)
class EarlyStoppedRetrain(FromScratch):
    """Train from scratch on the retain set for a share of the recipe's epochs."""

    cost: float = 0.5
    """Share of the recipe's epochs, above 0 and at most 1; rounded to whole epochs, at least one."""
    schedule: Literal["compressed", "truncated"] = "compressed"
    """`compressed`: the whole schedule in fewer epochs; `truncated`: the full schedule, cut off (as in
    data-unlearning-bench, which stops at epoch 10 or 15 of 24)."""

    name: ClassVar[str] = "early_stopped_retrain"
    label: ClassVar[str] = "Retrain, stopped early"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "recipe"})
    shown: ClassVar[tuple[str, ...]] = ("cost",)
    chosen: ClassVar[Choice] = "cheapest"

    def __post_init__(self) -> None:
        """Check the options."""
        between(1e-6, 1.0, cost=self.cost)
        one_of(("compressed", "truncated"), schedule=self.schedule)

    def planned_cost(self, forget: int, retain: int, epochs: int) -> float:
        """Return its share of retraining."""
        return self.cost

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield the models at the end."""
        epochs = max(1, round(self.cost * problem.recipe.epochs))
        recipe = problem.recipe.compressed(epochs) if self.schedule == "compressed" else problem.recipe
        yield train_from_scratch(problem, recipe, epochs)

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return shares from a tenth to nine tenths of retraining, so that there is one for the cost of any method."""
        return [cls(cost=cost) for cost in (0.1, 0.25, 0.5, 0.75, 0.9)]
