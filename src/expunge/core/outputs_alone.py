"""Models that are known by what they put out alone: of another framework, behind a command, or without weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.checks import described
from expunge.core.errors import InputError
from expunge.core.reading import as_tensor


@dataclass(frozen=True)
class OutputsAlone:
    """What a `fit` returns for a task without a model: outputs for all of the task's examples, in their order."""

    train: Any
    """For all training examples, those that were left out as well: (examples, ...), as a model would put them out."""
    validation: Any
    """For the validation examples, likewise."""


class NoModel(nn.Module):
    """Stands where a task has no model; its outputs are zeros of the right shape."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def extra_repr(self) -> str:
        """Return the shape of an example's outputs."""
        return f"outputs of shape {self.shape}"

    def forward(self, x: Any = None, **named: Any) -> Tensor:
        """Return zeros for each example."""
        first = next(iter(named.values())) if x is None else x
        return torch.zeros(len(first), *self.shape)


def read_outputs(given: Any, sizes: Sequence[int], shape: Sequence[int], who: str) -> dict[str, Tensor]:
    """Return outputs as `train` and `validation`, float64, checked against the task.

    Args:
        given: What a `fit` returned.
        sizes: Numbers of training and validation examples.
        shape: Shape of an example's outputs.
        who: How a message calls the member.

    Raises:
        InputError: If it is something else, or of another shape.
    """
    if not isinstance(given, OutputsAlone):
        raise InputError(
            f"fit returned {described(given)} for {who}, and the task has no model; expected "
            "expunge.OutputsAlone(train=..., validation=...), or a task with a model."
        )
    found = {}
    for (name, values), size in zip(vars(given).items(), sizes, strict=True):
        tensor = as_tensor(values, f"{name} outputs of {who}")
        if tensor.shape == (size, 1) and not shape:
            tensor = tensor[:, 0]
        if tuple(tensor.shape) != (size, *shape):
            raise InputError(
                f"{name} outputs of {who} have shape {tuple(tensor.shape)}, expected {(size, *shape)}: one row for "
                f"each {'training' if name == 'train' else name} example of the task, in its order."
            )
        found[name] = tensor.detach().cpu().double()
    return found
