"""One epoch of training: every step of it, or those that are left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from expunge.core import Recipe, Split, Task
from expunge.core.seeds import generator
from expunge.core.stopping import check_stopped
from expunge.ensembles.batches import epoch_order, gather
from expunge.ensembles.descent import Descent

DRAWS = ("noise", "augment")
"""What is drawn within an epoch, by generators of each member's own: dropout and the like, and augmentation."""

Draws = Mapping[str, Sequence[torch.Generator]]


class Begun(NamedTuple):
    """Where an epoch was left."""

    steps: int
    """Steps that were taken."""
    draws: Mapping[str, Tensor]
    """How the generators stood, each (members, bytes)."""


def train_epoch(
    descent: Descent,
    data: Split,
    examples: Tensor,
    seeds: Sequence[int],
    epoch: int,
    recipe: Recipe,
    task: Task,
    begun: Begun | None = None,
    before_step: Callable[[int, int, Draws], None] | None = None,
) -> None:
    """Take every step of one epoch of the recipe, or those that are left of it.

    Args:
        descent: The stack in training.
        data: All training examples, on the device.
        examples: Positions of each member's examples, shape (members, k).
        seeds: One seed a member.
        epoch: Number of the epoch, from 0.
        recipe: Batch size and rate; the rate is that of the middle of each step, so that no step has rate 0.
        task: Whose augmentation changes the inputs of every batch, if it has one.
        begun: What was done of the epoch before; None at its beginning.
        before_step: Called with the epoch, the steps taken of it, and the generators as they stand; may raise.

    Raises:
        StoppedError: Between two steps, if the caller of this thread was interrupted.
    """
    order = epoch_order(examples, seeds, epoch).to(data.x.device)
    wanted = {"noise": getattr(descent.network, "noisy", True), "augment": task.augment is not None}
    draws = {name: [generator(seed, name, epoch) for seed in seeds] for name in DRAWS if wanted[name]}
    noise, changes = draws.get("noise"), draws.get("augment")
    if begun is not None:
        for name, states in begun.draws.items():
            for own, left in zip(draws[name], states, strict=True):
                own.set_state(left.clone())
    steps = recipe.steps_per_epoch(examples.shape[1])
    start = 0 if begun is None else begun.steps
    rates = [recipe.rate(epoch + (number + 0.5) / steps) for number in range(start, steps)]

    def before(number: int) -> None:
        if before_step is not None:
            before_step(epoch, number, draws)

    if changes is None:
        descent.run(data, order, recipe.batch_size, rates, first=start, noise=noise, before=before)
        return
    for number, rate in enumerate(rates, start):
        before(number)
        check_stopped()
        index = order[:, number * recipe.batch_size : (number + 1) * recipe.batch_size]
        x = task.augmented(gather(data.x, index), changes)
        descent.step(x, gather(data.y, index), rate, noise=noise)
