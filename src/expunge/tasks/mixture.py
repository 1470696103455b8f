"""The teacher mixture as a task: real training, with dependence between F and R on a dial and a known answer.

Two groups with centres +-v / sqrt(d), each labelled by its own linear rule; the rules overlap by `similarity`, and
`correlation` says how far the group alone predicts the label. What `expunge.theory.teacher_mixture` computes exactly
for the same parameters holds for the convex minimisers on these data up to about 1 / sqrt(d).

Source: S. Sarao Mannelli, F. Gerace, N. Rostamzadeh, L. Saglietti, Bias-inducing geometries (arXiv 2205.15935).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from expunge.core import ForgetSet, InputError, Recipe, Task
from expunge.core.checks import between, plain_arguments, positive, whole
from expunge.core.renamed import renamed
from expunge.core.seeds import numpy_seed

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class MixtureTruth:
    """What is known about the data."""

    similarity: float
    """Overlap of the two rules."""
    correlation: tuple[float, float]
    """Overlap of each rule with the direction between groups."""
    variance: tuple[float, float]
    """Variance of each group."""
    vectors: Array
    """(W_+, W_-, v), shape (3, dimension); overlaps over the dimension are exact."""
    group: Array
    """Group of each training example, -1 or 1, shape (examples,)."""
    validation_group: Array
    """Group of each validation example."""


class MixtureProblem(NamedTuple):
    """A task, what to forget, and what is known."""

    task: Task
    """Inputs already divided by sqrt(dimension), labels 0 and 1, a linear model with bias."""
    forget: ForgetSet
    """A random part of each group."""
    truth: MixtureTruth
    """The law behind the data."""


@renamed("batch", "optimiser")
@plain_arguments
def teacher_mixture(
    *,
    dimension: int = 100,
    density: float = 4.0,
    imbalance: float = 0.7,
    similarity: float = 0.6,
    correlation: tuple[float, float] = (0.3, 0.2),
    variance: tuple[float, float] = (0.5, 1.0),
    bias: tuple[float, float] = (0.0, 0.0),
    forget: tuple[float, float] = (0.0, 0.3),
    validation: int = 500,
    seed: int = 0,
    **recipe: Any,
) -> MixtureProblem:
    """Return data of two groups and two rules.

    Args:
        dimension: d, at least 10.
        density: Training examples over d, above 0.
        imbalance: Share of group +, between 0 and 1.
        similarity: Overlap of the two rules, -1 to 1: 1 means that what the forgotten group teaches is what the others
            teach too.
        correlation: Overlap of each rule with the direction between groups, -1 to 1.
        variance: Variance of each group, above 0.
        bias: Offset of each rule.
        forget: Share of each group that is forgotten, 0 to 1.
        validation: Validation examples, at least 1, with the same law.
        seed: Draws the data.
        **recipe: Fields of `Recipe` that replace the defaults (batch 64, 30 epochs, rate 0.5, no weight decay).

    Returns:
        `(task, forget, truth)`.

    Raises:
        InputError: If a parameter leaves its range, or the three overlaps belong to no vectors.
    """
    whole(minimum=10, dimension=dimension)
    whole(validation=validation)
    positive(density=density, variance_plus=variance[0], variance_minus=variance[1])
    between(-1.0, 1.0, similarity=similarity, correlation_plus=correlation[0], correlation_minus=correlation[1])
    between(0.0, 1.0, imbalance=imbalance, forget_plus=forget[0], forget_minus=forget[1])
    gram = np.array([[1.0, similarity, correlation[0]], [similarity, 1.0, correlation[1]], [*correlation, 1.0]])
    values, axes = np.linalg.eigh(gram)
    if values[0] < -1e-12:
        raise InputError(
            f"similarity = {similarity} and correlation = {correlation} belong to no three vectors; bring the two "
            "correlations closer together or the similarity closer to 0."
        )
    rng = np.random.default_rng(numpy_seed(seed))
    basis, _ = np.linalg.qr(rng.normal(size=(dimension, 3)))
    vectors = math.sqrt(dimension) * (axes * np.sqrt(np.maximum(values, 0))) @ axes.T @ basis.T

    def sample(count: int) -> tuple[Array, Array, Array]:
        plus = round(imbalance * count)
        c = np.repeat([1.0, -1.0], [plus, count - plus])
        spread = np.sqrt(np.where(c > 0, *variance))[:, None]
        x = c[:, None] * vectors[2] / math.sqrt(dimension) + spread * rng.normal(size=(count, dimension))
        field = np.where(c > 0, x @ vectors[0], x @ vectors[1]) / math.sqrt(dimension) + np.where(c > 0, *bias)
        return x / math.sqrt(dimension), (field >= 0).astype(np.int64), c

    train = sample(round(density * dimension))
    held_out = sample(validation)
    fields: dict[str, Any] = {"batch_size": 64, "epochs": 30, "lr": 0.5, "weight_decay": 0.0, **recipe}
    task = Task(
        name="teacher-mixture",
        train=(torch.as_tensor(train[0], dtype=torch.float32), torch.as_tensor(train[1])),
        validation=(torch.as_tensor(held_out[0], dtype=torch.float32), torch.as_tensor(held_out[1])),
        model=lambda: nn.Linear(dimension, 2),
        recipe=Recipe(**fields),
        classes=2,
    )
    chosen = []
    for group, share in zip((1.0, -1.0), forget, strict=True):
        members = np.flatnonzero(train[2] == group)
        chosen.append(rng.permutation(members)[: round(share * len(members))])
    indices = np.concatenate(chosen)
    gone = ForgetSet.of(
        task,
        indices,
        name=f"mixture-{len(indices)}",
        how=f"a random {forget[0]:.0%} of group + and {forget[1]:.0%} of group - of a teacher mixture (seed {seed}).",
        chooser="teacher_mixture",
        options={"forget": list(forget), "seed": seed},
    )
    truth = MixtureTruth(similarity, correlation, variance, vectors, train[2], held_out[2])
    return MixtureProblem(task, gone, truth)
