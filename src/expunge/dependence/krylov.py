"""Krylov spaces of the curvature, member by member: functions of a matrix times a vector, and bases to simulate in.

Lanczos builds an orthonormal V = [v_1 ... v_k] of span{b, A b, ..., A^(k-1) b} with V^T A V = T tridiagonal, and then

    f(A) b  ~  |b| V f(T) e_1

for any f, from the same k products with A: the inverse (influence), exp(-t A) (what t units of training leave of a
displacement), (1 - exp(-t A)) / A (what a constant pull does in that time). For an f that is smooth on the spectrum the
error falls as fast as the best polynomial of degree k - 1 approximates f; k equal to the number of distinct eigenvalues
is exact. Every vector is orthogonalised against all earlier ones, twice, since rounding destroys orthogonality.

Source: Lanczos (J. Res. NBS 45, 1950); for f(A) b Saad, "Analysis of some Krylov subspace approximations to the matrix
exponential operator" (SIAM J. Numer. Anal. 29, 1992).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from expunge.core.checks import whole
from expunge.core.tree import State
from expunge.dependence.curvature import Operator
from expunge.dependence.linearised import Linearised

VANISHED = 1e-5
"""A vector that loses all but this share of its length when orthogonalised lies in the space already."""


def matrix_function(
    linearised: Linearised, operator: Operator, b: State, function: Callable[[Tensor], Tensor], steps: int = 16
) -> State:
    """Return f(A) b for a symmetric positive semi-definite operator, each member on its own.

    Args:
        linearised: Gives the shapes.
        operator: v -> A v.
        b: Direction, each tensor (members, ...).
        function: f, elementwise on eigenvalues (members, steps), float64, which are at least 0.
        steps: Products with A, at least 1; capped at the number of parameters.
    """
    whole(steps=steps)
    start = linearised.flatten(b)
    length = start.double().norm(dim=1)
    basis, diagonal, off = _lanczos(linearised, operator, start, min(steps, start.shape[1]))
    tridiagonal = torch.diag_embed(diagonal) + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    values, vectors = torch.linalg.eigh(tridiagonal)
    weights = (vectors @ (function(values.clamp_min(0.0)) * vectors[:, 0]).unsqueeze(-1)).squeeze(-1)
    rows = torch.einsum("mk,mkp->mp", (length[:, None] * weights).to(start.dtype), basis)
    return linearised.unflatten(rows)


def krylov_basis(linearised: Linearised, operator: Operator, starts: Sequence[State], size: int) -> Tensor:
    """Return an orthonormal basis of the space that starts and repeated products with A span.

    Args:
        linearised: Gives the shapes.
        operator: v -> A v; applied to the vectors of the basis in turn.
        starts: Directions that the space holds first.
        size: Vectors in all, at least the number of starts.

    Returns:
        Shape (members, size, parameters). A vector is 0 where the space of a member has fewer dimensions.
    """
    whole(minimum=len(starts), size=size)
    rows: list[Tensor] = []
    for start in starts:
        rows.append(_orthogonalised(linearised.flatten(start), rows))
    position = 0
    while len(rows) < size:
        product = linearised.flatten(operator(linearised.unflatten(rows[position])))
        rows.append(_orthogonalised(product, rows))
        position += 1
    return torch.stack(rows, dim=1)


def _lanczos(linearised: Linearised, operator: Operator, start: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the basis (members, steps, parameters), the diagonal (members, steps) and off-diagonal of T, float64."""
    rows = [_orthogonalised(start, [])]
    diagonal: list[Tensor] = []
    off: list[Tensor] = []
    for step in range(steps):
        product = linearised.flatten(operator(linearised.unflatten(rows[-1])))
        value = (product.double() * rows[-1].double()).sum(1)
        # Where the space was exhausted the vector is 0: any value but 0 will do, since nothing couples to it.
        diagonal.append(torch.where(rows[-1].abs().amax(1) > 0, value, torch.ones_like(value)))
        if step + 1 < steps:
            following = _orthogonalised(product, rows)
            off.append((product.double() * following.double()).sum(1))
            rows.append(following)
    empty = start.new_zeros(len(start), 0, dtype=torch.float64)
    return torch.stack(rows, 1), torch.stack(diagonal, 1), torch.stack(off, 1) if off else empty


def _orthogonalised(vector: Tensor, rows: Sequence[Tensor]) -> Tensor:
    """Return the unit vector of what is orthogonal to `rows`, or 0 where nothing is left, (members, parameters)."""
    before = vector.double().norm(dim=1, keepdim=True)
    for _ in range(2):
        for row in rows:
            vector = vector - (vector * row).sum(1, keepdim=True) * row
    left = vector.double().norm(dim=1, keepdim=True)
    unit = vector / left.clamp_min(torch.finfo(torch.float32).tiny).to(vector.dtype)
    return torch.where(left > VANISHED * before, unit, torch.zeros_like(unit))
