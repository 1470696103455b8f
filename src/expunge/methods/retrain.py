"""Retraining on the retain set, the honest answer and the row every table is compared with.

The members are new draws: independent of the pretrained ensemble and of the oracles that the ruler uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from expunge.core import ForgetSet, Network, Recipe, Split, Task
from expunge.core.seeds import derive
from expunge.ensembles.initialise import initialise
from expunge.ensembles.own_loop import fit_ensemble
from expunge.ensembles.states import new_descent
from expunge.ensembles.train import check_recipe, train_epoch
from expunge.methods.method import Method, Need, Role
from expunge.methods.problem import Checkpoint, Problem


class FromScratch(Method):
    """Base of methods that throw the pretrained weights away."""

    role: ClassVar[Role] = "control"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "statistics", "finite")
    forecastable: ClassVar[bool] = False

    @property
    def statistics(self) -> str:
        """They are those of the new models."""
        return "retrained"

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse a recipe that has no full batch of the retain set, or a batch of one for batch norm."""
        if task.fit is None:
            check_recipe(task.recipe, network, len(forget.retain))


@dataclass(frozen=True, kw_only=True)
class Retrain(FromScratch):
    """Train from scratch on the retain set with the task's recipe."""

    name: ClassVar[str] = "retrain"
    label: ClassVar[str] = "Retrain"
    certificate: ClassVar[str | None] = "exact: nothing was ever computed from the forget set"

    def planned_cost(self, forget: int, retain: int, epochs: int) -> float:
        """Return 1: it is what costs are relative to."""
        return 1.0

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield the retrained models at the end of the recipe, or of the task's own `fit`."""
        if problem.task.fit is not None:
            yield fit_from_scratch(problem)
            return
        yield train_from_scratch(problem, problem.recipe, problem.recipe.epochs)

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return the one setting there is."""
        return [cls()]


def fit_from_scratch(problem: Problem) -> Checkpoint:
    """Return fresh models that the task's own `fit` trained on the retain set, in as many processes as there may be.

    Args:
        problem: Whose retain set, seeds and number of members are used; members are kept in its store.
    """
    start = problem.start
    rows = [problem.retain] * len(start)
    fitted = fit_ensemble(
        problem.task,
        start.network,
        rows,
        start.ids,
        problem.seed,
        problem.seeds,
        purpose="retraining",
        store=problem.store,
        workers=problem.workers,
        progress=problem.progress,
    ).to(problem.x.device)
    problem.ledger.examples += len(problem.retain) * problem.recipe.epochs
    return problem.stop(problem.recipe.epochs, start.with_state(fitted.params, fitted.buffers))


def train_from_scratch(problem: Problem, recipe: Recipe, epochs: int) -> Checkpoint:
    """Return fresh models after `epochs` epochs of a recipe on the retain set.

    Args:
        problem: Whose retain set, seeds and number of members are used.
        recipe: The schedule and optimiser.
        epochs: Epochs to run, from 0 to the recipe's.
    """
    device = problem.x.device
    params, buffers = initialise(problem.task, [derive(seed, "initialisation") for seed in problem.seeds])
    there = {name: tensor.to(device) for name, tensor in params.items()}
    descent = new_descent(problem.start.network, there, {k: t.to(device) for k, t in buffers.items()}, recipe)
    examples = problem.retain.expand(len(problem.start), -1)
    for epoch in range(epochs):
        train_epoch(descent, Split(problem.x, problem.y), examples, problem.seeds, epoch, recipe, problem.task)
        problem.visit_epoch(recipe)
    return problem.stop(epochs, problem.start.with_state(*descent.state()))
