"""Fisher noise: weights that the retain set does not hold in place are covered with Gaussian noise.

    F_j = mean_{i of R} (dl_i / dtheta_j)^2
    theta_j <- theta_j + sqrt(v_j) n_j,      v_j = min(alpha / (F_j + damping), most),      n_j ~ N(0, 1)

No step is taken, and F is read by nothing but what R leaves out: what is forgotten is whatever was known and R does not
need. That makes it a yardstick of what noise alone does as much as a method.

Source: Golatkar et al., "Eternal Sunshine of the Spotless Net" (arXiv 1911.04933), sec. 4, with the variance of the
code, alpha / (F + 1e-8), at most 1e3, alpha 1e-6. (The paper's optimum has F to the power -1/2 in place of -1.) Differs
from the source: gradients of the loss at the true labels (the code averages over the model's own), example by example;
its averages over tensor axes, factors of ten for some layers and rules for a forgotten class's row are left out; the
diagonal is a mean over R, so that alpha does not change with the size of R.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from expunge.core import ForgetSet, Network, Recipe, Task
from expunge.core.checks import non_negative, positive
from expunge.core.tree import clone
from expunge.ensembles.example_gradients import check_separable
from expunge.methods.method import Method, Need
from expunge.methods.problem import Checkpoint, Problem
from expunge.methods.ssd import squares


@dataclass(frozen=True, kw_only=True)
class FisherNoise(Method):
    """Add noise to every trainable weight, the more the less the retain set depends on it."""

    alpha: float = 1e-6
    """Scale of the variance, at least 0 (source: 1e-6 to 3e-6)."""
    damping: float = 1e-8
    """What is added to the diagonal, above 0 (source: 1e-8)."""
    most: float = 1e3
    """Largest variance of a weight, above 0 (source: 1e3)."""

    name: ClassVar[str] = "fisher_noise"
    label: ClassVar[str] = "Fisher noise"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "weights", "per_example_gradients"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite")
    shown: ClassVar[tuple[str, ...]] = ("alpha",)
    forecastable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        non_negative(alpha=self.alpha)
        positive(damping=self.damping, most=self.most)

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse a model in which an example has no gradient of its own."""
        check_separable(network)

    def planned_cost(self, forget: int, retain: int, epochs: int) -> float:
        """Return one pass over the retain set."""
        return 1 / epochs

    def variance(self, fisher: Tensor) -> Tensor:
        """Return the variance of the noise.

        Args:
            fisher: Mean squared gradients of R, any shape.

        >>> import torch
        >>> FisherNoise(alpha=0.5, damping=1.0, most=0.25).variance(torch.tensor([0.0, 4.0])).tolist()
        [0.25, 0.10000000149011612]
        """
        return (self.alpha / (fisher + self.damping)).clamp(max=self.most)

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield the one result."""
        start, retain = problem.start, problem.retain
        total = squares(start, problem.x[retain.to(problem.x.device)], problem.y[retain.to(problem.y.device)])
        problem.visit(retain)
        params = clone(start.params)
        for name, own in total.items():
            noise = problem.normal(own.shape[1:], "fisher noise", name)
            params[name] += self.variance(own / len(retain)).sqrt() * noise.to(own)
        yield problem.stop(1, start.with_state(params, clone(start.buffers)))

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return variances from those that hardly show to those that drown the weights.

        The damping is larger than the source's, so that weights on which R does not depend are not all that is noise.
        """
        return [cls(alpha=alpha, damping=1e-3) for alpha in (1e-8, 1e-7, 1e-6, 1e-5, 1e-4)]
