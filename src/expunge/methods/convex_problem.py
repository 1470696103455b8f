"""What certified methods share: the strongly convex problem of a member, its constants, and how results come out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from expunge.core import ForgetSet, InputError, Network, Task
from expunge.core.claim import Assumption, Claim, worst
from expunge.core.convex import ConvexFit
from expunge.core.seeds import derive
from expunge.core.tree import clone
from expunge.ensembles.own_loop import fit_seed, member_seeds
from expunge.methods.method import Method, Need
from expunge.methods.problem import Checkpoint, Problem

ROUNDING = 1e-9
"""What a bound may be exceeded by rounding."""


@dataclass(frozen=True)
class ConvexMember:
    """One pretrained member, and the retain set that its loss is to be solved on."""

    fit: ConvexFit
    start: Tensor
    """W as it was published, noise included, (classes, inputs), float64."""
    linear: Tensor
    """B, the random linear term of its training."""
    noise: Tensor
    """Z, the noise that it was published with."""
    x: Tensor
    """Retain inputs (rows, inputs)."""
    y: Tensor
    """Retain classes (rows,)."""
    all_x: Tensor
    """Training inputs, those that are forgotten included."""
    all_y: Tensor
    """Training classes, likewise."""
    forget: int
    """Rows that are forgotten."""
    seed: int
    """Of this run and member, for noise of its own."""

    @property
    def secret(self) -> Tensor:
        """W without its noise."""
        return self.start - self.noise

    def mean_gradient(self, w: Tensor) -> Tensor:
        """Return the gradient of L_R / |R| at some weights."""
        return self.fit.gradient(w, self.x, self.y, self.linear) / len(self.x)

    def fresh_noise(self) -> Tensor:
        """Return noise for the weights that will be published, independent of that of the start."""
        return self.fit.drawn(self.seed, self.start)[1]

    def moved_at_most(self) -> float:
        """Return k M / ((n - k) m), which bounds how far the optimum of D is from that of R; without B.

        At the optimum of D the gradients of R sum up to minus those of the k rows of F, each at most M long.
        """
        return self.forget * self.fit.lipschitz(self.weight_bound()) / (len(self.x) * self.fit.l2)

    def weight_bound(self) -> float:
        """Return the largest norm of an optimum without B: l2 |W| is at most sqrt 2, and l2/2 |W|^2 at most log K."""
        return min(math.sqrt(2) / self.fit.l2, math.sqrt(2 * math.log(len(self.start)) / self.fit.l2))

    def curvature(self, w: Tensor) -> tuple[Assumption, Assumption]:
        """Return strong convexity and smoothness of the mean loss on R as they were found at some weights."""
        values = torch.linalg.eigvalsh(self.fit.hessian(w, self.x)) / len(self.x)
        slack = ROUNDING * self.fit.smoothness()
        return (
            Assumption(
                name="strong convexity found", value=float(values[0]) + slack, side="at least", bound=self.fit.l2
            ),
            Assumption(
                name="smoothness found", value=float(values[-1]) - slack, side="at most", bound=self.fit.smoothness()
            ),
        )


class ConvexMethod(Method):
    """Base of certified methods for `ex.tasks.logistic`: one result, a member at a time, each with its claim."""

    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "weights", "convex"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "statistics", "finite")
    certificate: ClassVar[str | None] = "(epsilon, delta) against retraining, where its assumptions hold"
    forecastable: ClassVar[bool] = False
    published: ClassVar[bool] = True
    """Whether the models must have noise on their weights; else a random linear term in training will do."""

    def passes(self, epochs: int) -> int:
        """Return the passes over R that it takes.

        Args:
            epochs: Those of training.
        """
        raise NotImplementedError

    def removed(self, member: ConvexMember, rows: Assumption) -> tuple[Tensor, Claim]:
        """Return a member's weights as they are published, (classes, inputs), and what is certified of them.

        Args:
            member: With its start.
            rows: What was found of the norms of the rows.
        """
        raise NotImplementedError

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse a task without the noise that the method needs."""
        check_noise(self.name, task, published=self.published)

    def planned_cost(self, forget: int, retain: int, epochs: int) -> float:
        """Return the passes over R, in units of those of training."""
        return self.passes(epochs) / epochs

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield the one result."""
        rows = row_norm(problem)
        found, claims = zip(*(self.removed(each, rows) for each in convex_members(problem, self.name)), strict=True)
        problem.ledger.examples += self.passes(problem.recipe.epochs) * len(problem.retain)
        (name,) = problem.start.params
        params = {name: torch.stack(found).to(problem.start.params[name])}
        made = problem.stop(1, problem.start.with_state(params, clone(problem.start.buffers)))
        yield replace(made, claim=worst(claims))


def convex_members(problem: Problem, name: str) -> Iterator[ConvexMember]:
    """Yield the members of a problem one after another.

    Args:
        problem: On a task that trains by a `ConvexFit`.
        name: Of the method, whose own earlier results carry noise that it drew.
    """
    fit, start = problem.task.fit, problem.start
    assert isinstance(fit, ConvexFit)
    everything = torch.arange(len(problem.task.train))
    trained = [fit_seed(own) for own in member_seeds(start.seed, [everything] * len(start), start.ids)]
    published = list(trained)
    if start.provenance.get("method") == name:
        published = [derive(start.provenance["seed"], "unlearn", name, member) for member in start.ids]
    (weights,) = start.params.values()
    rows = problem.retain.to(problem.x.device)
    for place in range(len(start)):
        w = weights[place].double()
        yield ConvexMember(
            fit=fit,
            start=w,
            linear=fit.drawn(trained[place], w)[0],
            noise=fit.drawn(published[place], w)[1],
            x=problem.x[rows].double(),
            y=problem.y[rows],
            all_x=problem.x.double(),
            all_y=problem.y,
            forget=len(problem.forget),
            seed=problem.seeds[place],
        )


def row_norm(problem: Problem) -> Assumption:
    """Return the assumption on the rows of the training data."""
    longest = float(problem.x.double().flatten(1).norm(dim=1).max())
    return Assumption(name="norm of the longest row", value=longest, side="at most", bound=1 + ROUNDING)


def check_noise(method: str, task: Task, *, published: bool) -> None:
    """Refuse a task without the noise that a method needs.

    Args:
        method: Its name.
        task: Of a `ConvexFit`.
        published: Whether it has to be noise on the published weights; else the random linear term will do.

    Raises:
        InputError: If it has none.
    """
    fit = task.fit
    assert isinstance(fit, ConvexFit)
    if fit.noise or (fit.perturbation and not published):
        return
    wanted = "noise" if published else "noise or perturbation"
    raise InputError(
        f"{method} hides what is left of F in noise, and {task.name} was trained with {wanted} = 0; expected a task "
        f"such as ex.tasks.logistic(noise=0.1), and models that were trained on it."
    )
