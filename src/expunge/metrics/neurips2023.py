"""The score of the NeurIPS 2023 unlearning challenge, with its calibration at the given number of members.

For each forget example, attacks threshold the margin: one threshold (the side with the larger median is positive), or
an interval about as wide as the narrower of the two samples, which is positive. From every pair of error rates

    epsilon = max(log(1 - delta - FPR) - log FNR, log(1 - delta - FNR) - log FPR)

rates with one 0 are thrown away and two zeros are perfect separation; the largest epsilon counts. An example earns 1,
1/2, 1/4, ... points as its epsilon falls in buckets of width 0.5, none from ceil(log(members - 1)) on, and

    score = mean points * (retain accuracy / the oracles') * (test accuracy / the oracles')

The ideal is not 1. A maximum over thresholds of ratios of small counts is large between identical laws. What they earn
depends on the scan and on the spread of margins, because grid and buffer are in units of margin: identical Gaussians at
512 members earn .33 with one threshold alone, .19 by the published rules at spread 1 (grid or exact thresholds), .09
(grid) and .06 (exact) at spread .3, where the buffer no longer binds and every interval is tried
(`benchmarks/challenge.py`). A value is readable beside `calibration` only, made with the same scan, and values at
different numbers of members cannot be compared. There is no confidence bound in it (`privacy.audit` has one).

Differs from the published code: with a failed member (non-finite, collapsed or exploded) every example has epsilon 50
and no points (there, a NaN falls out of every count); rates are computed in float64 from sorted samples; two constant
equal samples have epsilon 0 (there: 0/0).

Source: `metric.py` of google-deepmind/unlearning_evaluation; Triantafillou et al., "Are we making progress in
unlearning?" (arXiv 2406.09073).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.core import InputError
from expunge.core.checks import between, one_of, plain_arguments, whole
from expunge.core.seeds import derive
from expunge.metrics.arrays import Array, pair, slices
from expunge.metrics.failures import failed_members
from expunge.metrics.reading import mean_interval

DELTA = 1e-5
CAP = 50.0
BUCKET = 0.5
BUFFER = 2.0
PER_UNIT = 100
"""Thresholds a unit of margin on the published grid."""
WHOLE = 2**20
"""Points of the published grid up to which it is made whole; of a larger one only points that differ in a count."""


@dataclass(frozen=True)
class ChallengeScore:
    """Forgetting quality and score; compare `forgetting` with `calibration`, never with 1."""

    forgetting: float
    """Mean points of the forget examples, 0 to 1."""
    low: float
    """Lower end of the 95 % interval of `forgetting` over examples, given the members."""
    high: float
    """Upper end of it."""
    calibration: float
    """What two sets of oracles would earn at these numbers of members, if margins were normal: the attainable ideal."""
    calibration_low: float
    """Lower end of the 95 % interval of `calibration`."""
    calibration_high: float
    """Upper end of it."""
    score: float
    """`forgetting` times the two ratios of accuracies; NaN without accuracies."""
    epsilons: Array
    """Epsilon of each forget example, shape (examples,), from 0 to 50."""
    members: int
    """Unlearned members."""
    oracles: int
    """Oracle members."""
    examples: int
    """Forget examples."""
    failed: int
    """Unlearned members that failed; with any, no example earns a point."""
    ideal: str = "the calibration; closer is better"
    """What a perfect method would earn."""
    direction: str = "below the calibration the attacks found a difference; above it is noise, not better"
    """Which way is better."""

    @property
    def floor(self) -> float:
        """The calibration, under the name that it has in other results."""
        return self.calibration


@plain_arguments
def challenge_epsilons(unlearned: Any, oracle: Any, *, scan: str = "grid") -> Array:
    """Return the epsilon of each example by the challenge's attacks.

    Args:
        unlearned: Margins (members, examples).
        oracle: Margins (oracles, examples), at least 3 oracles.
        scan: `grid` tries the published thresholds, 100 a unit of margin, which depends on the scale of margins;
            `exact` tries one threshold between every two neighbouring margins, with the published widths of intervals.

    Returns:
        Shape (examples,), from 0 to 50; 50 where a member failed or one side is nearly constant beside the other.
    """
    one_of(("grid", "exact"), scan=scan)
    ours, theirs = pair(unlearned, oracle, minimum=3)
    values = np.full(ours.shape[1], CAP)
    if failed_members(ours, theirs).any():
        return values
    for i in range(ours.shape[1]):
        u, o = ours[:, i], theirs[:, i]
        values[i] = _epsilon(np.sort(u), np.sort(o), scan)
    return np.asarray(np.clip(values, 0, CAP))


def challenge_points(epsilons: Any, members: int) -> Array:
    """Return the points of each example: `2 ** -bucket` with buckets of 0.5, 0 from `ceil(log(members - 1))` on.

    Args:
        epsilons: Shape (examples,).
        members: Unlearned members, at least 3.

    >>> challenge_points([0.0, 0.5, 6.9, 7.0], 512).tolist()
    [1.0, 0.5, 0.0001220703125, 0.0]
    """
    whole(members=members, minimum=3)
    bucket = np.floor(np.asarray(epsilons, dtype=np.float64) / BUCKET)
    largest = int(np.ceil(np.log(members - 1)) / BUCKET)
    return np.where(bucket < largest, 2.0**-bucket, 0.0)


@plain_arguments
def challenge_score(
    unlearned: Any,
    oracle: Any,
    *,
    accuracies: tuple[float, float, float, float] | None = None,
    scan: str = "grid",
    calibration_examples: int = 100,
    seed: int = 0,
) -> ChallengeScore:
    """Return the challenge's score beside what an oracle would get.

    Args:
        unlearned: Margins on forget examples (members, examples), at least 3 members. In the challenge all members are
            unlearned from one original model.
        oracle: Margins of oracles on the same examples (oracles, examples).
        accuracies: Retain accuracy unlearned, of the oracles, test accuracy unlearned, of the oracles; 0 to 1.
        scan: As in `challenge_epsilons`.
        calibration_examples: Simulated examples for the calibration, from the oracles' means and deviations.
        seed: Draws them.
    """
    whole(calibration_examples=calibration_examples, minimum=2)
    ours, theirs = pair(unlearned, oracle, minimum=3)
    epsilons = challenge_epsilons(ours, theirs, scan=scan)
    quality, low, high = mean_interval(challenge_points(epsilons, len(ours)))
    score = float("nan")
    if accuracies is not None:
        between(0, 1, **dict(zip(("retain", "oracle_retain", "test", "oracle_test"), accuracies, strict=True)))
        if min(accuracies[1], accuracies[3]) == 0:
            raise InputError("an oracle accuracy is 0, expected above 0: the score divides by it.")
        score = quality * accuracies[0] / accuracies[1] * accuracies[2] / accuracies[3]
    level = calibration(theirs, len(ours), scan=scan, examples=calibration_examples, seed=seed)
    return ChallengeScore(
        forgetting=quality,
        low=low,
        high=high,
        calibration=level[0],
        calibration_low=level[1],
        calibration_high=level[2],
        score=score,
        epsilons=epsilons,
        members=len(ours),
        oracles=len(theirs),
        examples=ours.shape[1],
        failed=int(failed_members(ours, theirs).sum()),
    )


def calibration(
    oracle: Any, members: int, *, scan: str = "grid", examples: int = 100, seed: int = 0
) -> tuple[float, float, float]:
    """Return the points that identical laws earn at these numbers of members, with a 95 % interval.

    Both sides are drawn from the normal law with an oracle's mean and deviation at an example, drawn at random.

    Args:
        oracle: Margins (oracles, examples); their number is kept.
        members: Unlearned members, at least 3.
        scan: As in `challenge_epsilons`.
        examples: Simulated examples.
        seed: Draws them.
    """
    _, theirs = pair(oracle, oracle, minimum=3)
    rng = np.random.default_rng(derive(seed, "challenge calibration"))
    chosen = rng.integers(0, theirs.shape[1], examples)
    mean, spread = theirs.mean(0)[chosen], theirs.std(0, ddof=1)[chosen]
    left = mean + spread * rng.normal(size=(members, examples))
    right = mean + spread * rng.normal(size=(len(theirs), examples))
    return mean_interval(challenge_points(challenge_epsilons(left, right, scan=scan), members))


def _epsilon(u: Array, o: Array, scan: str) -> float:
    """Return the largest epsilon over both families of attacks, from two sorted finite samples."""
    ranges = float(np.ptp(u)), float(np.ptp(o))
    if max(ranges) == 0:
        return 0.0 if u[0] == o[0] else CAP
    if min(ranges) / max(ranges) < 0.01:
        return CAP
    return max(_single(u, o, scan), _double(u, o, scan))


def _single(u: Array, o: Array, scan: str) -> float:
    positive, negative = (o, u) if np.median(o) > np.median(u) else (u, o)
    pooled = np.sort(np.concatenate([u, o]))
    if scan == "grid":
        grid = _Grid(pooled[0], pooled[-1], max(2, int(np.ceil(np.ptp(pooled) * PER_UNIT))))
        cuts = grid.near(pooled)
    else:
        cuts = _between_neighbours(pooled)
    missed = np.searchsorted(positive, cuts, side="left") / len(positive)
    taken = 1 - np.searchsorted(negative, cuts, side="left") / len(negative)
    return _largest(taken, missed)


def _double(u: Array, o: Array, scan: str) -> float:
    # The narrower sample is positive; the interval takes in about its width, moved and stretched by the buffer.
    positive, negative = (o, u) if np.ptp(u) >= np.ptp(o) else (u, o)
    width = float(np.ptp(positive))
    low, high = positive[0] + width - BUFFER, positive[-1] + BUFFER
    pooled = np.sort(np.concatenate([u, o]))

    def inside(sample: Array, right: Array, left: Array) -> Array:
        upper, lower = np.searchsorted(sample, right, side="right"), np.searchsorted(sample, left, side="left")
        return np.asarray(np.maximum(upper - lower, 0) / len(sample))

    if scan == "grid":
        ends = _intervals(pooled, low, high, width)
        return _largest(inside(negative, *ends), 1 - inside(positive, *ends))
    cuts, best = _between_neighbours(pooled), 0.0
    rights = cuts[(cuts >= low) & (cuts <= high)]
    for part in slices(len(rights), 16 * len(cuts)):
        right, left = np.broadcast_arrays(rights[part, None], cuts[None, :])
        allowed = np.abs(left - (right - width)) <= BUFFER
        ends = right[allowed], left[allowed]
        best = max(best, _largest(inside(negative, *ends), 1 - inside(positive, *ends)))
    return best


def _intervals(pooled: Array, low: float, high: float, width: float) -> tuple[Array, Array]:
    """Return the right and left ends of the published grid's intervals, or of enough for every count that it has.

    An interval's counts change only where an end passes a margin. So each right end is tried next to every margin, and
    next to or inside the stretch from which a left end may reach a margin; there the left ends next to that margin.

    Args:
        pooled: All margins, sorted.
        low: Least right end.
        high: Largest right end.
        width: Width of the positive sample; a left end lies within the buffer of `right - width`.
    """
    rights = _Grid(low, high, int(np.ceil((high - low) * PER_UNIT)))
    offsets = _Grid(-BUFFER, BUFFER, int(np.ceil(2 * BUFFER * PER_UNIT)))
    if rights.count * offsets.count <= WHOLE:
        right, offset = np.broadcast_arrays(rights.all()[:, None], offsets.all()[None, :])
        return right.ravel(), (right - width + offset).ravel()
    reach = pooled + width
    right = rights.near(np.concatenate([pooled, reach - BUFFER, reach + BUFFER]))
    ends = [(right, right - width + offset) for offset in (-BUFFER, BUFFER)]
    step = np.arange(-2, offsets.count + 4)
    dense = rights.at(rights.below(reach - BUFFER)[:, None] + step)
    near = offsets.below(pooled[:, None] - (dense - width))
    moves = (-1, 0, 1, 2)
    ends += [(dense.ravel(), (dense - width + offsets.at(near + move)).ravel()) for move in moves]
    # Beside a margin a right end may meet any left end that passes one.
    near = offsets.below(pooled[None, :] - (right[:, None] - width))
    for move in moves:
        left = right[:, None] - width + offsets.at(near + move)
        ends.append((np.broadcast_to(right[:, None], left.shape).ravel(), left.ravel()))
    return np.concatenate([end[0] for end in ends]), np.concatenate([end[1] for end in ends])


@dataclass(frozen=True)
class _Grid:
    """`numpy.linspace(start, stop, count)`, of which only a part is made."""

    start: float
    stop: float
    count: int

    def all(self) -> Array:
        return np.linspace(self.start, self.stop, self.count)

    def below(self, points: Array) -> Array:
        """Return the places of the last grid points that are no greater, to rounding; they may lie outside."""
        return np.floor((points - self.start) / self._step)

    def at(self, places: Array) -> Array:
        """Return the grid points at places, the nearest for those outside."""
        places = np.clip(places, 0, self.count - 1)
        return np.where(places == self.count - 1, self.stop, places * self._step + self.start)

    def near(self, points: Array) -> Array:
        """Return all points of a small grid, and of a large one those next to the points given."""
        if self.count <= WHOLE:
            return self.all()
        return self.at(np.unique(self.below(points)[:, None] + np.arange(-1, 3)))

    @property
    def _step(self) -> float:
        return (self.stop - self.start) / max(1, self.count - 1)


def _between_neighbours(values: Array) -> Array:
    return np.concatenate([[values[0] - 1e-3], (values[1:] + values[:-1]) / 2, [values[-1] + 1e-3]])


def _largest(fpr: Array, fnr: Array) -> float:
    # Rates are counts over members: below 1e-12 they are rounding.
    none = (fpr < 1e-12, fnr < 1e-12)
    if (none[0] & none[1]).any():
        return CAP
    used = ~none[0] & ~none[1]
    if not used.any():
        return 0.0
    a, b = fpr[used], fnr[used]
    with np.errstate(divide="ignore", invalid="ignore"):
        ways = np.stack([np.log(1 - DELTA - a) - np.log(b), np.log(1 - DELTA - b) - np.log(a)])
    return float(np.max(np.where(np.isnan(ways), 0.0, ways)))
