"""Models that vote: networks of one architecture side by side, each trained on rows of its own and on no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from expunge.core.interface import outputs_of
from expunge.core.outcomes import Outcome
from expunge.core.tree import State

if TYPE_CHECKING:
    from expunge.core.task import Task


@dataclass(frozen=True)
class Voting:
    """How the models of a task vote: what each voter is, and which rows are whose."""

    task: Task
    """Model, data and recipe of a voter."""
    voters: int
    """Voters of a model."""
    place: Tensor
    """The voter that each training row belongs to, (examples,), int64."""

    def rows(self, voter: int, among: Tensor) -> Tensor:
        """Return those of some rows that belong to a voter, in their order.

        Args:
            voter: From 0 to voters - 1.
            among: Positions in the training data, (k,).
        """
        return among[self.place[among] == voter]

    def touched(self, rows: Tensor) -> list[int]:
        """Return the voters to which any of these rows belongs, in order."""
        return [int(voter) for voter in self.place[rows].unique()]


class Vote(nn.Module):
    """Networks of one architecture; its outputs stand for the mean of what they predict."""

    def __init__(self, model: Callable[[], nn.Module], voters: int, outcome: Outcome) -> None:
        super().__init__()
        self.voters = nn.ModuleList([model() for _ in range(voters)])
        self.outcome = outcome

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Return outputs of the shape of one network's."""
        return self.outcome.mean_prediction(torch.stack([outputs_of(voter(*inputs, **named)) for voter in self.voters]))


def prefix(voter: int) -> str:
    """Return what the names of a voter's tensors begin with.

    >>> prefix(3)
    'voters.3.'
    """
    return f"voters.{voter}."


def part_of(state: Mapping[str, Tensor], voter: int) -> State:
    """Return the tensors of one voter under their own names; they share memory with the state."""
    head = prefix(voter)
    return {name.removeprefix(head): tensor for name, tensor in state.items() if name.startswith(head)}


def as_voter(state: Mapping[str, Tensor], voter: int) -> State:
    """Return tensors of a network under the names that they have as a voter."""
    return {prefix(voter) + name: tensor for name, tensor in state.items()}
