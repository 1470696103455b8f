"""Rewind: go back to a kept state of the model's own training, and train on R from there.

    theta_t   the state after t epochs of training on D: weights, statistics, and what the optimiser remembers
    theta  <- t + 1, ..., E epochs of the same recipe on R, at the rates that these epochs have in it

With t = 0 it is training on R from the same initial weights; with t = E it is nothing. What the first t epochs took
from the forget set stays. Each member goes on under its own seed of training, so nothing is drawn anew.

The cost is that of the epochs on R: whoever wants to rewind has kept the states while training, which costs memory and
no steps. `expunge.train(..., keep=[...])` keeps them; where members are in a store without them, it trains these again
as far as needed, which is not part of the method's cost.

Source: Mu and Klabjan, "Rewind-to-Delete: Certified Machine Unlearning for Nonconvex Functions" (arXiv 2409.09778):
full-batch gradient descent at a constant rate, K steps on R from the state K steps before the end, and noise on what is
published. Differs from the source: mini-batches, momentum and a schedule, as the recipe has them; a share of epochs in
place of steps; no noise, so nothing is certified (their bound is for full-batch gradient descent: `rewind_to_delete`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from expunge.core import ForgetSet, InputError, Network, Recipe, Split, Task
from expunge.core.checks import between, whole
from expunge.ensembles.epoch import train_epoch
from expunge.ensembles.own_loop import member_seeds
from expunge.ensembles.plan import check_recipe
from expunge.ensembles.states import resumed
from expunge.methods.method import Method, Need
from expunge.methods.problem import Checkpoint, Problem


@dataclass(frozen=True, kw_only=True)
class Rewind(Method):
    """Go back to a kept state of training, and train on the retain set from there."""

    share: float = 0.5
    """Share of the recipe's epochs after which the state was kept, 0 to 1; rounded to whole epochs."""
    epochs: int | None = None
    """Epochs on R, at least 1; None is all that the recipe has left. With fewer, its schedule is cut off."""

    name: ClassVar[str] = "rewind"
    label: ClassVar[str] = "Rewind"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "states", "recipe"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite")
    shown: ClassVar[tuple[str, ...]] = ("share",)
    forecastable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        between(0.0, 1.0, share=self.share)
        if self.epochs is not None:
            whole(epochs=self.epochs)

    @property
    def statistics(self) -> str:
        """They go on as in training."""
        return "updated"

    def first(self, epochs: int) -> int:
        """Return the epoch that is gone back to, of so many."""
        return round(self.share * epochs)

    def states(self, recipe: Recipe) -> tuple[int, ...]:
        """Return the epoch that is gone back to, unless it is the last."""
        first = self.first(recipe.epochs)
        return (first,) if first < recipe.epochs else ()

    def planned_cost(self, forget: int, retain: int, epochs: int) -> float:
        """Return the share of epochs that are trained on R."""
        left = epochs - self.first(epochs)
        return (left if self.epochs is None else min(left, self.epochs)) / epochs

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse more epochs than are left, and a recipe that cannot be carried out on the retain set."""
        check_recipe(task.recipe, network, len(forget.retain))
        left = task.recipe.epochs - self.first(task.recipe.epochs)
        if self.epochs is not None and self.epochs > left:
            raise InputError(
                f"epochs = {self.epochs}, and after {self.share:.0%} of the {task.recipe.epochs} epochs of "
                f"{task.name} {left} are left; expected at most {left}, or a smaller share."
            )

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield the models at the end."""
        recipe, start = problem.recipe, problem.start
        first = self.first(recipe.epochs)
        if first == recipe.epochs:
            yield problem.stop(1, start.clone())
            return
        everything = torch.arange(len(problem.task.train))
        seeds = member_seeds(start.seed, [everything] * len(start), start.ids)
        descent = resumed(start.network, start.states[first], recipe, problem.x.device)
        examples = problem.retain.expand(len(start), -1)
        last = recipe.epochs if self.epochs is None else first + self.epochs
        for epoch in range(first, last):
            train_epoch(descent, Split(problem.x, problem.y), examples, seeds, epoch, recipe, problem.task)
            problem.visit_epoch(recipe)
        params, buffers = descent.state()
        params = {name: params[name] for name in start.params}  # in their order: files have another
        yield problem.stop(1, start.with_state(params, {name: buffers[name] for name in start.buffers}))

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return states from a quarter of the epochs on, each another epoch than the first and the last."""
        shares = {cls(share=share).first(recipe.epochs): share for share in (0.25, 0.5, 0.75, 0.9)}
        found = [cls(share=share) for epoch, share in shares.items() if 0 < epoch < recipe.epochs]
        return found or [cls(share=0.0)]  # of a single epoch
