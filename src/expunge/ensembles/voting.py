"""Stacks of models that vote (`core/voting.py`): how they are evaluated, and how their training falls into parts.

Each voter of all members is one stacked training on the voter's rows, by the recipe and with seeds of its own:

    seed of voter v      derive(seed, "voter", v)
    seed of a member     from that, the rows of the voter, and the member's index, as everywhere

so a voter does not depend on the rows of the others: without some rows of one, the others come out the same bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from expunge.core import Ensemble, Network, Statistics, Task
from expunge.core.seeds import derive
from expunge.core.voting import as_voter, part_of, prefix

if TYPE_CHECKING:
    from expunge.ensembles.plan import Plan


class VotingNetwork:
    """Evaluates the voters one after another, each as its own stack, and what they predict together."""

    def __init__(self, task: Task, own: Network) -> None:
        """Take the network of a voter.

        Args:
            task: One whose models vote.
            own: Evaluates a stack of one voter.
        """
        assert task.voting is not None
        self.voters = task.voting.voters
        self.voter = own
        self.template = task.build(0).eval()
        self.kind, self.reason = own.kind, own.reason
        self.attributes = tuple(prefix(voter) + name for voter in range(self.voters) for name in own.attributes)
        self.widest = own.widest
        self.noisy = getattr(own, "noisy", True)
        self.interface = task.interface
        self.outcome = task.outcome

    def __call__(
        self,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        x: Tensor,
        *,
        statistics: Statistics = "frozen",
        noise: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """Return outputs (members, batch, ...); see `expunge.core.Network`."""
        each = [
            self.voter(part_of(params, voter), part_of(buffers, voter), x, statistics=statistics, noise=noise)
            for voter in range(self.voters)
        ]
        return self.outcome.mean_prediction(torch.stack(each))


def voter_seed(seed: int, voter: int) -> int:
    """Return the seed of one voter, from that of the whole model."""
    return derive(seed, "voter", voter)


def voter_plans(plan: Plan, groups: Callable[[Sequence[Tensor]], list[list[tuple[int, Tensor]]]]) -> list[list[Plan]]:
    """Return, for each voter, how it is trained: a plan for the members with equally many rows of it.

    Args:
        plan: How models that vote are trained.
        groups: Puts sets of rows of one size together, each with its place.
    """
    voting = plan.task.voting
    assert voting is not None
    found = []
    for voter in range(voting.voters):
        rows = [voting.rows(voter, own) for own in plan.examples]
        found.append(
            [
                replace(
                    plan,
                    task=voting.task,
                    examples=torch.stack([own for _, own in group]),
                    ids=tuple(plan.ids[place] for place, _ in group),
                    seed=voter_seed(plan.seed, voter),
                )
                for group in groups(rows)
            ]
        )
    return found


def joined(plan: Plan, network: Network, voters: Sequence[Ensemble]) -> Ensemble:
    """Return the ensemble whose members have these voters.

    Args:
        plan: How it was trained.
        network: Evaluates it.
        voters: For each voter an ensemble of all members.
    """
    made = [voter.provenance for voter in voters]
    provenance: dict[str, Any] = {
        **made[0],
        "specification": plan.specification(),
        "parts": [part for each in made for part in _specifications(each)],
        "chunk": max(each["chunk"] for each in made),
        "reused": all(each["reused"] for each in made),
    }
    params = {name: t for voter, own in enumerate(voters) for name, t in as_voter(own.params, voter).items()}
    buffers = {name: t for voter, own in enumerate(voters) for name, t in as_voter(own.buffers, voter).items()}
    return Ensemble(network, params, buffers, plan.ids, plan.seed, provenance)


def _specifications(provenance: Mapping[str, Any]) -> list[Any]:
    own = provenance["specification"]
    return list(own) if isinstance(own, list) else [own]
