"""Two tasks with a spurious feature: what happens when the points that contradict it, or support it, must be forgotten.

Statistical skew: four kinds of points (label, spurious feature) and nothing else; the spurious feature agrees with the
label in a share p of them. Geometric skew: the same plus one noise direction for every training point, so that
each point can be memorised at a price. `expunge.theory.skew` has the exact solutions.

Source: V. Nagarajan, A. Andreassen, B. Neyshabur, Understanding the failure modes of out-of-distribution generalization
(arXiv 2010.15775).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from expunge.core import ForgetSet, Recipe, Task
from expunge.core.checks import between, one_of, plain_arguments, positive, whole
from expunge.core.errors import InputError
from expunge.core.renamed import renamed
from expunge.core.seeds import numpy_seed

Array = np.ndarray[Any, Any]
Group = Literal["minority", "majority"]


@dataclass(frozen=True)
class SkewTruth:
    """What is known about the data."""

    agreement: float
    """Share of training points whose spurious feature agrees with the label, counted."""
    retain_agreement: float
    """The same among retained points."""
    agrees: Array
    """Whether it agrees, for each training example, boolean."""
    invariant: float
    """Size of the invariant feature."""
    noise: float
    """Length of each point's own noise direction; 0 for statistical skew."""


class SkewProblem(NamedTuple):
    """A task, what to forget, and what is known."""

    task: Task
    """Inputs (invariant, spurious, noise...), labels 0 and 1, a linear model without bias; validation has no skew."""
    forget: ForgetSet
    """Part of the minority or of the majority."""
    truth: SkewTruth
    """The law behind the data."""


@renamed("batch", "optimiser")
@plain_arguments
def statistical_skew(
    *,
    examples: int = 400,
    agreement: float = 0.9,
    forget: Group = "minority",
    share: float = 1.0,
    seed: int = 0,
    **recipe: Any,
) -> SkewProblem:
    """Return the four-group problem.

    Args:
        examples: Training examples, at least 8; groups are rounded, both labels equally frequent.
        agreement: p, between 0.5 and 1.
        forget: Whether points of the `minority` (spurious feature disagrees) or of the `majority` go.
        share: Share of that group that is forgotten, above 0 and at most 1.
        seed: Orders the points and picks the forgotten ones.
        **recipe: Fields of `Recipe` that replace the defaults (full batch, 50 epochs, constant rate 0.1, no momentum,
            no weight decay: close to gradient flow).
    """
    return _skew("statistical", examples, agreement, 1.0, 0.0, forget, share, seed, recipe)


@renamed("batch", "optimiser")
@plain_arguments
def geometric_skew(
    *,
    examples: int = 200,
    agreement: float = 0.9,
    invariant: float = 1.0,
    noise: float = 2.0,
    forget: Group = "minority",
    share: float = 1.0,
    seed: int = 0,
    **recipe: Any,
) -> SkewProblem:
    """Return the problem in which every training point has a noise direction of its own.

    Args:
        examples: Training examples, at least 8; inputs have 2 + examples features.
        agreement: p, between 0.5 and 1.
        invariant: Size of the invariant feature, above 0.
        noise: Length of the noise directions, above 0; longer noise makes memorising cheaper.
        forget: Whether points of the `minority` or of the `majority` go.
        share: Share of that group that is forgotten, above 0 and at most 1.
        seed: Orders the points and picks the forgotten ones.
        **recipe: As in `statistical_skew`.
    """
    positive(invariant=invariant, noise=noise)
    return _skew("geometric", examples, agreement, invariant, noise, forget, share, seed, recipe)


def _skew(
    kind: str,
    examples: int,
    agreement: float,
    invariant: float,
    noise: float,
    forget: Group,
    share: float,
    seed: int,
    recipe: dict[str, Any],
) -> SkewProblem:
    whole(minimum=8, examples=examples)
    between(0.5, 1.0, agreement=agreement)
    between(0.0, 1.0, share=share)
    one_of(("minority", "majority"), forget=forget)
    rng = np.random.default_rng(numpy_seed(seed))
    agrees = np.arange(examples) < round(agreement * examples)
    label = np.where(np.arange(examples) % 2 == 0, 1.0, -1.0)
    order = rng.permutation(examples)
    agrees, label = agrees[order], label[order]
    pool = np.flatnonzero(agrees if forget == "majority" else ~agrees)
    count = round(share * len(pool))
    if count == 0:
        raise InputError(
            f"share = {share} of {len(pool)} {forget} points is none, expected at least one; raise share or examples, "
            "or lower agreement."
        )
    features = 2 + (examples if noise else 0)

    def inputs(label: Array, agrees: Array) -> Array:
        x = np.zeros((len(label), features), dtype=np.float32)
        x[:, 0] = invariant * label
        x[:, 1] = np.where(agrees, label, -label)
        return x

    x = inputs(label, agrees)
    if noise:
        x[np.arange(examples), 2 + np.arange(examples)] = noise * label
    fair = np.array([[1.0, 1], [1, 0], [-1, 1], [-1, 0]] * 25)
    fields: dict[str, Any] = {
        "batch_size": examples,
        "epochs": 50,
        "lr": 0.1,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "schedule": "constant",
        **recipe,
    }
    with warnings.catch_warnings():
        # With four kinds of points, validation examples equal training examples by nature.
        warnings.simplefilter("ignore", UserWarning)
        task = Task(
            name=f"{kind}-skew",
            train=(torch.as_tensor(x), torch.as_tensor((label > 0).astype(np.int64))),
            validation=(
                torch.as_tensor(inputs(fair[:, 0], fair[:, 1] > 0)),
                torch.as_tensor((fair[:, 0] > 0).astype(np.int64)),
            ),
            model=lambda: nn.Linear(features, 2, bias=False),
            recipe=Recipe(**fields),
            classes=2,
        )
    chosen = rng.permutation(pool)[:count]
    gone = ForgetSet.of(
        task,
        chosen,
        name=f"{forget}-{count}",
        how=f"{count} of {len(pool)} {forget} points of a spurious split (seed {seed}).",
        chooser=f"{kind}_skew",
        options={"forget": forget, "share": share, "seed": seed},
    )
    kept = np.delete(agrees, chosen)
    return SkewProblem(task, gone, SkewTruth(float(agrees.mean()), float(kept.mean()), agrees, invariant, noise))
