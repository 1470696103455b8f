"""Descent-to-delete: gradient descent on the retain set from the optimum, then noise that hides how far is left to go.

On an m-strongly convex, L-smooth mean loss of n rows, each M-Lipschitz, k of them forgotten, from the optimum of D,

    W <- W - 2 / (L + m) grad L_R(W) / |R|      I times        |W_I - W_R| <= gamma^I k M / (m |R|)
    gamma = (L - m) / (L + m)                                   published: W_I + N(0, sigma^2)

against W_R + N(0, sigma^2), which is what the task's own training publishes. That is the Gaussian mechanism with a
shift of mu = gamma^I k M / (m |R| sigma) standard deviations at most, converted exactly (`expunge.core.trade_off`).

Source: Neel, Roth and Sharifi-Malvajerdi, "Descent-to-Delete" (arXiv 2007.02923), Theorem 3.1. Differs from the
source: the noise is that of the task, and epsilon follows from it; the conversion is exact and epsilon smaller; any
number of rows is forgotten at once; there is no projection, since the loss is strongly convex everywhere. The noise
that a model was published with is drawn from its seed, so the secret state without it is known again, as the source's
algorithm assumes; the state of an earlier request is found likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.core import Recipe
from expunge.core.checks import between, whole
from expunge.core.claim import Assumption, Claim
from expunge.core.trade_off import gaussian_epsilon
from expunge.methods.convex_problem import ROUNDING, ConvexMember, ConvexMethod
from expunge.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class DescentToDelete(ConvexMethod):
    """Descend on the retain set from the optimum, and publish with fresh noise."""

    steps: int = 100
    """Steps of gradient descent on all of R, the I of the paper, at least 1."""
    delta: float = 1e-5
    """Delta of the claim, above 0 and below 1."""

    name: ClassVar[str] = "descent_to_delete"
    label: ClassVar[str] = "Descent-to-delete"
    shown: ClassVar[tuple[str, ...]] = ("steps",)

    def __post_init__(self) -> None:
        """Check the options."""
        whole(steps=self.steps)
        between(1e-300, 1 - 1e-12, delta=self.delta)

    def passes(self, epochs: int) -> int:
        """Every step is a pass."""
        return self.steps

    def removed(self, member: ConvexMember, rows: Assumption) -> tuple[Tensor, Claim]:
        """Take the steps, and publish with fresh noise."""
        w, rate = member.secret, 2 / (member.fit.smoothness() + member.fit.l2)
        for _ in range(self.steps):
            w = w - rate * member.mean_gradient(w)
        return w + member.fresh_noise(), self.claim(member, w, rows)

    def claim(self, member: ConvexMember, end: torch.Tensor, rows: Assumption) -> Claim:
        """Return what is certified of one member.

        Args:
            member: With its start.
            end: Its weights after the last step, without noise.
            rows: What was found of the norms of the rows.
        """
        fit = member.fit
        gamma = (fit.smoothness() - fit.l2) / (fit.smoothness() + fit.l2)
        away = member.moved_at_most()
        left = gamma**self.steps * away
        at_start, at_end = (float(member.mean_gradient(w).norm()) for w in (member.secret, end))
        return Claim(
            epsilon=gaussian_epsilon(left / fit.noise, self.delta),
            delta=self.delta,
            mechanism=f"Gaussian noise of {fit.noise:g} on the weights, {left:.3g} from the optimum of R at most",
            reference="retraining by the task's own fit",
            retraining=True,
            assumptions=[
                rows,
                *member.curvature(member.secret),
                # |grad| / m bounds the distance to the optimum from above, |grad| / L from below.
                Assumption(
                    name="distance of the start from the optimum of R",
                    value=at_start / fit.l2,
                    side="at most",
                    bound=away * (1 + ROUNDING),
                ),
                Assumption(
                    name="distance of the end from the optimum of R, seen from below",
                    value=at_end / fit.smoothness(),
                    side="at most",
                    bound=left + 1e-12,
                ),
                Assumption(name="random linear term of training", value=fit.perturbation, side="at most", bound=0.0),
            ],
        )

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return numbers of steps."""
        return [cls(steps=steps) for steps in (25, 50, 100, 200)]
