"""What layers with written-out gradients have in common (see `by_hand.py`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.ensembles.products import weight_gradient


@dataclass
class Setting:
    """What the layers of a pass read and write besides their inputs."""

    params: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    """Where gradients go; a parameter that has no place here is not differentiated."""
    buffers: Mapping[str, Tensor]
    update: bool = False
    noise: Sequence[torch.Generator] | None = None


class Memory:
    """One block of memory that is used again at every step, whatever the shape."""

    def __init__(self) -> None:
        """Start without memory."""
        self.block: Tensor | None = None
        self.view: Tensor | None = None

    def take(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Return the block, or its beginning, as a tensor of this shape."""
        view = self.view
        if view is not None and view.shape == tuple(shape):
            return view
        size = math.prod(shape)
        if self.block is None or len(self.block) < size:
            self.block = like.new_empty(size)
        self.view = self.block[:size].view(*shape)
        return self.view


class Layer:
    """One layer of a chain."""

    lends = False
    """Whether the next layer may overwrite this layer's output."""
    parameters: tuple[str, ...] = ()
    """Names of the parameters."""

    def place(self, shape: Sequence[int], like: Tensor) -> Tensor | None:
        """Return where the layer wants its input of this shape, or None if anywhere."""
        return None

    def load(self, x: Tensor) -> Tensor:
        """Return the chain's inputs, of the same shape, where the layer wants them; only the first layer is asked."""
        place = self.place(x.shape, x)
        return x if place is None else place.copy_(x)

    def forward(self, setting: Setting, x: Tensor, out: Tensor | None) -> Tensor:
        """Return the output, in `out` if the layer can write there."""
        raise NotImplementedError

    def backward(self, setting: Setting, g: Tensor, inputs: bool) -> Tensor | None:
        """Write gradients of the parameters, and return that of the input if `inputs`; `g` may be overwritten."""
        raise NotImplementedError

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape (members, ..., batch) of the output for that of the input."""
        return tuple(shape)

    def learns(self, setting: Setting) -> bool:
        """Return whether the layer has a parameter that is differentiated."""
        return any(name in setting.gradients for name in self.parameters)


def windows(
    pixels: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    apart: Sequence[int],
) -> tuple[int, int]:
    """Return how many windows fit into an image along its height and width.

    Args:
        pixels: Height and width.
        kernel: Positions of a window along each.
        stride: Pixels between neighbouring windows.
        padding: Pixels added at each end.
        apart: Pixels between neighbouring positions of a window (dilation).
    """
    height, width = (
        (size + 2 * pad - gap * (positions - 1) - 1) // step + 1
        for size, positions, step, pad, gap in zip(pixels, kernel, stride, padding, apart, strict=True)
    )
    return height, width


def parameter_gradients(setting: Setting, weight: str, bias: str, g: Tensor, x: Tensor) -> None:
    """Write the gradients of a weight and a bias, given those of the outputs (members, outputs, n)."""
    if weight in setting.gradients:
        weight_gradient(g, x, setting.gradients[weight].flatten(2))
    if bias in setting.gradients:
        torch.sum(g, 2, out=setting.gradients[bias])
