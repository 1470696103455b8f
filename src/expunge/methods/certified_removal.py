"""Certified removal: Newton steps on the retain set, and noise that hides the gradient they leave.

From any weights, with s = -H^-1 g for gradient g and Hessian H of L_R (sums over R, with the random linear term B),

    W <- W + s    `steps` times        |grad L_R(W)| <= beta = gamma/2 |X|_2 sqrt(sum_i |s x_i|^4)    after the last

since the Hessian by the outputs of a row is gamma-Lipschitz. What beta is worth depends on the noise of the task:

    noise on the weights    |W - W_R| <= beta / (m |R|), a Gaussian shift of mu = beta / (m |R| sigma), exactly
    perturbation B          W is the optimum that B - u would have, |u| <= beta; with |B| <= r but for a chance of delta
                            (the chi quantile), epsilon = (2 r beta + beta^2) / (2 sigma^2)

Source: Guo, Goldstein, Hannun and van der Maaten (arXiv 1911.03030): one step, Theorem 1 and Corollary 2 for the
residual, Theorem 3 for the perturbation. Differs from the source: the bound
is tighter, and needs no norm of rows; g is the whole gradient of R, not that of the rows that leave, so that residuals
of earlier requests are removed and not added up, and a start that is no optimum does no harm; each request is held to
the budget of its own. The source's constant sqrt(2 log(1.5 / delta)) is that of a shift fixed before the noise is
drawn; the residual depends on B, so the worst direction is taken here, and the loss that the drawn B really had is an
assumption that is checked. As in the source's proof, that u changes volumes a little is left out; the exact way is
noise on the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import scipy
import torch
from torch import Tensor

from expunge.core import Recipe
from expunge.core.checks import between, non_negative, whole
from expunge.core.claim import Assumption, Claim
from expunge.core.convex import HESSIAN_LIPSCHITZ
from expunge.core.trade_off import gaussian_epsilon
from expunge.methods.convex_problem import ConvexMember, ConvexMethod
from expunge.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class CertifiedRemoval(ConvexMethod):
    """Take Newton steps on the retain set, and bound the gradient that they leave."""

    steps: int = 2
    """Newton steps, at least 1 (paper: 1)."""
    budget: float = 1.0
    """Largest epsilon that one request may cost; above it nothing is certified, and retraining is due."""
    delta: float = 1e-5
    """Delta of the claim, above 0 and below 1."""

    name: ClassVar[str] = "certified_removal"
    label: ClassVar[str] = "Certified removal"
    shown: ClassVar[tuple[str, ...]] = ("steps",)
    published: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        whole(steps=self.steps)
        non_negative(budget=self.budget)
        between(1e-300, 1 - 1e-12, delta=self.delta)

    def passes(self, epochs: int) -> int:
        """Every step is a pass."""
        return self.steps

    def removed(self, member: ConvexMember, rows: Assumption) -> tuple[Tensor, Claim]:
        """Take the steps, and bound what they leave; norms of rows are not needed."""
        w, bound = member.secret, math.nan
        for _ in range(self.steps):
            w, bound = newton_step(member, w)
        return w + member.fresh_noise(), self.claim(member, w, bound)

    def claim(self, member: ConvexMember, end: Tensor, bound: float) -> Claim:
        """Return what is certified of one member.

        Args:
            member: With its start.
            end: Its weights after the last step, without noise on them.
            bound: Beta, of the gradient that is left.
        """
        fit, left = member.fit, member.mean_gradient(end) * len(member.x)
        assumptions = [
            member.curvature(end)[0],
            Assumption(name="gradient that is left", value=float(left.norm()), side="at most", bound=bound + 1e-9),
        ]
        # Rounding, and the gradient that training itself leaves, are part of what has to be hidden.
        bound = bound + 2e-9 * len(member.x)
        if fit.noise:
            away = bound / (fit.l2 * len(member.x))
            epsilon = gaussian_epsilon(away / fit.noise, self.delta)
            mechanism = f"Gaussian noise of {fit.noise:g} on the weights, {away:.3g} from the optimum of R at most"
        else:
            sigma = fit.perturbation
            longest = sigma * float(scipy.stats.chi.isf(self.delta, left.numel()))
            epsilon = (2 * longest * bound + bound**2) / (2 * sigma**2)
            mechanism = f"a random linear term of {sigma:g} in training, gradient of {bound:.3g} left at most"
            loss = float((2 * (member.linear * left).sum() - left.square().sum()).abs()) / (2 * sigma**2)
            assumptions.append(
                Assumption(name="loss that the drawn linear term had", value=loss, side="at most", bound=epsilon)
            )
        assumptions.append(Assumption(name="epsilon", value=epsilon, side="at most", bound=self.budget))
        return Claim(
            epsilon=epsilon,
            delta=self.delta,
            mechanism=mechanism,
            reference="retraining by the task's own fit",
            retraining=True,
            assumptions=assumptions,
        )

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return numbers of steps."""
        return [cls(steps=steps) for steps in (1, 2, 3)]


def newton_step(member: ConvexMember, w: Tensor) -> tuple[Tensor, float]:
    """Return the weights after one Newton step on R, and the bound on the norm of the summed gradient there.

    Args:
        member: Whose loss.
        w: Weights without noise on them (classes, inputs).
    """
    g = member.fit.gradient(w, member.x, member.y, member.linear)
    s = -torch.linalg.solve(member.fit.hessian(w, member.x), g.flatten()).view_as(w)
    moved = (member.x @ s.T).square().sum(1)
    largest = float(torch.linalg.matrix_norm(member.x, 2))
    return w + s, HESSIAN_LIPSCHITZ / 2 * largest * float(moved.norm())
