"""Replay: descent-ascent whose descent repeats a few retain examples, chosen once for each member before it begins.

    B = budget * |R| retain examples of each member:
        uniform           drawn
        disagreement      largest |m_i(theta_F) - m_i(theta_0)|, theta_F the member after a pass of ascent on F
        cross_influence   largest <grad l_i(theta_0), grad mean_F l(theta_0)>
    for epoch t = 1, 2, ...:
        if t <= ascent_epochs:   theta <- theta + lr * grad mean_{batch of F} l(theta)     over one pass of F
        theta <- theta - lr * grad mean_{batch of B} l(theta)                              over one pass of B

with m the compared number (the margin, for classes). Cross influence is how fast a step up on F raises the loss of a
retain example, so that the examples that forgetting hurts first come first. Uniform choice is the control: it costs
nothing, and what the other two find has to be worth their passes, which the cost counts.

Source: Gupta et al., "Can Active Sampling Reduce Causal Confusion in Offline Reinforcement Learning?" (arXiv
2312.17168): after a uniform phase, data on which an ensemble of critics disagrees are sampled more. Differs from the
source: no reinforcement learning; the disagreement is that of a member with its own copy after a step of forgetting,
never between members, which would mix them; a fixed set in place of a sampling law; cross influence is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from expunge.core import ForgetSet, Network, Recipe, Task
from expunge.core.checks import between, one_of
from expunge.core.seeds import generator
from expunge.ensembles import Descent
from expunge.ensembles.example_gradients import check_separable
from expunge.ensembles.flat import FlatStack
from expunge.ensembles.plan import check_batch_norm
from expunge.methods.gradient_descent_ascent import GradientDescentAscent
from expunge.methods.method import Method, Need
from expunge.methods.problem import FORWARD_SHARE, Problem

ReplayChoice = Literal["uniform", "disagreement", "cross_influence"]
"""How the retain examples that are repeated are chosen."""


@dataclass(frozen=True, kw_only=True)
class Replay(GradientDescentAscent):
    """Alternate ascent on the forget set with descent on a chosen part of the retain set."""

    budget: float = 0.1
    """Share of R that is repeated, above 0 and at most 1; at 1 it is descent-ascent on all of R."""
    choice: ReplayChoice = "disagreement"
    """How they are chosen: `uniform`, `disagreement` or `cross_influence`."""

    name: ClassVar[str] = "replay"
    label: ClassVar[str] = "Replay of chosen rows"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "forget", "weights", "per_example_gradients"})
    shown: ClassVar[tuple[str, ...]] = ("lr", "choice")
    forecastable: ClassVar[bool] = False
    order: ClassVar[str] = GradientDescentAscent.name

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        between(1e-6, 1.0, budget=self.budget)
        one_of(get_args(ReplayChoice), choice=self.choice)

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse, besides, cross influence for a model in which an example has no gradient of its own."""
        super().check(network, task, forget)
        if self.choice == "cross_influence":
            check_separable(network)
        if self.statistics == "updated":
            check_batch_norm(network, self.replayed(len(forget.retain)), self.batch_size)

    def replayed(self, retain: int) -> int:
        """Return how many retain examples are repeated."""
        return max(1, round(self.budget * retain))

    def planned_examples(self, forget: int, retain: int) -> float:
        """Return what the choice and all passes visit."""
        price = {
            "uniform": 0.0,
            "disagreement": forget + 2 * FORWARD_SHARE * retain,
            "cross_influence": forget + retain,
        }[self.choice]
        return price + super().planned_examples(forget, self.replayed(retain))

    def retain_pass(self, problem: Problem) -> Callable[[Descent, int, Sequence[torch.Generator]], None]:
        """Choose the rows, and return what takes a pass over them."""
        chosen = self.chosen_rows(problem)

        def take(descent: Descent, epoch: int, noise: Sequence[torch.Generator]) -> None:
            order = problem.order(chosen, f"retain-{epoch}")
            problem.take(descent, order, self.batch_size, self.lr, noise=noise)

        return take

    def chosen_rows(self, problem: Problem) -> Tensor:
        """Return the positions in the training data that each member repeats, ascending, (members, rows)."""
        many, rows = self.replayed(len(problem.retain)), len(problem.retain)
        if self.choice == "uniform":
            drawn = [torch.randperm(rows, generator=generator(seed, "replay")) for seed in problem.seeds]
            return problem.retain[torch.stack(drawn)[:, :many].sort(1).values]
        return most(
            cross_influence(problem) if self.choice == "cross_influence" else self._moved(problem), many, problem
        )

    def _moved(self, problem: Problem) -> Tensor:
        """Return how far a pass of ascent on F moves the compared number of retain examples, (members, |R|)."""
        copy = self.descent(problem)
        labels = problem.y[problem.retain.to(problem.y.device)]
        before = problem.outcome.statistic(problem.logits(copy, problem.retain), labels)
        problem.take(copy, problem.forget_order("choice"), self.forget_batch_size, self.lr, ascend=True)
        after = problem.outcome.statistic(problem.logits(copy, problem.retain), labels)
        problem.forward_only(2 * len(problem.retain))
        return (after - before).abs()

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return the rates of descent-ascent with every choice."""
        size = recipe.batch_size
        return [
            cls(lr=share * recipe.lr, epochs=7, ascent_epochs=3, choice=choice, batch_size=size, forget_batch_size=size)
            for share in (0.3, 1.0, 3.0)
            for choice in get_args(ReplayChoice)
        ]


def most(scores: Tensor, many: int, problem: Problem) -> Tensor:
    """Return the positions in the training data of the retain examples with the largest scores, ascending.

    Args:
        scores: Of each member and retain example, (members, |R|).
        many: How many, at most |R|; of equal scores the first.
        problem: Where R is.

    Returns:
        (members, many).
    """
    first = scores.cpu().argsort(dim=1, descending=True, stable=True)[:, :many]
    return problem.retain[first.sort(1).values]


def cross_influence(problem: Problem) -> Tensor:
    """Return <grad l_i, grad mean_F l> at the pretrained weights for every retain example i, (members, |R|).

    Its value is the rate at which a small step up the loss of F raises the loss of the example.
    """
    stack = FlatStack(problem.start)
    forgotten, retained = (
        (problem.x[part.to(problem.x.device)], problem.y[part.to(problem.y.device)])
        for part in (problem.forget, problem.retain)
    )
    found = stack.risen(*retained, stack.gradient(*forgotten)) / len(problem.forget)
    problem.visit(torch.cat([problem.forget, problem.retain]))
    return found
