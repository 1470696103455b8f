"""Relearning time: how fast an attacker who trains on forget examples gets back to the original model's loss.

Every member, unlearned or oracle, is attacked in the same way (optimiser, rate, examples, statistics) and its loss on
the forget set is recorded before the attack and after every step. The time is the first step at which the loss is at or
below a threshold. What counts is the time minus the oracle's: an oracle may relearn quickly as well, and slower than
the oracle is no privacy but a trace of the unlearning ("Streisand effect").

A curve that never gets there is censored at the budget: its time is "more than the budget", never 0. Public code takes
`argmax(loss < threshold)`, which is 0 in that case and so turns the slowest member into the fastest.

Sources: Golatkar et al., "Eternal Sunshine of the Spotless Net" (arXiv 1911.04933), Section 6; Chundawat et al.,
"Zero-Shot Machine Unlearning" (arXiv 2201.05629), for the ratio to the oracle (AIN).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge.core import InputError
from expunge.core.checks import plain_arguments, whole
from expunge.core.seeds import numpy_seed
from expunge.metrics.arrays import Array, to_array
from expunge.metrics.reading import Side, settled, side_of


@dataclass(frozen=True)
class Relearning:
    """Times to relearn; restricted to the budget, with what was censored."""

    time: float
    """Mean over members of min(time, budget), in steps."""
    oracle_time: float
    """The same of the oracles: the floor."""
    difference: float
    """`time - oracle_time`, 0 is ideal; negative: relearned faster than an oracle learns, so something was left."""
    low: float
    """Lower end of the 95 % bootstrap interval of `difference` over members."""
    high: float
    """Upper end of the 95 % bootstrap interval of `difference`."""
    ratio: float
    """`time / oracle_time` (AIN when the threshold is its one), 1 is ideal; NaN when the oracles need 0 steps."""
    distance: float
    """`|difference|` with failed members at the largest distance the budget allows; 0 is ideal."""
    side: Side
    """Where the interval of the difference lies: below 0 is under-forgotten, above over-forgotten; failed and
    undecided as in `expunge.metrics.reading`."""
    censored: int
    """Unlearned members that did not get there within the budget."""
    oracles_censored: int
    """Oracles that did not; when most did not, the difference is a lower bound at best: raise the budget."""
    curve_gap: Array
    """Mean loss of the members minus that of the oracles at each step, shape (steps + 1,): the whole comparison."""
    budget: int
    """Steps of the attack."""
    members: int
    """Unlearned members."""
    oracles: int
    """Oracles."""
    failed: int
    """Unlearned members with a non-finite loss."""


def relearning_times(losses: Any, threshold: Any) -> tuple[Array, NDArray[np.bool_]]:
    """Return the first step at which each curve is at or below the threshold, and which curves never are.

    Args:
        losses: Forget loss before the attack and after every step, shape (members, steps + 1).
        threshold: One number, or one for each member, shape (members,).

    Returns:
        Times in steps, shape (members,): 0 when the first loss is low enough already, the budget (number of steps)
        when it never is; and whether the time is censored.

    >>> times, censored = relearning_times([[3.0, 2.0, 1.0], [3.0, 3.0, 3.0]], 2.0)
    >>> times.tolist(), censored.tolist()
    ([1.0, 2.0], [False, True])
    """
    curves = to_array(losses, "losses", ndim=2)
    limit = np.broadcast_to(to_array(threshold, "threshold"), (len(curves),))
    if not np.isfinite(limit).all():
        raise InputError("threshold is not finite, expected the original model's forget loss.")
    with np.errstate(invalid="ignore"):
        reached = curves <= limit[:, None]
    censored = ~reached.any(1)
    times = np.where(censored, curves.shape[1] - 1, np.argmax(reached, 1)).astype(np.float64)
    return times, np.asarray(censored)


@plain_arguments
def relearning(unlearned: Any, oracle: Any, threshold: Any, *, replicates: int = 2000, seed: int = 0) -> Relearning:
    """Return relearning times of the unlearned members beside the oracles' under the same attack.

    Args:
        unlearned: Forget loss of the unlearned members along the attack, shape (members, steps + 1).
        oracle: The same of the oracles, shape (oracles, steps + 1), finite.
        threshold: Loss to come back to: the mean forget loss of the pretrained models, plus a small slack.
        replicates: Bootstrap replicates over members and over oracles.
        seed: Draws them.

    Raises:
        InputError: If the budgets differ or an oracle's loss is not finite.
    """
    whole(replicates=replicates, minimum=100)
    ours, theirs = to_array(unlearned, "unlearned", ndim=2), to_array(oracle, "oracle", ndim=2)
    if ours.shape[1] != theirs.shape[1]:
        raise InputError(
            f"unlearned curves have {ours.shape[1]} entries, oracle curves {theirs.shape[1]}; expected the same attack."
        )
    if ours.shape[1] < 2:
        raise InputError("curves have one entry, expected the loss before the attack and after at least one step.")
    if not np.isfinite(theirs).all():
        raise InputError("oracle curves hold non-finite losses, expected finite ones: lower the rate of the attack.")
    budget = ours.shape[1] - 1
    alive = np.isfinite(ours).all(1)
    times, censored = relearning_times(ours, float(threshold))
    oracle_times, oracle_censored = relearning_times(theirs, float(threshold))
    floor = float(oracle_times.mean())
    good = times[alive]
    failed = int((~alive).sum())
    difference = float(good.mean() - floor) if len(good) else float("nan")
    low = high = float("nan")
    if len(good) > 1 and len(oracle_times) > 1:
        rng = np.random.default_rng(numpy_seed(seed))
        drawn = rng.choice(good, (replicates, len(good))).mean(1)
        drawn -= rng.choice(oracle_times, (replicates, len(oracle_times))).mean(1)
        low, high = (float(end) for end in np.quantile(drawn, (0.025, 0.975)))
    share = failed / len(ours)
    return Relearning(
        time=float(good.mean()) if len(good) else float("nan"),
        oracle_time=floor,
        difference=difference,
        low=low,
        high=high,
        ratio=float(good.mean()) / floor if len(good) and floor > 0 else float("nan"),
        distance=(abs(difference) * (1 - share) if len(good) else 0.0) + share * max(floor, budget - floor),
        side=settled(failed, len(ours), len(theirs)) or side_of(low, high, "above"),
        censored=int((censored & alive).sum()),
        oracles_censored=int(oracle_censored.sum()),
        curve_gap=ours[alive].mean(0) - theirs.mean(0) if len(good) else np.full(budget + 1, np.nan),
        budget=budget,
        members=len(ours),
        oracles=len(theirs),
        failed=failed,
    )
