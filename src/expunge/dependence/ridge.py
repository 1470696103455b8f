"""The ridge that keeps the curvature of a network invertible: weight decay, and damping in place of an early stop."""

from __future__ import annotations

from typing import Literal

from expunge.core import InputError, Recipe

Order = Literal["newton", "first"]
"""Removal with the curvature of R (a Newton step), or with that of D (the influence function)."""


def training_ridge(recipe: Recipe, examples: int) -> float:
    """Return the damping that stands for a training that stopped early.

    Gradient descent on a quadratic with curvature lambda (of the mean loss) has closed a share 1 - exp(-lambda t) of
    the gap after time t = sum of rates / (1 - momentum); a ridge of 1/t closes lambda / (lambda + 1/t), which agrees
    at both ends. In units of the summed loss that is examples / t.

    Args:
        recipe: The training recipe (for `adam` and `adamw`, whose steps are rescaled, this is not meaningful).
        examples: Number of training examples, at least 1.

    >>> round(training_ridge(Recipe(epochs=30, batch_size=64, lr=0.2, peak_epoch=5.0), 1437), 2)
    2.08
    """
    return examples / recipe.training_time(examples)


def check_ridge(ridge: float) -> float:
    """Return the ridge, or raise: with none the curvature of a network is singular."""
    if ridge <= 0:
        raise InputError(
            "weight decay and damping are both 0, expected a positive sum: without it the curvature of a model with "
            "more parameters than outputs has no inverse; pass damping= (see training_ridge)."
        )
    return ridge
