"""Newton's step, the removal of F's influence: solve for what the optimum does when the rows of F leave.

With L_S(theta) = sum over S of [ l_i + wd/2 |theta|^2 ] and a curvature G of L_R at the start, damped,

    theta <- theta + (G / |R| + damping I)^-1  sum_F [ grad l_i + wd theta ] / |R|      gradient = "forget"
    theta <- theta - (G / |R| + damping I)^-1  grad L_R(theta) / |R|                    gradient = "retain"

The two are one at an optimum of L_D; elsewhere the second also trains on R. G is the Gauss-Newton matrix `ggn`, which
is never indefinite, or the `hessian`. It is never formed: conjugate gradients take products with it, and what they
leave of the equation, its relative residual, is checked. wd is the recipe's weight decay (of a `ConvexFit` its l2).
For a quadratic loss without damping the step is exact.

Sources: Guo et al. (arXiv 1911.03030), equation 3; Koh and Liang (arXiv 1703.04730) for influence; Martens, "Deep
learning via Hessian-free optimization" (ICML 2010) for products and damping. Differs from the sources: influence
functions take the curvature on D, here it is that on R; public code that meets negative curvature, or no convergence,
goes on with the plain gradient of F, which is one step of ascent: here indefinite curvature is refused, and steps that
did not converge fail a check. Gradients are taken with stored normalisation statistics and without dropout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from expunge.core import ForgetSet, InputError, Network, Recipe, Task
from expunge.core.checks import between, non_negative, whole
from expunge.core.convex import ConvexFit
from expunge.core.stopping import check_stopped
from expunge.core.tree import clone
from expunge.ensembles.example_gradients import check_separable
from expunge.ensembles.flat import FlatStack
from expunge.methods.method import Method, Need
from expunge.methods.problem import Checkpoint, Problem


@dataclass(frozen=True, kw_only=True)
class Newton(Method):
    """Remove the influence of the forget set by one damped Newton step."""

    damping: float = 0.1
    """Added to the curvature of the mean loss, at least 0."""
    steps: int = 50
    """Products with the curvature at most, at least 1."""
    tolerance: float = 1e-3
    """Relative residual at which the equation counts as solved, above 0 and below 1."""
    curvature: Literal["ggn", "hessian"] = "ggn"
    """Which matrix; the Hessian has to be positive definite with the damping."""
    gradient: Literal["forget", "retain"] = "forget"
    """What is solved for: the gradients of F that leave, or the whole gradient of R."""

    name: ClassVar[str] = "newton"
    label: ClassVar[str] = "Newton step"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "forget", "weights"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite", "visited", "solved")
    shown: ClassVar[tuple[str, ...]] = ("damping",)
    forecastable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        non_negative(damping=self.damping)
        whole(steps=self.steps)
        between(1e-15, 1 - 1e-15, tolerance=self.tolerance)

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse a model in which an example has no gradient of its own."""
        check_separable(network)

    def planned_cost(self, forget: int, retain: int, epochs: int) -> float:
        """Return one gradient and `steps` products, each twice a forward and backward pass over R."""
        return (forget + (self.gradient == "retain") * retain + 2 * self.steps * retain) / (retain * epochs)

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield the one result."""
        start, device = problem.start, problem.x.device
        stack, rows, gone = FlatStack(start), problem.retain.to(device), problem.forget.to(device)
        kept = len(rows)
        decay = problem.task.fit.l2 if isinstance(problem.task.fit, ConvexFit) else problem.recipe.weight_decay
        if self.gradient == "forget":
            pull = stack.gradient(problem.x[gone], problem.y[gone]) + decay * len(gone) * stack.flat
        else:
            pull = -stack.gradient(problem.x[rows], problem.y[rows]) - decay * kept * stack.flat
            problem.ledger.examples += kept
        problem.visit(problem.forget)

        def product(v: Tensor) -> Tensor:
            return (
                stack.product(problem.x[rows], problem.y[rows], v, self.curvature) / kept + (self.damping + decay) * v
            )

        step, residual = conjugate_gradients(product, pull / kept, self.steps, self.tolerance)
        # Whoever has converged waits for the others of its chunk: the price is that of all steps, whatever the chunk.
        problem.ledger.examples += 2 * self.steps * kept
        params = {**clone(start.params), **stack.unflatten(stack.flat + step)}
        made = problem.stop(1, start.with_state(params, clone(start.buffers)))
        facts = {"residual": residual.cpu(), "solved-at": torch.full((len(start),), self.tolerance)}
        yield Checkpoint(made.epoch, made.ensemble, made.cost, {**made.facts, **facts})

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return dampings from that of hardly a step to that of a long one."""
        return [cls(damping=damping) for damping in (10.0, 1.0, 0.1, 0.01)]


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], b: Tensor, steps: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Return x with A x = b for each member, and the relative residuals |A x - b| / |b| (members,).

    Args:
        product: v -> A v, (members, parameters); A symmetric and positive definite.
        b: Right-hand sides (members, parameters).
        steps: Products at most.
        tolerance: Relative residual at which a member stays where it is.

    Raises:
        InputError: If A is not positive definite along a direction that is met.
    """
    x, r = torch.zeros_like(b), b.clone()
    p, length = r.clone(), _dot(b, b)
    now = length.clone()
    for _ in range(steps):
        check_stopped()
        moving = now > tolerance**2 * length  # not where a member is 0 or NaN already
        if not bool(moving.any()):
            break
        ap = product(p)
        bend = _dot(p, ap)
        if bool((moving & (bend <= 0)).any()):
            worst = float((bend / _dot(p, p))[moving].min())
            raise InputError(
                f"the curvature is {worst:.3g} along a direction that Newton's equation needs, so its solution is no "
                f"minimum; raise damping by more than {abs(worst):.3g}, or write curvature='ggn', which is never "
                "negative."
            )
        rate = torch.where(moving, now / bend, torch.zeros_like(now)).to(b)[:, None]
        x, r = x + rate * p, r - rate * ap
        after = torch.where(moving, _dot(r, r), now)
        turn = torch.where(moving, after / now, torch.zeros_like(now)).to(b)[:, None]
        p = torch.where(moving[:, None], r + turn * p, p)
        now = after
    left = torch.where(length > 0, (now / length).sqrt(), torch.zeros_like(now))
    return torch.where(torch.isfinite(length)[:, None], x, torch.full_like(x, torch.nan)), left


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() * b.double()).sum(1)
