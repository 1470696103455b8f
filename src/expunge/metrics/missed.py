"""What a verdict could have missed: the smallest shift of one row, the smallest share of rows, told nine times in ten.

Both are simulated on the oracles of the run, held-out ones included: their margins have the tails, the ties and the
dependence between rows that the tests met.

    one row     M + N members are drawn from the N oracles again and again, M of them shifted in the row by d oracle
                standard deviations; d is the smallest at which the test over rows tells it, averaged over rows
    a share     the oracles are split at random into sides in the ratio M : N, the first shifted in some rows towards
                the pretrained members; the smaller sides see less, so the shift is larger by sqrt((M + N) / N), by
                which z of a mean shift is what it would be with all. The share is the smallest at which the test over
                rows or that over all rows together tells it in all but a tenth of the splits

A row that is told need not count against the verdict: one within the tolerance is listed, and does not.
"""

from __future__ import annotations

from math import ceil

import numpy as np
import scipy

from expunge.core.seeds import numpy_seed
from expunge.metrics.arrays import Array
from expunge.metrics.rows import Ranks, combine, deal, row_test
from expunge.metrics.traces import Halves, traces

POWER = 0.9
"""Chance of being told that makes a shift one that would not have been missed."""
SHIFTS = np.geomspace(0.1, 10, 81)
"""Shifts of one row that are tried, oracle standard deviations."""
ROWS = 300
"""Rows that shares are simulated with, and at most as many that single shifts are."""
PERMUTATIONS = 399
RANKS_SEE = 0.977
"""A shift in ranks' standard errors to one in the mean's: the root of 3 / pi, for Gaussian margins."""


def smallest_row(reference: Array, spread: Array, members: int, *, level: float, draws: int, seed: int) -> float | None:
    """Return the smallest shift of a single row that is told with power .9, in oracle standard deviations.

    Args:
        reference: Margins of oracles (oracles, examples).
        spread: Their standard deviations, above 0, (examples,).
        members: Unlearned members.
        level: Family-wise level of the test over rows.
        draws: Simulated tests of each shift, spread over the rows.
        seed: Draws members.

    Returns:
        None where no shift of up to 10 is told.
    """
    rng = np.random.default_rng([numpy_seed(seed), members])
    total = members + len(reference)
    # Members that were drawn twice are no ties: noise far below every difference puts one before the other.
    drawn = reference[rng.integers(len(reference), size=total)]
    drawn = drawn + 1e-9 * spread * rng.normal(size=drawn.shape)
    critical = row_test(drawn[:members], drawn[members:], permutations=PERMUTATIONS, seed=seed).critical(level)
    rows = np.resize(rng.permutation(reference.shape[1]), draws)
    margins = reference[rng.integers(len(reference), size=(draws, total)), rows[:, None]] / spread[rows, None]
    margins += 1e-9 * rng.normal(size=margins.shape)
    label = deal(members, len(reference), 0, seed)
    low, high = 0, len(SHIFTS)
    while low < high:
        middle = (low + high) // 2
        moved = margins.copy()
        moved[:, :members] += SHIFTS[middle]
        told = combine(Ranks.of(moved).components(label))[:, 0] > critical
        low, high = (low, middle) if told.mean() >= POWER else (middle + 1, high)
    return float(SHIFTS[low]) if low < len(SHIFTS) else None


def smallest_share(
    reference: Array,
    spread: Array,
    members: int,
    shift: Array,
    pretrained: Halves | None,
    *,
    row_level: float,
    joint_level: float,
    draws: int,
    seed: int,
) -> float | None:
    """Return the smallest share of rows that is told with power .9 when each of them is shifted.

    Args:
        reference: Margins of oracles (oracles, examples).
        spread: Their standard deviations, above 0, (examples,).
        members: Unlearned members.
        shift: Shift of every row that is shifted, oracle standard deviations with sign, (examples,).
        pretrained: The pretrained members, or None.
        row_level: Family-wise level of the test over rows.
        joint_level: Level of the test over all rows together.
        draws: Simulated splits.
        seed: Draws splits and rows.

    Returns:
        None where not even all rows are told, or there are too few oracles to split.
    """
    rng = np.random.default_rng([numpy_seed(seed), members, 1])
    oracles, examples = reference.shape
    side = round(oracles * members / (members + oracles))
    if min(side, oracles - side) < 2:
        return None
    if examples > ROWS:
        some = np.sort(rng.permutation(examples)[:ROWS])
        reference, spread, shift = reference[:, some], spread[some], shift[some]
        pretrained = None if pretrained is None else pretrained.take(some)
    step = spread * shift * np.sqrt((members + oracles) / oracles)
    label = deal(side, oracles - side, 0, seed)
    critical, shares = 0.0, np.empty(draws)
    for draw in range(draws):
        order = rng.permutation(oracles)
        ours, theirs = reference[order[:side]], reference[order[side:]]
        if draw == 0:
            critical = row_test(ours, theirs, permutations=PERMUTATIONS, seed=seed).critical(row_level)
        first = rng.permutation(len(step))
        ranks = Ranks.of(np.concatenate([ours + step, theirs]).T[first])
        alone = combine(ranks.components(label))[:, 0] > critical
        low, high = 1, int(np.argmax(alone)) + 1 if alone.any() else len(step) + 1
        while low < high:
            middle = int(np.sqrt(low * high))
            moved = np.zeros(len(step))
            moved[first[:middle]] = step[first[:middle]]
            p_value = traces(ours + moved, theirs, pretrained, permutations=PERMUTATIONS, seed=seed).p_value
            low, high = (low, middle) if p_value <= joint_level + 1e-12 else (middle + 1, high)
        shares[draw] = low
    needed = float(np.sort(shares)[ceil(POWER * draws) - 1])
    return needed / len(step) if needed <= len(step) else None


def members_for(shift: float, examples: int, ratio: float, level: float) -> float:
    """Return how many unlearned members tell a single shifted row with power .9, from the normal law of its rank sum.

    Args:
        shift: Oracle standard deviations.
        examples: Rows that are tested.
        ratio: Unlearned members to each oracle.
        level: Family-wise level.
    """
    critical = float(np.sqrt(scipy.stats.chi2.isf(level / (3 * examples), 1)))
    return float((1 + ratio) * ((critical + scipy.special.ndtri(POWER)) / (RANKS_SEE * shift)) ** 2)
