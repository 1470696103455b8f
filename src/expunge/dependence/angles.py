"""Angles between gradients of F and the rest, where they carry information.

At a minimum the summed gradients of F and of R (with the ridge's) cancel, so that their cosine is -1 whatever the data:
that number is not offered. What is:

    summed        cos(sum_F g, sum_V g)                     V held out; Euclidean and in the metric of H^{-1}
    nearest       mean over F of max over R of cos(grad m_i, grad m_j)          1 for exact copies in R
    alignment     ||K_FR||_F^2 / (||K_FF||_F ||K_RR||_F)    of the tangent kernel, from 0 to 1

Signs: positive `summed` means that ascent on F also raises the validation loss.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from expunge.core import InputError
from expunge.dependence.inputs import complement
from expunge.dependence.kernel import MemberKernel


class Angles(NamedTuple):
    """Cosines of one member."""

    forget_validation: float
    """Between the summed loss gradients of F and of the other examples, -1 to 1."""
    forget_validation_curved: float
    """The same in the metric of H^{-1}, -1 to 1."""
    nearest_retained: float
    """Mean over F of the largest cosine with the gradient of a retained margin, -1 to 1."""
    alignment: float
    """Of the tangent kernel between F and R, 0 to 1."""


def angles(member: MemberKernel, index: Tensor) -> Angles:
    """Return the cosines of one member.

    Args:
        member: The member's kernel, with other examples (validation) after the training examples.
        index: Positions of the forget set (size,).
    """
    n = member.examples
    if len(member.kernel) == n:
        raise InputError(
            "the kernel has training examples only, expected others=(x, y) to compare the forget set with."
        )
    kernel, slope = member.kernel, member.slope
    pair = torch.zeros(len(kernel), 2, dtype=kernel.dtype)
    pair[index, 0] = slope[index]
    pair[n:, 1] = slope[n:]
    rest = complement(index, n)
    length = kernel.diagonal().clamp_min(torch.finfo(kernel.dtype).tiny).sqrt()
    cosine = kernel[index][:, rest] / (length[index, None] * length[rest])
    across, own = kernel[index][:, rest], kernel[index][:, index]
    others = _squares(kernel[:n, :n]) - 2 * _squares(across) - _squares(own)
    alignment = _squares(across) / (_squares(own) * others).sqrt()
    return Angles(
        _cosine(pair.T @ kernel @ pair),
        _cosine(pair.T @ member.product(pair)),
        float(cosine.max(1).values.mean()),
        float(alignment),
    )


def _cosine(gram: Tensor) -> float:
    scale = float(gram[0, 0] * gram[1, 1])
    return float(gram[0, 1]) / scale**0.5 if scale > 0 else float("nan")


def _squares(matrix: Tensor) -> Tensor:
    return (matrix**2).sum()
