"""ROC statistics of an attack: area with ties, balanced accuracy, true-positive rate at a low false-positive rate.

Convention everywhere: a higher score says "positive" (member, or trained then unlearned); a NaN score is an input error
unless the caller has decided what it means, because silence would sort it somewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import special, stats

from expunge.core import InputError
from expunge.core.checks import between
from expunge.metrics.arrays import Array, to_array


class Interval(NamedTuple):
    """A share of trials with its confidence interval."""

    value: float
    """Successes over trials."""
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
    """True-positive rate at the largest attainable false-positive rate of at most `fpr`, Clopper-Pearson 95 %."""
    fpr: float
    """The false-positive rate asked for."""
    resolution: float
    """One over the number of negatives: a rate below it cannot be observed, and `tpr` then reads at zero positives."""
    positives: int
    """Scores of positives."""
    negatives: int
    """Scores of negatives."""


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
    low = 0.0 if successes == 0 else float(special.betaincinv(successes, trials - successes + 1, tail))
    high = 1.0 if successes == trials else float(special.betaincinv(successes + 1, trials - successes, 1 - tail))
    return Interval(successes / trials, low, high)


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
    ranks = stats.rankdata(np.concatenate([p, n], -1), axis=-1)
    m, k = p.shape[-1], n.shape[-1]
    return np.asarray((ranks[..., :m].sum(-1) - m * (m + 1) / 2) / (m * k))


def tpr_at_fpr(positives: Any, negatives: Any, fpr: float = 0.001, confidence: float = 0.95) -> Interval:
    """Return the share of positives above the lowest threshold that keeps false positives at or below a rate.

    The threshold is `score > t` with t one of the negative scores, so that ties never help: the false-positive rate is
    at most `fpr`, and 0 when fewer than 1 / fpr negatives are given. The interval treats the threshold as fixed.

    Args:
        positives: Scores, shape (positives,).
        negatives: Scores, shape (negatives,).
        fpr: Largest false-positive rate, 0 to 1.
        confidence: Coverage of the Clopper-Pearson interval.

    Source: Carlini et al., "Membership Inference Attacks From First Principles" (arXiv 2112.03570), Section III.
    """
    between(0, 1, fpr=fpr)
    p, n = to_array(positives, "positives", ndim=1), np.sort(to_array(negatives, "negatives", ndim=1))[::-1]
    if np.isnan(p).any() or np.isnan(n).any():
        raise InputError(
            f"{int(np.isnan(p).sum() + np.isnan(n).sum())} scores are NaN, expected numbers (or infinities)."
        )
    allowed = int(np.floor(fpr * len(n) + 1e-9))
    threshold = -np.inf if allowed >= len(n) else float(n[allowed])
    hits = len(p) if allowed >= len(n) else int((p > threshold).sum())
    return clopper_pearson(hits, len(p), confidence)


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
