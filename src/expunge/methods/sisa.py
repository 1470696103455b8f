"""SISA: retrain, from nothing, the voters that held rows of the forget set, and keep the others as they are.

    theta_v   voter v of a member, trained on its rows D_v with a seed that depends on the member, v and D_v alone
    where D_v meets F:   theta_v <- training on D_v without F, by the same recipe, with the seed that goes with it
    elsewhere            theta_v stays: it never saw F

The result is, bit by bit, what training all voters without F gives under the seed that made the members. The cost is
that of the voters that are retrained: with K rows spread over S voters S (1 - (1 - 1/S)^K) of S in the mean, which is
all of them once K is a few times S.

Exact for models that vote, whose oracle is the same training without F; it is no oracle of a single network trained on
all rows. That the pretrained members were trained voter by voter is known where `expunge.train` made them, and taken on
trust where they were read from files.

Source: Bourtoule et al., "Machine Unlearning" (arXiv 1912.03817). Differs from the source: no slices (checkpoints
within a voter's training, which save a third of it at most); the mean of the voters' probabilities, no majority vote.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from expunge.core import ForgetSet, InputError, Recipe, Task
from expunge.core.tree import clone
from expunge.ensembles.own_loop import member_seeds, row_digest
from expunge.ensembles.voting import voter_seed
from expunge.methods.method import Method, Need, Role
from expunge.methods.problem import Checkpoint, Problem
from expunge.methods.retrain import FromScratch, Retrain, train_voter


@dataclass(frozen=True, kw_only=True)
class Sisa(FromScratch):
    """Retrain the voters that held rows of the forget set."""

    name: ClassVar[str] = "sisa"
    label: ClassVar[str] = "SISA (retrain touched voters)"
    role: ClassVar[Role] = "candidate"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "forget", "weights", "recipe", "voters"})
    certificate: ClassVar[str | None] = "exact: no voter that is left was ever trained on the forget set"

    def planned_cost(self, forget: int, retain: int, epochs: int) -> float:
        """Return 1, the most it can be: how many voters a forget set touches is known with its rows."""
        return 1.0

    def cost_of(self, task: Task, forget: ForgetSet) -> float:
        """Return the share of the retain set that the touched voters train on."""
        if task.voting is None:
            return 1.0
        retain, rows = torch.from_numpy(forget.retain), torch.from_numpy(forget.indices)
        return sum(len(task.voting.rows(voter, retain)) for voter in task.voting.touched(rows)) / len(retain)

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield the models with the touched voters retrained."""
        start, voting, recipe = problem.start, problem.task.voting, problem.recipe
        assert voting is not None
        check_apart(start.provenance, problem)
        params, buffers = clone(start.params), clone(start.buffers)
        for voter in voting.touched(problem.forget):
            rows = voting.rows(voter, problem.retain)
            seeds = member_seeds(voter_seed(start.seed, voter), [rows] * len(start), start.ids)
            own, kept = train_voter(problem, voter, seeds, recipe, recipe.epochs)
            params |= own
            buffers |= kept
        yield problem.stop(recipe.epochs, start.with_state(params, buffers))

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return the one setting there is."""
        return [cls()]


def check_apart(provenance: Mapping[str, Any], problem: Problem) -> None:
    """Refuse members whose voters are known to have seen other rows than their own.

    Args:
        provenance: Of the members; where it does not say how they were made, nothing is known.
        problem: What they are to forget.

    Raises:
        InputError: If another method changed them, or they were trained on other rows or by another recipe.
    """
    while "method" in provenance:
        if provenance["method"] not in (Sisa.name, Retrain.name):
            raise InputError(
                f"sisa keeps voters that never saw the forget set, and {provenance['method']} changed all voters of "
                f"these models; expected members that expunge.train({problem.task.name}) made, or that sisa or retrain "
                "left."
            )
        provenance = provenance["from"]
    how = provenance.get("specification")
    if not isinstance(how, Mapping) or "trainer" not in how:
        return
    task = problem.task
    whole = (task.fingerprint, task.recipe.to_dict(), task.recipe.epochs, row_digest(torch.arange(len(task.train))))
    if (how.get("task"), how.get("recipe"), how.get("epochs"), how.get("examples")) != whole:
        raise InputError(
            f"sisa makes models like retrained ones, and these were trained on other rows than all of {task.name}, or "
            "by another recipe; expected an ensemble of expunge.train(task) with the task's own recipe."
        )
