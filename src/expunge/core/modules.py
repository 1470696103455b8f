"""What a module holds besides registered weights, copies of modules, and other numbers in the place of a module's own.

A member of an ensemble is its parameters, its buffers, and what it keeps in plain attributes (`self.directions =
torch.randn(...)`, layers in a plain list, a random number). The latter travel among the buffers, under their path.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core.checks import dense
from expunge.core.errors import InputError

INTERNAL = frozenset(vars(nn.Module()))
"""Attributes that every module has."""


@dataclass(frozen=True)
class Slot:
    """A place in a module's plain attributes that holds numbers."""

    holder: Any
    """The dictionary or list that holds the value."""
    key: Any

    @property
    def value(self) -> Any:
        """What is there."""
        return self.holder[self.key]

    def read(self) -> Tensor:
        """Return the value as a tensor that shares no memory with it."""
        value = self.value
        if isinstance(value, Tensor):
            return value.detach().clone()
        return torch.tensor(value, dtype=torch.float64 if _of(value, float) else None)

    def put(self, tensor: Tensor) -> None:
        """Put numbers in the place of the value, as the same type of object."""
        value = self.value
        if isinstance(value, Tensor):
            self.holder[self.key] = tensor
        elif isinstance(value, np.ndarray):
            self.holder[self.key] = tensor.detach().cpu().numpy().astype(value.dtype)
        else:
            self.holder[self.key] = tensor.tolist()


def plain_attributes(module: nn.Module) -> dict[str, Slot]:
    """Return where a module keeps numbers in plain attributes, by path; what it computes from its weights is left out.

    Tensors, arrays, numbers and lists of numbers are found, in lists, dictionaries, and layers that are not registered.
    """
    found: dict[str, Slot] = {}
    layers = set(module.modules())
    registered = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    seen: set[int] = set()

    def visit(path: str, holder: Any, key: Any, value: Any) -> None:
        if isinstance(value, Tensor):
            if id(value) not in registered and value.grad_fn is None and not isinstance(holder, tuple):
                found[path] = Slot(holder, key)
        elif isinstance(value, nn.Module):
            inside(path, value)
        elif isinstance(value, np.ndarray | list | bool | int | float) and _numbers(value):
            if not isinstance(holder, tuple):
                found[path] = Slot(holder, key)
        elif isinstance(value, list | tuple | dict) and id(value) not in seen:
            seen.add(id(value))
            for name, item in value.items() if isinstance(value, dict) else enumerate(value):
                visit(f"{path}.{name}", value, name, item)

    def inside(path: str, layer: nn.Module) -> None:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        dot = f"{path}." if path else ""
        for name, value in vars(layer).items():
            if name not in INTERNAL:
                visit(dot + name, vars(layer), name, value)
        if layer not in layers:
            for own in (layer._parameters, layer._buffers):
                for name, tensor in own.items():
                    visit(dot + name, own, name, tensor)
        for name, child in layer.named_children():
            inside(dot + name, child)

    inside("", module)
    return found


def check_real(module: nn.Module, what: str = "the model") -> None:
    """Refuse a module with complex weights or buffers: a change of precision would drop their imaginary parts.

    Args:
        module: A user's module.
        what: How the message calls it.

    Raises:
        InputError: If it has one.
    """
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_complex():
            raise InputError(
                f"the tensor {name!r} of {what} is {tensor.dtype}, expected real numbers; keep its real and imaginary "
                "parts beside each other (torch.view_as_real) and join them in forward (torch.view_as_complex)."
            )


def check_usable(module: nn.Module, what: str = "the model") -> None:
    """Refuse, before anything is computed, a module whose numbers cannot be read, copied and changed.

    Args:
        module: A user's module.
        what: How the message calls it.

    Raises:
        InputError: If a tensor of it has no numbers (it is on the meta device), is sparse, quantized or of inference
            mode, or a part of it was compiled by TorchScript or `torch.compile`.
    """
    for name, layer in module.named_modules():
        compiled = "TorchScript" if isinstance(layer, torch.jit.ScriptModule) else ""
        compiled = compiled or ("torch.compile" if type(layer).__name__ == "OptimizedModule" else "")
        if compiled:
            raise InputError(
                f"{f'{name!r} of {what}' if name else what} is a module compiled by {compiled}, expected the plain "
                "torch.nn.Module that it was made of: many models are computed at once, in forms of their own."
            )
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    slots = {name: slot.value for name, slot in plain_attributes(module).items()}
    for name, tensor in (tensors | {name: value for name, value in slots.items() if isinstance(value, Tensor)}).items():
        dense(tensor, f"the tensor {name!r} of {what}")
        if tensor.is_inference():
            raise InputError(
                f"the tensor {name!r} of {what} was made in torch.inference_mode(), expected one that can be trained; "
                "make the model outside of it."
            )


def differing(one: nn.Module, other: nn.Module) -> set[str]:
    """Return the paths of plain attributes in which two modules differ."""
    here, there = plain_attributes(one), plain_attributes(other)
    return {name for name in here if name not in there or not same(here[name].read(), there[name].read())}


def same(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors hold the same numbers; NaN is NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(((a == b) | ((a != a) & (b != b))).all())


def state(module: nn.Module, attributes: Sequence[str] = ()) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return parameters, and buffers with the plain attributes named beside them; none shares memory with the module.

    Raises:
        InputError: If the module has no attribute of such a name.
    """
    slots = plain_attributes(module) if attributes else {}
    missing = [name for name in attributes if name not in slots]
    if missing:
        raise InputError(f"a model has no attribute {missing[0]!r} of numbers, expected every model to have it.")
    params = {name: tensor.detach().clone() for name, tensor in module.named_parameters()}
    buffers = {name: tensor.detach().clone() for name, tensor in module.named_buffers()}
    return params, {**buffers, **{name: slots[name].read() for name in attributes}}


@torch.no_grad()
def fill(module: nn.Module, own: Mapping[str, Tensor], attributes: Sequence[str] = ()) -> nn.Module:
    """Put what `state` returned into a module, and return it."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        tensor.copy_(own[name])
    slots = plain_attributes(module) if attributes else {}
    for name in attributes:
        slots[name].put(own[name].detach().clone())
    return module


def copied(module: nn.Module) -> nn.Module:
    """Return a deep copy of a module, with the hooks on its parameters and without what it computed from them.

    Raises:
        InputError: If the module holds something that cannot be copied.
    """
    computed = {}
    for layer in module.modules():
        for value in vars(layer).values():
            for item in value if isinstance(value, list | tuple) else [value]:
                if isinstance(item, Tensor) and item.grad_fn is not None:
                    computed[id(item)] = item.detach().clone()
    try:
        clone = copy.deepcopy(module, dict(computed))
    except (TypeError, RuntimeError, AttributeError, NotImplementedError) as error:
        raise InputError(
            f"the model cannot be copied ({error}), expected a torch.nn.Module that copy.deepcopy copies."
        ) from error
    for (_, ours), (_, theirs) in zip(clone.named_parameters(), module.named_parameters(), strict=True):
        for hook in gradient_hooks(theirs):
            ours.register_hook(hook)
    return clone


def gradient_hooks(tensor: Tensor) -> list[Callable[[Tensor], Any]]:
    """Return the functions registered on a parameter that change its gradient."""
    return list((getattr(tensor, "_backward_hooks", None) or {}).values())


def hooked(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield what hooks a module has: pairs of a kind (`forward`, `backward`, `gradient`) and a place."""
    for name, layer in module.named_modules():
        if layer._forward_hooks or layer._forward_pre_hooks:
            yield "forward", name or "the model"
        if layer._backward_hooks or layer._backward_pre_hooks:
            yield "backward", name or "the model"
    for name, tensor in module.named_parameters():
        if gradient_hooks(tensor) or getattr(tensor, "_post_accumulate_grad_hooks", None):
            yield "gradient", name


def updating(module: nn.Module) -> dict[str, nn.Module]:
    """Return the layers whose running statistics move in training, by name; leaves the module in training mode.

    A layer that the module's own `train` keeps in evaluation mode is none of them.
    """
    module.train()
    return {
        name: layer
        for name, layer in module.named_modules()
        if layer.training and getattr(layer, "running_mean", None) is not None
    }


def _numbers(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    if isinstance(value, list):
        return bool(value) and all(type(item) in (bool, int, float) for item in value)
    return type(value) in (bool, int, float)


def _of(value: Any, kind: type) -> bool:
    return isinstance(value, kind) or (isinstance(value, list) and any(isinstance(item, kind) for item in value))
