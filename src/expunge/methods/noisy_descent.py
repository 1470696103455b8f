"""Noisy descent: steps on the retain set with noise in every one, full batches (Langevin) or cyclic mini-batches.

    W <- W - step_size grad L_B(W) / |B| + N(0, sigma^2 I)        T steps, batches B of R in a fixed order

Of two models that start d apart and take the same batches a step leaves rho d, rho = 1 - step_size m for step_size up
to 2 / (L + m), and T noises hide the rest: a Gaussian trade-off with

    mu = rho^T d / (sigma sqrt(sum_k rho^2k))        k = 0 ... T - 1

From published weights W_D + Z against the same descent from W_R + Z, d is at most k M / (m |R|).

Sources: Chien et al., "Langevin unlearning" (arXiv 2401.10371) and noisy SGD (arXiv 2403.17105), whose Renyi bounds
are `langevin_renyi` and `noisy_sgd_renyi`; Bok, Su and Altschuler (arXiv 2403.00278) for the trade-off. Differs from
the sources: they train by the same noisy descent, so that their reference is retraining; here the models are those of
`ex.tasks.logistic`, and the reference is the same noisy descent from a retrained one. The trade-off is exact. There is
no projection: the constants hold everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from expunge.core import ForgetSet, Network, Recipe, Task
from expunge.core.checks import between, plain_arguments, positive, whole
from expunge.core.claim import Assumption, Claim, worst
from expunge.core.seeds import generator
from expunge.core.trade_off import gaussian_epsilon
from expunge.core.tree import clone
from expunge.methods.convex_problem import ROUNDING, ConvexMember, check_noise, convex_members, row_norm
from expunge.methods.method import Method, Need
from expunge.methods.problem import Checkpoint, Problem


@dataclass(frozen=True, kw_only=True)
class NoisyDescent(Method):
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
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "weights", "convex"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "statistics", "finite")
    certificate: ClassVar[str | None] = "(epsilon, delta) against the same descent from a retrained model"
    shown: ClassVar[tuple[str, ...]] = ("epochs",)
    forecastable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        whole(epochs=self.epochs)
        if self.batch_size is not None:
            whole(batch_size=self.batch_size)
        positive(sigma=self.sigma)
        between(1e-300, 1 - 1e-12, delta=self.delta)

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse a task without noise on the published weights."""
        check_noise(self.name, task, published=True)

    def planned_cost(self, forget: int, retain: int, epochs: int) -> float:
        """Return the passes over R."""
        return self.epochs / epochs

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield the one result."""
        rows, found, claims = row_norm(problem), [], []
        for member in convex_members(problem, self.name):
            w, draws, kept = member.start, generator(member.seed, "noisy descent"), len(member.x)
            rate = 2 / (member.fit.smoothness() + member.fit.l2)
            order = torch.randperm(kept, generator=generator(member.seed, "batches"))
            parts = torch.split(order, self.batch_size or kept)
            for _ in range(self.epochs):
                for part in parts:
                    slope = member.fit.gradient(w, member.x[part], member.y[part]) / len(part)
                    w = w - rate * slope + self.sigma * torch.randn(w.shape, generator=draws, dtype=w.dtype)
            found.append(w)
            claims.append(self.claim(member, rows, rate, self.epochs * len(parts)))
        problem.ledger.examples += self.epochs * len(problem.retain)
        (name,) = problem.start.params
        params = {name: torch.stack(found).to(problem.start.params[name])}
        made = problem.stop(1, problem.start.with_state(params, clone(problem.start.buffers)))
        yield Checkpoint(made.epoch, made.ensemble, made.cost, made.facts, worst(claims))

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


@plain_arguments
def langevin_renyi(
    order: float, *, groups: int, lipschitz: float, convexity: float, sigma: float, examples: int, rate: float,
    steps: int,
) -> float:  # fmt: skip
    """Return the Renyi divergence `exp(-K m eta / alpha) 4 alpha S^2 M^2 / (m sigma^2 n^2)` after K Langevin steps.

    Args:
        order: alpha, above 0.
        groups: S, rows that leave.
        lipschitz: M.
        convexity: m.
        sigma: Noise of the diffusion; a step adds `sqrt(2 rate) sigma`.
        examples: n.
        rate: eta.
        steps: K, at least 0.

    Source: arXiv 2401.10371. It must be turned into epsilon order by order: `min over alpha of this + log(1/delta) /
    (alpha - 1)`.

    >>> golden = dict(groups=1, lipschitz=1.0, convexity=0.1, sigma=0.05, examples=1000, rate=1 / 0.35)
    >>> round(langevin_renyi(10.0, **golden, steps=1), 6)
    0.155493
    """
    positive(order=order, lipschitz=lipschitz, convexity=convexity, sigma=sigma, rate=rate)
    whole(groups=groups, examples=examples)
    whole(0, steps=steps)
    start = 4 * order * groups**2 * lipschitz**2 / (convexity * sigma**2 * examples**2)
    return math.exp(-steps * convexity * rate / order) * start


@plain_arguments
def noisy_sgd_renyi(
    order: float, *, lipschitz: float, convexity: float, sigma: float, examples: int, batch_size: int, rate: float,
    epochs: int,
) -> float:  # fmt: skip
    """Return the Renyi divergence `alpha Z^2 / (2 eta sigma^2) c^(2 K n / b)` after K epochs of noisy cyclic SGD.

    Z = 2 eta M / (b (1 - c^(n/b))) bounds the distance of two trained models, and c = 1 - eta m.

    Args:
        order: alpha, above 0.
        lipschitz: M.
        convexity: m.
        sigma: Noise of the diffusion; a step adds `sqrt(2 rate) sigma`.
        examples: n.
        batch_size: b, at most n.
        rate: eta, with eta m below 1.
        epochs: K, at least 0.

    Source: arXiv 2403.17105.

    >>> golden = dict(lipschitz=1.0, convexity=0.1, sigma=0.05, examples=1000, rate=1 / 0.35)
    >>> round(noisy_sgd_renyi(10.0, **golden, batch_size=1000, epochs=1), 6)
    0.142857
    """
    positive(order=order, lipschitz=lipschitz, convexity=convexity, sigma=sigma, rate=rate)
    whole(examples=examples, batch_size=batch_size)
    whole(0, epochs=epochs)
    turns, c = examples / batch_size, 1 - rate * convexity
    z = 2 * rate * lipschitz / (batch_size * (1 - c**turns))
    return float(order * z**2 / (2 * rate * sigma**2) * c ** (2 * epochs * turns))
