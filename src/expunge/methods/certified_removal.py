"""Certified removal: Newton steps on the retain set, and noise that hides the gradient they leave.

From any weights, with s = -H^-1 g for gradient g and Hessian H of L_R (sums over R, with the random linear term B),

    W <- W + s    `steps` times        |grad L_R(W)| <= beta = gamma/2 |X|_2 sqrt(sum_i |s x_i|^4)    after the last

since the Hessian by the outputs of a row is gamma-Lipschitz. What beta is worth depends on the noise of the task:

    noise on the weights    |W - W_R| <= beta / (m |R|), a Gaussian shift of mu = beta / (m |R| sigma), exactly
    perturbation B          W is the optimum that B - u would have, |u| <= beta; with |B| <= r but for a chance of delta
                            (the chi quantile), epsilon = (2 r beta + beta^2) / (2 sigma^2)

Source: Guo, Goldstein, Hannun and van der Maaten (arXiv 1911.03030): one step, Theorem 1 and Corollary 2 for the
residual, Theorem 3 for the perturbation, whose noise is `certified_removal_sigma`. Differs from the source: the bound
is tighter, and needs no norm of rows; g is the whole gradient of R, not that of the rows that leave, so that residuals
of earlier requests are removed and not added up, and a start that is no optimum does no harm; each request is held to
the budget of its own. The source's constant sqrt(2 log(1.5 / delta)) is that of a shift fixed before the noise is
drawn; the residual depends on B, so the worst direction is taken here, and the loss that the drawn B really had is an
assumption that is checked. As in the source's proof, that u changes volumes a little is left out; the exact way is
noise on the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import scipy
import torch
from torch import Tensor

from expunge.core import ForgetSet, Network, Recipe, Task
from expunge.core.checks import between, non_negative, plain_arguments, positive, whole
from expunge.core.claim import Assumption, Claim, worst
from expunge.core.convex import HESSIAN_LIPSCHITZ
from expunge.core.trade_off import gaussian_epsilon
from expunge.core.tree import clone
from expunge.methods.convex_problem import ConvexMember, check_noise, convex_members
from expunge.methods.method import Method, Need
from expunge.methods.problem import Checkpoint, Problem


@dataclass(frozen=True, kw_only=True)
class CertifiedRemoval(Method):
    """Take Newton steps on the retain set, and bound the gradient that they leave."""

    steps: int = 2
    """Newton steps, at least 1 (paper: 1)."""
    budget: float = 1.0
    """Largest epsilon that one request may cost; above it nothing is certified, and retraining is due."""
    delta: float = 1e-5
    """Delta of the claim, above 0 and below 1."""

    name: ClassVar[str] = "certified_removal"
    label: ClassVar[str] = "Certified removal"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "weights", "convex"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "statistics", "finite")
    certificate: ClassVar[str | None] = "(epsilon, delta) against retraining, where its assumptions hold"
    shown: ClassVar[tuple[str, ...]] = ("steps",)
    forecastable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        whole(steps=self.steps)
        non_negative(budget=self.budget)
        between(1e-300, 1 - 1e-12, delta=self.delta)

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse a task without any noise."""
        check_noise(self.name, task, published=False)

    def planned_cost(self, forget: int, retain: int, epochs: int) -> float:
        """Return that every step is a pass over R, as those of training are."""
        return self.steps / epochs

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield the one result."""
        found, claims = [], []
        for member in convex_members(problem, self.name):
            w, bound = member.secret, math.nan
            for _ in range(self.steps):
                w, bound = newton_step(member, w)
            found.append(w + member.fresh_noise())
            claims.append(self.claim(member, w, bound))
        problem.ledger.examples += self.steps * len(problem.retain)
        (name,) = problem.start.params
        params = {name: torch.stack(found).to(problem.start.params[name])}
        made = problem.stop(1, problem.start.with_state(params, clone(problem.start.buffers)))
        yield Checkpoint(made.epoch, made.ensemble, made.cost, made.facts, worst(claims))

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


@plain_arguments
def certified_removal_sigma(epsilon: float, delta: float, *, residual: float) -> float:
    """Return the perturbation that the source asks for: `residual sqrt(2 log(1.5 / delta)) / epsilon`.

    Args:
        epsilon: Above 0.
        delta: Above 0 and below 1.
        residual: Bound on the norm of the summed gradient, at least 0.

    Source: arXiv 1911.03030, Theorem 3.

    >>> round(certified_removal_sigma(1.0, 1e-4, residual=1.0), 4)
    4.3854
    """
    positive(epsilon=epsilon)
    between(1e-300, 1 - 1e-12, delta=delta)
    non_negative(residual=residual)
    return residual * math.sqrt(2 * math.log(1.5 / delta)) / epsilon


@plain_arguments
def worst_residual(hessian_lipschitz: float, lipschitz: float, l2: float, examples: int) -> float:
    """Return the source's bound for one row, whatever the data: `4 gamma C^2 / (l2^2 (n - 1))`.

    Args:
        hessian_lipschitz: gamma, at least 0.
        lipschitz: C, the Lipschitz constant of the loss of a row, at least 0.
        l2: Regularisation of each row, above 0.
        examples: n, at least 2.

    Source: arXiv 1911.03030, Theorem 1.

    >>> round(worst_residual(0.25, 1.0, 0.1, 101), 6)
    1.0
    """
    non_negative(hessian_lipschitz=hessian_lipschitz, lipschitz=lipschitz)
    positive(l2=l2)
    whole(2, examples=examples)
    return 4 * hessian_lipschitz * lipschitz**2 / (l2**2 * (examples - 1))
