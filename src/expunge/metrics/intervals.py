"""Intervals of readings of KLoM: those averages at which the observed reading would be no surprise.

A reading is close to a sum of squares of noise plus a difference, sum_i (d_i + z_i)^2, whose spread grows with its
average. The interval therefore holds every average mu whose readings have the observed one between their 2.5th and
97.5th percentile, with cumulants that move with mu:

    variance        v(mu) = v + c (mu - value),         c = (2 k + k0) / (3 v)
    third cumulant  k(mu) = k + 3/2 c^2 (mu - value)

v and k are those of the replicates (`Bootstrap`, which start where readings average the observed one), k0 is the
third cumulant at the floor. For a sum of squares with one large direction these are exact: there, c = 4 Var z.
Percentiles are those of the gamma law with these cumulants (Wilson and Hilferty's approximation), so that an interval
near the floor is not symmetric. Above the value c is at least what it is in the one direction in which members err
together (`rise_of`), where a larger difference would most likely lie. Below it c is negative when replicates show that
beyond two standard errors: near saturation readings vary the less, the larger they are. Then k(mu) = k.

Few members say little about their own spread. With n = M + N - 2, the variance of a sum of squares of g equal
independent directions has the relative variance 2 / f with (`freedom_of`)

    1 / f = 4 / (n g) + 2 / n^2

since it is estimated from the products of all pairs of members. Student's quantile for f degrees of freedom takes the
place of the Gaussian's. g comes from the members themselves (`expunge.metrics.bootstrap`): near 1 where they err
together, as many as there are examples where they do not. P95 hangs on few examples; for it g is 1.

Members are whole, and readings discrete numbers. Where these are further apart than replicates vary, a standard
deviation says little: the interval then reaches at least to what is read with one member more or less in a cell
(`step`), and covers more than 95 %, as exact intervals of proportions do.

The value counts as an estimate of the average reading at these numbers of members, which is what the floor is too;
their difference is what verdicts are made from.

Source: test inversion (Carpenter, J. R. Statist. Soc. B 61, 1999); Wilson and Hilferty, PNAS 17 (1931); the line of
cumulants is ours. tests/metrics/test_intervals.py and benchmarks/coverage.py measure what is covered.
"""

from __future__ import annotations

import numpy as np
import scipy

from expunge.core.checks import between
from expunge.metrics.arrays import Array

REACH, STEPS = 8.0, 401
"""How far averages are tried on either side of the value, in standard deviations, and how many."""
MOST_SKEW = 2.8
"""Largest skewness believed: that of one squared Gaussian."""


def interval(
    value: float,
    replicates: Array,
    null: Array,
    confidence: float = 0.95,
    *,
    freedom: float = np.inf,
    rise: float = 0.0,
    step: tuple[float, float] = (0.0, 0.0),
) -> tuple[float, float]:
    """Return the interval of the average reading; see the module.

    Args:
        value: The reading, or a difference of readings.
        replicates: Bootstrap readings from a start that reads like `value` on average (replicates,).
        null: Bootstrap readings of two sets of oracles, or differences of them (replicates,).
        confidence: Coverage, 0.5 to 0.9999.
        freedom: Degrees of freedom f of the spread of the replicates.
        rise: Least slope c above the value; see `rise_of`.
        step: How far below and above the value the interval reaches at least.

    Returns:
        Lower and upper end; NaN with fewer than 3 replicates.
    """
    between(0.5, 0.9999, confidence=confidence)
    if len(replicates) < 3:
        return float("nan"), float("nan")
    variance, third, spread = float(replicates.var(ddof=1)), _third(replicates), float(replicates.std(ddof=1))
    if spread == 0:
        return value - step[0], value + step[1]
    most = MOST_SKEW * spread
    slope = (2 * third + _third(null)) / (3 * variance)
    # The skewness of Gaussian replicates has standard error sqrt(6 / R), and the slope 2/3 of that.
    falling = slope < -2 * np.sqrt(6 / len(replicates)) * 2 / 3 * spread
    slope = max(slope, -most) if falling else min(max(slope, 0.0), most)
    away = np.linspace(-REACH, REACH, STEPS) * spread
    steep = np.where(away > 0, min(max(slope, rise, 0.0), most), slope)
    least = min(variance, float(null.var(ddof=1)))
    deviation = np.sqrt(np.maximum(variance + steep * away, least))
    skew = (third + 1.5 * np.maximum(steep, 0) ** 2 * away) / deviation**3
    z = float(scipy.special.stdtrit(max(1.0, freedom), 0.5 + confidence / 2))
    above = away + gamma_quantile(z, skew) * deviation  # 97.5th percentile of readings, less the value
    below = away + gamma_quantile(-z, skew) * deviation
    middle = STEPS // 2
    fall, climb = -_crossing(away[middle::-1], above[middle::-1]), _crossing(away[middle:], below[middle:])
    return value - max(fall, step[0]), value + max(climb, step[1])


def freedom_of(members: int, oracles: int, directions: float) -> float:
    """Return the degrees of freedom f of the spread of readings; see the module.

    Args:
        members: Members M.
        oracles: Oracles N.
        directions: Directions g in which members err, at least 1.

    >>> round(freedom_of(20, 20, 1.0), 1), round(freedom_of(20, 20, 70.0))
    (9.4, 346)
    """
    n = max(1, members + oracles - 2)
    return 1 / (4 / (n * max(1.0, directions)) + 2 / n**2)


def rise_of(null: Array) -> float:
    """Return how fast the variance of readings grows with their average when it grows in the members' common direction.

    With noise of variance t in one direction and little in each of many others, the third cumulant of readings of two
    sets of oracles is 8 t^3, and the slope 4 t. One standard error is taken off the cumulant.

    Args:
        null: Bootstrap readings of two sets of oracles (replicates,).
    """
    error = np.sqrt(6 / len(null)) * float(null.std()) ** 3
    return float(2 * np.cbrt(max(0.0, _third(null) - error)))


def spread_of(replicates: Array, confidence: float = 0.95) -> tuple[float, float]:
    """Return the range around the mean of the replicates in which another such reading would lie."""
    mean, deviation = float(replicates.mean()), float(replicates.std(ddof=1))
    if deviation == 0:
        return mean, mean
    z, skew = float(scipy.special.ndtri(0.5 + confidence / 2)), np.array([_third(replicates) / deviation**3])
    low, high = (mean + float(gamma_quantile(sign * z, skew)[0]) * deviation for sign in (-1, 1))
    return low, high


def gamma_quantile(z: float, skew: Array) -> Array:
    """Return quantiles of gamma laws of mean 0 and variance 1 where a Gaussian's is z.

    Args:
        z: Gaussian quantile.
        skew: Skewness of each law, cut to -2.8 to 2.8; a negative one is that of the mirrored law.

    >>> gamma_quantile(1.96, np.array([0.0, 1.0])).round(2).tolist()
    [1.96, 2.38]
    """
    g = np.clip(np.abs(skew), 1e-6, MOST_SKEW)
    side = np.where(skew < 0, -1.0, 1.0)
    return np.asarray(side * 2 / g * (np.maximum(1 + side * g * z / 6 - g**2 / 36, 0) ** 3 - 1))


def _third(values: Array) -> float:
    return float(((values - values.mean()) ** 3).mean())


def _crossing(away: Array, curve: Array) -> float:
    """Where the curve, followed outwards from the value, first reaches the value (0), by linear interpolation."""
    sign = np.sign(curve[0])
    crossed = np.flatnonzero(np.sign(curve) != sign)
    if len(crossed) == 0:
        return float(away[-1])
    i = int(crossed[0])
    part = curve[i - 1] / (curve[i - 1] - curve[i])
    return float(away[i - 1] + part * (away[i] - away[i - 1]))
