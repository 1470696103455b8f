"""Does one model look as if it was trained on some rows? Their margins, ranked among those of rows that it never saw.

Rows are compared with rows of their own class only, so that an easy class is not taken for a memory. The share of
pairs in which the row has the larger margin (ties count half) is the area under the ROC of an attack that thresholds
margins, within classes. Its p-value is that of a random relabelling within classes, one-sided:

    W = sum over classes of U_k / (n_k + m_k + 1),      share = sum U_k / sum n_k m_k

It is exact when the rows would be exchangeable with the others of their class had they not been trained on: for rows
drawn at random. Rows that somebody chose may be easier or harder than others, which one model cannot tell from memory.

Source: van Elteren, Bull. Inst. Int. Stat. 37 (1960), for the weights; Yeom et al., arXiv 1709.01604, for the attack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from expunge.core import InputError
from expunge.core.seeds import derive
from expunge.metrics.arrays import to_array

PERMUTATIONS = 9999
"""Relabellings; the smallest p-value is one in one more."""


@dataclass(frozen=True)
class Remembered:
    """What the ranks of some rows say."""

    share: float
    """Share of pairs of a row and an unseen row of its class in which the row's margin is larger; 0.5 is chance."""
    p_value: float
    """Chance of so large a W if the rows were unseen as well."""
    pairs: int


def remembered(
    margins: Any, unseen: Any, groups: Any = None, unseen_groups: Any = None, *, seed: int = 0
) -> Remembered:
    """Return how margins of some rows rank among those of unseen rows, for one model.

    Args:
        margins: Margins of the rows (rows,), finite.
        unseen: Margins of rows that the model never saw (unseen rows,), finite.
        groups: Class of each row (rows,); None for one class.
        unseen_groups: Class of each unseen row.
        seed: Deals the relabellings.

    Returns:
        NaN where no row has an unseen row of its class.

    Raises:
        InputError: If a margin is not finite.

    >>> found = remembered([3.0, 4.0, 5.0], [0.0, 1.0, 2.0, 3.5])
    >>> round(found.share, 2), found.pairs
    (0.92, 12)
    """
    ours, theirs = to_array(margins, "margins", ndim=1), to_array(unseen, "unseen", ndim=1)
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise InputError("margins of this model are not finite, expected a sound model.")
    kinds = np.zeros(len(ours)) if groups is None else np.asarray(groups)
    others = np.zeros(len(theirs)) if unseen_groups is None else np.asarray(unseen_groups)
    rng = np.random.default_rng(derive(seed, "remembered"))
    won, pairs, statistic, null = 0.0, 0, 0.0, np.zeros(PERMUTATIONS)
    for kind in np.unique(kinds):
        own, rest = ours[kinds == kind], theirs[others == kind]
        n, m = len(own), len(rest)
        if m == 0:
            continue
        ranks = scipy.stats.rankdata(np.concatenate([own, rest])) - (n + 1) / 2
        u = float(ranks[:n].sum())
        won, pairs, statistic = won + u, pairs + n * m, statistic + u / (n + m + 1)
        for draw in range(PERMUTATIONS):
            null[draw] += float(ranks[rng.permutation(n + m)[:n]].sum()) / (n + m + 1)
    if pairs == 0:
        return Remembered(float("nan"), float("nan"), 0)
    exceeding = int((null >= statistic - 1e-9).sum())
    return Remembered(won / pairs, (1 + exceeding) / (1 + PERMUTATIONS), pairs)
