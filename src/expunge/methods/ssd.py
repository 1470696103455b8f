"""SSD, selective synaptic dampening: shrink the weights that matter more for the forget set than for all data.

With the importance of weight j for a set S the mean over its examples of squared gradients of the loss l,

    I_S,j = mean_{i in S} (dl_i / dtheta_j)^2
    where I_F,j > alpha I_D,j:    theta_j <- theta_j * min(lambda I_D,j / I_F,j, 1)        D all training examples

Since F is part of D, I_F is at most |D| / |F| times I_D: an alpha beyond that changes nothing.

    threshold="automatic":      alpha is the percentile 100 - ln(1 + 100 |F| / |D|) of I_F,j / I_D,j over all weights j
    importance="output_norm":   l is the squared norm of the outputs, |f_theta(x)|^2, which needs no label

Source: Foster et al., "Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening" (arXiv
2308.07707): alpha 10, lambda 1. Differs from the source: its public code squares the mean gradient of a batch, which
depends on the batch size and on how the data are shuffled; here every example has its own gradient, as in the formula.
The forget examples' gradients, which I_D needs as well, are computed once: it costs one pass over D. Gradients are
taken with stored normalisation statistics and without dropout. The automatic threshold and the importance without
labels are those of its sequels ASSD and LFSSD, as the toolbox SUPREME has them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from expunge.core import Ensemble, ForgetSet, Network, Outcome, Recipe, Task
from expunge.core.checks import non_negative
from expunge.core.outcomes import Classes
from expunge.core.tree import State, clone
from expunge.ensembles import cross_entropy_with_gradient
from expunge.ensembles.example_gradients import Cotangent, check_separable
from expunge.ensembles.squares import squared_gradients
from expunge.methods.method import Method, Need
from expunge.methods.problem import Checkpoint, Problem


@dataclass(frozen=True, kw_only=True)
class SSD(Method):
    """Dampen the weights whose importance for the forget set stands out."""

    alpha: float = 10.0
    """How many times its importance for all data a weight's importance for F must be, at least 0 (paper: 10)."""
    threshold: Literal["fixed", "automatic"] = "fixed"
    """`fixed`, which is `alpha`, or `automatic`: each member's own percentile of ratios, and `alpha` is not read."""
    importance: Literal["loss", "output_norm"] = "loss"
    """Of which quantity gradients are squared: `loss` (paper) or `output_norm`, which reads no label."""
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
            squares(start, problem.x[part.to(problem.x.device)], problem.y[part.to(problem.y.device)], self.importance)
            for part in (of_forget, of_retain)
        )
        problem.visit(torch.cat([of_forget, of_retain]))
        params, everything = clone(start.params), len(of_forget) + len(of_retain)
        pairs = {name: (own / len(of_forget), (own + retained[name]) / everything) for name, own in forgotten.items()}
        alpha: Tensor | None = None
        if self.threshold == "automatic":
            ratios = torch.cat([_ratio(of, all_).flatten(1) for of, all_ in pairs.values()], 1)
            alpha = percentile(ratios, 100 - math.log1p(100 * len(of_forget) / everything))
        for name, (of, all_) in pairs.items():
            own_alpha = None if alpha is None else alpha.view(-1, *[1] * (of.ndim - 1))
            params[name] *= self.factors(of, all_, own_alpha)
        yield problem.stop(1, start.with_state(params, clone(start.buffers)))

    def factors(self, of_forget: Tensor, of_all: Tensor, alpha: Tensor | None = None) -> Tensor:
        """Return by what weights are multiplied, from 0 to 1.

        Args:
            of_forget: Their importance for F, any shape.
            of_all: Their importance for D, the same shape.
            alpha: A threshold of the ratio in place of the option, of a shape that fits.

        >>> SSD().factors(torch.tensor([20.0, 5.0]), torch.tensor([1.0, 1.0])).tolist()
        [0.05000000074505806, 1.0]
        """
        chosen = of_forget > self.alpha * of_all if alpha is None else _ratio(of_forget, of_all) > alpha
        return torch.where(chosen, (self.dampening * of_all / of_forget).clamp(max=1.0), 1.0)

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return thresholds across those published (3.5 to 25), and below, for forget sets that are a large share."""
        return [cls(alpha=alpha) for alpha in (1.5, 3.0, 5.0, 10.0, 25.0)]


def percentile(values: Tensor, percent: float) -> Tensor:
    """Return a number that the rest of each row is above, the largest there is, (members,).

    Args:
        values: Shape (members, numbers).
        percent: Share that is not above it, 0 to 100; where it falls between two numbers it is the lower.

    >>> percentile(torch.arange(101.0).unsqueeze(0), 97.6).tolist()
    [97.0]
    """
    return values.kthvalue(1 + math.floor((values.shape[1] - 1) * percent / 100), dim=1).values


def squares(ensemble: Ensemble, x: Tensor, y: Tensor, importance: Literal["loss", "output_norm"] = "loss") -> State:
    """Return squared gradients summed over examples, by trainable parameter, each (members, ...).

    Args:
        ensemble: The stack.
        x: Inputs (examples, ...).
        y: Targets (examples, ...).
        importance: Whose gradients: the outcome's loss, or the squared norm of the outputs.
    """
    pull = _loss_cotangent(ensemble.network.outcome) if importance == "loss" else _twice
    return squared_gradients(ensemble, x, y, pull)


def _ratio(of_forget: Tensor, of_all: Tensor) -> Tensor:
    """Return how many times as much weights matter for F as for D; 0 where they matter for neither."""
    return torch.where(of_all > 0, of_forget / of_all, 0.0)


def _twice(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the derivative of the squared norm of each example's outputs."""
    return 2 * outputs.detach()


def _loss_cotangent(outcome: Outcome) -> Cotangent:
    """Return the derivative of each example's loss by the outputs (members, examples, ...)."""

    def written(outputs: Tensor, targets: Tensor) -> Tensor:
        labels = targets.expand(outputs.shape[:2])
        return cross_entropy_with_gradient(outputs.detach(), labels, outputs.new_ones(labels.shape[1]))[1]

    if isinstance(outcome, Classes):
        return written

    def pull(outputs: Tensor, targets: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_(True)
            (found,) = torch.autograd.grad(outcome.loss(leaf, targets).sum(), leaf)
        return found

    return pull
