"""Descent-to-delete: gradient descent on the retain set from the optimum, then noise that hides how far is left to go.

On an m-strongly convex, L-smooth mean loss of n rows, each M-Lipschitz, k of them forgotten, from the optimum of D,

    W <- W - 2 / (L + m) grad L_R(W) / |R|      I times        |W_I - W_R| <= gamma^I k M / (m |R|)
    gamma = (L - m) / (L + m)                                   published: W_I + N(0, sigma^2)

against W_R + N(0, sigma^2), which is what the task's own training publishes. That is the Gaussian mechanism with a
shift of mu = gamma^I k M / (m |R| sigma) standard deviations at most, converted exactly (`expunge.core.trade_off`).

Source: Neel, Roth and Sharifi-Malvajerdi, "Descent-to-Delete" (arXiv 2007.02923), Theorem 3.1, whose noise is
`descent_to_delete_sigma`. Differs from the source: the noise is that of the task, and epsilon follows from it; the
conversion is exact and epsilon smaller; any number of rows is forgotten at once; there is no projection, since the loss
is strongly convex everywhere. The noise that a model was published with is drawn from its seed, so the secret state
without it is known again, as the source's algorithm assumes; the state of an earlier request is found likewise.
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
from expunge.core.errors import InputError
from expunge.core.trade_off import gaussian_epsilon
from expunge.core.tree import clone
from expunge.methods.convex_problem import ROUNDING, ConvexMember, check_noise, convex_members, row_norm
from expunge.methods.method import Method, Need
from expunge.methods.problem import Checkpoint, Problem


@dataclass(frozen=True, kw_only=True)
class DescentToDelete(Method):
    """Descend on the retain set from the optimum, and publish with fresh noise."""

    steps: int = 100
    """Steps of gradient descent on all of R, the I of the paper, at least 1."""
    delta: float = 1e-5
    """Delta of the claim, above 0 and below 1."""

    name: ClassVar[str] = "descent_to_delete"
    label: ClassVar[str] = "Descent-to-delete"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "weights", "convex"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "statistics", "finite")
    certificate: ClassVar[str | None] = "(epsilon, delta) against retraining, where its assumptions hold"
    shown: ClassVar[tuple[str, ...]] = ("steps",)
    forecastable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        whole(steps=self.steps)
        between(1e-300, 1 - 1e-12, delta=self.delta)

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse a task without noise on the published weights."""
        check_noise(self.name, task, published=True)

    def planned_cost(self, forget: int, retain: int, epochs: int) -> float:
        """Return that every step is a pass over R."""
        return self.steps / epochs

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield the one result."""
        rows, found, claims = row_norm(problem), [], []
        for member in convex_members(problem, self.name):
            w = member.secret
            for _ in range(self.steps):
                w = w - 2 / (member.fit.smoothness() + member.fit.l2) * member.mean_gradient(w)
            found.append(w + member.fresh_noise())
            claims.append(self.claim(member, w, rows))
        problem.ledger.examples += self.steps * len(problem.retain)
        (name,) = problem.start.params
        params = {name: torch.stack(found).to(problem.start.params[name])}
        made = problem.stop(1, problem.start.with_state(params, clone(problem.start.buffers)))
        yield Checkpoint(made.epoch, made.ensemble, made.cost, made.facts, worst(claims))

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


@plain_arguments
def descent_to_delete_sigma(
    epsilon: float, delta: float, *, lipschitz: float, convexity: float, smoothness: float, examples: int, steps: int
) -> float:
    """Return the noise that the source asks for: `4 sqrt2 M gamma^I / (m n (1 - gamma^I) (sqrt(a + eps) - sqrt a))`.

    Args:
        epsilon: Above 0.
        delta: Above 0 and below 1; a = log(1/delta).
        lipschitz: M, above 0.
        convexity: m, above 0.
        smoothness: L, at least m.
        examples: n, at least 1.
        steps: I, at least 1.

    Source: arXiv 2007.02923, Theorem 3.1.

    >>> golden = {"lipschitz": 1.0, "convexity": 0.1, "smoothness": 0.35, "examples": 1000, "steps": 10}
    >>> round(descent_to_delete_sigma(1.0, 1e-3, **golden), 8)
    0.00086436
    """
    positive(epsilon=epsilon, lipschitz=lipschitz, convexity=convexity, smoothness=smoothness)
    between(1e-300, 1 - 1e-12, delta=delta)
    whole(examples=examples, steps=steps)
    if convexity > smoothness:
        raise InputError(f"convexity = {convexity}, smoothness = {smoothness}; expected convexity <= smoothness.")
    left = ((smoothness - convexity) / (smoothness + convexity)) ** steps
    a = math.log(1 / delta)
    return (
        4 * math.sqrt(2) * lipschitz * left
        / (convexity * examples * (1 - left) * (math.sqrt(a + epsilon) - math.sqrt(a)))
    )  # fmt: skip
