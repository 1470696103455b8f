"""Batch orders: every member visits its own examples in its own order, drawn from a seed of its own.

The order of an epoch depends on (seed, member, epoch) alone, so a run can stop after any epoch and go on later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from expunge.core.seeds import generator


def epoch_order(examples: Tensor, seeds: Sequence[int], epoch: int) -> Tensor:
    """Return the order in which each member visits its examples in one epoch.

    Args:
        examples: Positions in the data, shape (members, k).
        seeds: One seed a member.
        epoch: Number of the epoch.

    Returns:
        Positions in the data, shape (members, k), each row a permutation of the same row of `examples`.
    """
    k = examples.shape[1]
    orders = torch.stack([torch.randperm(k, generator=generator(seed, "order", epoch)) for seed in seeds])
    return examples.gather(1, orders)


def batches(order: Tensor, batch: int, drop_last: bool = False) -> Iterator[Tensor]:
    """Yield consecutive batches (members, batch) of an epoch's order; the last may be smaller."""
    k = order.shape[1]
    for start in range(0, k, batch):
        if drop_last and start + batch > k:
            return
        yield order[:, start : start + batch]


def gather(data: Tensor, index: Tensor) -> Tensor:
    """Return the rows of `data` (examples, ...) named by `index` (members, batch), shape (members, batch, ...)."""
    return data.index_select(0, index.reshape(-1)).view(*index.shape, *data.shape[1:])


def gather_own(data: Tensor, index: Tensor) -> Tensor:
    """Return the rows of each member's own data (members, examples, ...) named by `index` (members, batch)."""
    members, examples = data.shape[:2]
    first = examples * torch.arange(members, device=data.device).unsqueeze(1)
    return gather(data.flatten(0, 1), index.to(data.device) + first)
