"""The bootstrap of KLoM: over members (whole rows, so that examples stay as dependent as they are) and over examples.

The cells of KLoM are oracle quantiles, so all it sees of an example is the curve G, and all that varies is two things:

    G(r) = share of unlearned margins at or below the r-th smallest oracle margin,      r = 0 .. N
           (its diagonal, what more oracles give on average, is r / (N + 1))
    r_k  = rank of the k-th edge,            p_k = G(r_k) - G(r_(k-1)),                 KLoM = D(p | q),  q fixed

    other oracles   the edges fall on other ranks: r*_k moves with the weighted count of the oracles below it
    other members   G*(r) = s + B(s) at s = G~(r), with B(s) the weighted count of the members with the lowest share
                    s of margins, less s: noise in the unlearned members' own ranks, so that no cell is without noise
                    because it happens to be empty

G~ is the curve that a replicate starts from. Starting from G itself adds the noise of the two samples twice: near the
floor, where a divergence is a sum of squares of noise, intervals come out up to sqrt(3) too wide. Starting from the
diagonal (two sets of oracles) is right at the floor and wrong elsewhere. So

    G~ = diagonal + w (sum_i a_i c_i v_i + a_0 rest),     G - diagonal = sum_i c_i v_i + rest

where v_i are the directions in which members err together on many examples (leading eigenvectors of the members'
scores, those beyond what members shuffled within each example give), the a are what is left when the noise that the
members themselves show in a direction is taken off, a_i^2 = 1 - noise_i / c_i^2, and w is such that replicates read,
on average, what was observed.

Weights of members are one set, those of a Poisson(1) bootstrap, in another order in each replicate; their squared
deviations from 1 sum to the number of members, which makes the variance of a mean exactly the unbiased one. Those of
oracles are exponential, as the gaps between the true levels of ordered oracles are: lighter tails of the gaps would
make cells too empty too often, and the floor too high. Where unlearned and oracle rows are the same members (the floor
without held-out oracles) the two orders are made orthogonal.

Examples that stand for others (retain, validation) are resampled too. The noise is in the replicates already: what
other examples add to it is for the mean the spread that examples would have without noise, and for P95 the spread of
the share of readings above it, an example counting by how often its replicates are.

Source: Bretagnolle, Ann. Inst. H. Poincare B 19 (1983), on the bootstrap of degenerate statistics; Buja and Eyuboglu,
Multivariate Behavioral Research 27 (1992), for comparing eigenvalues with those of shuffled data; the rest is ours.
tests/metrics/test_intervals.py and benchmarks/coverage.py measure what the intervals cover.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import scipy
from numpy.typing import NDArray

from expunge.core.checks import whole
from expunge.core.seeds import numpy_seed
from expunge.metrics.arrays import CACHED, Array, slices
from expunge.metrics.klom import SMOOTHING, Cells, Codes, Direction

Summary = Literal["p95", "mean"]
Single = NDArray[np.float32]
Ranks = NDArray[np.int32]
Logical = NDArray[np.bool_]

SUMMARIES = ("p95", "mean")
PILOT, PILOT_EXAMPLES = 20, 1000
"""Replicates and about how many examples the weight of the start is found from."""
WEIGHTS = np.array([0.0, 0.5, 0.8, 0.9, 1.0, 1.05, 1.12, 1.25])
"""Weights of the start that the pilot tries: close to one another where readings saturate, and rise fast."""
MOST_DIRECTIONS = 5
"""Directions in which members may err together."""
THINNED = 256
"""Examples at most from which these directions are found."""
POOLED = 400_000
"""About how many readings of replicates the distribution of all of them is taken from."""
KEPT = 2**25
"""Ranks of edges that are kept at most; of more examples they are made again for each reading."""
SHARED, MOST_THREADS = 2**28, 8
"""Sums from which on a reading of all replicates is shared among threads, and how many at most."""
MOST_WEIGHT = 20
"""Of a Poisson(1) law 1e-18 lies above it."""
CLEAR = 1.1
"""A direction counts when its eigenvalue exceeds the largest of shuffled members by this factor."""


def summarise(values: Array, summary: Summary) -> Array:
    """Return the 95th percentile (linear interpolation) or the mean over the last axis (examples)."""
    if summary == "mean":
        return np.asarray(values.mean(-1))
    return np.asarray(np.percentile(values, 95, axis=-1))


@dataclass(frozen=True)
class Ranked:
    """An ensemble by its ranks among the oracles: all that its replicates are made from."""

    order: Ranks
    """Members in the order of their margins, for each example (examples, members)."""
    start: Single
    """The part of G - diagonal that is not noise, at the ranks 0 to N (examples, N + 1)."""
    klom: Array
    """KLoM as read (examples,)."""
    directions: float = 1.0
    """In how many directions its members and the oracles err; see `directions_of`."""


class Bootstrap:
    """Resamples one split: the same oracle noise and the same examples in each replicate, whatever is scored.

    Args:
        cells: The oracle side.
        oracle: Oracle margins (oracles, examples).
        replicates: Number of replicates, at least 2.
        seed: Any integer.
        resample_examples: Whether examples stand for a population (retain, validation) or are all there is (forget).
        direction: As in `klom`.
    """

    def __init__(
        self, cells: Cells, oracle: Array, replicates: int, seed: int, resample_examples: bool, direction: Direction
    ) -> None:
        whole(2, replicates=replicates)
        self.cells, self.replicates, self.seed, self.direction = cells, replicates, seed, direction
        self.oracles, self.examples = oracle.shape
        self.edges = np.ceil(np.arange(cells.failure + 1) * self.oracles / cells.failure).astype(int)
        """Ranks of the edges, the ends 0 and N included (cells + 1,)."""
        self._levels = np.arange(self.oracles + 1) / (self.oracles + 1)
        # Both edges of a cell are rounded to whole members, which adds 2/12 to the variance of a count that is
        # M (1 - 1/K) / K at the floor: this share of it, times M.
        self._rounded = cells.failure / 6 / (1 - 1 / cells.failure)
        draw = np.random.default_rng([numpy_seed(seed), 0])
        self._weights = oracle_weights(draw, self.oracles, replicates)
        self._picked = draw.integers(0, self.examples, (replicates, self.examples)) if resample_examples else None
        self._sorted = np.sort(oracle.T, axis=1)
        self._tied = (np.diff(self._sorted, axis=1) == 0).any(1)
        # Equal oracles are ordered by lot, so that an atom is noise like any other rather than none.
        lot, self._position = (np.empty((self.examples, self.oracles), np.int32) for _ in range(2))
        for part in slices(self.examples, 4 * self.oracles):
            theirs = oracle.T[part]
            lot[part] = np.lexsort((draw.random(theirs.shape), theirs), axis=1)
            self._position[part] = np.argsort(lot[part], axis=1)
        self._oracle = Ranked(lot, np.zeros((self.examples, 1), np.float32), np.zeros(self.examples))
        few = self.examples * replicates * (len(self.edges) - 2) <= KEPT
        self._moved = self._moved_edges(slice(None), replicates) if few else None
        self._draws: dict[tuple[int, int], Single] = {}

    def rank(self, margins: Array, codes: Codes, failed: Logical, klom: Array) -> Ranked:
        """Return an ensemble by its ranks among the oracles.

        Args:
            margins: Shape (members, examples).
            codes: Their cells, failures placed (members, examples).
            failed: Which members failed (members,).
            klom: KLoM as read (examples,).
        """
        position = self._positions(margins.T)
        self._move_failures(position, margins, codes, failed)
        members = len(margins)
        curve, order = np.zeros((self.examples, self.oracles + 1)), np.empty_like(position)
        for part in slices(self.examples, 4 * (members + self.oracles)):
            own, out = position[part], curve[part]
            flat = (own + (self.oracles + 1) * np.arange(len(own))[:, None]).ravel()
            counts = np.bincount(flat, minlength=out.size).reshape(out.shape)
            # A margin with r oracles below it is at or below the oracles of rank r + 1 and more.
            out[:, 1:] = np.cumsum(counts[:, :-1], axis=1) / members
            out -= self._levels
            small = own.astype(np.int16) if self.oracles < 2**15 else own
            order[part] = np.argsort(small, axis=1, kind="stable")
        sides = self._sides(position)
        return Ranked(order, self._start(position, curve, self._together(sides)), klom, directions_of(sides))

    def null(self, members: int, stream: int = 0) -> Array:
        """Return KLoM of two sets of oracles, every replicate and example, (replicates, examples).

        Args:
            members: Number of members that the noise of the unlearned side is for.
            stream: Draws with another number are independent.
        """
        return self._values(self._oracle, 0.0, members, stream)

    def values(self, ranked: Ranked, weight: float, members: int | None = None, stream: int = 0) -> Array:
        """Return KLoM of every replicate and example, (replicates, examples).

        Args:
            ranked: The ensemble.
            weight: The weight w of the start; 0 is the null.
            members: Number of members that the noise is for; by default the ensemble's own.
            stream: Draws with another number are independent.
        """
        return self._values(ranked, weight, ranked.order.shape[1] if members is None else members, stream)

    def readings(self, values: Array, summary: Summary, klom: Array | None = None) -> Array:
        """Return the summary of each replicate, (replicates,), with other examples where they stand for others.

        Args:
            values: From `values` or `null` (replicates, examples).
            summary: `p95` or `mean` over examples.
            klom: KLoM as read (examples,); None for two sets of oracles, whose examples differ by noise only.
        """
        read = summarise(values, summary)
        if self._picked is None or klom is None:
            return read
        other = self._other_mean(values, klom) if summary == "mean" else self._other_p95(values, read)
        return np.asarray(read + other)

    def _other_mean(self, values: Array, klom: Array) -> Array:
        """Return by how much the mean over other examples differs in each replicate, (replicates,)."""
        assert self._picked is not None
        # What examples would read without noise: as seen, drawn together until they vary by as much more than noise.
        seen, noise = float(klom.var(ddof=1)), float(values.var(0, ddof=1).mean())
        expected = np.sqrt(max(0.0, 1 - noise / seen) if seen > 0 else 0.0) * (klom - klom.mean())
        return np.asarray(expected[self._picked].mean(1))

    def _other_p95(self, values: Array, read: Array) -> Array:
        """Return by how much P95 over other examples differs in each replicate, (replicates,).

        An example counts by the share of replicates whose P95 it is above, which noise decides as well. Other examples
        change the share of readings above P95, and P95 goes to where that much more or less is above it. Readings are
        compared within a replicate: the noise that its examples share moves its P95 as well.
        """
        assert self._picked is not None
        above, at = (values > read[:, None]).mean(0), (values == read[:, None]).mean(0)
        # Of readings that are P95 itself, as many count as above it as make 5 %.
        above += at * np.clip((0.05 - above.mean()) / max(float(at.mean()), 1e-12), 0, 1)
        other = above[self._picked].mean(1) - above.mean()
        some = slice(0, max(1, POOLED // self.examples))
        around = (values[some] - read[some, None]).ravel()
        level = np.clip(np.append(0.95 + other, 0.95), 0, 1) * (around.size - 1)
        # Only between the least and the largest level does the order matter.
        first, last = int(level.min()), min(int(level.max()) + 1, around.size - 1)
        around.partition((first, last))
        between = np.sort(around[first : last + 1])
        there = np.interp(level, np.arange(first, last + 1), between)
        return np.asarray(there[:-1] - there[-1])

    def weigh(self, ranked: Ranked, summary: Summary, stream: int = 0) -> float:
        """Return the weight w at which replicates read on average what was observed, 0 to 1.25."""
        step = max(1, self.examples // PILOT_EXAMPLES)
        part = slice(0, self.examples, step)
        members = ranked.order.shape[1]
        count = self._noise(ranked, members, stream, part, min(PILOT, self.replicates))

        @cache
        def reading(place: int) -> float:
            return float(summarise(self._read(ranked, WEIGHTS[place], members, count, part), summary).mean())

        seen, low, high = float(summarise(ranked.klom[part], summary)), -1, len(WEIGHTS) - 1
        if seen >= reading(high):
            return float(WEIGHTS[high]) if reading(high) > reading(0) else 0.0
        # Readings rise with the weight: halve until the one seen lies between two neighbours.
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if reading(middle) <= seen else (low, middle)
        if low < 0:
            return 0.0
        return float(np.sqrt(np.interp(seen, [reading(low), reading(high)], WEIGHTS[[low, high]] ** 2)))

    # replicates ---------------------------------------------------------------------------------------------------

    def _values(self, ranked: Ranked, weight: float, members: int, stream: int) -> Array:
        out = np.empty((self.replicates, self.examples))
        self._drawn(ranked.order.shape[1], stream)

        def fill(part: slice) -> None:
            count = self._noise(ranked, members, stream, part, self.replicates)
            out[:, part] = self._read(ranked, weight, members, count, part)

        numbers = self.replicates * ranked.order.shape[1]
        parts = slices(self.examples, numbers, 4 * CACHED)
        if numbers * self.examples < SHARED:
            for part in parts:
                fill(part)
        else:
            with ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS)) as pool:
                list(pool.map(fill, parts))
        return out

    def _noise(self, ranked: Ranked, members: int, stream: int, part: slice, replicates: int) -> Single:
        """Return B in counts at the own ranks 0 to M, (M + 1, examples of the part, replicates)."""
        order = ranked.order[part]
        own = order.shape[1]
        # The draw does not depend on what is scored: two ensembles are compared with as little noise as can be.
        weights = self._drawn(own, stream)[:replicates] - 1
        if ranked is self._oracle:
            theirs = self._weights[:replicates] - 1
            weights = weights - (weights * theirs).sum(1, keepdims=True) / own * theirs
            weights *= np.sqrt(own / np.maximum((weights**2).sum(1, keepdims=True), 1e-12))
        count = np.empty((own + 1, len(order), replicates), np.float32)
        count[0] = 0
        below = count[0]
        for below_or_at in _in_order(weights, order, count[1:]):
            below_or_at += below
            below = below_or_at
        # Own ranks have no spread to estimate: 1 of M is too much.
        count *= np.float32(np.sqrt(members / own * max(0.0, 1 - 1 / own - self._rounded / members)))
        return count

    def _drawn(self, members: int, stream: int) -> Single:
        if (members, stream) not in self._draws:
            draw = np.random.default_rng([numpy_seed(self.seed), 1, stream])
            self._draws[members, stream] = member_weights(draw, members, self.replicates)
        return self._draws[members, stream]

    def _read(self, ranked: Ranked, weight: float, members: int, count: Single, part: slice) -> Array:
        """KLoM of the replicates that `count` is for, (replicates, examples of the part)."""
        ranks, examples, replicates = count.shape
        moved = self._moved_edges(part, replicates) if self._moved is None else self._moved[part, :replicates]
        share = moved / np.float32(self.oracles + 1)
        if weight > 0:
            rank = moved.astype(np.intp)
            between, start = moved - rank.astype(np.float32), ranked.start[part]
            first = start.shape[1] * np.arange(examples)[:, None, None]
            share += np.float32(weight) * (1 - between) * np.take(start, rank + first)
            share += np.float32(weight) * between * np.take(start, np.minimum(rank + 1, self.oracles) + first)
            np.clip(share, 0, 1, out=share)
        below = share * np.float32(members)
        own = np.rint(share * np.float32(ranks - 1)).astype(np.intp)
        own *= examples * replicates
        own += np.arange(examples * replicates).reshape(examples, replicates, 1)
        below += np.take(count, own)
        # Members are whole, and with few of them that widens the spread of a percentile.
        np.clip(np.rint(below, out=below), 0, members, out=below)
        counts = np.empty((examples, replicates, below.shape[2] + 1), np.float32)
        counts[..., 0], counts[..., -1] = below[..., 0], members - below[..., -1]
        np.subtract(below[..., 1:], below[..., :-1], out=counts[..., 1:-1])
        return self._divergence(np.maximum(counts, 0, out=counts), members).T

    def _divergence(self, counts: Single, members: int) -> Array:
        # One more cell, for failures, is empty on both sides.
        added = SMOOTHING * (self.cells.failure + 1)
        of_oracles = np.append(np.diff(self.edges), 0) + SMOOTHING
        q = (of_oracles / (self.oracles + added)).astype(np.float32)
        empty = float(self._term(np.float32(SMOOTHING / (members + added)), q[-1:])[0])
        p = (counts + np.float32(SMOOTHING)) / np.float32(members + added)
        return np.asarray(self._term(p, q[:-1]).sum(2), np.float64) + empty

    def _term(self, p: Any, q: Single) -> Single:
        ratio = np.log(p / q)
        if self.direction == "unlearned_oracle":
            return np.asarray(p * ratio)
        if self.direction == "oracle_unlearned":
            return np.asarray(-q * ratio)
        return np.asarray((p - q) * ratio / 2)

    def _moved_edges(self, which: slice, replicates: int) -> Single:
        """Ranks of the inner edges in the first replicates, (examples of the part, replicates, cells - 1).

        An edge moves by the weighted count of the oracles below it, less their number: the first-order term (Bahadur's)
        of where a weighted quantile lies, with the sign turned, because then the gaps between edges lean to the right,
        as gaps between order statistics do. Moves are scaled to the variance of the Beta law of their ranks.
        """
        goals, n = self.edges[1:-1], self.oracles
        edges_at = {int(rank): np.flatnonzero(goals == rank) for rank in goals}
        orders = self._oracle.order[which]
        out = np.empty((len(orders), replicates, len(goals)), np.float32)
        for part in slices(len(orders), replicates * n, 4 * CACHED):
            total, some = np.zeros((len(orders[part]), replicates), np.float32), orders[part, : goals[-1]]
            for rank, step in enumerate(_in_order(self._weights[:replicates] - 1, some), 1):
                total += step
                for edge in edges_at.get(rank, ()):
                    out[part, :, edge] = total
        # Weights of whole rows give goals (n - goals) / (n - 1); other oracles give goals (n + 1 - goals) / (n + 2).
        given, true = goals * (n - goals) / max(1, n - 1), goals * (n + 1 - goals) / (n + 2)
        out *= np.sqrt(true / np.maximum(given, 1e-9)).astype(np.float32)
        out += goals.astype(np.float32)
        return np.asarray(np.clip(out, 0, n, out=out))

    # ranks and starts ---------------------------------------------------------------------------------------------

    def _positions(self, margins: Array) -> Ranks:
        """Oracles below each margin (examples, members); among equal oracles by lot."""
        members = margins.shape[1]
        position = np.empty(margins.shape, np.int32)
        for part in slices(self.examples, 4 * (members + self.oracles)):
            order = np.argsort(np.concatenate([margins[part], self._sorted[part]], axis=1), axis=1, kind="stable")
            both = np.empty(order.shape, np.int32)
            np.put_along_axis(both, order, np.cumsum(order >= members, axis=1), axis=1)
            position[part] = both[:, :members]
        lots = np.random.default_rng([numpy_seed(self.seed), 2])
        for j in np.flatnonzero(self._tied):
            high = np.searchsorted(self._sorted[j], margins[j], side="right")
            block = np.maximum(high - position[j], 1)
            position[j] += np.where(block > 1, lots.integers(0, block + 1), 0)
        return position

    def _move_failures(self, position: Ranks, margins: Array, codes: Codes, failed: Logical) -> None:
        """Give failed and absurd margins a rank in the cell where they were placed, or above all oracles."""
        with np.errstate(invalid="ignore"):
            bad = (~((margins >= self.cells.lowest) & (margins <= self.cells.highest)) | failed[:, None]).T
        if not bad.any():
            return
        middle = (self.edges[1:] + self.edges[:-1]) // 2
        # Beyond the outer edges there is room outside the oracles' range, where no edge comes.
        middle[0], middle[-1] = 0, self.oracles
        position[bad] = middle[np.minimum(codes.T[bad], len(middle) - 1)]

    def _start(self, position: Ranks, curve: Array, together: list[tuple[Array, Array]]) -> Single:
        """Take off what is noise, direction by direction; see the module. The curve is overwritten."""
        members, edges = position.shape[1], self.edges
        inner = np.zeros((self.examples, len(edges)))
        inner[:, 1:-1] = curve[:, edges[1:-1]]
        q = np.diff(np.append(self._levels[edges[:-1]], 1.0))[None, :]
        difference = np.diff(inner, axis=1)
        p = difference + q
        # The shares of the cells in units of their noise, (examples, cells).
        unit = 1 / np.sqrt(np.maximum((p + q) / 2, 0.5 / self.oracles))
        rest = difference * unit
        noise = float((p * (1 - p) * unit**2).sum()) / (members - 1)
        noise += float((q * (1 - q) * unit**2).sum()) / (self.oracles - 1)
        smooth, left = np.zeros_like(curve), curve
        for ours, theirs in together:
            shape = (self._loaded(position, ours) + self._loaded(self._position, theirs)) * unit
            size = float((shape**2).sum())
            along = float((rest * shape).sum()) / size
            rest -= along * shape
            noise -= size
            ends = np.concatenate([np.zeros((self.examples, 1)), np.cumsum(along * shape / unit, axis=1)], axis=1)
            kept = np.sqrt(max(0.0, 1 - 1 / max(along**2, 1e-300)))
            for part in slices(self.examples, 4 * len(self._levels)):
                bent = _between(ends[part], edges)
                left[part] -= bent
                smooth[part] += kept * bent
        size = float((rest**2).sum())
        keep = np.sqrt(min(1.0, max(0.0, 1 - noise / size))) if size > 0 else 0.0
        left *= keep
        left += smooth
        return np.asarray(left, np.float32)

    def _sides(self, position: Ranks) -> list[Array]:
        """Return the scores of members and of oracles, scaled to the noise of a mean, each (2 examples, members)."""
        step = max(1, self.examples // THINNED)
        sides = [_scores(x[::step], self.oracles) for x in (position, self._position)]
        return [side / np.sqrt(side.shape[1] * max(1, side.shape[1] - 1)) for side in sides]

    def _together(self, sides: list[Array]) -> list[tuple[Array, Array]]:
        """Return the loads of both sides' members in each direction in which they err together."""
        members, oracles = (side.shape[1] for side in sides)
        if min(members, oracles) < 3:
            return []
        scale = 1 / np.sqrt(members * (members - 1)), 1 / np.sqrt(oracles * (oracles - 1))
        lots = np.random.default_rng([numpy_seed(self.seed), 3])
        shuffled = leading([lots.permuted(side, axis=1) for side in sides], 1)[0][0]
        found = []
        for value, vector in zip(*leading(sides, MOST_DIRECTIONS), strict=True):
            if value <= CLEAR * shuffled:
                break
            loads = vector[:members], vector[members:]
            found.append(tuple((load - load.mean()) * s for load, s in zip(loads, scale, strict=True)))
        return found

    def _loaded(self, position: Ranks, loads: Array) -> Array:
        """Return the sum of the loads of the members in each cell, (examples, cells)."""
        cells = len(self.edges) - 1
        cell_of = np.searchsorted(self.edges[1:-1], np.arange(self.oracles + 1), side="right")
        out = np.empty((len(position), cells))
        for part in slices(len(position), 4 * position.shape[1]):
            flat = (cell_of[position[part]] + cells * np.arange(len(out[part]))[:, None]).ravel()
            weights = np.broadcast_to(loads, position[part].shape).ravel()
            out[part] = np.bincount(flat, weights, out[part].size).reshape(-1, cells)
        return out


def _in_order(weights: Single, order: Ranks, out: Single | None = None) -> Iterator[Single]:
    """Yield the weights of the lowest member of each example, then of the next, each (examples, replicates).

    Summing them one by one adds what `np.cumsum` over an array of all of them does, in the same order; that would read
    the array once more.

    Args:
        weights: Shape (replicates, members).
        order: Members in the order of their margins, (examples, members).
        out: Where they go, (members, examples, replicates); each in the same memory without it.
    """
    columns = np.ascontiguousarray(weights.T)
    where = np.empty((len(order), len(weights)), np.float32) if out is None else out
    for place, members in enumerate(np.ascontiguousarray(order.T, np.intp)):
        # Not `np.take`: of so small arrays what lies around a call counts.
        yield columns.take(members, 0, where if out is None else out[place], "clip")


def member_weights(draw: np.random.Generator, members: int, replicates: int) -> Single:
    """Return bootstrap weights (replicates, members): one fixed set, in a random order in each replicate.

    The set follows the quantiles of a Poisson(1) law, moved and scaled so that its sum and the sum of its squared
    deviations from 1 are both the number of members.
    """
    # Not `scipy.stats`, here and in `intervals`: loading it takes longer than a score of a few thousand examples.
    below = scipy.special.pdtr(np.arange(MOST_WEIGHT), 1.0)
    quantiles = np.searchsorted(below, (np.arange(members) + 0.5) / members)
    return _permuted(draw, quantiles.astype(np.float64), replicates)


def oracle_weights(draw: np.random.Generator, members: int, replicates: int) -> Single:
    """Return weights like `member_weights`, of an exponential law: that of the gaps between true levels of oracles."""
    return _permuted(draw, -np.log1p(-(np.arange(members) + 0.5) / members), replicates)


def _permuted(draw: np.random.Generator, quantiles: Array, replicates: int) -> Single:
    members = len(quantiles)
    if members < 2:
        return np.ones((replicates, members), np.float32)
    spread = quantiles.std()
    shape = (quantiles - quantiles.mean()) / spread if spread > 0 else np.linspace(-1, 1, members)
    return draw.permuted(np.tile((1 + shape).astype(np.float32), (replicates, 1)), axis=1)


def directions_of(sides: list[Array]) -> float:
    """Return in how many equal independent directions members err, (tr S^2)^2 / tr S^4 of their covariance S.

    Sums over eigenvalues would count the noise of few members as directions. Products of different members do not:
    with g the product of two members' scores, tr S^2 is the mean of g_ij^2, and tr S^4 that of g_ij g_jk g_kl g_li
    over four different members. Of the scores the lines alone are used; parabolas would count what members share twice.

    Args:
        sides: Scores of members and of oracles, centred, each (2 examples, members).

    Returns:
        At least 1; 1 when there are fewer than 4 members.
    """
    lines = [side[: len(side) // 2] for side in sides]
    n = sum(side.shape[1] for side in lines)
    if n < 4:
        return 1.0
    g, start = _gram(lines), 0
    for side in lines:
        # Centring makes the products of different members lean to the negative by this much.
        own = slice(start, start + side.shape[1])
        start = own.stop
        g[own, own] += np.trace(g[own, own]) / (side.shape[1] * max(1, side.shape[1] - 1))
    np.fill_diagonal(g, 0)
    squares = g**2
    second = squares.sum() / (n * (n - 1))
    # Closed walks of four steps, less those that come back to a member that they have been at.
    walks = ((g @ g) ** 2).sum() - 2 * (squares.sum(1) ** 2).sum() + (squares**2).sum()
    fourth = walks / (n * (n - 1) * (n - 2) * (n - 3))
    most = float(len(lines[0]))
    return float(np.clip(second**2 / fourth, 1.0, most)) if fourth > 0 else most


def _scores(position: Ranks, oracles: int) -> Array:
    """A line and a parabola over the ranks: how high and how far out a member is, centred (2 examples, members)."""
    x = 2 * position / oracles - 1.0
    both = np.concatenate([np.sqrt(3) * x, np.sqrt(5) * (3 * x**2 - 1) / 2])
    return np.asarray(both - both.mean(1, keepdims=True))


def leading(sides: list[Array], number: int) -> tuple[Array, Array]:
    """Return the largest eigenvalues of the members' products, falling, and their vectors as rows.

    They are those of the products of the rows, of which there are fewer where there are many members.

    Args:
        sides: Scores, each (rows, members).
        number: How many; fewer where there are fewer rows or members.

    Returns:
        Values (number,) and vectors (number, members); a value of 0 has a vector of no meaning.
    """
    rows = np.concatenate(sides, axis=1)
    wide = rows.shape[0] < rows.shape[1]
    products = rows @ rows.T if wide else rows.T @ rows
    last = len(products) - 1
    values, vectors = scipy.linalg.eigh(products, subset_by_index=(max(0, last + 1 - number), last))
    if wide:
        vectors = rows.T @ vectors
        vectors /= np.maximum(np.linalg.norm(vectors, axis=0), 1e-300)
    return np.asarray(values[::-1]), np.asarray(vectors.T[::-1])


def _gram(sides: list[Array]) -> Array:
    rows = np.concatenate(sides, axis=1)
    return np.asarray(rows.T @ rows)


def _between(ends: Array, edges: NDArray[np.int_]) -> Array:
    """Interpolate values at the edges (examples, cells + 1) to the ranks 0 to N, (examples, N + 1)."""
    rank = np.arange(edges[-1] + 1)
    cell = np.clip(np.searchsorted(edges, rank, side="right") - 1, 0, len(edges) - 2)
    part = (rank - edges[cell]) / (edges[cell + 1] - edges[cell])
    return np.asarray(ends[:, cell] * (1 - part) + ends[:, cell + 1] * part)
