"""A private copy of a module into which the numbers of any member are put, and a member's own random numbers.

Noise is drawn from the member's generator: by `nn.Dropout` layers as the hand-stacked form draws it, by everything else
(functional dropout, attention, recurrent layers, NumPy, `random`) because the global generators follow the member's
while its forward pass runs.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core import Statistics
from expunge.core.modules import copied, gradient_hooks, plain_attributes, updating
from expunge.core.seeds import DRAWING


class Traits:
    """What was found out about a task's modules by trying (see `trial.py`)."""

    def __init__(self) -> None:
        """Start with what is true of most."""
        self.attributes: tuple[str, ...] = ()
        """Paths of plain attributes that belong to a member: they differ between seeds, or move in training."""
        self.passing: tuple[tuple[str, str], ...] = ()
        """Layers and names of attributes that a forward pass writes; they are put back after it."""
        self.draws: frozenset[str] = frozenset()
        """Global generators that a forward pass in training draws from: `torch`, `numpy`, `random`."""


class Dropout:
    """What stands for the forward of an `nn.Dropout` layer: it draws as the hand-stacked form does."""

    def __init__(self, layer: nn.Dropout) -> None:
        """Remember the layer."""
        self.layer = layer
        self.generator: torch.Generator | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return x times 0 or 1 / (1 - p), each element by itself."""
        p = self.layer.p
        if not self.layer.training or self.generator is None or p == 0:
            return x
        keep = (torch.rand(x.shape, generator=self.generator) >= p).to(x.device)
        out = x * keep / (1 - p) if p < 1 else x * keep
        return x.copy_(out) if self.layer.inplace else out


def own_dropout(module: nn.Module) -> list[Dropout]:
    """Let the dropout layers of a module draw from generators that are given to what is returned."""
    found = [Dropout(layer) for layer in module.modules() if type(layer) is nn.Dropout]
    for one in found:
        vars(one.layer)["forward"] = one
    return found


@contextlib.contextmanager
def following(generator: torch.Generator, draws: frozenset[str], device: torch.device) -> Iterator[None]:
    """Let the global generators named follow a member's generator, which moves on by what is drawn."""
    if not draws:
        yield
        return
    # They are shared by all threads.
    with DRAWING, contextlib.ExitStack() as after:
        ours = torch.default_generator
        after.callback(ours.set_state, ours.get_state())
        if "numpy" in draws:
            after.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002
            np.random.seed(_number(generator))  # noqa: NPY002
        if "random" in draws:
            after.callback(random.setstate, random.getstate())
            random.seed(_number(generator))
        if device.type == "cuda":
            torch.cuda.manual_seed(_number(generator))
        ours.set_state(generator.get_state())
        try:
            yield
        finally:
            generator.set_state(ours.get_state())


def _number(generator: torch.Generator) -> int:
    return int(torch.randint(2**32, (1,), generator=generator))


class Skeleton:
    """A private copy of a module; not to be used by two threads at once."""

    def __init__(self, template: nn.Module, traits: Traits) -> None:
        """Copy the module and find the places of its numbers."""
        self.module = copied(template)
        self.draws = traits.draws
        layers = dict(self.module.named_modules())
        names = {id(tensor): name for name, tensor in self.module.named_parameters()}
        self.parameters = [
            (layer._parameters, key, names[id(tensor)])
            for layer in layers.values()
            for key, tensor in layer._parameters.items()
            if tensor is not None
        ]
        self.hooks = {name: gradient_hooks(tensor) for name, tensor in self.module.named_parameters()}
        self.hooks = {name: hooks for name, hooks in self.hooks.items() if hooks}
        names = {id(tensor): name for name, tensor in self.module.named_buffers()}
        self.buffers = [
            (layer._buffers, key, names[id(tensor)])
            for layer in layers.values()
            for key, tensor in layer._buffers.items()
            if tensor is not None
        ]
        slots = plain_attributes(self.module) if traits.attributes else {}
        self.attributes = {name: slots[name] for name in traits.attributes}
        self.passing: list[tuple[dict[str, Any], str, Any]] = [
            (layers[path].__dict__, key, layers[path].__dict__[key]) for path, key in traits.passing if path in layers
        ]
        self.dropouts = own_dropout(self.module)
        self.statistics = [layer for layer in layers.values() if getattr(layer, "running_mean", None) is not None]
        self.moving = set(updating(self.module).values())
        self.mode: tuple[str, bool] | None = None

    def set_mode(self, statistics: Statistics, noisy: bool) -> None:
        """Put the copy into training mode or evaluation mode, its statistics aside."""
        if self.mode == (statistics, noisy):
            return
        self.module.train(noisy)
        for layer in self.statistics:
            layer.training = statistics == "updated" and layer in self.moving
        self.mode = (statistics, noisy)

    def run(
        self,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        call: Callable[[nn.Module], Tensor],
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what `call` makes of the module with these numbers, and its buffers afterwards.

        Args:
            params: Parameters of one member.
            buffers: Its buffers and attributes; they may be changed in place.
            call: From the module to outputs.
            generator: The member's, for noise.
        """
        for name, hooks in self.hooks.items():
            for hook in hooks if params[name].requires_grad else ():
                params[name].register_hook(hook)
        own: dict[Any, Any]
        for own, key, name in self.parameters:
            own[key] = params[name]
        for own, key, name in self.buffers:
            own[key] = buffers[name]
        for name, slot in self.attributes.items():
            slot.put(buffers[name])
        for dropout in self.dropouts:
            dropout.generator = generator if generator is None or not self.draws else torch.default_generator
        if generator is None or not self.draws:
            out = call(self.module)
        else:
            with following(generator, self.draws, next(iter(params.values())).device):
                out = call(self.module)
        moved = {name: own[key] for own, key, name in reversed(self.buffers)}
        for name, slot in self.attributes.items():
            value = slot.value
            moved[name] = value.detach() if isinstance(value, Tensor) else slot.read().to(buffers[name])
        for holder, key, value in self.passing:
            holder[key] = value
        return out, moved
