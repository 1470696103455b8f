"""Lemma 1: for a random forget set, the right forget accuracy is the test accuracy.

F is drawn uniformly from D, so for the oracle, which never saw it, F is a fresh sample of |F| = m points. Hoeffding's
inequality bounds how far its accuracy on F can be from its accuracy on the population, and a union of two such bounds
how far it can be from its accuracy on a finite test set of n points:

    P(|acc(F) - acc|    >= t) <= 2 exp(-2 m t^2)
    P(|acc(F) - acc(T)| >= t) <= 2 exp(-2 m s^2) + 2 exp(-2 n (t - s)^2)     for every s in [0, t]

A forget accuracy further below the test accuracy is over-forgetting, not success.

Source: "Ascent Fails to Forget" (arXiv 2509.26427), Lemma 1; W. Hoeffding, JASA 58 (1963).
"""

from __future__ import annotations

import math

from scipy.optimize import brentq, minimize_scalar

from expunge.core.checks import between, positive, whole
from expunge.core.errors import InputError


def population_bound(size: int, gap: float) -> float:
    """Return the largest probability that forget and population accuracy of an oracle differ by `gap` or more.

    Args:
        size: |F|, at least 1.
        gap: t, accuracy as a share, from 0 to 1.

    Returns:
        A probability, clipped to 1 where the bound says nothing.

    >>> round(population_bound(500, 0.061), 3)
    0.048
    """
    whole(size=size)
    between(0.0, 1.0, gap=gap)
    return min(1.0, 2.0 * math.exp(-2.0 * size * gap**2))


def finite_test_bound(size: int, test: int, gap: float, *, split: float | None = None) -> float:
    """Return the same against accuracy on a finite test set.

    Args:
        size: |F|, at least 1.
        test: n, examples in the test set, at least 1.
        gap: t, from 0 to 1.
        split: Share of `gap` given to F, from 0 to 1; 0.5 is the paper's version, None the best share.

    Returns:
        A probability, clipped to 1.
    """
    whole(size=size, test=test)
    between(0.0, 1.0, gap=gap)
    if split is not None:
        between(0.0, 1.0, split=split)
        return min(1.0, _union(size, test, gap, split))
    # The even split is always a candidate, so that a search caught on a plateau can never be worse than the paper.
    best = minimize_scalar(lambda s: _union(size, test, gap, s), bounds=(0.0, 1.0), method="bounded").fun
    return min(1.0, float(best), _union(size, test, gap, 0.5))


def smallest_size(gap: float, *, confidence: float = 0.95, test: int | None = None) -> int:
    """Return the smallest |F| for which a gap of t is significant.

    Args:
        gap: t, above 0 and at most 1.
        confidence: Between 0 and 1.
        test: Examples in the test set; None means that population accuracy is known.

    Raises:
        InputError: If no forget set is large enough, because the test set is too small for this gap.

    >>> smallest_size(0.1)
    185
    """
    positive(gap=gap)
    between(0.0, 1.0, gap=gap)
    _check_confidence(confidence)
    chance = 1.0 - confidence
    if test is None:
        return max(1, math.ceil(math.log(2.0 / chance) / (2.0 * gap**2) - 1e-12))
    whole(test=test)
    if 2.0 * math.exp(-2.0 * test * gap**2) >= chance:
        raise InputError(
            f"test = {test} examples cannot resolve gap = {gap} at confidence {confidence} however large the forget "
            f"set is; expected more than {math.log(2.0 / chance) / (2.0 * gap**2):.0f} test examples."
        )
    high = 1
    while finite_test_bound(high, test, gap) > chance:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if finite_test_bound(middle, test, gap) <= chance else (middle, high)
    return high


def smallest_gap(size: int, *, confidence: float = 0.95, test: int | None = None) -> float:
    """Return the smallest significant gap t; above 1 means that no gap would be.

    Args:
        size: |F|, at least 1.
        confidence: Between 0 and 1.
        test: Examples in the test set; None means that population accuracy is known.

    >>> round(smallest_gap(500), 3)
    0.061
    """
    whole(size=size)
    _check_confidence(confidence)
    chance = 1.0 - confidence
    alone = math.sqrt(math.log(2.0 / chance) / (2.0 * size))
    if test is None:
        return alone
    whole(test=test)

    def excess(gap: float) -> float:
        best = minimize_scalar(lambda s: _union(size, test, gap, s), bounds=(0.0, 1.0), method="bounded").fun
        return min(float(best), _union(size, test, gap, 0.5)) - chance

    return float(brentq(excess, alone, 10.0 * math.sqrt(math.log(4.0 / chance) * (1 / size + 1 / test))))


def _union(size: int, test: int, gap: float, split: float) -> float:
    return 2.0 * math.exp(-2.0 * size * (split * gap) ** 2) + 2.0 * math.exp(-2.0 * test * ((1 - split) * gap) ** 2)


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise InputError(f"confidence = {confidence}, expected a number between 0 and 1, both excluded.")
