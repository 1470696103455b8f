"""The linear datamodeling score (LDS): do predicted margins rank held-out subsets as their models do?

    LDS = mean over targets i of  Spearman over subsets k ( m_ki, c_i + sum_{j in S_k} beta_ji )

Subsets must be others than those of the fit. All targets share them, so the interval comes from leaving out groups of
subsets (jackknife), not from the spread over targets.

Source: Park et al., "TRAK" (arXiv 2303.14186), sec. 2 and 4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy

from expunge.core import InputError
from expunge.core.checks import between
from expunge.core.ranks import spearman_rows

Array = np.ndarray[Any, Any]

GROUPS = 20
"""Groups of subsets that are left out in turn."""

FEWEST = 10
"""Held-out subsets below which a rank correlation says nothing."""


class LinearScore(NamedTuple):
    """A linear datamodeling score with its interval."""

    score: float
    """Mean rank correlation over targets, -1 to 1."""
    low: float
    high: float
    by_target: Array
    """Rank correlation of each target, shape (targets,); NaN where margins or predictions do not vary."""


def linear_datamodeling_score(predicted: Any, margins: Any, confidence: float = 0.95) -> LinearScore:
    """Return the mean over targets of the rank correlation between predicted and true margins of held-out subsets.

    Args:
        predicted: Predictions, shape (subsets, targets); only their order over subsets counts.
        margins: Margins of the models trained on those subsets, the same shape.
        confidence: Of the interval, above 0 and below 1.

    Raises:
        InputError: If shapes differ, values are not finite, there are too few subsets, or nothing varies.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (predicted, margins))
    if a.ndim != 2 or a.shape != b.shape:
        raise InputError(
            f"predicted has shape {a.shape} and margins {b.shape}, expected the same (subsets, targets) for both."
        )
    if len(a) < FEWEST:
        raise InputError(f"{len(a)} held-out subsets, expected at least {FEWEST} to rank.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("predicted or margins hold non-finite values, expected only subsets with finite models.")
    between(1e-6, 1 - 1e-6, confidence=confidence)
    by_target = spearman_rows(a.T, b.T)
    if not np.isfinite(by_target).any():
        raise InputError("margins or predictions of every target are the same for all subsets; nothing can be ranked.")
    score = float(np.nanmean(by_target))
    groups = min(GROUPS, len(a))
    group = np.arange(len(a)) * groups // len(a)
    left = np.array([_mean(spearman_rows(a[group != g].T, b[group != g].T), score) for g in range(groups)])
    error = np.sqrt((groups - 1) / groups * ((left - left.mean()) ** 2).sum())
    half = float(scipy.stats.t.ppf(0.5 + confidence / 2, groups - 1) * error)
    return LinearScore(score, max(-1.0, score - half), min(1.0, score + half), by_target)


def _mean(values: Array, otherwise: float) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else otherwise
