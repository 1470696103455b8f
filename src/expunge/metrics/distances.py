"""Distances between the margins of unlearned members and of oracles, for each example on its own.

With F the distribution of the unlearned margins, G that of the oracles', and s the oracles' standard deviation:

    Wasserstein-1          int |F - G| dx / s
    energy distance        2 int (F - G)^2 dx / s
    Kolmogorov-Smirnov     sup |F - G|
    Jensen-Shannon         (KL(p | m) + KL(q | m)) / 2, m = (p + q) / 2, on cells of equal oracle mass
    Gaussian KL            KL(N(mu_u, s_u^2) | N(mu_o, s_o^2)), or the other direction, or their mean

A failed member (non-finite, collapsed or exploded, see `expunge.metrics.failures`) has no place on the axis. It is
infinitely far: the unbounded distances are infinite with one, and the bounded ones count its mass as disjoint from the
oracles'. So a failure never lowers a distance. Every one of these has a floor above 0 at finite numbers of members
(`distance_floor`), the higher the fewer members are on either side: a floor is for the numbers of members compared.

Sources: Szekely and Rizzo, J. Stat. Plan. Inference 143 (2013) for the energy distance; Lin, IEEE Trans. Inf. Theory 37
(1991) for Jensen-Shannon; Wasserstein-1 as the area between the distribution functions is due to Vallender (1974).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from expunge.core import Result
from expunge.core.checks import one_of, plain_arguments, whole
from expunge.core.seeds import numpy_seed
from expunge.metrics.arrays import Array, pair, slices
from expunge.metrics.failures import failed_members, sound_held_out

NOISE_NUMBERS = 1_000_000
"""About how many simulated margins the noise at two numbers of members is worked out from."""


def wasserstein(unlearned: Any, oracle: Any) -> Array:
    """Return the Wasserstein-1 distance of margins in units of the oracle's standard deviation.

    Args:
        unlearned: Margins (members, examples).
        oracle: Margins (oracles, examples), at least 2 oracles.

    Returns:
        Shape (examples,), at least 0; a shift of d oracle standard deviations reads |d|. Infinite where a member
        failed, or where the oracles are constant and the members are not equal to them.

    >>> wasserstein([[0.0], [2.0]], [[1.0], [3.0]]).round(4).tolist()
    [0.7071]
    """
    return _on_sorted(*_sides(unlearned, oracle), lambda gap, width: (np.abs(gap) * width).sum(1), scaled=True)


def energy(unlearned: Any, oracle: Any) -> Array:
    """Return the energy distance `2 E|X-Y| - E|X-X'| - E|Y-Y'|` in units of the oracle's standard deviation.

    This is the form without a square root (scipy's is the root). For Gaussian laws with a small shift of d standard
    deviations it grows as d^2 / sqrt(pi).

    Args:
        unlearned: Margins (members, examples).
        oracle: Margins (oracles, examples), at least 2 oracles.

    Returns:
        Shape (examples,), at least 0; infinite where a member failed or constant oracles are not met.
    """
    return _on_sorted(*_sides(unlearned, oracle), lambda gap, width: 2 * (gap**2 * width).sum(1), scaled=True)


def kolmogorov_smirnov(unlearned: Any, oracle: Any) -> Array:
    """Return the largest difference of the two distribution functions.

    Failed members are put below and above everything, and the larger value is kept.

    Args:
        unlearned: Margins (members, examples).
        oracle: Margins (oracles, examples), at least 2 oracles.

    Returns:
        Shape (examples,), from 0 to 1; invariant to strictly monotone maps of the margins.
    """
    ours, theirs = _sides(unlearned, oracle)
    # Replacing a failed margin by either infinity and keeping the larger is the sup over all sets {x <= t} with and
    # without the failed mass, so a failure cannot lower it.
    bad = ~np.isfinite(ours)
    low = _ks(np.where(bad, -np.inf, ours), theirs)
    return np.maximum(low, _ks(np.where(bad, np.inf, ours), theirs)) if bad.any() else low


def _ks(ours: Array, theirs: Array) -> Array:
    def largest(gap: Array, width: Array) -> Array:
        return np.asarray(np.where(width > 0, np.abs(gap), 0.0).max(1))

    return _on_sorted(ours, theirs, largest, scaled=False)


@plain_arguments
def jensen_shannon(unlearned: Any, oracle: Any, *, bins: int = 10) -> Array:
    """Return the Jensen-Shannon divergence of margins on cells of about equal oracle mass with open ends.

    A value that lies exactly on an edge has a cell of its own, so that constant oracles cannot be met by any margin
    above them; failed members have a cell in which no oracle is.

    Args:
        unlearned: Margins (members, examples).
        oracle: Margins (oracles, examples), at least 2 oracles.
        bins: Cells, at least 2.

    Returns:
        Nats, shape (examples,), from 0 to log 2; invariant to strictly monotone maps of the margins.
    """
    whole(bins=bins, minimum=2)
    ours, theirs = _sides(unlearned, oracle)
    # An edge is the oracle value that closes a cell, so that only order matters; where oracles are tied across it the
    # tied value is a cell of its own.
    ordered = np.sort(theirs, axis=0)
    close = np.clip(np.round(np.arange(1, bins) * len(theirs) / bins).astype(int), 1, len(theirs) - 1)
    edges, tied = ordered[close - 1], ordered[close - 1] == ordered[close]
    cells = 2 * bins
    p, q = np.zeros((cells, ours.shape[1])), np.zeros((cells, ours.shape[1]))
    for counts, margins in ((p, ours), (q, theirs)):
        for piece in slices(ours.shape[1], len(margins)):
            x = margins[:, piece]
            cell = np.zeros(x.shape, np.int64)
            for edge, tie in zip(edges[:, piece], tied[:, piece], strict=True):
                above = x > edge
                cell += above
                cell += np.where(tie, x >= edge, above)
            cell = np.where(np.isfinite(x), cell, cells - 1) + cells * np.arange(x.shape[1])
            counts[:, piece] = np.bincount(cell.ravel(), minlength=cells * x.shape[1]).reshape(-1, cells).T
    p /= len(ours)
    q /= len(theirs)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p / middle), 0) + np.where(q > 0, q * np.log(q / middle), 0)
    return np.asarray(0.5 * terms.sum(0))


@plain_arguments
def gaussian_kl(unlearned: Any, oracle: Any, *, direction: str = "jeffreys") -> Array:
    """Return the KL divergence between normal laws fitted to the margins of each example.

    Args:
        unlearned: Margins (members, examples), at least 2 members.
        oracle: Margins (oracles, examples), at least 2 oracles.
        direction: `unlearned_oracle`, `oracle_unlearned`, or `jeffreys` for the mean of both.

    Returns:
        Nats, shape (examples,), at least 0. A shift of d standard deviations reads d^2 / 2. Infinite where a member
        failed, with a single member, or where one side only is constant.
    """
    one_of(("unlearned_oracle", "oracle_unlearned", "jeffreys"), direction=direction)
    ours, theirs = _sides(unlearned, oracle)
    if len(ours) < 2:
        return np.full(ours.shape[1], np.inf)
    bad = ~np.isfinite(ours).all(0)
    safe = np.where(bad, 0.0, ours)
    mean, spread = safe.mean(0) - theirs.mean(0), (safe.var(0, ddof=1), theirs.var(0, ddof=1))
    equal = (mean == 0) & (spread[0] == spread[1])

    def one(a: Array, b: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.asarray(0.5 * (np.log(b / a) + (a + mean**2) / b - 1))

    if direction == "unlearned_oracle":
        values = one(*spread)
    elif direction == "oracle_unlearned":
        values = one(*spread[::-1])
    else:
        values = 0.5 * (one(*spread) + one(*spread[::-1]))
    values = np.where(np.isfinite(values), np.maximum(values, 0), np.inf)
    return np.asarray(np.where(bad, np.inf, np.where(equal, 0.0, values)))


DISTANCES: dict[str, Callable[[Any, Any], Array]] = {
    "wasserstein": wasserstein,
    "energy": energy,
    "kolmogorov_smirnov": kolmogorov_smirnov,
    "jensen_shannon": jensen_shannon,
    "gaussian_kl": gaussian_kl,
}
"""Every distance of this file by name: margins in, one number an example out."""


@plain_arguments
def distance_floor(
    metric: Callable[[Any, Any], Array], oracle: Any, held_out: Any = None, *, members: int | None = None, seed: int = 0
) -> Array:
    """Return what a distance reads between two sets of oracles, per example.

    Args:
        metric: One of the functions of this file.
        oracle: Margins (oracles, examples), at least 4.
        held_out: Margins of other oracles (held-out oracles, examples), finite: the honest floor. When there are fewer
            than `members`, the part of their reading that is noise is brought to `members`; a difference of recipe
            is not noise and stays. Without them, two random halves of `oracle` are compared, and what they read is
            brought to the full numbers. Noise scales with the numbers of members as it does for standard normal
            margins, which is exact for Kolmogorov-Smirnov and Jensen-Shannon.
        members: Number of unlearned members that the floor is for; None takes all held-out oracles, or as many as there
            are oracles.
        seed: Which halves are drawn.

    Returns:
        Shape (examples,).

    Raises:
        InputError: If shapes disagree, or an oracle of either kind is broken.
    """
    ours, theirs, scale = _floor_sides(metric, oracle, held_out, members, seed)
    return metric(ours, theirs) * scale


def _floor_sides(
    metric: Callable[[Any, Any], Array], oracle: Any, held_out: Any, members: int | None, seed: int
) -> tuple[Array, Array, float]:
    """Return two sets of oracles, and what their distance is multiplied by for `members` against all oracles."""
    _, theirs = pair(oracle, oracle, minimum=4)
    if members is not None:
        whole(members=members)
    half = len(theirs) // 2
    order = np.random.default_rng(numpy_seed(seed)).permutation(len(theirs))
    left, right = theirs[order[:half]], theirs[order[half:]]
    halves = _noise(metric, half, len(theirs) - half)
    if held_out is None:
        return left, right, _noise(metric, members or len(theirs), len(theirs)) / halves
    others = sound_held_out(held_out, theirs)[:members]
    if members is None or len(others) >= members:
        return others, theirs, 1.0
    reading = float(metric(others, theirs).mean())
    noise = float(metric(left, right).mean()) * _noise(metric, len(others), len(theirs)) / halves
    if not (reading > 0 and np.isfinite(reading) and np.isfinite(noise)):
        return others, theirs, 1.0
    smaller = _noise(metric, members, len(theirs)) / _noise(metric, len(others), len(theirs))
    # Noise adds to what is there (exactly so for the energy distance), so the part of it that goes is subtracted.
    return others, theirs, max(0.0, 1 - noise / reading * (1 - smaller))


@lru_cache(maxsize=256)
def _noise(metric: Callable[[Any, Any], Array], members: int, oracles: int) -> float:
    """Return what a distance reads on average between two sets of standard normal margins of these numbers."""
    examples = int(np.clip(NOISE_NUMBERS // (members + oracles), 200, 20_000))
    rng = np.random.default_rng(0)
    return float(metric(rng.normal(size=(members, examples)), rng.normal(size=(oracles, examples))).mean())


@plain_arguments
def distance_score(name: str, unlearned: Any, oracle: Any, held_out: Any = None, *, groups: int = 10) -> Result:
    """Return the mean of a distance over the examples, with interval and floor.

    The floor is for as many members as `unlearned` has, so that `excess` is 0 on average when there is no difference.
    The intervals are Gaussian with the standard error of a jackknife that leaves out one of `groups` groups of members
    of either side at a time; examples are taken as given.

    Args:
        name: A key of `DISTANCES`.
        unlearned: Margins (members, examples).
        oracle: Margins (oracles, examples), at least 4.
        held_out: Margins of other oracles, for the floor; see `distance_floor` for what happens without, or with fewer
            than unlearned members.
        groups: Groups of members, at least 2; cut to the smaller number of members.

    Returns:
        The score; the value is infinite when a member failed and the distance is unbounded.

    Raises:
        InputError: If shapes disagree, or an oracle of either kind is broken.
    """
    one_of(tuple(DISTANCES), name=name)
    whole(groups=groups, minimum=2)
    ours, theirs = pair(unlearned, oracle, minimum=4)
    metric = DISTANCES[name]
    value, low, high = _jackknife(metric, ours, theirs, groups)
    left, right, scale = _floor_sides(metric, theirs, held_out, len(ours), 0)
    floor, floor_low, floor_high = (end * scale for end in _jackknife(metric, left, right, groups))
    unit = {"kolmogorov_smirnov": "share", "wasserstein": "oracle sd", "energy": "oracle sd"}.get(name, "nats")
    return Result(
        metric=name,
        summary="mean",
        value=value,
        low=low,
        high=high,
        floor=floor,
        floor_low=floor_low,
        floor_high=floor_high,
        members=len(ours),
        oracles=len(theirs),
        examples=ours.shape[1],
        failed=int(failed_members(ours, theirs).sum()),
        unit=unit,
    )


def _jackknife(
    metric: Callable[[Any, Any], Array], ours: Array, theirs: Array, groups: int
) -> tuple[float, float, float]:
    value = float(metric(ours, theirs).mean())
    if not np.isfinite(value) or len(ours) < 3:
        return value, float("nan"), float("nan")
    variance = 0.0
    for side, other, swap in ((ours, theirs, False), (theirs, ours, True)):
        parts = np.array_split(np.arange(len(side)), min(groups, len(side)))
        left = []
        for part in parts:
            rest = np.delete(side, part, 0)
            left.append(float((metric(other, rest) if swap else metric(rest, other)).mean()))
        variance += (len(parts) - 1) / len(parts) * float(((np.array(left) - np.mean(left)) ** 2).sum())
    half = 1.96 * float(np.sqrt(variance))
    return value, max(0.0, value - half), value + half


def _sides(unlearned: Any, oracle: Any) -> tuple[Array, Array]:
    """Return both sides, with NaN for every margin of a failed member."""
    ours, theirs = pair(unlearned, oracle)
    failed = failed_members(ours, theirs)
    return (np.where(failed[:, None], np.nan, ours) if failed.any() else ours), theirs


def _on_sorted(ours: Array, theirs: Array, summary: Callable[[Array, Array], Array], *, scaled: bool) -> Array:
    """Apply a summary of (F - G, widths) on the pooled sorted margins of each example; both are (examples, pooled)."""
    out = np.empty(ours.shape[1])
    # Whole numbers, so that the sums are exact and equal samples read exactly 0.
    weight = np.concatenate([np.full(len(ours), float(len(theirs))), np.full(len(theirs), -float(len(ours)))])
    for piece in slices(ours.shape[1], 2 * len(weight)):
        pooled = np.ascontiguousarray(np.concatenate([ours[:, piece], theirs[:, piece]]).T)
        finite = np.isfinite(pooled).all(1)
        if scaled:
            pooled = np.where(finite[:, None], pooled, 0.0)
        order = np.argsort(pooled, axis=1)
        pooled = np.take_along_axis(pooled, order, 1)
        gap = np.cumsum(weight[order], 1)[:, :-1] / (len(ours) * len(theirs))
        # Equal values have width 0: the gap inside a tie counts for nothing.
        with np.errstate(invalid="ignore"):
            width = np.nan_to_num(np.diff(pooled, axis=1), nan=0.0, posinf=np.inf)
        values = summary(gap, width)
        if scaled:
            spread = theirs[:, piece].std(0, ddof=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                values = np.where(spread > 0, values / spread, np.where(values > 0, np.inf, 0.0))
            values = np.where(finite, values, np.inf)
        out[piece] = values
    return out
