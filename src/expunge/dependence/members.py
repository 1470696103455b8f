"""Work that is the same for every member, shared among the cores: a few members a thread, one thread a kernel.

Small kernels shared among cores wait for one another more than they compute; members do not wait for anyone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from expunge.ensembles.chunks import run_chunks, split, worker_count

T = TypeVar("T")


def by_members(work: Callable[[slice], T], members: int, device: torch.device, workers: int | None = None) -> list[T]:
    """Return what `work` returns for consecutive slices of the members, in order.

    Args:
        work: Called with a slice of the members; must not depend on how they are sliced.
        members: How many there are.
        device: Where they are; on a GPU all go together.
        workers: Slices that run at once on the CPU; every core by default.
    """
    at_once = worker_count(device, workers)
    parts = [slice(part.start, part.stop) for part in split(members, -(-members // at_once))]
    return run_chunks(work, parts, device, at_once)


def each_member(work: Callable[[int], T], members: int, device: torch.device) -> list[T]:
    """Return what `work` returns for each member, in order, for work that takes one member at a time.

    Args:
        work: Called with the position of a member.
        members: How many there are.
        device: Where they are.
    """
    return run_chunks(work, range(members), device, worker_count(device))
