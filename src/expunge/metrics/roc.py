"""ROC statistics of an attack: area with ties, balanced accuracy, true-positive rate at a low false-positive rate.

Convention everywhere: a higher score says "positive" (member, or trained then unlearned); a NaN score is an input error
unless the caller has decided what it means, because silence would sort it somewhere.

Intervals follow what is a sample. Where scores are independent (one model, many examples) `tpr_at_fpr` allows for the
noise of both sides, as the threshold comes from the negatives. Where many models are scored on the same examples, the
scores of one model move together, and `pooled_roc` resamples whole models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy

from expunge.core import InputError
from expunge.core.checks import between, plain_arguments, whole
from expunge.core.seeds import numpy_seed
from expunge.metrics.arrays import Array, slices, to_array

CELLS = 1024
"""Cells at most that scores are counted in for the bootstrap of many models."""


class Interval(NamedTuple):
    """A rate or an area with its confidence interval."""

    value: float
    """The rate or area."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""


@dataclass(frozen=True)
class Roc:
    """What one attack achieves on one set of positives and negatives."""

    auc: float
    """Area under the curve, ties counted one half; 0.5 is chance."""
    balanced_accuracy: float
    """Mean of true-positive and true-negative rate at the threshold given to `roc`, or NaN without one."""
    tpr: Interval
    """True-positive rate at the largest attainable false-positive rate of at most `fpr`; see `tpr_at_fpr`."""
    fpr: float
    """The false-positive rate asked for."""
    resolution: float
    """One over the number of negatives: below it no false-positive rate is seen, and `tpr` reads above all of them."""
    positives: int
    """Scores of positives."""
    negatives: int
    """Scores of negatives."""


@plain_arguments
def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Return the exact two-sided binomial interval.

    Args:
        successes: From 0 to `trials`.
        trials: At least 1.
        confidence: Coverage, between 0 and 1.

    Source: Clopper and Pearson, Biometrika 26 (1934).

    >>> interval = clopper_pearson(0, 100)
    >>> round(interval.high, 5)
    0.03622
    """
    between(0, 1, confidence=confidence)
    if not 0 <= successes <= trials or trials < 1:
        raise InputError(
            f"successes = {successes} of trials = {trials}, expected 0 <= successes <= trials, trials >= 1."
        )
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(scipy.special.betaincinv(successes, trials - successes + 1, tail))
    high = 1.0 if successes == trials else float(scipy.special.betaincinv(successes + 1, trials - successes, 1 - tail))
    return Interval(successes / trials, low, high)


@plain_arguments
def clopper_pearson_upper(successes: int, trials: int, significance: float = 0.05) -> float:
    """Return the one-sided upper bound that a rate exceeds with probability at most `significance`.

    Args:
        successes: From 0 to `trials`.
        trials: At least 1.
        significance: Chance of the bound being too small.
    """
    return clopper_pearson(successes, trials, 1 - 2 * significance).high


def auc(positives: Any, negatives: Any) -> Array:
    """Return the probability that a positive scores above a negative, ties counted one half.

    Args:
        positives: Scores, shape (..., positives).
        negatives: Scores, shape (..., negatives), the same leading axes.

    Returns:
        Shape (...), from 0 to 1.

    Raises:
        InputError: If a score is NaN.

    Source: the Mann-Whitney statistic over the product of sizes.

    >>> float(auc([1.0, 1.0], [1.0, 0.0]))
    0.75
    """
    p, n = to_array(positives, "positives"), to_array(negatives, "negatives")
    if np.isnan(p).any() or np.isnan(n).any():
        raise InputError(
            f"{int(np.isnan(p).sum() + np.isnan(n).sum())} scores are NaN, expected numbers (or infinities)."
        )
    ranks = scipy.stats.rankdata(np.concatenate([p, n], -1), axis=-1)
    m, k = p.shape[-1], n.shape[-1]
    return np.asarray((ranks[..., :m].sum(-1) - m * (m + 1) / 2) / (m * k))


@plain_arguments
def tpr_at_fpr(positives: Any, negatives: Any, fpr: float = 0.001, confidence: float = 0.95) -> Interval:
    """Return the share of positives above the lowest threshold that keeps false positives at or below a rate.

    The threshold is `score > t` with t one of the negative scores, so that ties never help: the false-positive rate is
    at most `fpr`, and 0 when fewer than 1 / fpr negatives are given.

    The interval is for the true-positive rate at the threshold that has this false-positive rate among all negatives.
    That threshold lies between two of the negative scores, as the number of negatives above it is binomial; how far the
    rate changes up to these is put together with the Clopper-Pearson interval as independent errors are. With fewer
    than about 3.7 / fpr negatives no negative is surely above the threshold, and the lower end is 0. Clopper-Pearson
    alone, `clopper_pearson(hits, positives)`, is for a threshold that was fixed on other data; with the threshold from
    the same negatives it covers in 40 to 90 % of cases.

    Args:
        positives: Independent scores, shape (positives,).
        negatives: Independent scores, shape (negatives,).
        fpr: Largest false-positive rate, 0 to 1.
        confidence: Coverage of the interval, about.

    Source: Carlini et al., "Membership Inference Attacks From First Principles" (arXiv 2112.03570), Section III; the
    interval of a quantile from order statistics is in David and Nagaraja, Order Statistics (2003), Section 7.1.
    """
    between(0, 1, fpr=fpr)
    p, n = _numbers(positives, "positives"), np.sort(_numbers(negatives, "negatives"))[::-1]
    allowed = int(np.floor(fpr * len(n) + 1e-9))
    value = _share_above(p, n, allowed)
    _, low, high = clopper_pearson(round(value * len(p)), len(p), confidence)
    if fpr == 1:
        return Interval(value, low, high)
    tail = (1 - confidence) / 2
    fewest, most = (int(scipy.stats.binom.ppf(level, len(n), fpr)) for level in (tail, 1 - tail))
    strict = _share_above(p, n, fewest - 1) if fewest > 0 else 0.0
    down, up = np.hypot(value - low, value - strict), np.hypot(high - value, _share_above(p, n, most) - value)
    return Interval(value, max(0.0, float(value - down)) if fewest > 0 else 0.0, min(1.0, float(value + up)))


def _share_above(positives: Array, descending: Array, rank: int) -> float:
    """Return the share of positives above the negative of a rank, counted from 0 at the largest."""
    return 1.0 if rank >= len(descending) else float((positives > descending[rank]).mean())


def _numbers(scores: Any, what: str, ndim: int = 1) -> Array:
    values = to_array(scores, what, ndim=ndim)
    if np.isnan(values).any():
        raise InputError(f"{int(np.isnan(values).sum())} scores are NaN, expected numbers (or infinities) in {what}.")
    return values


@plain_arguments
def balanced_accuracy(positives: Any, negatives: Any, threshold: float) -> float:
    """Return the mean of the shares of positives above and negatives not above a threshold, ties counted one half.

    Args:
        positives: Scores, shape (positives,).
        negatives: Scores, shape (negatives,).
        threshold: Must not be chosen on these scores, or the result is biased upwards.
    """
    p, n = to_array(positives, "positives", ndim=1), to_array(negatives, "negatives", ndim=1)
    return float(0.5 * (_above(p, threshold) + 1 - _above(n, threshold)))


def _above(scores: Array, threshold: float) -> float:
    return float((scores > threshold).mean() + 0.5 * (scores == threshold).mean())


@plain_arguments
def roc(positives: Any, negatives: Any, *, threshold: float | None = None, fpr: float = 0.001) -> Roc:
    """Return area, balanced accuracy and true-positive rate at a low false-positive rate together.

    Args:
        positives: Scores, shape (positives,).
        negatives: Scores, shape (negatives,).
        threshold: Threshold fixed beforehand, for the balanced accuracy; None leaves that NaN.
        fpr: Largest false-positive rate for `tpr`.
    """
    p, n = to_array(positives, "positives", ndim=1), to_array(negatives, "negatives", ndim=1)
    return Roc(
        auc=float(auc(p, n)),
        balanced_accuracy=float("nan") if threshold is None else balanced_accuracy(p, n, threshold),
        tpr=tpr_at_fpr(p, n, fpr),
        fpr=fpr,
        resolution=1 / len(n),
        positives=len(p),
        negatives=len(n),
    )


@dataclass(frozen=True)
class PooledRoc:
    """What one attack achieves on many models together; intervals are over models, given the examples."""

    auc: Interval
    """Area under the curve of all scores together, ties counted one half."""
    balanced_accuracy: Interval
    """Mean of true-positive and true-negative rate at the threshold."""
    tpr: Interval
    """True-positive rate at the largest attainable false-positive rate of at most the one asked for."""


class _Counts(NamedTuple):
    """Scores of every model in cells, from low to high."""

    positive: Array
    """Positives of each model in each cell, (models, cells)."""
    negative: Array
    """Negatives of each model in each cell, (models, cells)."""
    right: Array
    """Positives and negatives of each model on the right side of the threshold, (2, models)."""


def pooled_roc(
    scores: Any,
    positive: Any,
    *,
    group: Any = None,
    threshold: float = 0.0,
    fpr: float = 0.001,
    replicates: int = 1000,
    seed: int = 0,
) -> PooledRoc:
    """Return ROC statistics of the scores of many models together, with intervals that resample models.

    A model's positives are compared with its own negatives more often the fewer models there are, once in what is read
    and once more when models are drawn again. So the percentile interval is taken both as it is and moved by twice the
    bootstrap's bias, and holds both. It is widened by Student's t and by the root of models / (models - 1), without
    which few models would cover too rarely. Where models err together on all examples the one of the area still covers
    in 88 % at 10 models and in 93 % at 30. The one of the true-positive rate is at least as wide as `tpr_at_fpr` of all
    scores.

    Args:
        scores: Shape (models, examples), no NaN.
        positive: Which scores are of positives, boolean, the same shape.
        group: Models are resampled among those with the same number, shape (models,); None takes one group.
        threshold: Threshold of the balanced accuracy, fixed beforehand.
        fpr: Largest false-positive rate, 0 to 1.
        replicates: Bootstrap replicates, at least 100.
        seed: Draws them.

    Returns:
        The statistics; ends are NaN when a group has a single model.

    Raises:
        InputError: If a score is NaN, or there is no positive or no negative.
    """
    whole(100, replicates=replicates)
    values = _numbers(scores, "scores", ndim=2)
    truth = np.asarray(to_array(positive, "positive", ndim=2, flags=True), dtype=bool)
    groups = np.zeros(len(values), dtype=int) if group is None else np.asarray(group)
    if truth.all() or not truth.any():
        raise InputError("positive is the same for all, expected both positives and negatives.")
    p, n = values[truth], values[~truth]
    tpr = tpr_at_fpr(p, n, fpr)
    found = np.array([float(auc(p, n)), balanced_accuracy(p, n, threshold), tpr.value])
    counts = _in_cells(values, truth, threshold)
    centre = _resampled(counts, np.ones((1, len(values))), fpr)[:, 0]
    weights = _weights(groups, replicates, seed)
    drawn = _resampled(counts, weights, fpr)
    middle = np.nanmean(drawn, 1)
    ends = np.nanquantile(drawn, [0.025, 0.975], axis=1)
    fewest = int(np.unique(groups, return_counts=True)[1].min())
    wider = float("nan")
    if fewest > 1:
        wider = float(
            scipy.stats.t.ppf(0.975, fewest - 1) / scipy.stats.norm.ppf(0.975) * np.sqrt(fewest / (fewest - 1))
        )
    bias = middle - centre
    low, high = (found + wider * (end - middle) for end in ends)
    low = np.clip(np.minimum(low + bias, low - bias), 0, 1)
    high = np.clip(np.maximum(high + bias, high - bias), 0, 1)
    area, accuracy, rate = (Interval(*map(float, row)) for row in zip(found, low, high, strict=True))
    return PooledRoc(area, accuracy, Interval(rate.value, min(rate.low, tpr.low), max(rate.high, tpr.high)))


def _weights(groups: Any, replicates: int, seed: int) -> Array:
    """Return how often each replicate draws each model, (replicates, models)."""
    rng = np.random.default_rng(numpy_seed(seed))
    weights = np.zeros((replicates, len(groups)))
    for name in np.unique(groups):
        rows = np.flatnonzero(groups == name)
        weights[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), replicates)
    return weights


def _in_cells(values: Array, truth: Any, threshold: float) -> _Counts:
    edges = _edges(values, truth)
    counts = np.zeros((2, len(values), len(edges) + 1))
    right = np.zeros((2, len(values)))
    for row, (x, own) in enumerate(zip(values, truth, strict=True)):
        cell = np.searchsorted(edges, x)
        above = (x > threshold) + 0.5 * (x == threshold)
        right[:, row] = above[own].sum(), (1 - above[~own]).sum()
        for side, which in enumerate((own, ~own)):
            counts[side, row] = np.bincount(cell[which], minlength=len(edges) + 1)
    return _Counts(counts[0], counts[1], right)


def _edges(values: Array, truth: Any) -> Array:
    """Return upper ends of cells: every score where there are few, else negatives, closest together at the top.

    Only the spread of replicates is read from cells. Fine cells are needed where the thresholds of low false-positive
    rates lie; in the bulk a cell holds 3 % of the negatives above it at most, which moves an area by far less.
    """
    some = np.unique(values)
    if len(some) <= CELLS:
        return some
    negatives = np.sort(values[~truth])[::-1]
    ranks = np.unique(np.concatenate([np.arange(CELLS // 4), np.geomspace(1, len(negatives), CELLS // 2)]).astype(int))
    return np.unique(negatives[ranks[ranks < len(negatives)]])


def _resampled(counts: _Counts, weights: Array, fpr: float) -> Array:
    """Return area, balanced accuracy and true-positive rate of each replicate, (3, replicates); NaN without a side."""
    out = np.empty((3, len(weights)))
    for piece in slices(len(weights), 4 * counts.positive.shape[1]):
        w = weights[piece]
        p, n = w @ counts.positive, w @ counts.negative
        total_p, total_n = p.sum(1), n.sum(1)
        up_to = np.cumsum(n, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            out[0, piece] = (p * (up_to - 0.5 * n)).sum(1) / (total_p * total_n)
            out[1, piece] = 0.5 * ((w @ counts.right[0]) / total_p + (w @ counts.right[1]) / total_n)
            allowed = np.floor(fpr * total_n + 1e-9)
            cell = np.argmax(total_n[:, None] - up_to <= allowed[:, None], axis=1)
            rate = 1 - np.cumsum(p, 1)[np.arange(len(p)), cell] / total_p
            out[2, piece] = np.where(allowed >= total_n, 1.0, rate)
        out[:, piece][:, (total_p == 0) | (total_n == 0)] = np.nan
    return out
