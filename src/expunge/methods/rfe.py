"""RFE's projection: climb on F, without the part of the step that works against the retained neighbours of F.

    A = retain examples of each member with the largest <grad l_i(theta_0), grad mean_F l(theta_0)>     its neighbours
    u = - grad mean_{B of F} l(theta)
    a = grad [ mean_{B of A} l(theta) + prediction_weight * mean_{B of A} |p_theta - p_theta_0|^2 ]
    if <u, a> < 0:    u <- u - <u, a> / |a|^2 a
    theta <- theta - lr * u

An epoch is a pass over F; batches of A go round beside it. To first order no step raises what is held on the
neighbours' batch. Nothing is said of how near the result is to a retrained model: where F and R depend on each
other, that model lies in a direction which is not orthogonal to retain gradients.

Source: RFE (arXiv 2603.26569), the second of its two phases, prediction_weight 1; the projection is that of Yu et al.,
"Gradient Surgery for Multi-Task Learning" (PCGrad, arXiv 2001.06782). Differs from the source: the neighbours are given
there, and found here by gradients of single examples; the first phase, an augmented Lagrangian over all of R, is left
out (`primal_dual` is a method of that kind); the projection is of the gradient, before momentum or Adam's scaling; by
default there is no momentum, with which the guarantee would be lost; passes over F, not 100 steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

import torch
from torch import Tensor

from expunge.core import ForgetSet, Network, Outcome, Recipe, Task
from expunge.core.checks import non_negative, positive
from expunge.core.tree import State
from expunge.ensembles import Loss
from expunge.ensembles.batches import gather_own
from expunge.ensembles.example_gradients import check_separable
from expunge.ensembles.plan import check_batch_norm
from expunge.methods.method import Method, Need, OptimizerOption, Raises, Trained, going_round
from expunge.methods.primal_dual import weigh
from expunge.methods.problem import FORWARD_SHARE, Checkpoint, Problem, Treatment
from expunge.methods.replay import cross_influence, most


@dataclass(frozen=True, kw_only=True)
class RFE(Trained):
    """Climb on the forget set with steps that do not work against its retained neighbours."""

    lr: float = 0.01
    """Learning rate, at least 0."""
    epochs: int = 10
    """Passes over F, at least 1."""
    neighbours: float = 1.0
    """How many retain examples are neighbours, in multiples of |F|, above 0; at most all of R."""
    prediction_weight: float = 1.0
    """Weight of the squared distance from the pretrained probabilities, at least 0 (source: 1)."""
    batch_size: int = 64
    """Neighbours a step, at least 1."""
    forget_batch_size: int = 64
    """Forget examples a step, at least 1."""
    momentum: float = 0.0
    """Momentum of SGD, or the first beta of Adam, 0 to 1; above 0 steps are no longer free of conflict."""
    weight_decay: float = 0.0
    """L2 coefficient, at least 0."""
    statistics: Treatment = "frozen"
    """Normalisation statistics: `frozen`, `updated` or `recalibrated`."""
    optimizer: OptimizerOption = "recipe"
    """`sgd`, `adam`, `adamw`, or `recipe`: the one that trained the models."""

    name: ClassVar[str] = "rfe"
    label: ClassVar[str] = "RFE (projected ascent)"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "forget", "weights", "classes", "per_example_gradients"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite", "visited", "ascended")
    raises: ClassVar[Raises] = "forget loss"
    forecastable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        self.check_steps()
        positive(neighbours=self.neighbours)
        non_negative(prediction_weight=self.prediction_weight)

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Forget examples, in batches of their own."""
        return {"forget": self.forget_batch_size}

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse, besides, a model in which an example has no gradient of its own."""
        super().check(network, task, forget)
        check_separable(network)
        if self.statistics == "updated":
            check_batch_norm(network, self.near(len(forget), len(forget.retain)), self.batch_size)

    def near(self, forget: int, retain: int) -> int:
        """Return how many neighbours there are."""
        return min(retain, max(1, round(self.neighbours * forget)))

    def planned_examples(self, forget: int, retain: int) -> float:
        """Return what finding the neighbours visits, the start forward, and all passes with neighbours beside them."""
        steps = self.epochs * -(-forget // self.forget_batch_size)
        beside = going_round(steps, self.near(forget, retain), self.batch_size)
        return (1 + FORWARD_SHARE) * (forget + retain) + self.epochs * forget + beside

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint after every pass over F."""
        chosen = most(cross_influence(problem), self.near(len(problem.forget), len(problem.retain)), problem)
        descent = self.descent(problem)
        start = problem.logits(descent, torch.arange(len(problem.y))).softmax(-1)
        problem.forward_only(len(problem.y))
        neighbours = (
            batch for turn in count() for batch in problem.own_batches(chosen, f"neighbours-{turn}", self.batch_size)
        )
        for epoch in range(1, self.epochs + 1):
            before, noise = problem.forget_loss(descent), problem.noise(epoch)
            for x, y, _ in problem.forget_batches(epoch, self.forget_batch_size):
                near_x, near_y, index = next(neighbours)
                held = self._held(problem.outcome, gather_own(start, index))
                _, up = descent.gradients(x, y, ascend=True, noise=noise)
                _, against = descent.gradients(near_x, near_y, held, noise=noise)
                descent.apply(without_conflict(up, against), self.lr)
            problem.raised(before, problem.forget_loss(descent))
            yield problem.checkpoint(epoch, descent, self.statistics)

    def _held(self, outcome: Outcome, before: Tensor) -> Loss:
        def loss(logits: Tensor, labels: Tensor) -> Tensor:
            apart = (logits.softmax(-1) - before).square().sum(-1).mean(1)
            return outcome.loss(logits, labels).mean(1) + self.prediction_weight * apart

        return loss

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return the rates of gradient ascent, each with few and many neighbours."""
        shares, multiples = (0.01, 0.1, 0.3, 1.0, 3.0), (1.0, 5.0)
        return [
            cls(
                lr=share * recipe.lr, neighbours=many, batch_size=recipe.batch_size, forget_batch_size=recipe.batch_size
            )
            for share in shares
            for many in multiples
        ]


def without_conflict(step: Mapping[str, Tensor], against: Mapping[str, Tensor]) -> State:
    """Return each member's step without its component along another gradient, where the two are in conflict.

    Args:
        step: By parameter, each (members, ...).
        against: The same parameters.

    Returns:
        The step itself where the inner product over all parameters is not negative.

    >>> one, other = {"w": torch.tensor([[1.0, -1.0]])}, {"w": torch.tensor([[0.0, 1.0]])}
    >>> without_conflict(one, other)["w"].tolist()
    [[1.0, 0.0]]
    """

    def product(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([(a[name].double() * b[name].double()).flatten(1).sum(1) for name in a]).sum(0)

    inner, size = product(step, against), product(against, against)
    share = torch.where(inner < 0, inner / size, 0.0)
    return {name: own - weigh(share, against[name]) for name, own in step.items()}
