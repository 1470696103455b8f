"""Initial weights: each member is built by the task's own model factory from a seed of its own, then stacked."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from expunge.core import Task
from expunge.core.modules import state
from expunge.core.tree import State


def initialise(task: Task, seeds: Sequence[int]) -> tuple[State, State]:
    """Return stacked parameters and buffers of freshly built models.

    Args:
        task: Whose model.
        seeds: One seed a member.

    Returns:
        Parameters and buffers, each tensor (members, ...), on the CPU.
    """
    states = [state(task.build(seed), task.network.attributes) for seed in seeds]
    params, buffers = (
        {name: torch.stack([own[part][name] for own in states]) for name in states[0][part]} for part in (0, 1)
    )
    return params, buffers
