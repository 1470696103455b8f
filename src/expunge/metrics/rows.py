"""The test over rows: is any single example told from the oracles', whatever the other examples do?

A percentile over examples is blind to the few examples above it. Here each example (a row of a request) has a statistic
of its own, and the largest of them is judged.

    scores      the rank r of a member among all T members, as u = (2 r - 1) / T - 1, in Legendre polynomials P_k(u),
                k = 1 to 4, each centred and with mean square 1 over the members (middle ranks where margins are equal)
    z_k         sum of P_k over the M unlearned members / sqrt(M N / (T - 1)): mean 0, variance 1 when labels are dealt
    statistic   max(z_1^2, z_2^2, .885 (z_1^2 + ... + z_4^2) - 5.6)

z_1 is a shift (Wilcoxon's test), z_2 a spread (Mood's), and the sum of all four any smooth change of the law, bimodal
ones included (Neyman's smooth test), brought to the scale of a square with one degree of freedom: its tail is that of
chi^2_4 to 2 % for p from 1e-3 to 1e-6. Ranks make the law of a row's statistic the same for heavy-tailed, skewed and
bounded margins, so that no row hides the others behind its tails.

The null deals the labels of whole members again and again. Rows stay as dependent as they are, and members that err
together do so in every permutation. The p-value of the largest statistic is its place among the largest ones of the
permutations; the second is compared with the largest of the rows without the first, and so on (step-down). The chance
that any row is told is at most the level when both sides follow one law, at any number of members and rows; when some
rows differ, the same holds for the others, if these jointly follow one law.

Sources: Westfall and Young, *Resampling-Based Multiple Testing* (1993); Romano and Wolf, JASA 100 (2005), for step-down
by permutation; Phipson and Smyth (2010) for (1 + exceedances) / (1 + permutations); Neyman (1937) and Janic-Wróblewska
and Ledwina, Scand. J. Statist. 27 (2000), for smooth rank tests of two samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

from expunge.core.seeds import numpy_seed
from expunge.metrics.arrays import CACHED, Array, slices

PERMUTATIONS = 999
"""Permutations of a verdict's tests."""
ORDERS = 4
"""Legendre polynomials that a row is read by."""
SLOPE, OFFSET = 0.885, 5.6
"""Bring a sum of four squares to the scale of one: chi^2_1's and chi^2_4's quantiles fall on this line."""
EQUAL = 1e-3
"""Statistics that differ by less are equal: single precision must not decide."""


@dataclass(frozen=True)
class RowTest:
    """What the test says about every row."""

    statistic: Array
    """On the scale of a chi-square with one degree of freedom, (examples,)."""
    z: Array
    """Signed statistic of the shift, positive where unlearned margins are larger, (examples,)."""
    p_value: Array
    """Adjusted for all rows, (examples,)."""
    largest: Array
    """The largest statistic over all rows in every permutation, (permutations,)."""

    def told(self, level: float) -> NDArray[np.bool_]:
        """Return which rows are told at a family-wise level, (examples,)."""
        return np.asarray(self.p_value <= level + 1e-12)

    def critical(self, level: float) -> float:
        """Return what a single row's statistic must exceed to be told at a level."""
        allowed = int(level * (1 + len(self.largest)) + 1e-9)
        return float(np.sort(self.largest)[-allowed]) if allowed else float("inf")


def row_test(unlearned: Array, reference: Array, *, permutations: int = PERMUTATIONS, seed: int = 0) -> RowTest:
    """Test every example for a difference between unlearned members and oracles, adjusted for the number of examples.

    Args:
        unlearned: Margins of sound members (members, examples), at least 1.
        reference: Margins of oracles (oracles, examples), held-out ones included, at least 1.
        permutations: The smallest p-value is 1 / (permutations + 1).
        seed: Deals the permutations.
    """
    ranks = Ranks.of(np.concatenate([unlearned, reference]).T)
    labels = deal(len(unlearned), len(reference), permutations, seed)
    z = ranks.components(labels[:, :1])
    statistic = combine(z)[:, 0]
    order = np.argsort(statistic, kind="stable")
    p_value = np.empty(len(order))
    largest = np.full(permutations, -np.inf, np.float32)
    # From the smallest row to the largest: each is compared with the largest of the rows that are no larger than it.
    for part in slices(len(order), ORDERS * labels.shape[1], 8 * CACHED):
        rows = order[part]
        null = combine(ranks[rows].components(labels[:, 1:]))
        np.maximum(null[0], largest, out=null[0])
        np.maximum.accumulate(null, axis=0, out=null)
        largest = null[-1]
        exceeding = (null >= statistic[rows, None] - EQUAL).sum(1)
        p_value[rows] = (1 + exceeding) / (1 + permutations)
    p_value[order] = np.maximum.accumulate(p_value[order][::-1])[::-1]
    return RowTest(statistic.astype(np.float64), z[0, :, 0].astype(np.float64), p_value, largest.astype(np.float64))


def groups_of_equals(values: Array) -> NDArray[np.int64]:
    """Return for each value the place of its group among all, smallest first; values closer than `EQUAL` are one group.

    Sums of ranks are often equal, and which of two equal ones comes out larger is a matter of the processor.
    """
    order = np.argsort(values, kind="stable")
    groups = np.empty(len(values), np.int64)
    groups[order] = np.concatenate([[0], np.cumsum(np.diff(values[order]) > EQUAL)])[: len(values)]
    return groups


@dataclass(frozen=True)
class Ranks:
    """Where each member stands in each row, all that the test reads of margins."""

    doubled: NDArray[np.int32]
    """Twice the rank among the members, from 1, minus 1; equal margins have their middle rank, (examples, members)."""
    tied: NDArray[np.bool_]
    """Rows with equal margins, (examples,)."""

    @classmethod
    def of(cls, margins: Array) -> Ranks:
        """Return the ranks of margins (examples, members)."""
        order = np.argsort(margins, axis=1)
        doubled = np.empty(margins.shape, np.int32)
        np.put_along_axis(doubled, order, np.arange(1, 2 * margins.shape[1], 2, dtype=np.int32)[None], axis=1)
        ordered = np.take_along_axis(margins, order, axis=1)
        tied = np.asarray((ordered[:, 1:] == ordered[:, :-1]).any(1))
        if tied.any():
            doubled[tied] = np.rint(2 * scipy.stats.rankdata(margins[tied], axis=1) - 1)
        return cls(doubled, tied)

    def __getitem__(self, rows: NDArray[np.int64]) -> Ranks:
        """Return the ranks of some rows."""
        return Ranks(self.doubled[rows], self.tied[rows])

    def scores(self, kind: str = "polynomials") -> NDArray[np.float32]:
        """Return scores of every member, mean 0 and mean square 1 in each row, (orders, examples, members).

        Args:
            kind: `polynomials` for the four of the module, `normal` for the normal quantile of the rank alone.
        """
        table = _table(self.doubled.shape[1], kind)
        scores = np.empty((len(table), *self.doubled.shape), np.float32)
        for order, values in enumerate(table):
            np.take(values, self.doubled, out=scores[order])
        if self.tied.any():
            some = scores[:, self.tied].astype(np.float64)
            some -= some.mean(-1, keepdims=True)
            size = np.sqrt((some**2).mean(-1, keepdims=True))
            scores[:, self.tied] = np.divide(some, size, out=np.zeros_like(some), where=size > 1e-6)
        return scores

    def components(self, labels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return z_1 to z_4 of every row for every column of labels (members, columns), (orders, examples, columns)."""
        members, chosen = len(labels), float(labels[:, 0].sum())
        deviation = np.sqrt(chosen * (members - chosen) / (members - 1))
        return np.asarray(self.scores() @ (labels / np.float32(deviation)))


def combine(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the statistic from z_1 to z_4, which come first."""
    squares = z * z
    total = SLOPE * squares.sum(0) - OFFSET
    return np.asarray(np.maximum(np.maximum(squares[0], squares[1]), total))


@lru_cache(8)
def deal(members: int, others: int, permutations: int, seed: int) -> NDArray[np.float32]:
    """Return labels of the unlearned side: as they are in the first column, dealt again in each of the others."""
    rng = np.random.default_rng([numpy_seed(seed), members, others])
    labels = np.zeros((members + others, 1 + permutations), np.float32)
    labels[:members] = 1
    rng.permuted(labels[:, 1:], axis=0, out=labels[:, 1:])
    labels.flags.writeable = False
    return labels


@lru_cache(16)
def _table(members: int, kind: str) -> NDArray[np.float32]:
    """Return scores at every doubled rank, scaled for a row without equal margins, (orders, 2 members)."""
    u = np.arange(2 * members) / members - 1
    if kind == "normal":
        table = scipy.special.ndtri((u + 1) / 2)[None]
        table[:, 0] = 0  # No rank is 0.
    else:
        table = np.stack([np.polynomial.Legendre.basis(k)(u) for k in range(1, ORDERS + 1)])
    plain = table[:, 1::2]
    table = table - plain.mean(1, keepdims=True)
    size = np.sqrt((table[:, 1::2] ** 2).mean(1, keepdims=True))
    table = np.where(size > 1e-6, table / np.maximum(size, 1e-6), 0).astype(np.float32)
    table.flags.writeable = False
    return np.asarray(table)
