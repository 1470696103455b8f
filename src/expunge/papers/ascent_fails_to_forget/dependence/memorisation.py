"""Memorisation and influence: what it changes on average that an example was trained on.

    influence(j -> i) = E[ v_i | j in S ] - E[ v_i | j not in S ],        memorisation(i) = influence(i -> i)

over random subsets S of one size. With v = 1 for a correct answer it is Feldman's definition, the estimator of Feldman
and Zhang; with v = margin it is far less noisy, and not bounded.

Source: Feldman (arXiv 1906.05271), def. 1; Feldman and Zhang, "What Neural Networks Memorize and Why" (arXiv
2008.03703), sec. 2: subsets of 70 %, 2,000 to 4,000 models.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from expunge.core import InputError
from expunge.core.checks import one_of
from expunge.dependence.datamodels import blocks, check_masks
from expunge.dependence.subsets import SubsetEnsemble

Array = np.ndarray[Any, Any]
Of = Literal["correct", "margins"]


class Difference(NamedTuple):
    """Mean with the example minus mean without it."""

    value: Array
    """From -1 to 1 for correct answers; in units of margins otherwise."""
    standard_error: Array
    """Same shape; from the spread of the models with and without the example."""


def memorisation(subsets: SubsetEnsemble, of: Of = "correct") -> Difference:
    """Return how much better a model does on a training example for having been trained on it.

    Args:
        subsets: Masks, margins and answers; only targets among the training examples are read.
        of: `correct` (Feldman) or `margins`.

    Returns:
        Value and standard error by training target, in the order of the targets, shape (training targets,).

    Raises:
        InputError: If no target is a training example, or one is in (or outside) fewer than two subsets.
    """
    sound, values = _read(subsets, of)
    inside = _training_targets(subsets)
    masks = sound.masks[:, subsets.own[inside]]
    _check_counts(masks, subsets.own[inside])
    values = values[:, inside]
    return _difference(
        masks.sum(0), len(masks), (masks * values).sum(0), (masks * values**2).sum(0), values.sum(0), (values**2).sum(0)
    )


def unseen_spread(subsets: SubsetEnsemble) -> Array:
    """Return how much more a training example's margin varies between models that have not seen it.

    Args:
        subsets: Masks and margins; only targets among the training examples are read.

    Returns:
        Standard deviation over the models without the example, relative to that over the models with it, in the order
        of the targets, shape (training targets,); 1 where the margin does not vary.

    Raises:
        InputError: If no target is a training example, or one is in (or outside) fewer than two subsets.
    """
    sound, values = _read(subsets, "margins")
    inside = _training_targets(subsets)
    masks, values = sound.masks[:, subsets.own[inside]], values[:, inside]
    _check_counts(masks, subsets.own[inside])
    seen, unseen = (np.ma.array(values, mask=hidden).std(0, ddof=1).filled(0.0) for hidden in (~masks, masks))
    varies = (seen > 0) & (unseen > 0)
    return np.asarray(np.where(varies, unseen / np.where(varies, seen, 1.0), 1.0))


def subset_influence(subsets: SubsetEnsemble, of: Of = "correct", targets: slice = slice(None)) -> Difference:
    """Return how much better a model does on each target for having been trained on each example.

    Args:
        subsets: Masks, margins and answers.
        of: `correct` (Feldman) or `margins`.
        targets: Which targets; the result of all has (examples, targets) numbers, twice.

    Returns:
        Value and standard error, each (examples, targets).

    Raises:
        InputError: If an example is in (or outside) fewer than two subsets.
    """
    sound, values = _read(subsets, of)
    values = values[:, targets]
    n = sound.masks.shape[1]
    _check_counts(sound.masks, np.arange(n))
    value, error = (np.empty((n, values.shape[1])) for _ in range(2))
    for part in blocks(n):
        z = sound.masks[:, part].astype(np.float64)
        counts = z.sum(0)[:, None]
        found = _difference(counts, len(z), z.T @ values, z.T @ values**2, values.sum(0), (values**2).sum(0))
        value[part], error[part] = found
    return Difference(value, error)


def _read(subsets: SubsetEnsemble, of: Of) -> tuple[SubsetEnsemble, Array]:
    one_of(("correct", "margins"), of=of)
    check_masks(subsets.masks)
    sound = subsets.usable()
    if len(sound) == 0:
        raise InputError("no subset model has finite margins, expected at least a few of each kind.")
    values = (sound.correct if of == "correct" else sound.margins).astype(np.float64)
    # Differences do not depend on a common shift; without it the sums of squares lose no digits.
    return sound, values - values.mean(0)


def _training_targets(subsets: SubsetEnsemble) -> Array:
    inside = np.flatnonzero(subsets.own >= 0)
    if not len(inside):
        raise InputError("no target is a training example, expected targets='train' or 'all' in train_subsets.")
    return inside


def _check_counts(masks: Array, positions: Array) -> None:
    counts = masks.sum(0)
    few = np.flatnonzero((counts < 2) | (counts > len(masks) - 2))
    if few.size:
        raise InputError(
            f"example {positions[few[0]]} is in {counts[few[0]]} of {len(masks)} subsets ({few.size} examples are like "
            "that), expected at least 2 with it and 2 without; train more subsets, or choose alpha nearer to 0.5."
        )


def _difference(inside: Array, k: int, sum_in: Array, square_in: Array, total: Array, square: Array) -> Difference:
    outside = k - inside
    mean_in, mean_out = sum_in / inside, (total - sum_in) / outside
    spread_in = np.maximum(square_in / inside - mean_in**2, 0.0) / (inside - 1)
    spread_out = np.maximum((square - square_in) / outside - mean_out**2, 0.0) / (outside - 1)
    return Difference(mean_in - mean_out, np.sqrt(spread_in + spread_out))
