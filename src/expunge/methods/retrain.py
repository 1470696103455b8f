"""Retraining on the retain set, the honest answer and the row every table is compared with.

The members are new draws: independent of the pretrained ensemble and of the oracles that the ruler uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.core import ForgetSet, Network, Recipe, Split, Task
from expunge.core.seeds import derive
from expunge.core.tree import State
from expunge.core.voting import as_voter
from expunge.ensembles.epoch import train_epoch
from expunge.ensembles.initialise import initialise
from expunge.ensembles.own_loop import fit_ensemble
from expunge.ensembles.plan import check_rows
from expunge.ensembles.states import new_descent
from expunge.ensembles.voting import voter_seed
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
            check_rows(task, task.recipe, network, torch.from_numpy(forget.retain))


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
    task, seeds = problem.task, problem.seeds
    if task.voting is None:
        return problem.stop(
            epochs, problem.start.with_state(*_trained(problem, task, problem.retain, seeds, recipe, epochs))
        )
    params: State = {}
    buffers: State = {}
    for voter in range(task.voting.voters):
        own, kept = train_voter(problem, voter, [voter_seed(seed, voter) for seed in seeds], recipe, epochs)
        params |= own
        buffers |= kept
    return problem.stop(epochs, problem.start.with_state(params, buffers))


def train_voter(problem: Problem, voter: int, seeds: Sequence[int], recipe: Recipe, epochs: int) -> tuple[State, State]:
    """Return one voter of every member, trained from nothing on its rows of the retain set, by the names of the model.

    Args:
        problem: Whose retain set and number of members are used; the steps are entered in its ledger.
        voter: Which one.
        seeds: One a member.
        recipe: The schedule and optimiser.
        epochs: Epochs to run.
    """
    voting = problem.task.voting
    assert voting is not None
    rows = voting.rows(voter, problem.retain)
    params, buffers = _trained(problem, voting.task, rows, seeds, recipe, epochs)
    return as_voter(params, voter), as_voter(buffers, voter)


def _trained(
    problem: Problem, task: Task, rows: Tensor, seeds: Sequence[int], recipe: Recipe, epochs: int
) -> tuple[State, State]:
    device = problem.x.device
    params, buffers = initialise(task, [derive(seed, "initialisation") for seed in seeds])
    there = {name: tensor.to(device) for name, tensor in params.items()}
    network = problem.start.network if problem.task is task else task.network
    descent = new_descent(network, there, {k: t.to(device) for k, t in buffers.items()}, recipe)
    examples = rows.expand(len(seeds), -1)
    for epoch in range(epochs):
        train_epoch(descent, Split(problem.x, problem.y), examples, seeds, epoch, recipe, task)
        problem.visit_epoch(recipe, rows)
    return descent.state()
