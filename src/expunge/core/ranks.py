"""Spearman's rank correlation, of many rows at once; ties share their mean rank.

Source: Spearman, Am. J. Psychol. 15 (1904).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy

Array = np.ndarray[Any, Any]


def spearman(a: Array, b: Array) -> float:
    """Return Spearman's rank correlation; NaN when a side is constant.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))
    0.5
    """
    return float(spearman_rows(a[None], b[None])[0])


def spearman_rows(a: Array, b: Array) -> Array:
    """Return Spearman's rank correlation of each row, (rows,)."""
    x, y = scipy.stats.rankdata(a, axis=1), scipy.stats.rankdata(b, axis=1)
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    scale = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return np.asarray(np.divide((x * y).sum(1), scale, out=np.full(len(x), np.nan), where=scale > 0))
