"""Retraining in small batches: all steps of the recipe on R, from nothing, each with fewer examples.

With c the cost, B and E the recipe's batch size and epochs, and s the share of the training time that is kept:

    batch size    c B
    epochs        c E, the schedule squeezed to fit: about as many steps as the recipe takes, each on c B examples
    rates         s times the recipe's, so that the sum of the rates over all steps is s times the recipe's

As gradient flow the models are as old as retrained ones, which a recipe squeezed into c E epochs of full batches is
not: it ends after c times the time, with margins that are too small. What is paid for it is noise: its
scale is rate / batch size, s / c times the recipe's. Where noise drives margins up, less time (s < 1) can answer. No
row of F is ever read.

Source: ours. That rate over batch size is the scale of the noise: Smith and Le, "A Bayesian Perspective on
Generalization and Stochastic Gradient Descent" (arXiv 1710.06451). The default cost is the goal that it was tried for;
where it holds and where not is in docs/methods/below-retraining.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from expunge.core import ForgetSet, Network, Recipe, Task
from expunge.core.checks import between, positive
from expunge.ensembles.plan import check_rows
from expunge.methods.method import Choice, Method, Need, Role
from expunge.methods.problem import Checkpoint, Problem
from expunge.methods.retrain import FromScratch, train_from_scratch


@dataclass(frozen=True, kw_only=True)
class SmallBatchRetrain(FromScratch):
    """Train from scratch on the retain set with the recipe's steps, each on a share of its batch."""

    cost: float = 0.5
    """Share of the recipe's examples that are visited, above 0 and at most 1. Epochs are rounded down, so that the cost
    is no larger, and batch sizes to the nearest whole number; both are at least one."""
    time: float = 1.0
    """Share of the recipe's training time (the sum of its rates) that is kept, above 0 and at most 2."""

    name: ClassVar[str] = "small_batch_retrain"
    label: ClassVar[str] = "Retrain in small batches"
    role: ClassVar[Role] = "candidate"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "recipe"})
    shown: ClassVar[tuple[str, ...]] = ("cost", "time")
    chosen: ClassVar[Choice] = "cheapest"
    certificate: ClassVar[str | None] = "exact: nothing was ever computed from the forget set"

    def __post_init__(self) -> None:
        """Check the options."""
        between(1e-6, 1.0, cost=self.cost)
        positive(time=self.time)
        between(1e-6, 2.0, time=self.time)

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse a recipe, or small batches, of which there is no full one or a batch of one for batch norm."""
        super().check(network, task, forget)
        small = self.small_recipe(task.recipe, len(forget.retain))
        check_rows(task, small, network, torch.from_numpy(forget.retain))

    def planned_cost(self, forget: int, retain: int, epochs: int) -> float:
        """Return its share of retraining."""
        return self._epochs(epochs) / epochs

    def _epochs(self, epochs: int) -> int:
        return max(1, math.floor(self.cost * epochs + 1e-9))

    def small_recipe(self, recipe: Recipe, retain: int) -> Recipe:
        """Return the recipe in small batches.

        Args:
            recipe: The task's.
            retain: Size of R, at least a batch where incomplete ones are dropped.
        """
        small = dataclasses.replace(
            recipe.compressed(self._epochs(recipe.epochs)),
            batch_size=max(1, round(self.cost * recipe.batch_size)),
        )
        steps = small.epochs * small.steps_per_epoch(retain)
        whole = recipe.epochs * recipe.steps_per_epoch(retain)
        # What rounding to whole batches and epochs changed of the time is made up for by the rate.
        return dataclasses.replace(small, lr=recipe.lr * self.time * whole / steps)

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield the models at the end."""
        recipe = self.small_recipe(problem.recipe, len(problem.retain))
        yield train_from_scratch(problem, recipe, recipe.epochs)

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return a quarter, a half and three quarters of retraining, with all of its time and with less."""
        tried = ((0.25, 1.0), (0.5, 0.75), (0.5, 1.0), (0.75, 0.9), (0.75, 1.0))
        return [cls(cost=cost, time=time) for cost, time in tried]
