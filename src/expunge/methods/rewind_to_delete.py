"""Rewind-to-delete: back to an earlier step of full-batch descent, on from there on the retain set, and noise.

Training takes T steps of gradient descent on the mean loss of all n rows D, from 0, and publishes with noise; k of the
rows are to go:

    w_{t+1} = w_t - eta grad L_D(w_t)         t = 0 ... T - 1         training
    v_{t+1} = v_t - eta grad L_R(v_t)         v_0 = w_0               retraining, to which the result is compared
    u_{t+1} = u_t - eta grad L_R(u_t)         u_{T-K} = w_{T-K}       the method: K steps on R, then fresh noise

grad L_D - grad L_R is k/n (grad L_F - grad L_R), at most k/n 2 G long where the loss of a row has gradients of at most
G (regularisation cancels). On an m-strongly convex, L-smooth loss a step of eta <= 2 / (L + m) on R draws two points
together by rho = 1 - eta m, so that

    |w_{T-K} - v_{T-K}| <= 2 G k / (n m) (1 - rho^(T-K))          |u_T - v_T| <= rho^K 2 G k / (n m) (1 - rho^(T-K))

and noise of sigma on both makes that a Gaussian shift, converted exactly (`expunge.core.trade_off`). K = T is
retraining, with a shift of 0. Here G = sqrt 2, for rows of norm at most 1.

Source: Mu and Klabjan, "Rewind-to-Delete" (arXiv 2409.09778). This is the strongly convex case, which can be checked
on `ex.tasks.logistic(steps=T)`; for losses that are only smooth, their bound has (1 + eta L) in the place of rho and
grows with every step. Differs from the source: the shift is bounded step by step as above, which is tighter than their
bound; the noise is that of the task, and epsilon follows from it. The state T - K steps in counts as kept while
training, which takes room and no steps; it is made again from the data, since the steps draw nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.core import Recipe
from expunge.core.checks import between
from expunge.core.claim import Assumption, Claim
from expunge.core.convex import LOSS_LIPSCHITZ, ConvexFit
from expunge.core.trade_off import gaussian_epsilon
from expunge.methods.convex_problem import ROUNDING, ConvexMember, ConvexMethod
from expunge.methods.method import Method, Need


@dataclass(frozen=True, kw_only=True)
class RewindToDelete(ConvexMethod):
    """Go back to an earlier step of training, take the others on the retain set, and publish with fresh noise."""

    share: float = 0.5
    """Share of the training steps after which the state was kept, 0 to 1; rounded to whole steps."""
    delta: float = 1e-5
    """Delta of the claim, above 0 and below 1."""

    name: ClassVar[str] = "rewind_to_delete"
    label: ClassVar[str] = "Rewind-to-delete"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "weights", "convex_descent"})
    shown: ClassVar[tuple[str, ...]] = ("share",)

    def __post_init__(self) -> None:
        """Check the options."""
        between(0.0, 1.0, share=self.share)
        between(1e-300, 1 - 1e-12, delta=self.delta)

    def first(self, steps: int) -> int:
        """Return T - K, the step that is gone back to, of so many."""
        return round(self.share * steps)

    def passes(self, epochs: int) -> int:
        """Return K: an epoch of such a task is a step."""
        return epochs - self.first(epochs)

    def removed(self, member: ConvexMember, rows: Assumption) -> tuple[Tensor, Claim]:
        """Go on from the state that was kept, and publish with fresh noise."""
        fit = member.fit
        assert fit.steps is not None
        first = self.first(fit.steps)
        w, apart = torch.zeros_like(member.start), 0.0
        for _ in range(first):
            on_all = fit.gradient(w, member.all_x, member.all_y, member.linear) / len(member.all_x)
            apart = max(apart, float((on_all - member.mean_gradient(w)).norm()))
            w = w - fit.step_size * on_all
        end = fit.descended(w, member.x, member.y, member.linear, fit.steps - first)
        return end + member.fresh_noise(), self.claim(member, apart, rows)

    def claim(self, member: ConvexMember, apart: float, rows: Assumption) -> Claim:
        """Return what is certified of one member.

        Args:
            member: With the rows.
            apart: The largest distance of the gradients on D and on R that a step met.
            rows: What was found of the norms of the rows.
        """
        fit = member.fit
        assert fit.steps is not None
        left = shift(fit, len(member.all_x), len(member.all_x) - len(member.x), self.first(fit.steps))
        return Claim(
            epsilon=gaussian_epsilon(left / fit.noise, self.delta),
            delta=self.delta,
            mechanism=f"Gaussian noise of {fit.noise:g} on the weights, {left:.3g} from retraining at most",
            reference="retraining by the task's own fit",
            retraining=True,
            assumptions=[
                rows,
                *member.curvature(torch.zeros_like(member.start)),  # where the loss is steepest
                Assumption(
                    name="step size",
                    value=fit.step_size,
                    side="at most",
                    bound=2 / (fit.smoothness() + fit.l2) * (1 + ROUNDING),
                ),
                Assumption(
                    name="distance of the gradients on all rows and on R, along the path",
                    value=apart,
                    side="at most",
                    bound=most_apart(len(member.all_x), len(member.all_x) - len(member.x)) * (1 + ROUNDING),
                ),
                Assumption(name="random linear term of training", value=fit.perturbation, side="at most", bound=0.0),
            ],
        )

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return states from a tenth to three quarters of the steps, each another step than the first and the last."""
        shares = {cls(share=share).first(recipe.epochs): share for share in (0.1, 0.25, 0.5, 0.75)}
        found = [cls(share=share) for step, share in shares.items() if 0 < step < recipe.epochs]
        return found or [cls(share=0.0)]  # of a single step


def most_apart(rows: int, forget: int) -> float:
    """Return how far the mean gradients on all rows and on R can be apart at any weights: 2 G k / n."""
    return 2 * LOSS_LIPSCHITZ * forget / rows


def shift(fit: ConvexFit, rows: int, forget: int, first: int) -> float:
    """Return how far the weights can be from those of retraining, without noise: rho^K 2 G k / (n m) (1 - rho^(T-K)).

    Args:
        fit: With the steps T, their size, and l2, which is m.
        rows: All rows n.
        forget: Rows k that are forgotten.
        first: Steps T - K that were taken on all rows.
    """
    assert fit.steps is not None
    rho = max(0.0, 1 - fit.step_size * fit.l2)  # below 0 no step contracts, and nothing is claimed
    apart = most_apart(rows, forget) / fit.l2 * (1 - rho**first)
    return float(rho ** (fit.steps - first) * apart)
