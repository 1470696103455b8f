"""Pooling with written-out gradients by the compiled kernels of `direct.c`; without them, autograd does it.

largest      y = max over the pixels of a window      dx = g at the pixel that was largest, the first of equal ones
average      y = mean over the pixels of a window     dx = g / pixels, at every pixel
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from expunge.ensembles.direct import NUMBERS, at, library, numbers
from expunge.ensembles.layers import Unsupported
from expunge.ensembles.written import Layer, Memory, Setting, windows

WHOLE = {torch.float32: torch.int32, torch.float64: torch.int64}
"""Integers of the size of each type of numbers, for positions in a window."""


class Pooling(Layer):
    """The largest pixel of each window (`MaxPool2d`), or their mean (`AvgPool2d`)."""

    lends = True

    def __init__(self, module: nn.MaxPool2d | nn.AvgPool2d) -> None:
        """Remember the geometry."""
        self.compiled = library()
        if self.compiled is None:
            raise Unsupported("pooling has no written-out gradient without compiled kernels")
        if module.ceil_mode or getattr(module, "return_indices", False) or getattr(module, "divisor_override", None):
            raise Unsupported("pooling with ceil_mode, indices or a divisor has no written-out gradient")
        self.largest = isinstance(module, nn.MaxPool2d)
        self.padding_counts = bool(getattr(module, "count_include_pad", False))
        self.kernel, self.padding = _pair(module.kernel_size), _pair(module.padding)
        self.stride, self.apart = _pair(module.stride), _pair(getattr(module, "dilation", 1))
        self.y, self.dx, self.which = Memory(), Memory(), Memory()

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Pixels become windows."""
        height, width = windows(shape[2:4], self.kernel, self.stride, self.padding, self.apart)
        return (*shape[:2], height, width, shape[4])

    def forward(self, setting: Setting, x: Tensor, out: Tensor | None) -> Tensor:
        """Return a number for each window, and remember where the largest are."""
        # The inputs of the network have their examples first in memory.
        x = x if x.stride(4) == 1 else x.contiguous()
        self.received, expected = x.shape, self.shape(x.shape)
        y = self.y.take(expected, x)
        self.chosen = self.which.take(expected, x.new_empty(0, dtype=WHOLE[x.dtype])) if self.largest else None
        self.geometry = self._geometry(x, y)
        self._kernel("pool", x)(self.geometry, at(x), at(y), at(self.chosen), *self._options())
        return y

    def backward(self, setting: Setting, g: Tensor, inputs: bool) -> Tensor | None:
        """Return g at the pixels that were chosen, or an equal share of it at all."""
        if not inputs:
            return None
        g, dx = g.contiguous(), self.dx.take(self.received, g)
        self._kernel("unpool", g)(self.geometry, at(g), at(dx), at(self.chosen), *self._options())
        return dx

    def _geometry(self, x: Tensor, y: Tensor) -> Any:
        members, channels, height, width, batch = x.shape
        sizes = (members, channels, channels, batch, height, width, *y.shape[2:4])
        kernel = (*self.kernel, *self.stride, *self.padding, *self.apart)
        return numbers([*sizes, *kernel, *x.stride()[:4], *y.stride()[:4]])

    def _kernel(self, name: str, like: Tensor) -> Any:
        return getattr(self.compiled, f"expunge_direct_{name}_{NUMBERS[like.dtype]}")

    def _options(self) -> tuple[int, int]:
        assert self.compiled is not None
        return self.padding_counts, self.compiled.expunge_direct_width()


class GlobalLargest(Pooling):
    """The largest pixel of each channel (`AdaptiveMaxPool2d(1)`): one window over the whole image."""

    def __init__(self, module: nn.AdaptiveMaxPool2d) -> None:
        """Check that one number is left of each channel."""
        if _pair(module.output_size) != (1, 1):
            raise Unsupported("adaptive pooling to more than one pixel has no written-out gradient")
        super().__init__(nn.MaxPool2d(1))

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """One pixel is left."""
        self.kernel = (shape[2], shape[3])
        return super().shape(shape)


class GlobalAverage(Layer):
    """The mean of each channel over the whole image (`AdaptiveAvgPool2d(1)`)."""

    def __init__(self, module: nn.AdaptiveAvgPool2d) -> None:
        """Check that one number is left of each channel."""
        if _pair(module.output_size) != (1, 1):
            raise Unsupported("adaptive pooling to more than one pixel has no written-out gradient")

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """One pixel is left."""
        return (*shape[:2], 1, 1, shape[4])

    def forward(self, setting: Setting, x: Tensor, out: Tensor | None) -> Tensor:
        """Return the means."""
        self.received = x.shape
        return x.mean((2, 3), keepdim=True)

    def backward(self, setting: Setting, g: Tensor, inputs: bool) -> Tensor | None:
        """Return an equal share of g at every pixel."""
        return (g / math.prod(self.received[2:4])).expand(self.received).contiguous() if inputs else None


def _pair(value: object) -> tuple[int, int]:
    """Return height and width of a geometry that may be one number for both."""
    if isinstance(value, int):
        return value, value
    assert isinstance(value, tuple)
    height, width = value
    return height, width
