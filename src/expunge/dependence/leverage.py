"""Leverage of the forget set, and how much of it the retain set knows: numbers from small matrices over examples.

With h = W^{1/2} A W^{1/2} the hat matrix of the fit (A = Phi H^{-1} Phi^T, see `kernel`), eigenvalues in [0, 1):

    leverage        tr h_FF = tr(H^{-1} H_F)              effective number of parameters that F decides
    kappa           lambda_max(h_FF) = lambda_max(H^{-1/2} H_F H^{-1/2}), in [0, 1)
    amplification   1 / (1 - kappa)                       by how much removing all exceeds the first order, at most
    canonical       singular values of h_RR^{-1/2} h_RF h_FF^{-1/2}, with h + epsilon I in place of h

The canonical correlations lie in [0, 1]; each belongs to one direction in the span of the gradients of F, and is 1
where R spans the same direction. Without epsilon they are 1 trivially as soon as R has more examples than the model has
parameters, so epsilon sets what counts as spanned: a direction of R below a leverage of about epsilon does not. With
the inverse of the whole matrix, the same for all forget sets, they need none of the block R,

    1 - rho^2 = eigenvalues of (h_FF + eps)^{-1/2} ([(h + eps)^{-1}]_FF)^{-1} (h_FF + eps)^{-1/2}

by the formula for the inverse of a partitioned matrix.

Sources: R. D. Cook and S. Weisberg, Residuals and Influence in Regression (1982), ch. 2-3 (leverage of subsets);
H. Hotelling, "Relations Between Two Sets of Variates" (1936), and for the ridge H. D. Vinod, "Canonical Ridge" (1976).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from expunge.core.checks import positive
from expunge.dependence.kernel import MemberKernel

EPSILON = 1e-2
"""Ridge of the canonical correlations, in units of leverage (from 0 to 1)."""


class Leverage(NamedTuple):
    """How much of the fit the forget set decides."""

    total: float
    """tr(H^{-1} H_F), from 0 to the number of examples of F."""
    kappa: float
    """Largest eigenvalue, from 0 to 1."""

    @property
    def amplification(self) -> float:
        """1 / (1 - kappa), at least 1; infinite where F alone decides a direction."""
        return 1 / (1 - self.kappa) if self.kappa < 1 else float("inf")


def leverage(member: MemberKernel, index: Tensor, columns: Tensor | None = None) -> Leverage:
    """Return the leverage of training examples in one member.

    Args:
        member: The member's kernel.
        index: Positions of the forget set (size,).
        columns: `member.columns(index)`, if at hand.
    """
    columns = member.columns(index) if columns is None else columns
    root = member.weight[index].sqrt()
    values = torch.linalg.eigvalsh(root[:, None] * columns[index] * root)
    return Leverage(float(values.sum()), min(1.0, max(0.0, float(values[-1]))))


def canonical_correlations(
    member: MemberKernel, index: Tensor, epsilon: float = EPSILON, columns: Tensor | None = None
) -> Tensor:
    """Return the canonical correlations between the gradients of F and of R in the metric of H^{-1}.

    Args:
        member: The member's kernel.
        index: Positions of the forget set (size,).
        epsilon: Ridge in units of leverage, above 0.
        columns: `member.columns(index)`, if at hand.

    Returns:
        Shape (size,), in descending order, from 0 to 1.
    """
    positive(epsilon=epsilon)
    columns = member.columns(index) if columns is None else columns
    root = member.weight[index].sqrt()
    own = root[:, None] * columns[index] * root
    return canonical_from_blocks(own, member.inverse_hat(index, epsilon), epsilon)


def canonical_from_blocks(own: Tensor, inverse: Tensor, epsilon: float) -> Tensor:
    """Return canonical correlations (size,) from h_FF and [(h + epsilon I)^{-1}]_FF, both (size, size)."""
    eye = torch.eye(len(own), dtype=own.dtype, device=own.device)
    factor = torch.linalg.cholesky(_symmetric(own) + epsilon * eye)
    # (h_FF + eps)^{-1/2} may be any square root: with L L^T = h_FF + eps, 1 - rho^2 are the eigenvalues of
    # (L^T inverse L)^{-1}.
    unexplained = 1 / torch.linalg.eigvalsh(_symmetric(factor.T @ inverse @ factor)).clamp_min(1.0)
    found: Tensor = (1 - unexplained).clamp(0.0, 1.0).sqrt().flip(0)
    return found


def _symmetric(matrix: Tensor) -> Tensor:
    return 0.5 * (matrix + matrix.T)
