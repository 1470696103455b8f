"""The reading: one number an ensemble, beside the same number of the oracles, with the side on which it lies.

Sides in words, in this order:

    failed                    more than 5 % of the unlearned members failed (`expunge.metrics.failures.FAILED_SHARE`)
    undecided                 fewer than 2 sound members, or fewer than 2 oracles: nothing to tell a difference by
    not told from the oracle  the 95 % interval of the difference holds 0; no evidence that they are alike, which only
                              the verdict tests
    under-, over-forgotten    the interval lies on one side; `off the oracle` where the sign says nothing
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import scipy

from expunge.core import InputError, Result
from expunge.metrics.arrays import Array, to_array
from expunge.metrics.failures import FAILED_SHARE

Side = Literal["not told from the oracle", "under-forgotten", "over-forgotten", "off the oracle", "failed", "undecided"]


def mean_interval(values: Any, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return mean, lower and upper end of Student's t interval of the mean; NaN ends with fewer than 2 values."""
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) == 0:
        return float("nan"), float("nan"), float("nan")
    mean = float(numbers.mean())
    if len(numbers) < 2:
        return mean, float("nan"), float("nan")
    half = float(
        scipy.stats.t.ppf(0.5 + confidence / 2, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers))
    )
    return mean, mean - half, mean + half


def settled(failed: int, members: int, oracles: int) -> Side | None:
    """Return the side where a difference is not asked for: too many failed, or too few left to tell.

    Args:
        failed: Unlearned members that failed.
        members: Unlearned members, failed ones included.
        oracles: Oracles.
    """
    if failed > FAILED_SHARE * members:
        return "failed"
    return "undecided" if min(members - failed, oracles) < 2 else None


def side_of(low: float, high: float, over: Literal["below", "above", "neither"]) -> Side:
    """Return the side from the interval of value minus oracle.

    Args:
        low: Lower end of the interval of the difference; NaN says nothing.
        high: Upper end.
        over: On which side of the oracle over-forgetting lies; `neither` when the sign says nothing.
    """
    if not (low > 0 or high < 0):
        return "not told from the oracle"
    if over == "neither":
        return "off the oracle"
    return "over-forgotten" if (high < 0) == (over == "below") else "under-forgotten"


def compare(
    metric: str,
    unlearned: Any,
    oracle: Any,
    *,
    examples: int,
    smallest: float,
    largest: float,
    over: Literal["below", "above", "neither"],
    unit: str,
    ideal: str = "the oracle's value; closer is better",
) -> Result:
    """Return a reading from one number a member.

    The distance is `(1 - f) |mean of the finite members - oracle| + f * worst` with f the share of failed members and
    worst the largest distance that the range allows, so that replacing a member by a failed one never lowers it (the
    triangle inequality). The side follows from Welch's 95 % interval of the difference of means, given the examples.

    Args:
        metric: Name.
        unlearned: One value a member, shape (members,); NaN or infinite where the member failed.
        oracle: One finite value an oracle, shape (oracles,).
        examples: Examples behind each value.
        smallest: Smallest value that the metric can take.
        largest: Largest value that the metric can take; infinity if it has no bound.
        over: On which side of the oracle over-forgetting lies; `neither` when the sign says nothing.
        unit: Unit of the value.
        ideal: What a perfect method would read.

    Raises:
        InputError: If an oracle's value is not finite, or a side is empty.
    """
    ours, theirs = to_array(unlearned, "unlearned", ndim=1), to_array(oracle, "oracle", ndim=1)
    if not np.isfinite(theirs).all():
        raise InputError(f"{metric}: {int((~np.isfinite(theirs)).sum())} oracles have no finite value, expected none.")
    alive = ours[np.isfinite(ours)]
    failed = len(ours) - len(alive)
    value, low, high = mean_interval(alive)
    floor, floor_low, floor_high = mean_interval(theirs)
    share = failed / len(ours)
    worst = max(largest - floor, floor - smallest)
    distance = (1 - share) * abs(value - floor) if len(alive) else 0.0
    distance += share * worst if failed else 0.0
    return Result(
        metric=metric,
        summary="mean",
        value=value,
        low=low,
        high=high,
        floor=floor,
        floor_low=floor_low,
        floor_high=floor_high,
        distance=distance,
        side=settled(failed, len(ours), len(theirs)) or side_of(*_difference(alive, theirs), over),
        members=len(ours),
        oracles=len(theirs),
        examples=examples,
        failed=failed,
        unit=unit,
        ideal=ideal,
    )


def _difference(ours: Array, theirs: Array) -> tuple[float, float]:
    """Return Welch's 95 % interval of the difference of means, from at least 2 values a side."""
    difference = float(ours.mean() - theirs.mean())
    a, b = ours.var(ddof=1) / len(ours), theirs.var(ddof=1) / len(theirs)
    spread = a + b
    if spread > 0:
        freedom = spread**2 / (a**2 / (len(ours) - 1) + b**2 / (len(theirs) - 1))
        half = float(scipy.stats.t.ppf(0.975, freedom) * np.sqrt(spread))
    else:
        # Constants that differ are told apart; rounding is not a difference.
        half = 1e-12 * max(1.0, abs(float(theirs.mean())))
    return difference - half, difference + half
