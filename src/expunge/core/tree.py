"""Arithmetic on stacked states: dictionaries of tensors whose leading axis is the member.

Every reduction here is per member, so that no member can influence another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

State = dict[str, Tensor]


def take(state: Mapping[str, Tensor], members: slice) -> State:
    """Return the members in a slice of the leading axis; the tensors are views."""
    return {name: tensor[members] for name, tensor in state.items()}


def clone(state: Mapping[str, Tensor]) -> State:
    """Return a detached copy that shares no memory with the original."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def concatenate(states: Sequence[Mapping[str, Tensor]]) -> State:
    """Return the states joined along the member axis, in the order given."""
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}


def distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Tensor:
    """Return the Euclidean distance of each member in `a` from the same member in `b`, shape (members,), float64."""
    norms = [
        torch.linalg.vector_norm(_difference(a[name], b[name]).reshape(len(a[name]), -1), dim=1, dtype=torch.float64)
        for name in a
    ]
    whole: Tensor = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    return whole


def _difference(a: Tensor, b: Tensor) -> Tensor:
    return a - b if a.dtype == b.dtype == torch.float32 else a.double() - b.double()


def finite_members(state: Mapping[str, Tensor]) -> Tensor:
    """Return which members hold only finite numbers, shape (members,), boolean."""
    flags = [_finite(tensor.reshape(len(tensor), -1)) for tensor in state.values() if tensor.is_floating_point()]
    return torch.stack(flags).all(0)


def _finite(rows: Tensor) -> Tensor:
    """Return which rows hold only finite numbers; their sum tells in one pass, but where it overflows."""
    told = torch.isfinite(rows.sum(1))
    return told if bool(told.all()) else torch.isfinite(rows).all(1)
