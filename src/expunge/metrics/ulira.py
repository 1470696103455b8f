"""U-LiRA: was this example trained on and then unlearned, or never seen? A likelihood-ratio test for each example.

For an example x, margins of unlearned models whose forget set holds x are fitted by N(mu_u, s_u^2) and those of models
never trained on x by N(mu_o, s_o^2). A model is called unlearned when the first density is larger at its margin. The
score is the balanced accuracy of these calls, 0.5 at the ideal. An accuracy hides the tails, so area and true-positive
rate at a low false-positive rate of the log-ratio of the densities come with it.

Here the oracles are the models never trained on x. Both sides are cut in two halves at random; fits from one half call
the other, both ways, so that no member is called by a fit that it is in. (Leaving one member out at a time leaves the
calls so dependent that a 95 % interval covers in 80 %.) With `targets`, fits are from one set of models and calls are
made on another, as in the paper. So accuracy and area are 0.5 in expectation when both sides are one law, and the
true-positive rate is the false-positive rate; but the worst example is not: of many noisy accuracies the largest lie
above 0.5, the more the fewer members there are, and it has a floor of its own.

Differs from the paper: there, each shadow has its own random forget sets from random halves of the data, so that
examples come from many forget sets; here both sides are ensembles for one forget set. Margins farther than 6 robust
standard deviations from the median do not enter a fit of 10 or more.

Source: Hayes et al., "Inexact Unlearning Needs More Careful Evaluations to Avoid a False Sense of Privacy" (arXiv
2403.01218), Section 3 and Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from expunge.core import InputError
from expunge.core.checks import between, plain_arguments
from expunge.core.seeds import numpy_seed
from expunge.metrics.arrays import Array, pair
from expunge.metrics.failures import failed_members, sound_held_out
from expunge.metrics.reading import Side, mean_interval, settled
from expunge.metrics.roc import Interval, pooled_roc

REPLICATES = 200
"""Bootstrap replicates over members, for the area and the true-positive rate."""
RELABELLED, ENOUGH = 8, 5_000
"""Relabellings at most for the floor of the worst example, and examples over all of them that are enough."""


@dataclass(frozen=True)
class ULira:
    """What the attack achieves; 0.5 is ideal."""

    accuracy: float
    """Mean balanced accuracy over models; a failed unlearned member counts as called right on every example."""
    low: float
    """Lower end of the 95 % interval over models, given the examples; conservative, as both ways share members."""
    high: float
    """Upper end of the 95 % interval over models."""
    floor: float
    """The same between two sets of oracles: 0.5 without held-out oracles, where it is exact in expectation."""
    floor_low: float
    """Lower end of the 95 % interval of the floor."""
    floor_high: float
    """Upper end of the 95 % interval of the floor."""
    per_example: Array
    """Balanced accuracy of each example, shape (examples,): who is exposed, which the mean hides."""
    worst: float
    """95 % quantile of `per_example`; compare it with `worst_floor`, not with 0.5."""
    worst_floor: float
    """The same where both sides are one law, at these numbers of members; NaN when too few are sound."""
    auc: Interval
    """Area under the curve of the log-ratio over members and examples, interval over models; 0.5 is ideal."""
    tpr: Interval
    """Share of unlearned margins above the lowest log-ratio that at most `fpr` of the oracles' exceed; ideal: `fpr`."""
    auc_floor: Interval
    """The area between two sets of oracles: 0.5 without held-out oracles."""
    tpr_floor: Interval
    """The true-positive rate between two sets of oracles: `fpr` without held-out oracles."""
    fpr: float
    """The false-positive rate asked for."""
    side: Side
    """Side of the shift when the two are told apart: margins above the oracles' are under-forgotten."""
    members: int
    """Unlearned members that were called."""
    oracles: int
    """Oracles that were called."""
    examples: int
    """Forget examples."""
    failed: int
    """Unlearned members that are non-finite, collapsed or exploded."""
    ideal: str = "0.5: unlearned and never-seen models are called alike"


@plain_arguments
def ulira(
    unlearned: Any,
    oracle: Any,
    *,
    targets: tuple[Any, Any] | None = None,
    held_out: Any = None,
    fpr: float = 0.001,
    seed: int = 0,
) -> ULira:
    """Return what U-LiRA achieves on the forget examples.

    Args:
        unlearned: Margins of unlearned members on forget examples (members, examples), at least 4.
        oracle: Margins of oracles on the same examples (oracles, examples), at least 4.
        targets: Margins of other unlearned members and other oracles to call, with fits from the first two arguments.
            None calls one half of the first two with fits from the other half.
        held_out: Margins of further oracles (held-out oracles, examples), at least 4, sound; they take the place of the
            unlearned members to give the floors. The floor of the worst example is from them when there are at least
            as many as unlearned members, and otherwise from dealing members to the sides at random.
        fpr: Largest false-positive rate for the true-positive rate, 0 to 1.
        seed: Draws the halves.

    Returns:
        Accuracy, its interval over models (conditional on the examples), floor, per-example accuracies, area and
        true-positive rate.

    Raises:
        InputError: If shapes disagree, a side has too few members, or an oracle of either kind is broken.
    """
    between(0, 1, fpr=fpr)
    ours, theirs = pair(unlearned, oracle, minimum=4)
    _at_least_4(ours, "unlearned")
    broken = failed_members(ours, theirs)
    if targets is None:
        attack = _both_ways(ours, theirs, broken, seed)
    else:
        fits = _fit(ours[~broken]), _fit(theirs)
        ours, theirs, broken = _targets(targets, ours, theirs)
        attack = _Attack(_log_ratio(ours, *fits), _log_ratio(theirs, *fits), [(np.arange(len(ours)), _rows(theirs))])
        attack.ours[broken] = np.inf
    found = _achieved(attack, fpr, seed)
    floor = _Achieved(Interval(0.5, 0.5, 0.5), Interval(0.5, 0.5, 0.5), Interval(fpr, fpr, fpr))
    worst_floor = float("nan")
    if held_out is not None:
        others = sound_held_out(held_out, oracle)
        _at_least_4(others, "held_out")
        _, reference = pair(others, oracle, minimum=4)
        floor = _achieved(_both_ways(others, reference, failed_members(others, reference), seed), fpr, seed)
        if len(others) >= len(ours) and targets is None:
            some = others[: len(ours)]
            worst_floor = _worst(_both_ways(some, reference, failed_members(some, reference), seed))
    if np.isnan(worst_floor):
        worst_floor = _relabelled(attack, ours, theirs, broken, seed, refit=targets is None)
    failed = int(broken.sum())
    side = settled(failed, len(ours), len(theirs)) or _side(
        ours[~broken], theirs, found.accuracy.low > max(0.5, floor.accuracy.high)
    )
    return ULira(
        accuracy=found.accuracy.value,
        low=found.accuracy.low,
        high=found.accuracy.high,
        floor=floor.accuracy.value,
        floor_low=floor.accuracy.low,
        floor_high=floor.accuracy.high,
        per_example=_per_example(attack),
        worst=_worst(attack),
        worst_floor=worst_floor,
        auc=found.auc,
        tpr=found.tpr,
        auc_floor=floor.auc,
        tpr_floor=floor.tpr,
        fpr=fpr,
        side=side,
        members=len(ours),
        oracles=len(theirs),
        examples=ours.shape[1],
        failed=failed,
    )


Rows = NDArray[np.int64]


class _Attack(NamedTuple):
    """Log-ratios of called members, and which rows of both sides one pair of fits has called."""

    ours: Array
    """Log-ratio of unlearned members, (members, examples); +inf for failed ones, which anybody calls right."""
    theirs: Array
    """Log-ratio of oracles, (oracles, examples)."""
    ways: Sequence[tuple[Rows, Rows]]
    """Rows of unlearned members and of oracles that were called with the same fits."""


class _Achieved(NamedTuple):
    accuracy: Interval
    auc: Interval
    tpr: Interval


def _at_least_4(margins: Array, what: str) -> None:
    if len(margins) < 4:
        raise InputError(f"{what} has {len(margins)} members, expected at least 4: half of them fit the other half.")


def _rows(margins: Array) -> Rows:
    return np.arange(len(margins))


def _targets(targets: tuple[Any, Any], ours: Array, theirs: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    goal_u, goal_o = pair(targets[0], targets[1], minimum=1)
    if goal_u.shape[1] != ours.shape[1]:
        raise InputError(f"targets have {goal_u.shape[1]} examples, expected {ours.shape[1]} as in the fits.")
    return goal_u, goal_o, failed_members(goal_u, theirs)


def _side(alive: Array, theirs: Array, told: bool) -> Side:
    if not told:
        return "not told from the oracle"
    shift = float(np.median(alive.mean(0) - theirs.mean(0)))
    return "under-forgotten" if shift > 0 else "over-forgotten" if shift < 0 else "off the oracle"


Fit = tuple[Array, Array]


def _kept(margins: Array) -> NDArray[np.bool_]:
    """Return which margins enter the fit of an example: those within 6 robust standard deviations of the median.

    Two extreme members would otherwise widen the fit so far that a real shift is called at random. Fewer than 10
    members are all kept, because their median deviation is too noisy to call any extreme.
    """
    if len(margins) < 10:
        return np.ones(margins.shape, dtype=bool)
    centre = np.median(margins, 0)
    robust = 1.4826 * np.median(np.abs(margins - centre), 0)
    return np.asarray((np.abs(margins - centre) <= 6 * robust) | (robust == 0))


def _fit(margins: Array) -> Fit:
    if len(margins) < 2:
        raise InputError(f"{len(margins)} finite members to fit a normal law, expected at least 2.")
    rows = np.where(_kept(margins), margins, np.nan)
    return np.nanmean(rows, 0), np.nanvar(rows, 0, ddof=1)


def _log_ratio(margins: Array, unlearned: Fit, oracle: Fit) -> Array:
    """Return log N(margin; unlearned) - log N(margin; oracle): above 0 is called unlearned, 0 is a tie."""

    def log_density(fit: Fit) -> Array:
        mean, variance = fit[0], np.maximum(fit[1], 1e-300)
        with np.errstate(over="ignore"):
            return np.asarray(-0.5 * (margins - mean) ** 2 / variance - 0.5 * np.log(variance))

    with np.errstate(invalid="ignore"):
        ratio = log_density(unlearned) - log_density(oracle)
    return np.where(np.isnan(ratio), 0.0, ratio)


def _called(ratio: Array) -> Array:
    """Return 1 where a margin is called unlearned, 0.5 at a tie, 0 otherwise."""
    return 0.5 * (1 + np.sign(ratio))


def _both_ways(ours: Array, theirs: Array, broken: NDArray[np.bool_], seed: int) -> _Attack:
    """Return the attack on each half with fits from the other."""
    alive, lost = np.flatnonzero(~broken), np.flatnonzero(broken)
    attack = _Attack(np.full_like(ours, np.inf), np.full_like(theirs, -np.inf), [(_rows(ours), _rows(theirs))])
    if len(alive) < 4:
        # Too few to fit: broken models are recognised as such.
        return attack
    rng = np.random.default_rng(numpy_seed(seed))
    halves = [np.array_split(rng.permutation(rows), 2) for rows in (alive, np.arange(len(theirs)))]
    ways = []
    for fit, call in ((0, 1), (1, 0)):
        fits = _fit(ours[halves[0][fit]]), _fit(theirs[halves[1][fit]])
        attack.ours[halves[0][call]] = _log_ratio(ours[halves[0][call]], *fits)
        attack.theirs[halves[1][call]] = _log_ratio(theirs[halves[1][call]], *fits)
        # A failed member is called right by either half.
        ways.append((np.concatenate([halves[0][call], lost]), halves[1][call]))
    return attack._replace(ways=ways)


def _per_example(attack: _Attack) -> Array:
    """Return the balanced accuracy of each example, shape (examples,)."""
    return np.asarray(0.5 * (_called(attack.ours).mean(0) + 1 - _called(attack.theirs).mean(0)))


def _worst(attack: _Attack) -> float:
    return float(np.quantile(_per_example(attack), 0.95))


def _relabelled(
    attack: _Attack, ours: Array, theirs: Array, broken: NDArray[np.bool_], seed: int, *, refit: bool
) -> float:
    """Return what the worst example reads when sound members are dealt to both sides at random; NaN below 4.

    With fits that are not from the called members, dealing out their log-ratios is enough, for each example anew: where
    the sides differ, one deal would move all examples together. Otherwise the fits are part of the noise, and are made
    again from the members dealt.
    """
    sound = int((~broken).sum())
    if sound < 4:
        return float("nan")
    parts = (ours[~broken], theirs) if refit else (attack.ours[~broken], attack.theirs)
    pooled, rng = np.concatenate(parts), np.random.default_rng([numpy_seed(seed), 1])
    found = []
    for _ in range(min(RELABELLED, max(1, ENOUGH // ours.shape[1]))):
        dealt = rng.permutation(pooled) if refit else rng.permuted(pooled, axis=0)
        a, b = dealt[:sound], dealt[sound:]
        again = _both_ways(a, b, np.zeros(sound, bool), seed) if refit else _Attack(a, b, attack.ways)
        found.append(_worst(again))
    return float(np.mean(found))


def _achieved(attack: _Attack, fpr: float, seed: int) -> _Achieved:
    """Return accuracy, area and true-positive rate with intervals over models."""
    accuracies, areas, rates = [], [], []
    for rows_u, rows_o in attack.ways:
        ours, theirs = attack.ours[rows_u], attack.theirs[rows_o]
        accuracies.append(_accuracy(_called(ours), 1 - _called(theirs)))
        unlearned = np.repeat([True, False], [len(ours), len(theirs)])
        positive = np.broadcast_to(unlearned[:, None], (len(unlearned), ours.shape[1]))
        roc = pooled_roc(
            np.concatenate([ours, theirs]), positive, group=unlearned, fpr=fpr, replicates=REPLICATES, seed=seed
        )
        areas.append(roc.auc)
        rates.append(roc.tpr)
    value = 0.5 * float(_called(attack.ours).mean() + 1 - _called(attack.theirs).mean())
    return _Achieved(_mean(accuracies, value), _mean(areas), _mean(rates))


def _mean(ways: Sequence[Interval], value: float | None = None) -> Interval:
    """Return the mean of both ways with an interval.

    Whatever the correlation of the two ways, the deviation of their mean is at most the mean of their deviations.
    """
    centre = float(np.mean([way.value for way in ways])) if value is None else value
    low, high = (float(np.mean([getattr(way, end) - way.value for way in ways])) for end in ("low", "high"))
    return Interval(centre, centre + low, centre + high)


def _accuracy(ours: Array, theirs: Array) -> Interval:
    """Return the mean of both rates and its interval over models, from the two independent sides."""
    rates = [mean_interval(side.mean(1)) for side in (ours, theirs)]
    value = 0.5 * (rates[0][0] + rates[1][0])
    half = 0.5 * float(np.hypot(rates[0][2] - rates[0][0], rates[1][2] - rates[1][0]))
    return Interval(value, value - half, value + half)
