"""The interface of a module: named inputs travel as one tensor, and what comes back is read as one tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from expunge.core.checks import described
from expunge.core.errors import InputError
from expunge.core.reading import as_tensor


@dataclass(frozen=True)
class Field:
    """One named input of a module, and its columns in the packed tensor."""

    name: str
    shape: tuple[int, ...]
    """Shape of one example."""
    dtype: torch.dtype
    start: int

    @property
    def stop(self) -> int:
        """One past the last column."""
        return self.start + math.prod(self.shape)


@dataclass(frozen=True)
class Interface:
    """How a module is called, and how its outputs are read.

    A module that takes one tensor is called with it. One that takes several inputs by name (`input_ids` and
    `attention_mask`, say) has them packed side by side in one tensor (examples, columns), so that a batch is one gather
    like any other; they are unpacked, exactly, when the module is called with them as keywords.
    """

    fields: tuple[Field, ...] = ()
    """The named inputs; empty for a module that takes one tensor."""
    dtype: torch.dtype = torch.float32
    """Of the module's weights, and of fractions among its inputs."""
    normalise: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Means and standard deviations, one or one a channel, by which uint8 images become (x / 255 - mean) / std."""

    @classmethod
    def of(cls, x: Any, dtype: torch.dtype = torch.float32, normalise: Any = None) -> Interface:
        """Return the interface for inputs as a user gives them.

        Args:
            x: One array, or a mapping from names to arrays.
            dtype: Of the module's weights.
            normalise: A mean and a standard deviation, each a number or one a channel, of uint8 images.
        """
        if not isinstance(x, Mapping):
            return cls((), dtype, None if normalise is None else _normalisation(normalise, as_tensor(x, "x")))
        if normalise is not None:
            raise InputError("normalise was given beside inputs by name, expected it with one tensor of uint8 images.")
        if not x or not all(isinstance(name, str) and name.isidentifier() for name in x):
            raise InputError(f"x has the names {list(x)}, expected names of the arguments of the model's forward.")
        fields, start = [], 0
        for name, values in x.items():
            tensor = as_tensor(values, f"x[{name!r}]")
            fields.append(Field(name, tuple(tensor.shape[1:]), tensor.dtype, start))
            start = fields[-1].stop
        return cls(tuple(fields), dtype)

    def pack(self, x: Any) -> Tensor:
        """Return inputs as one tensor (examples, ...); a tensor is returned as it is.

        Args:
            x: An array (examples, ...), or a mapping with the interface's names.

        Raises:
            InputError: If names, shapes or types are not those of the interface, or whole numbers beside fractions are
                too large to be exact.
        """
        if not isinstance(x, Mapping):
            one = as_tensor(x, "x")
            if self.normalise is not None and one.dtype != torch.uint8:
                raise InputError(f"x is {one.dtype}, expected uint8 images from 0 to 255, which the task normalises.")
            return one
        if not self.fields:
            raise InputError(f"x is {described(x)} with the names {list(x)}, expected one tensor: the model takes one.")
        if set(x) != {field.name for field in self.fields}:
            raise InputError(f"x has the names {sorted(x)}, expected {[field.name for field in self.fields]}.")
        columns = []
        for field in self.fields:
            tensor = as_tensor(x[field.name], f"x[{field.name!r}]")
            if tuple(tensor.shape[1:]) != field.shape:
                raise InputError(
                    f"x[{field.name!r}] has shape {tuple(tensor.shape)}, expected (examples, "
                    f"{', '.join(map(str, field.shape))})."
                )
            if tensor.is_floating_point() > field.dtype.is_floating_point and bool((tensor != tensor.round()).any()):
                raise InputError(f"x[{field.name!r}] holds fractions, expected whole numbers ({field.dtype}).")
            columns.append(tensor.reshape(len(tensor), -1))
        if len({len(column) for column in columns}) > 1:
            raise InputError(f"x has {[len(column) for column in columns]} examples under its names, expected as many.")
        return _side_by_side(columns, self.dtype)

    def unpack(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """Return what the module takes, for packed inputs (..., columns): inputs by name, or one tensor, normalised."""
        return self._by_name(x) if self.fields else self.prepare(x)

    def prepare(self, x: Tensor) -> Tensor:
        """Return what a module that takes one tensor is called with, for inputs of any leading axes."""
        if self.normalise is None or x.dtype != torch.uint8:
            return x
        mean, std = (torch.tensor(value, dtype=self.dtype, device=x.device) for value in self.normalise)
        if len(mean) > 1:
            mean, std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
        return (x.to(self.dtype) / 255 - mean) / std

    def changed(self, change: Callable[[Any], Any], x: Tensor) -> Tensor:
        """Return packed inputs (batch, ...) after a change to the inputs as their user knows them, by name or one."""
        return self.pack(change(self._by_name(x) if self.fields else x)).to(x.dtype)

    def _by_name(self, x: Tensor) -> dict[str, Tensor]:
        floating = x.dtype if x.is_floating_point() else self.dtype
        return {
            field.name: x[..., field.start : field.stop]
            .reshape(*x.shape[:-1], *field.shape)
            .to(floating if field.dtype.is_floating_point else field.dtype)
            for field in self.fields
        }

    def run(self, call: Callable[..., Any], x: Tensor) -> Tensor:
        """Return the outputs of a module, or of any callable that stands for one, on packed inputs (batch, ...)."""
        inputs = self.unpack(x)
        return outputs_of(call(**inputs) if isinstance(inputs, dict) else call(inputs))


def outputs_of(result: Any) -> Tensor:
    """Return the one tensor that a module's result stands for.

    A tensor stands for itself, a mapping or an object for its `logits` (or its only tensor), a tuple for its first.

    Raises:
        InputError: If there is no such tensor.
    """
    if isinstance(result, Tensor):
        return result
    found = result.get("logits") if isinstance(result, Mapping) else getattr(result, "logits", None)
    if isinstance(found, Tensor):
        return found
    if isinstance(result, Mapping):
        tensors = [value for value in result.values() if isinstance(value, Tensor)]
        if len(tensors) == 1:
            return tensors[0]
    elif isinstance(result, Sequence) and len(result) and isinstance(result[0], Tensor):
        return result[0]
    raise InputError(
        f"the model returned {described(result)}, expected a tensor, a tuple that begins with one, or a mapping or an "
        "object with `logits`."
    )


def _normalisation(given: Any, x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return checked means and standard deviations for images x (examples, ...)."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise InputError(f"normalise is {described(given)}, expected (mean, std), each a number or one a channel.")
    mean, std = (as_tensor(value, "normalise").double().reshape(-1) for value in given)
    channels = x.shape[1] if x.ndim == 4 else 1
    if len(mean) != len(std) or len(mean) not in (1, channels):
        raise InputError(
            f"normalise has {len(mean)} means and {len(std)} standard deviations, expected 1 of each"
            + (f" or {channels} (x has {channels} channels)." if channels > 1 else ".")
        )
    if not bool((torch.isfinite(mean) & torch.isfinite(std) & (std > 0)).all()):
        raise InputError(f"normalise is {given}, expected finite means and standard deviations above 0.")
    if x.dtype != torch.uint8:
        raise InputError(f"normalise is for images of type uint8 (0 to 255), x is {x.dtype}; leave it out.")
    return tuple(mean.tolist()), tuple(std.tolist())


def _side_by_side(columns: Sequence[Tensor], precision: torch.dtype) -> Tensor:
    """Join columns without losing a digit: whole numbers as int64, or as fractions where these are exact."""
    floating = [column.dtype for column in columns if column.is_floating_point()]
    if not floating:
        return torch.cat([column.long() for column in columns], dim=1)
    dtype = torch.float64 if torch.float64 in floating else torch.float32
    exact = 2**53 if dtype == precision == torch.float64 else 2**24
    for column in columns:
        if not column.is_floating_point() and column.numel() and int(column.long().abs().max()) > exact:
            raise InputError(
                f"x has a whole number of size {int(column.long().abs().max())} beside fractions, expected at most "
                f"{exact}, which is held exactly; number the tokens anew, or give the other inputs as float64, with "
                "Recipe(precision='float64')."
            )
    return torch.cat([column.to(dtype) for column in columns], dim=1)
