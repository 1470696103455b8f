"""Linear layers and steps of optimisers by the compiled kernels of `direct.c`, where installation could compile them.

A small model spends its time between its products: here the bias, the ReLU after a layer, its derivative and the sums
for the bias are done where the numbers are, and a step is one call. Very large products are left to `products.py`.
Without the library `by_hand.py` does the same with PyTorch's products; the last digits differ, as they do between
processors.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from expunge.ensembles.direct import NUMBERS, Compiled, at, library, numbers, succeeded
from expunge.ensembles.linear import Linear
from expunge.ensembles.written import Setting

LARGE = 60_000_000
"""Floating-point operations of one member's product from which on it is made elsewhere: libraries copy blocks of large
matrices to where they are read in order. On an AMD EPYC with AVX-512, 784 x 256 weights by 128 examples (51 million)
were faster here, 1024 x 1024 were not."""

KINDS = ("sgd", "adam", "adamw")
"""Optimisers, in the order of `direct.c`."""


def large(inputs: int, outputs: int, batch: int) -> bool:
    """Return whether a layer's products are better made by `products.py`."""
    return 2 * inputs * outputs * batch >= LARGE


class DirectLinear(Linear, Compiled):
    """A linear layer in few calls."""

    def __init__(self, name: str, module: nn.Linear, width: int | None = None) -> None:
        """Remember the layer of that name, and find the kernels."""
        super().__init__(name, module)
        self.find(width)

    def forward(self, setting: Setting, x: Tensor, out: Tensor | None) -> Tensor:
        """Return W x + b, cut off below 0 if asked for."""
        weight = setting.params[self.weight].contiguous()
        self.large = large(self.inputs, self.outputs, x.shape[2])
        if self.large:
            self.result = super().forward(setting, x, out)
            return self.result.clamp_min_(0) if self.clamp else self.result
        self.x, self.rows = _laid_out(x)
        self.geometry = _geometry(len(x), x.shape[1], self.outputs, x.shape[2])
        self.result = self.y.take(self.shape(x.shape), x)
        bias = setting.params[self.bias].contiguous() if self.bias else None
        run: Any = getattr(self.compiled, f"expunge_linear_forward_{NUMBERS[x.dtype]}")
        call = (at(self.x), at(weight), at(bias), at(self.result), self.rows, self.clamp, self.width)
        succeeded(run(self.geometry, *call))
        return self.result

    def backward(self, setting: Setting, g: Tensor, inputs: bool) -> Tensor | None:
        """Write the gradients of W and b; return that of x."""
        g = g.contiguous()
        if self.large:
            if self.clamp:
                torch.ops.aten.threshold_backward.grad_input(g, self.result, 0, grad_input=g)
            return super().backward(setting, g, inputs)
        weight = setting.params[self.weight].contiguous()
        dx = self.dx.take(self.x.shape, g) if inputs else None
        own = (setting.gradients.get(self.weight), setting.gradients.get(self.bias), dx)
        assert all(tensor is None or tensor.is_contiguous() for tensor in own)
        run: Any = getattr(self.compiled, f"expunge_linear_backward_{NUMBERS[g.dtype]}")
        call = (at(self.x), at(weight), at(self.result), at(g), *map(at, own), self.rows, self.clamp, self.width)
        succeeded(run(self.geometry, *call))
        return dx


@functools.lru_cache(maxsize=1024)
def _geometry(members: int, inputs: int, outputs: int, batch: int) -> Any:
    return numbers([members, inputs, outputs, batch])


def _laid_out(x: Tensor) -> tuple[Tensor, bool]:
    """Return the inputs without gaps, and whether examples come before features in memory."""
    if x.mT.is_contiguous() and not x.is_contiguous():
        return x, True
    return x.contiguous(), False


class Update(ctypes.Structure):
    """How weights move, as `direct.c` reads it; pointers are None for nothing, or to numbers laid out like the weights.

    A step changes a gradient g to factors g + penalty sign(weight) + anchor (weight - start), and the optimiser moves
    by that.
    """

    _fields_: ClassVar = [
        ("kind", ctypes.c_int64),  # the place of the optimiser in `KINDS`
        ("taken", ctypes.c_int64),  # steps before, which Adam's first steps are corrected by
        ("momentum", ctypes.c_double),  # share of the first moments that is kept
        ("decay", ctypes.c_double),  # L2 coefficient
        ("squares", ctypes.c_double),  # share of Adam's second moments that is kept
        ("least", ctypes.c_double),  # what is added to their root
        ("penalty", ctypes.c_double),  # l1 coefficient
        ("anchor", ctypes.c_double),  # of the pull to `start`
        ("first", ctypes.c_void_p),  # moments, moved in place; None is SGD without momentum
        ("second", ctypes.c_void_p),
        ("penalised", ctypes.c_void_p),  # 1 for weights under the penalty, else 0; None is all
        ("factors", ctypes.c_void_p),  # of gradients
        ("moving", ctypes.c_void_p),  # 0 for weights that stay
        ("start", ctypes.c_void_p),  # where the anchor is
    ]


def move(weight: Tensor, gradient: Tensor | None, update: Update, rate: float) -> bool:
    """Take a step and return True, or return False where there is no compiled kernel for it.

    Args:
        weight: Moved in place; one axis, as the gradient.
        gradient: Of the loss; overwritten.
        update: How.
        rate: Learning rate.
    """
    compiled, kind = library(), NUMBERS.get(weight.dtype)
    if compiled is None or kind is None or weight.device.type != "cpu":
        return False
    run: Any = getattr(compiled, f"expunge_move_{kind}")
    run(ctypes.byref(update), len(weight), at(weight), at(gradient), rate, compiled.expunge_direct_width())
    return True
