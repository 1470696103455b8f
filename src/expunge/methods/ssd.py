"""SSD, selective synaptic dampening: shrink the weights that matter more for the forget set than for all data.

With the importance of weight j for a set S the mean over its examples of squared gradients of the loss l,

    I_S,j = mean_{i in S} (dl_i / dtheta_j)^2
    where I_F,j > alpha I_D,j:    theta_j <- theta_j * min(lambda I_D,j / I_F,j, 1)        D all training examples

Since F is part of D, I_F is at most |D| / |F| times I_D: an alpha beyond that changes nothing.

Source: Foster et al., "Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening" (arXiv
2308.07707): alpha 10, lambda 1. Differs from the source: its public code squares the mean gradient of a batch, which
depends on the batch size and on how the data are shuffled; here every example has its own gradient, as in the formula.
The forget examples' gradients, which I_D needs as well, are computed once: it costs one pass over D. Gradients are
taken with stored normalisation statistics and without dropout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.core import Ensemble, ForgetSet, Network, Outcome, Recipe, Task
from expunge.core.checks import non_negative
from expunge.core.tree import State, clone
from expunge.ensembles.example_gradients import Cotangent, check_separable
from expunge.ensembles.squares import squared_gradients
from expunge.methods.method import Method, Need
from expunge.methods.problem import Checkpoint, Problem


@dataclass(frozen=True, kw_only=True)
class SSD(Method):
    """Dampen the weights whose importance for the forget set stands out."""

    alpha: float = 10.0
    """How many times its importance for all data a weight's importance for F must be, at least 0 (paper: 10)."""
    dampening: float = 1.0
    """The lambda of the paper: factor of the ratio by which a weight is multiplied, at least 0 (paper: 1)."""

    name: ClassVar[str] = "ssd"
    label: ClassVar[str] = "SSD"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "forget", "weights", "per_example_gradients"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite", "visited")
    shown: ClassVar[tuple[str, ...]] = ("alpha",)
    forecastable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        non_negative(alpha=self.alpha, dampening=self.dampening)

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse a model in which an example has no gradient of its own."""
        check_separable(network)

    def planned_cost(self, forget: int, retain: int, epochs: int) -> float:
        """Return one pass over all training examples."""
        return (forget + retain) / (retain * epochs)

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield the one result."""
        start, of_forget, of_retain = problem.start, problem.forget, problem.retain
        forgotten, retained = (
            squares(start, problem.x[part.to(problem.x.device)], problem.y[part.to(problem.y.device)])
            for part in (of_forget, of_retain)
        )
        problem.visit(torch.cat([of_forget, of_retain]))
        params, everything = clone(start.params), len(of_forget) + len(of_retain)
        for name, own in forgotten.items():
            params[name] *= self.factors(own / len(of_forget), (own + retained[name]) / everything)
        yield problem.stop(1, start.with_state(params, clone(start.buffers)))

    def factors(self, of_forget: Tensor, of_all: Tensor) -> Tensor:
        """Return by what weights are multiplied, from 0 to 1.

        Args:
            of_forget: Their importance for F, any shape.
            of_all: Their importance for D, the same shape.

        >>> SSD().factors(torch.tensor([20.0, 5.0]), torch.tensor([1.0, 1.0])).tolist()
        [0.05000000074505806, 1.0]
        """
        chosen = of_forget > self.alpha * of_all
        return torch.where(chosen, (self.dampening * of_all / of_forget).clamp(max=1.0), 1.0)

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return thresholds across those published (3.5 to 25), and below, for forget sets that are a large share."""
        return [cls(alpha=alpha) for alpha in (1.5, 3.0, 5.0, 10.0, 25.0)]


def squares(ensemble: Ensemble, x: Tensor, y: Tensor) -> State:
    """Return squared gradients of the loss summed over examples, by trainable parameter, each (members, ...).

    Args:
        ensemble: The stack.
        x: Inputs (examples, ...).
        y: Targets (examples, ...).
    """
    return squared_gradients(ensemble, x, y, _loss_cotangent(ensemble.network.outcome))


def _loss_cotangent(outcome: Outcome) -> Cotangent:
    """Return the derivative of each example's loss by the outputs (members, examples, ...)."""

    def pull(outputs: Tensor, targets: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_(True)
            (found,) = torch.autograd.grad(outcome.loss(leaf, targets).sum(), leaf)
        return found

    return pull
