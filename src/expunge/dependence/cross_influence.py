"""Cross-influence: how much the margin of example i moves when example j of the forget set is removed.

    C_ij = grad m_i . H^{-1} grad l_j           (members; rows R, V or F; columns F)

To first order and in the sums convention, so that C 1 is the predicted effect of removing all of F. The spectral norm
of the block with rows in R is the quantity that "Ascent Fails to Forget" (arXiv 2509.26427, App. A) suggests as a
predictor without fixing a normalisation. Two ways to it:

- `spectral_norm` never forms the block. C v is one solve and one forward-mode product, C^T u one solve and one reverse
  one; Golub-Kahan bidiagonalisation with these (Lanczos on C^T C) approaches the norm from below, faster than power
  iteration with the same products. For any number of parameters and examples.
- `blocks` reads the block off a `MemberKernel`, for a few thousand examples.

Average over members. The mean over members of ||C_m|| asks how large the effect is in a typical member; the norm of the
mean block asks how large the effect is that all members share (what differs between members in sign cancels). Unlearned
models are judged member against member, each from its own pretrained weights, so the first is the default.

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
from expunge.dependence.curvature import conjugate_gradients, damped
from expunge.dependence.inputs import complement
from expunge.dependence.kernel import MemberKernel
from expunge.dependence.linearised import Linearised


@dataclass(frozen=True)
class Blocks:
    """Cross-influence of one member, columns F."""

    forget: Tensor
    """Rows F, (size, size)."""
    retain: Tensor
    """Rows R, (examples - size, size)."""
    others: Tensor
    """Rows of the other examples, such as validation, (others, size)."""


class Singular(NamedTuple):
    """The largest singular value of every member's block."""

    norm: Tensor
    """(members,), float64; a lower bound that has stopped growing."""
    steps: int
    """Products with C and as many with C^T."""
    residual: Tensor
    """Relative residual of the worst linear system of each member, (members,)."""


def blocks(member: MemberKernel, index: Tensor, columns: Tensor | None = None) -> Blocks:
    """Return the blocks of one member.

    Args:
        member: The member's kernel.
        index: Positions of the forget set (size,).
        columns: `member.columns(index)`, if at hand.
    """
    columns = member.columns(index) if columns is None else columns
    influence = columns * member.slope[index]
    rest = complement(index, member.examples)
    return Blocks(influence[index], influence[rest], influence[member.examples :])


def largest_singular_value(block: Tensor) -> float:
    """Return the spectral norm of a block (rows, columns), by the smaller of its two Gram matrices."""
    if block.numel() == 0:
        raise InputError(f"the block has shape {tuple(block.shape)}, expected at least one row and one column.")
    small = block.T @ block if block.shape[0] > block.shape[1] else block @ block.T
    return float(torch.linalg.eigvalsh(small)[-1].clamp_min(0).sqrt())


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
