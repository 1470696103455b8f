"""Products of stacked matrices: one batched call for small ones, one call a member of a faster kernel for large ones.

`torch.bmm` calls MKL, which does not use the widest vector registers of every processor. oneDNN does, but PyTorch has
no batched form of it in single precision. From a few million operations on, a call a member costs less than it saves:
on an AMD EPYC with AVX-512 and one thread, the 16 x 72 x 3136 products of a small CNN took 44 to 48 us instead of 74 to
88, while those of an MLP 64-128 took longer. Which one is used depends on one member's shapes, never on the stack.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

LARGE = 2_000_000
"""Floating-point operations of one member's product from which on it has a call of its own."""

Product = Callable[[Tensor, Tensor], Tensor]
"""From matrices (rows, inner) and (columns, inner) to their product (rows, columns)."""


def affine(weight: Tensor, bias: Tensor | None, x: Tensor, out: Tensor) -> Tensor:
    """Write W x + b into `out` and return it.

    Args:
        weight: W, shape (members, outputs, inputs).
        bias: b, shape (members, outputs), or None.
        x: Shape (members, inputs, n).
        out: Shape (members, outputs, n), without gaps.
    """
    product = separate(weight, x.shape[2])
    if product is None:
        if bias is None:
            return torch.bmm(weight, x, out=out)
        return torch.baddbmm(bias.unsqueeze(2), weight, x, out=out)
    for member, (w, columns, y) in enumerate(zip(weight.unbind(), x.mT.unbind(), out.unbind(), strict=True)):
        if bias is None:
            y.copy_(product(w, columns))
        else:
            torch.add(product(w, columns), bias[member].unsqueeze(1), out=y)
    return out


def weight_gradient(g: Tensor, x: Tensor, out: Tensor) -> None:
    """Write g xᵀ into `out`.

    Args:
        g: Gradient of the outputs, shape (members, outputs, n).
        x: Inputs, shape (members, inputs, n).
        out: Shape (members, outputs, inputs), without gaps.
    """
    product = separate(out, g.shape[2])
    if product is None:
        torch.bmm(g, x.mT, out=out)
        return
    for one, columns, gradient in zip(g.unbind(), x.unbind(), out.unbind(), strict=True):
        # Few outputs make a narrow product, which is faster the other way round.
        if one.shape[0] < one.shape[1]:
            gradient.copy_(product(columns, one).t())
        else:
            gradient.copy_(product(one, columns))


def input_gradient(weight: Tensor, g: Tensor, out: Tensor) -> Tensor:
    """Write Wᵀ g into `out` and return it.

    Args:
        weight: W, shape (members, outputs, inputs).
        g: Gradient of the outputs, shape (members, outputs, n).
        out: Shape (members, inputs, n), without gaps.
    """
    product = separate(weight, g.shape[2])
    if product is None:
        return torch.bmm(weight.mT, g, out=out)
    for w, columns, gradient in zip(weight.mT.unbind(), g.mT.unbind(), out.unbind(), strict=True):
        gradient.copy_(product(w, columns))
    return out


def separate(weight: Tensor, n: int) -> Product | None:
    """Return the product to be called for each member, or None if one batched call is better.

    Args:
        weight: Shape (members, outputs, inputs).
        n: Columns that each member's weight is multiplied with.
    """
    large = 2 * weight.shape[1] * weight.shape[2] * n >= LARGE
    return _onednn() if large and weight.dtype == torch.float32 and weight.device.type == "cpu" else None


@functools.cache
def _onednn() -> Product | None:
    """Return oneDNN's product if this build of PyTorch has it and gives the right result, else None."""
    try:
        call = torch.ops.mkldnn._linear_pointwise.default
        a, b = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3)
        if not torch.equal(call(a, b, None, "none", [], ""), a @ b.t()):
            return None
    except (AttributeError, RuntimeError, TypeError):
        return None
    return lambda a, b: call(a, b, None, "none", [], "")
