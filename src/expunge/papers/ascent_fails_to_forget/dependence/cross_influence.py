"""The spectral norm of the cross-influence (`expunge.dependence.cross_influence`) from products alone.

C v is one solve and one forward-mode product, C^T u one solve and one reverse one; Golub-Kahan bidiagonalisation with
these (Lanczos on C^T C) approaches the norm from below, faster than power iteration with the same products. For any
number of parameters and examples.

Source: G. H. Golub and W. Kahan, "Calculating the Singular Values and Pseudo-Inverse of a Matrix" (1965).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from expunge.core import InputError
from expunge.core.checks import between, non_negative, whole
from expunge.core.seeds import generator
from expunge.dependence.curvature import damped
from expunge.dependence.linearised import Linearised
from expunge.papers.ascent_fails_to_forget.dependence.solving import conjugate_gradients


class Singular(NamedTuple):
    """The largest singular value of every member's block."""

    norm: Tensor
    """(members,), float64; a lower bound that has stopped growing."""
    steps: int
    """Products with C and as many with C^T."""
    residual: Tensor
    """Relative residual of the worst linear system of each member, (members,)."""


@dataclass(frozen=True)
class CrossInfluence:
    """The block of every member as an operator: products only, nothing of the size rows times columns.

    Rows and columns are examples; `x_rows` may be in memory of any size, it is passed through in batches.
    """

    linearised: Linearised
    """The members."""
    x: Tensor
    """Training inputs (examples, ...), over which the curvature sums."""
    ridge: float
    """Weight decay times the number of training examples, plus damping; above 0."""
    rows: tuple[Tensor, Tensor]
    """Inputs and labels whose margins are asked for."""
    columns: tuple[Tensor, Tensor]
    """Inputs and labels of the forget set."""
    iterations: int = 100
    """Most products with the curvature in one solve, at least 1."""
    tolerance: float = 1e-3
    """Relative residual at which a solve stops, 0 to 1."""

    def __post_init__(self) -> None:
        """Check sizes and ranges."""
        whole(iterations=self.iterations)
        between(0.0, 1.0, tolerance=self.tolerance)
        non_negative(ridge=self.ridge)
        for part, (x, y) in (("rows", self.rows), ("columns", self.columns)):
            if len(x) != len(y) or len(x) == 0:
                raise InputError(f"{part} have {len(x)} inputs and {len(y)} labels, expected as many, at least one.")

    def times(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return C v (members, rows) for v (members, columns), and the residual of the solve (members,).

        With v = 1 this is the predicted effect of removing the whole set.
        """
        moved = self.linearised.gradient(*self.columns, weights=v)
        found = conjugate_gradients(self._curvature, moved, iterations=self.iterations, tolerance=self.tolerance)
        return self.linearised.margins(*self.rows, found.x)[1], found.residual

    def transposed(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return C^T u (members, columns) for u (members, rows), and the residual of the solve (members,)."""
        x, y = self.rows
        pulled = self.linearised.weighted_margins(x, y, u)
        found = conjugate_gradients(self._curvature, pulled, iterations=self.iterations, tolerance=self.tolerance)
        logits, moved = self.linearised.outputs(self.columns[0], found.x)
        return (self.linearised.loss.gradient(logits, self.columns[1]) * moved).sum(-1), found.residual

    def spectral_norm(self, *, steps: int = 10, change: float = 1e-3, seed: int = 0) -> Singular:
        """Return the largest singular value of every member's block.

        Args:
            steps: Most pairs of products (each with two solves), at least 1.
            change: Relative growth of the estimate at which all members stop, 0 to 1.
            seed: Of the first vector.
        """
        whole(steps=steps)
        between(0.0, 1.0, change=change)
        members, columns = self.linearised.members, len(self.columns[0])
        start = torch.randn(columns, generator=generator(seed, "spectral norm"), dtype=torch.float64)
        v = _unit(start.to(self.linearised.device).expand(members, columns))[0]
        left: list[Tensor] = []
        right: list[Tensor] = [v]
        alpha: list[Tensor] = []
        beta: list[Tensor] = []
        norm = torch.zeros(members, dtype=torch.float64, device=v.device)
        worst = torch.zeros_like(norm)
        done = 0
        for step in range(min(steps, columns, len(self.rows[0]))):
            u, residual = self.times(right[-1])
            worst = torch.maximum(worst, residual.to(worst))
            # Orthogonal to all before, not just the last: rounding and inexact solves would bring them back.
            u, size = _unit(_without(u.double(), left))
            left.append(u)
            alpha.append(size)
            w, residual = self.transposed(u)
            worst = torch.maximum(worst, residual.to(worst))
            done = step + 1
            w, size = _unit(_without(w.double(), right))
            beta.append(size)
            right.append(w)
            before, norm = norm, _bidiagonal_norm(alpha, beta)
            if bool(((norm - before) <= change * norm).all()):
                break
        return Singular(norm.cpu(), done, worst.cpu())

    def _curvature(self, v: dict[str, Tensor]) -> dict[str, Tensor]:
        return damped(self.linearised, self.x, self.ridge)(v)


def _unit(v: Tensor) -> tuple[Tensor, Tensor]:
    """Return vectors (members, size) at length 1, and their lengths; the zero vector stays."""
    length = v.norm(dim=1)
    return v / length.clamp_min(torch.finfo(v.dtype).tiny)[:, None], length


def _without(v: Tensor, basis: list[Tensor]) -> Tensor:
    for _ in range(2):
        for b in basis:
            v = v - (v * b).sum(1, keepdim=True) * b
    return v


def _bidiagonal_norm(alpha: list[Tensor], beta: list[Tensor]) -> Tensor:
    """Return the norm of the bidiagonal matrix of every member, of which the last column is already known."""
    size = len(alpha)
    matrix = torch.zeros(len(alpha[0]), size, size + 1, dtype=torch.float64, device=alpha[0].device)
    for k in range(size):
        matrix[:, k, k] = alpha[k]
        matrix[:, k, k + 1] = beta[k]
    norm: Tensor = torch.linalg.matrix_norm(matrix, ord=2)
    return norm
