"""Convolution and ReLU of stacked models by the compiled kernels of `direct.c`, where installation could compile them.

Nothing depends on it: without a C compiler at installation, or with EXPUNGE_COMPILED=0 in the environment,
`columns.py` does the same with PyTorch's products. The last digits differ, as they do between processors.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.ensembles.convolution import Convolution
from expunge.ensembles.written import Layer, Setting

LIBRARY = Path(__file__).with_name("_direct.so")
VERSION = 10
"""What `expunge_direct_version` in `direct.c` returns; a library that was compiled from another file is not used."""
NUMBERS = {torch.float32: "float", torch.float64: "double"}
"""Types of numbers that there are kernels for."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, or None where there are none or they are switched off."""
    if os.environ.get("EXPUNGE_COMPILED", "1") == "0":
        return None
    try:
        found = ctypes.CDLL(str(LIBRARY))
        if found.expunge_direct_version() != VERSION:
            return None
    except (OSError, AttributeError):
        return None
    for kind in NUMBERS.values():
        place = getattr(found, f"expunge_direct_place_{kind}")
        place.argtypes, place.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p], None
        for name, pointers in (("forward", 5), ("backward", 8), ("pool", 4), ("unpool", 4)):
            function = getattr(found, f"expunge_direct_{name}_{kind}")
            function.argtypes = [ctypes.c_void_p] * pointers + [ctypes.c_int, ctypes.c_int]
            function.restype = None if "pool" in name else ctypes.c_int
        for name, pointers in (("forward", 5), ("backward", 8)):
            function = getattr(found, f"expunge_linear_{name}_{kind}")
            function.argtypes, function.restype = [ctypes.c_void_p] * pointers + [ctypes.c_int] * 3, ctypes.c_int
        normalise = getattr(found, f"expunge_normalise_{kind}")
        normalise.argtypes = [ctypes.c_void_p] * 6 + [ctypes.c_double] + [ctypes.c_int] * 3
        denormalise = getattr(found, f"expunge_denormalise_{kind}")
        denormalise.argtypes = [ctypes.c_void_p] * 8 + [ctypes.c_int] * 3
        normalise.restype = denormalise.restype = None
        step = getattr(found, f"expunge_move_{kind}")
        step.argtypes = [ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 2, ctypes.c_double, ctypes.c_int]
        step.restype = None
        chain = getattr(found, f"expunge_chain_{kind}")
        chain.argtypes = [ctypes.c_void_p] * 11 + [ctypes.c_int]
        chain.restype = ctypes.c_int
        outputs = getattr(found, f"expunge_outputs_{kind}")
        outputs.argtypes, outputs.restype = [*[ctypes.c_void_p] * 4, ctypes.c_int], ctypes.c_int
    return found


def describe() -> str:
    """Return what convolutions are computed with on a CPU, for records and progress.

    >>> describe().split()[0]
    'convolutions'
    """
    compiled = library()
    if compiled is None:
        return "convolutions as matrix products"
    return f"convolutions compiled, {8 * compiled.expunge_direct_width()}-bit vectors"


class Compiled(Layer):
    """A layer by the compiled kernels, and the ReLU after it if there is one."""

    clamp = False
    """Whether the negative part of the output is cut off (ReLU)."""

    def find(self, width: int | None) -> None:
        """Find the kernels.

        Args:
            width: Bytes of a vector: 16, 32 or 64, at most what the processor has; None for that.
        """
        compiled = library()
        assert compiled is not None
        self.compiled, self.width = compiled, width or int(compiled.expunge_direct_width())


class DirectConvolution(Convolution, Compiled):
    """A convolution without columns."""

    def __init__(self, name: str, module: nn.Conv2d, width: int | None = None) -> None:
        """Remember the layer of that name, and find the kernels."""
        super().__init__(name, module)
        self.find(width)

    def plan(self, shape: tuple[int, ...], like: Tensor) -> None:
        """Pick the kernels for the type of numbers and write down the geometry."""
        kind = NUMBERS[like.dtype]
        self.turn: Any = getattr(self.compiled, f"expunge_direct_place_{kind}")
        self.run: Any = getattr(self.compiled, f"expunge_direct_forward_{kind}")
        self.differentiate: Any = getattr(self.compiled, f"expunge_direct_backward_{kind}")
        members, channels, height, width, batch = shape
        sizes = (members, channels, self.outputs, batch, height, width, *self.shape(shape)[2:4])
        kernel = (*self.kernel, *self.stride, *self.padding, *self.dilation)
        self.geometry = [*map(int, sizes + kernel), *self.image.stride()[:4]]
        self.expected, self.received = self.shape(shape), shape
        self.described: dict[tuple[int, ...], Any] = {}

    def load(self, x: Tensor) -> Tensor:
        """Return images where they are read from, examples last; PyTorch takes several times longer to turn them."""
        inner = self.place(x.shape, x)
        images = x.movedim(-1, 1)
        if not images[0].is_contiguous():
            return inner.copy_(x)
        self.turn(numbers([*self.geometry, 0, 0, 0, 0]), at(images), images.stride(0), at(inner))
        return inner

    def forward(self, setting: Setting, x: Tensor, out: Tensor | None) -> Tensor:
        """Return W * x + b, cut off below 0 if asked for, where the next layer wants it; x lies in its place."""
        self.result = self.y.take(self.expected, x) if out is None else out
        weight, bias = setting.params[self.weight].contiguous(), self._bias(setting)
        call = (at(self.image), at(weight), at(bias), at(self.result), self.clamp, self.width)
        succeeded(self.run(self._described(self.result), *call))
        return self.result

    def backward(self, setting: Setting, g: Tensor, inputs: bool) -> Tensor | None:
        """Write the gradients of W and b; return that of x."""
        g, weight = g.contiguous(), setting.params[self.weight].contiguous()
        dx = self.dx.take(self.received, g) if inputs else None
        own = (setting.gradients.get(self.weight), setting.gradients.get(self.bias), dx)
        assert all(tensor is None or tensor.is_contiguous() for tensor in own)
        call = (at(self.image), at(weight), at(self.result), at(g), *map(at, own), self.clamp, self.width)
        succeeded(self.differentiate(self._described(self.result), *call))
        return dx

    def _bias(self, setting: Setting) -> Tensor | None:
        return setting.params[self.bias].contiguous() if self.bias else None

    def _described(self, y: Tensor) -> Any:
        """Return the geometry in memory, for outputs that lie as those of y do."""
        strides = y.stride()
        assert y.shape == self.expected
        assert strides[4] == 1
        if strides not in self.described:
            self.described[strides] = numbers([*self.geometry, *strides[:4]])
        return self.described[strides]


def numbers(values: Sequence[int]) -> Any:
    """Return whole numbers as the kernels read them."""
    return (ctypes.c_int64 * len(values))(*values)


def at(tensor: Tensor | None) -> int | None:
    """Return where a tensor's numbers begin, or None (a null pointer)."""
    return None if tensor is None else tensor.data_ptr()


def succeeded(failed: int) -> None:
    """Raise what a kernel says by not returning 0."""
    if failed:
        raise MemoryError("no memory for what a layer works on; use fewer members at once (chunk)")
