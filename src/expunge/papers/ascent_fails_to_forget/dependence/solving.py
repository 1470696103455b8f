"""Solving (H + damping) x = b for every member at once, H the Gauss-Newton matrix (`expunge.dependence.curvature`).

Conjugate gradients need products H v only, so memory is a few copies of the weights; each member has its own step
lengths and stops on its own. Where a member has few parameters, `dense_curvature` forms H and the solution is exact.

Source: Hestenes and Stiefel, "Methods of conjugate gradients for solving linear systems" (1952).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.core.checks import between, whole
from expunge.core.tree import State
from expunge.dependence.curvature import Operator
from expunge.dependence.linearised import Linearised, combine, dot


@dataclass(frozen=True)
class Solution:
    """What conjugate gradients found."""

    x: State
    """The solution, each tensor (members, ...)."""
    residual: Tensor
    """|b - A x| / |b| of each member (members,), as the iteration tracked it."""
    iterations: int
    """Products with the matrix."""


def conjugate_gradients(operator: Operator, b: State, *, iterations: int = 50, tolerance: float = 1e-3) -> Solution:
    """Return x with A x = b for a symmetric positive definite operator, member by member.

    Args:
        operator: v -> A v on directions; it must treat members separately.
        b: Right-hand side, each tensor (members, ...).
        iterations: Most products with A, at least 1.
        tolerance: Relative residual at which a member stops, 0 to 1.
    """
    whole(iterations=iterations)
    between(0.0, 1.0, tolerance=tolerance)
    x = {name: torch.zeros_like(tensor) for name, tensor in b.items()}
    r = {name: tensor.clone() for name, tensor in b.items()}
    p = {name: tensor.clone() for name, tensor in b.items()}
    squared = dot(r, r)
    start = squared.clamp_min(torch.finfo(torch.float64).tiny)
    alive = torch.ones_like(squared, dtype=torch.bool)
    done = 0
    while done < iterations:
        alive &= squared > tolerance**2 * start
        if not bool(alive.any()):
            break
        product = operator(p)
        done += 1
        curvature = dot(p, product)
        # Rounding can make the curvature vanish; such a member stays at its last solution, with its residual.
        alive &= curvature > 0
        step = torch.where(alive, squared / curvature.where(alive, torch.ones_like(curvature)), 0.0)
        x = combine(x, p, step)
        r = combine(r, product, -step)
        after = torch.where(alive, dot(r, r), squared)
        p = combine(r, p, after / squared.clamp_min(torch.finfo(torch.float64).tiny))
        squared = after
    return Solution(x, (squared / start).sqrt(), done)


def dense_curvature(linearised: Linearised, x: Tensor) -> Tensor:
    """Return the Gauss-Newton matrix of every member, (members, parameters, parameters): for small models only.

    Args:
        linearised: The stack.
        x: Inputs (examples, ...).
    """
    members, size = linearised.members, linearised.parameters
    reference = next(iter(linearised.params.values()))
    out = torch.zeros(members, size, size, dtype=reference.dtype, device=reference.device)
    for column in range(size):
        unit = torch.zeros(members, size, dtype=reference.dtype, device=reference.device)
        unit[:, column] = 1
        out[:, :, column] = linearised.flatten(linearised.curvature(x, linearised.unflatten(unit)))
    return out
