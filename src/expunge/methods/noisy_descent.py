"""Noisy descent: steps on the retain set with noise in every one, full batches (Langevin) or cyclic mini-batches.

    W <- W - step_size grad L_B(W) / |B| + N(0, sigma^2 I)        T steps, batches B of R in a fixed order

Of two models that start d apart and take the same batches a step leaves rho d, rho = 1 - step_size m for step_size up
to 2 / (L + m), and T noises hide the rest: a Gaussian trade-off with

    mu = rho^T d / (sigma sqrt(sum_k rho^2k))        k = 0 ... T - 1

From published weights W_D + Z against the same descent from W_R + Z, d is at most k M / (m |R|).

Sources: Chien et al., "Langevin unlearning" (arXiv 2401.10371) and noisy SGD (arXiv 2403.17105); Bok, Su and Altschuler
(arXiv 2403.00278) for the trade-off. Differs from the sources: they train by the same noisy descent, so that their
reference is retraining; here the models are those of `ex.tasks.logistic`, and the reference is the same noisy descent
from a retrained one. The trade-off is exact, where theirs is a Renyi bound. There is no projection: the constants hold
everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.core import Recipe
from expunge.core.checks import between, positive, whole
from expunge.core.claim import Assumption, Claim
from expunge.core.seeds import generator
from expunge.core.trade_off import gaussian_epsilon
from expunge.methods.convex_problem import ROUNDING, ConvexMember, ConvexMethod
from expunge.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class NoisyDescent(ConvexMethod):
    """Descend on the retain set with noise in every step."""

    epochs: int = 20
    """Passes over R, at least 1."""
    batch_size: int | None = None
    """Rows of a batch, in a fixed order that the seed draws; None is all of R (Langevin)."""
    sigma: float = 0.02
    """Standard deviation of the noise of each step on every weight, above 0."""
    delta: float = 1e-5
    """Delta of the claim, above 0 and below 1."""

    name: ClassVar[str] = "noisy_descent"
    label: ClassVar[str] = "Noisy descent"
    certificate: ClassVar[str | None] = "(epsilon, delta) against the same descent from a retrained model"
    shown: ClassVar[tuple[str, ...]] = ("epochs",)

    def __post_init__(self) -> None:
        """Check the options."""
        whole(epochs=self.epochs)
        if self.batch_size is not None:
            whole(batch_size=self.batch_size)
        positive(sigma=self.sigma)
        between(1e-300, 1 - 1e-12, delta=self.delta)

    def passes(self, epochs: int) -> int:
        """Every epoch is one."""
        return self.epochs

    def removed(self, member: ConvexMember, rows: Assumption) -> tuple[Tensor, Claim]:
        """Take the steps, each with its noise."""
        w, draws, kept = member.start, generator(member.seed, "noisy descent"), len(member.x)
        rate = 2 / (member.fit.smoothness() + member.fit.l2)
        order = torch.randperm(kept, generator=generator(member.seed, "batches"))
        parts = torch.split(order, self.batch_size or kept)
        for _ in range(self.epochs):
            for part in parts:
                slope = member.fit.gradient(w, member.x[part], member.y[part]) / len(part)
                w = w - rate * slope + self.sigma * torch.randn(w.shape, generator=draws, dtype=w.dtype)
        return w, self.claim(member, rows, rate, self.epochs * len(parts))

    def claim(self, member: ConvexMember, rows: Assumption, rate: float, steps: int) -> Claim:
        """Return what is certified of one member.

        Args:
            member: With its start.
            rows: What was found of the norms of the rows.
            rate: Step size.
            steps: Steps that were taken.
        """
        fit = member.fit
        rho = 1 - rate * fit.l2
        away = member.moved_at_most()
        mu = rho**steps * away / (self.sigma * math.sqrt(math.fsum(rho ** (2 * k) for k in range(steps))))
        return Claim(
            epsilon=gaussian_epsilon(mu, self.delta),
            delta=self.delta,
            mechanism=f"{steps} steps with Gaussian noise of {self.sigma:g} on every weight",
            reference="the same noisy descent from a retrained model (not retraining)",
            retraining=False,
            assumptions=[
                rows,
                *member.curvature(member.secret),
                Assumption(
                    name="distance of the start's optimum from that of R",
                    value=float(member.mean_gradient(member.secret).norm()) / fit.l2,
                    side="at most",
                    bound=away * (1 + ROUNDING),
                ),
                Assumption(name="random linear term of training", value=fit.perturbation, side="at most", bound=0.0),
            ],
        )

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return numbers of passes."""
        return [cls(epochs=epochs) for epochs in (5, 20, 80)]
