"""U-LiRA: was this example trained on and then unlearned, or never seen? A likelihood-ratio test for each example.

For an example x, margins of unlearned models whose forget set holds x are fitted by N(mu_u, s_u^2) and those of models
never trained on x by N(mu_o, s_o^2). A model is called unlearned when the first density is larger at its margin. The
score is the balanced accuracy of these calls, 0.5 at the ideal.

Here the oracles are the models never trained on x. Both sides are cut in two halves at random; fits from one half call
the other, both ways, so that no member is called by a fit that it is in. (Leaving one member out at a time leaves the
calls so dependent that a 95 % interval covers in 80 %.) With `targets`, fits are from one set of models and calls are
made on another, as in the paper.

Differs from the paper: there, each shadow has its own random forget sets from random halves of the data, so that
examples come from many forget sets; here both sides are ensembles for one forget set. Margins farther than 6 robust
standard deviations from the median do not enter a fit of 10 or more.

Source: Hayes et al., "Inexact Unlearning Needs More Careful Evaluations to Avoid a False Sense of Privacy" (arXiv
2403.01218), Section 3 and Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge.core import InputError
from expunge.metrics.arrays import Array, pair, to_array
from expunge.metrics.failures import failed_members
from expunge.metrics.reading import Side, mean_interval


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
    """95 % quantile of `per_example`."""
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


def ulira(
    unlearned: Any,
    oracle: Any,
    *,
    targets: tuple[Any, Any] | None = None,
    held_out: Any = None,
    seed: int = 0,
) -> ULira:
    """Return the balanced accuracy of U-LiRA on the forget examples.

    Args:
        unlearned: Margins of unlearned members on forget examples (members, examples), at least 4.
        oracle: Margins of oracles on the same examples (oracles, examples), at least 4.
        targets: Margins of other unlearned members and other oracles to call, with fits from the first two arguments.
            None calls one half of the first two with fits from the other half.
        held_out: Margins of further oracles (held-out oracles, examples); they take the place of the unlearned members
            to give the floor.
        seed: Draws the halves.

    Returns:
        Accuracy, its interval over models (conditional on the examples), floor, per-example accuracies.
    """
    ours, theirs = pair(unlearned, oracle, minimum=4)
    if targets is None:
        called, (accuracy, low, high) = _both_ways(ours, theirs, seed)
    else:
        goal_u, goal_o = pair(targets[0], targets[1], minimum=1)
        if goal_u.shape[1] != ours.shape[1]:
            raise InputError(f"targets have {goal_u.shape[1]} examples, expected {ours.shape[1]} as in the fits.")
        fit_u, fit_o = _fit(ours[~failed_members(ours, theirs)]), _fit(theirs)
        called = (_called(goal_u, fit_u, fit_o), 1 - _called(goal_o, fit_u, fit_o))
        called[0][failed_members(goal_u, theirs)] = 1.0
        ours, theirs = goal_u, goal_o
        accuracy, low, high = _summary(*called)
    floor = (0.5, 0.5, 0.5)
    if held_out is not None:
        others = to_array(held_out, "held_out", ndim=2)
        floor = _both_ways(*pair(others, oracle, minimum=4), seed)[1]
    broken = failed_members(ours, theirs)
    failed, alive = int(broken.sum()), ours[~broken]
    side: Side = "at the oracle"
    if failed == len(ours):
        side = "failed"
    elif low > max(0.5, floor[2] if held_out is not None else 0.5):
        shift = float(np.median(alive.mean(0) - theirs.mean(0)))
        side = "under-forgotten" if shift > 0 else "over-forgotten" if shift < 0 else "off the oracle"
    per_example = 0.5 * (called[0].mean(0) + called[1].mean(0))
    return ULira(
        accuracy=accuracy,
        low=low,
        high=high,
        floor=floor[0],
        floor_low=floor[1],
        floor_high=floor[2],
        per_example=per_example,
        worst=float(np.quantile(per_example, 0.95)),
        side=side,
        members=len(ours),
        oracles=len(theirs),
        examples=ours.shape[1],
        failed=failed,
    )


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


def _called(margins: Array, unlearned: Fit, oracle: Fit) -> Array:
    """Return 1 where a margin is called unlearned, 0.5 at a tie, 0 otherwise."""

    def log_density(fit: Fit) -> Array:
        mean, variance = fit[0], np.maximum(fit[1], 1e-300)
        with np.errstate(over="ignore"):
            return np.asarray(-0.5 * (margins - mean) ** 2 / variance - 0.5 * np.log(variance))

    with np.errstate(invalid="ignore"):
        difference = log_density(unlearned) - log_density(oracle)
    return np.where(difference > 0, 1.0, np.where(difference < 0, 0.0, 0.5))


def _both_ways(ours: Array, theirs: Array, seed: int) -> tuple[tuple[Array, Array], tuple[float, float, float]]:
    """Return for each member and example whether it is called right by the other half, and the summary."""
    alive = np.flatnonzero(~failed_members(ours, theirs))
    called = np.ones_like(ours), np.ones_like(theirs)
    if len(alive) < 4:
        # Too few to fit: broken models are recognised as such.
        return called, (1.0, 1.0, 1.0)
    rng = np.random.default_rng(seed)
    halves = [np.array_split(rng.permutation(rows), 2) for rows in (alive, np.arange(len(theirs)))]
    broken = np.setdiff1d(np.arange(len(ours)), alive)
    parts = []
    for fit, call in ((0, 1), (1, 0)):
        fits = _fit(ours[halves[0][fit]]), _fit(theirs[halves[1][fit]])
        called[0][halves[0][call]] = _called(ours[halves[0][call]], *fits)
        called[1][halves[1][call]] = 1 - _called(theirs[halves[1][call]], *fits)
        # A failed member is called right by either half.
        parts.append(_summary(called[0][np.concatenate([halves[0][call], broken])], called[1][halves[1][call]]))
    accuracy = 0.5 * float(called[0].mean() + called[1].mean())
    # Whatever the correlation of the two ways, the deviation of their mean is at most the mean of their deviations.
    half = 0.5 * sum(high - value for value, _, high in parts)
    return called, (accuracy, accuracy - half, accuracy + half)


def _summary(ours: Array, theirs: Array) -> tuple[float, float, float]:
    """Return the mean of both rates and its interval over models, from the two independent sides."""
    rates = [mean_interval(side.mean(1)) for side in (ours, theirs)]
    value = 0.5 * (rates[0][0] + rates[1][0])
    half = 0.5 * float(np.hypot(rates[0][2] - rates[0][0], rates[1][2] - rates[1][0]))
    return value, value - half, value + half
