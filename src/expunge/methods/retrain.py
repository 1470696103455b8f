"""Retraining on the retain set, the honest answer and the row every table is compared with.

The members are new draws: independent of the pretrained ensemble and of the oracles that the ruler uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from expunge.core import Recipe, Split
from expunge.core.seeds import derive
from expunge.ensembles.initialise import initialise
from expunge.ensembles.train import new_descent, train_epoch
from expunge.methods.method import Method
from expunge.methods.problem import Checkpoint, Problem


@dataclass(frozen=True, kw_only=True)
class Retrain(Method):
    """Train from scratch on the retain set with the task's recipe."""

    name: ClassVar[str] = "retrain"
    label: ClassVar[str] = "Retrain"
    control: ClassVar[bool] = True
    visits_forget: ClassVar[bool] = False
    from_scratch: ClassVar[bool] = True

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield the retrained models at the end of the recipe."""
        yield train_from_scratch(problem, problem.recipe, problem.recipe.epochs)

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return the one setting there is."""
        return [cls()]


def train_from_scratch(problem: Problem, recipe: Recipe, epochs: int) -> Checkpoint:
    """Return fresh models after `epochs` epochs of a recipe on the retain set.

    Args:
        problem: Whose retain set, seeds and number of members are used.
        recipe: The schedule and optimiser.
        epochs: Epochs to run, from 0 to the recipe's.
    """
    device = problem.x.device
    params, buffers = initialise(problem.task, [derive(seed, "initialisation") for seed in problem.seeds])
    there = {name: tensor.to(device) for name, tensor in params.items()}
    descent = new_descent(problem.start.network, there, {k: t.to(device) for k, t in buffers.items()}, recipe)
    examples = problem.retain.expand(len(problem.start), -1)
    for epoch in range(epochs):
        train_epoch(descent, Split(problem.x, problem.y), examples, problem.seeds, epoch, recipe, problem.task)
        used = len(problem.retain)
        problem.ledger.examples += used - used % recipe.batch_size if recipe.last_batch == "drop" else used
    return problem.stop(epochs, problem.start.with_state(*descent.state()))
