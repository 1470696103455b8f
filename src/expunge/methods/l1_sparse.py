"""l1-sparse: fine-tuning on the retain set with an l1 penalty on the weights that fades from epoch to epoch.

    theta <- theta - lr * [ grad mean_{B of R} l(theta) + a_t sign(theta) ]        in epoch t = 0, ..., E - 1
    a_t = a (1 - t / E)   fading;      a   constant;      a (t + 1) / E   rising

Weights of normalisation layers are left out of the penalty: pulled to 0, their scales switch channels off. A layer
counts as one by its type, or by norm in the name of its class.

Source: Jia et al., "Model Sparsity Can Simplify Machine Unlearning" (arXiv 2304.04934), sec. 4: fading, 10 epochs at
rate .01. The size of a is ours: published ones go from 1e-5 to the .2 of its code's command lines. Differs from the
source: its code penalises normalisation scales as well; the optimiser that trained the models by default; batches of
64. The loss is a mean over examples, on which the unit of a depends. With Adam the penalty is part of the gradient that
is rescaled, as it is in the source's code for any optimiser.
With a = 0 it is `fine_tune` bit by bit: batches are drawn under that name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from expunge.core import Network, Recipe
from expunge.core.checks import non_negative
from expunge.ensembles import Rule
from expunge.methods.fine_tune import FineTune
from expunge.methods.last_layers import NORMALISATIONS
from expunge.methods.method import Method, Need, OptimizerOption, Trained
from expunge.methods.problem import Checkpoint, Problem, Treatment

Fading = Literal["fading", "constant", "rising"]
"""How the penalty changes from epoch to epoch."""


@dataclass(frozen=True, kw_only=True)
class L1Sparse(Trained):
    """Continue training on the retain set under an l1 penalty."""

    lr: float = 0.01
    """Learning rate, at least 0 (source: .01)."""
    epochs: int = 10
    """Passes over R, at least 1 (source: 10)."""
    penalty: float = 5e-4
    """The a above, at least 0 (ours: 5e-4)."""
    schedule: Fading = "fading"
    """How it changes with epochs: `fading` (source), `constant` or `rising`."""
    batch_size: int = 64
    """Examples a step, at least 1."""
    momentum: float = 0.9
    """Momentum of SGD, or the first beta of Adam, 0 to 1."""
    weight_decay: float = 5e-4
    """L2 coefficient, at least 0."""
    statistics: Treatment = "frozen"
    """Normalisation statistics: `frozen`, `updated` (source) or `recalibrated`."""
    optimizer: OptimizerOption = "recipe"
    """`sgd`, `adam`, `adamw`, or `recipe`: the one that trained the models."""

    name: ClassVar[str] = "l1_sparse"
    label: ClassVar[str] = "l1-sparse"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "weights"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite")
    shown: ClassVar[tuple[str, ...]] = ("lr", "penalty")
    order: ClassVar[str] = FineTune.name
    forecastable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        self.check_steps()
        non_negative(penalty=self.penalty)

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Only the retain set is visited."""
        return {"retain": self.batch_size}

    def at(self, epoch: int) -> float:
        """Return the penalty in an epoch, from 1.

        Args:
            epoch: Number of the epoch.

        >>> [L1Sparse(penalty=1, epochs=4).at(epoch) for epoch in (1, 2, 3, 4)]
        [1.0, 0.75, 0.5, 0.25]
        """
        done = epoch - 1
        share = {"fading": 1 - done / self.epochs, "constant": 1.0, "rising": epoch / self.epochs}[self.schedule]
        return self.penalty * share

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint after every pass over R."""
        descent = self.descent(problem)
        penalised = set(descent.trainable) - normalisation_weights(problem.start.network)
        for epoch in range(1, self.epochs + 1):
            noise = problem.noise(epoch)
            descent.follow(Rule(penalty=self.at(epoch), penalised=penalised))
            problem.take_pass(descent, "retain", epoch, self.batch_size, self.lr, noise=noise)
            yield problem.checkpoint(epoch, descent, self.statistics)

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return rates of fine-tuning, each with penalties across what works."""
        epochs = max(5, math.ceil(0.3 * recipe.epochs))
        return [
            cls(lr=rate * recipe.lr, epochs=epochs, penalty=penalty, batch_size=recipe.batch_size)
            for rate in (0.1, 0.3, 1.0)
            for penalty in (1e-4, 5e-4, 5e-3)
        ]


def normalisation_weights(network: Network) -> set[str]:
    """Return the names of the parameters that belong to normalisation layers.

    Args:
        network: Of the models.
    """
    return {
        f"{name}.{own}" if name else own
        for name, layer in network.template.named_modules()
        if isinstance(layer, NORMALISATIONS) or "norm" in type(layer).__name__.lower()
        for own, _ in layer.named_parameters(recurse=False)
    }
