"""Initial weights: each member is built by the task's own model factory from a seed of its own, then stacked."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from expunge.core import Task
from expunge.core.tree import State


def initialise(task: Task, seeds: Sequence[int]) -> tuple[State, State]:
    """Return stacked parameters and buffers of freshly built models.

    Args:
        task: Whose model.
        seeds: One seed a member.

    Returns:
        Parameters and buffers, each tensor (members, ...), on the CPU.
    """
    modules = [task.build(seed) for seed in seeds]
    names = dict(modules[0].named_parameters())
    own = [dict(module.named_parameters()) for module in modules]
    params = {name: torch.stack([tensors[name].detach() for tensors in own]) for name in names}
    others = [dict(module.named_buffers()) for module in modules]
    buffers = {name: torch.stack([tensors[name].detach() for tensors in others]) for name in others[0]}
    return params, buffers
