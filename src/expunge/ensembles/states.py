"""States of training: weights, statistics, and what the optimiser remembers of each member."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from expunge.core import Network, Recipe
from expunge.core.tree import State
from expunge.ensembles.descent import Descent, Steps, padded

STEP = "step"
"""The one number that an optimiser of PyTorch remembers for all members together."""


def new_descent(network: Network, params: State, buffers: State, recipe: Recipe) -> Descent:
    """Return a descent over a stack with the recipe's optimiser; the tensors given are changed in place."""
    steps = Steps(
        optimizer=recipe.optimizer,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        precision=recipe.precision,
        statistics="updated",
    )
    return Descent(network, params, buffers, steps)


def snapshot(descent: Descent) -> State:
    """Return a copy of a descent's state on the CPU: `params/...`, `buffers/...`, `optimiser/...`, (members, ...)."""
    params, buffers = descent.state()
    members = len(next(iter(params.values())))
    out = {f"params/{name}": tensor for name, tensor in params.items()}
    out |= {f"buffers/{name}": tensor for name, tensor in buffers.items()}
    for key, tensor in descent.optimizer_state().items():
        name = key.rpartition("/")[0]
        shape = params[name].shape
        own = tensor[: shape.numel()].view(shape) if tensor.ndim else tensor.expand(members)
        out[f"optimiser/{key}"] = own
    return {name: tensor.detach().cpu().clone() for name, tensor in out.items()}


def resumed(network: Network, state: Mapping[str, Tensor], recipe: Recipe, device: torch.device) -> Descent:
    """Return a descent that goes on from a state.

    Args:
        network: Evaluates the stack.
        state: From `snapshot`, of any of the members; it is not changed.
        recipe: The one that they were trained by.
        device: Where.
    """
    there = {name: tensor.to(device, copy=True) for name, tensor in state.items()}
    params, buffers, kept = (
        {name.removeprefix(part): tensor for name, tensor in there.items() if name.startswith(part)}
        for part in ("params/", "buffers/", "optimiser/")
    )
    descent = new_descent(network, params, buffers, recipe)
    remembered = {key: t[0] if key.endswith(f"/{STEP}") else padded(t) for key, t in kept.items()}
    descent.load_optimizer_state(remembered)
    return descent
