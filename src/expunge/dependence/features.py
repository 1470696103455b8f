"""Features of every example in every member: what the last linear layer receives (penultimate activations).

The layer is found by running the module, not by its name: of the linear layers that were called, the last. A network
without any gives its logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from expunge.core import Ensemble, InputError

BATCH = 4096


@torch.no_grad()
def penultimate(ensemble: Ensemble, member: int, x: Tensor) -> Tensor:
    """Return the input of the last linear layer of one member, flattened, (examples, features), on the CPU.

    Args:
        ensemble: Members.
        member: Position in the stack, from 0.
        x: Inputs (examples, ...).
    """
    if len(x) == 0:
        raise InputError("x has no examples, expected at least one.")
    module = ensemble.module(member)
    seen: list[tuple[nn.Module, Tensor]] = []

    def note(layer: nn.Module, inputs: tuple[Any, ...], _: object) -> None:
        seen.append((layer, inputs[0]))

    handles = [layer.register_forward_hook(note) for layer in module.modules() if isinstance(layer, nn.Linear)]
    dtype = next(module.parameters()).dtype
    parts = []
    for start in range(0, len(x), BATCH):
        seen.clear()
        batch = x[start : start + BATCH].cpu()
        batch = batch.to(dtype) if batch.is_floating_point() else batch
        logits = ensemble.network.interface.run(module, batch)
        parts.append((seen[-1][1] if seen else logits).flatten(1))
    for handle in handles:
        handle.remove()
    return torch.cat(parts)
