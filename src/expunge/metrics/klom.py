"""KLoM: how far the margins of unlearned members are from those of oracles, example by example, in nats.

For one example let o_1..o_N be the oracles' margins, u_1..u_M the unlearned members'.

    cells       K = floor(sqrt(N)) between 3 and 20, so 10 at N = 100; the inner edges are order statistics of the
                oracles, o_(ceil(k N / K)), each cell is (left, right], the outer ones are open; plus one for failures
    atoms       an oracle value that fills two edges or more becomes a cell of its own: {v}
    shares      p_k = (#u in cell k + 1/2) / (M + cells / 2),   q_k likewise from the oracles
    KLoM        mean of KL(p | q) and KL(q | p) (Jeffreys), or one of them

    failures    margins of failed members (`failed_members`), and absurd ones: those that lie further outside the
                oracles' range than three times its width, whatever their member. All go into the one cell where
                they raise KLoM most, the last one included, which holds no oracle

Why this and not equal cells over the joint range: oracle quantiles cannot be stretched by two bad members, no margin
falls outside the open ends, and nothing depends on the scale of the margins. KL is convex in p, so the largest KLoM
over all ways of placing the failures is attained with all of them in one cell: a failed or absurd margin can therefore
never score better than any sound margin in its place. That is a theorem, not a setting. Absurd margins of sound members
are in it because the outer cells are open: members that err wildly on a tenth of the examples in either direction would
fill them exactly as oracles do.

Between two sets of oracles KLoM is not 0 but its floor, near (K - 1)(1/M + 1/N)/2 on average; see `Ruler`. It grows
with a shift in two steps: to near 2.3 (M = N = 100) when no margin is inside the oracles' range, and from about three
ranges on to 3.96, when all are absurd. Between and beyond them it stands still, and `wasserstein` tells more.

Idea and name: Georgiev et al., "Attribute-to-Delete" (arXiv 2410.23232), appendix E.1; published variants in
`expunge.metrics.klom_variants`. The estimator is ours; adding 1/2 is Krichevsky and Trofimov's (IEEE Trans. Inf. Theory
27, 1981).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from expunge.core import InputError
from expunge.core.checks import one_of, plain_arguments, whole
from expunge.metrics.arrays import Array, pair, slices
from expunge.metrics.failures import failed_members
from expunge.metrics.klom_variants import PUBLISHED, Way, published_klom

Variant = Literal["expunge", "easydub", "dub", "a2d", "trail", "own-ranges"]
Direction = Literal["jeffreys", "unlearned_oracle", "oracle_unlearned"]
Codes = NDArray[np.uint8]

DIRECTIONS = ("jeffreys", "unlearned_oracle", "oracle_unlearned")
SMOOTHING = 0.5
"""Added to every cell on both sides."""
REACH = 3.0
"""A margin is absurd when it lies further outside the oracles' range than this many times the range."""


@plain_arguments
def klom(
    unlearned: Any,
    oracle: Any,
    variant: Variant = "expunge",
    direction: Direction | None = None,
    *,
    bins: int | None = None,
) -> Array:
    """Return KLoM of every example in nats: divergence between unlearned and oracle margins over members.

    Args:
        unlearned: Margins (members, examples), numpy or torch, any floating-point type; may hold NaN and infinities.
        oracle: Margins of retrained members (oracles, examples), finite, at least 2 (20 or more to be worth reading);
            the numbers of members may differ.
        variant: `expunge`, or a published code to compare with: `easydub`, `dub`, `a2d`, `trail`, `own-ranges`.
        direction: `jeffreys` (mean of both), `unlearned_oracle` for KL(unlearned | oracle), `oracle_unlearned` for the
            reverse; by default `jeffreys` for ours and the published code's own for the others.
        bins: Cells at oracle quantiles, 3 to 200; by default from the number of oracles. Ours only.

    Returns:
        Shape (examples,), float64. Compare with the floor (`Ruler.floor`), not with 0. Ours is always finite; a
        published variant is NaN where its code is.

    Raises:
        InputError: If shapes disagree, a side has too few members, an oracle is not finite, or an option is unknown.

    >>> same = [[0.0], [1.0], [2.0], [3.0]]
    >>> klom(same, same).tolist()
    [0.0]
    >>> klom([[4.0]] * 4, same).round(3).tolist()
    [0.634]
    """
    one_of(("expunge", *PUBLISHED), variant=variant)
    if direction is not None:
        one_of(DIRECTIONS, direction=direction)
    ours, theirs = pair(unlearned, oracle)
    if variant == "expunge":
        cells = Cells.of(theirs, bins)
        codes = cells.place(cells.digitise(ours, failed_members(ours, theirs)), direction or "jeffreys")
        return cells.divergence(cells.counts(codes), len(ours), direction or "jeffreys")
    if bins is not None:
        raise InputError(f"bins = {bins} with variant = {variant!r}, expected none: a published variant has its own.")
    if direction == "jeffreys":
        ways: tuple[Way, Way] = ("unlearned_oracle", "oracle_unlearned")
        both = [published_klom(ours, theirs, variant, way) for way in ways]
        return np.asarray((both[0] + both[1]) / 2)
    return published_klom(ours, theirs, variant, direction)


def default_bins(oracles: int) -> int:
    """Return the number of cells for a number of oracles: floor(sqrt(oracles)), from 3 to 20."""
    return min(20, max(3, int(np.sqrt(oracles))))


@dataclass(frozen=True)
class Cells:
    """The oracle side of KLoM, made once: edges, oracle counts, and what is out of reach."""

    edges: Array
    """Inner edges (bins - 1, examples), not decreasing along the first axis."""
    real: NDArray[np.bool_]
    """Which cells can hold a margin (examples, bins + 1): not those of width 0; the last is the cell for failures."""
    lowest: Array
    """Below this a margin is absurd, (examples,)."""
    highest: Array
    """Above this a margin is absurd, (examples,)."""
    oracle_codes: Codes
    """The cell of every oracle margin (oracles, examples)."""
    oracle_counts: Array
    """Oracles in each cell (examples, bins + 1)."""

    @classmethod
    def of(cls, oracle: Array, bins: int | None = None) -> Cells:
        """Return the cells of checked oracle margins (oracles, examples)."""
        members, examples = oracle.shape
        bins = default_bins(members) if bins is None else bins
        whole(3, bins=bins)
        if bins > 200:
            raise InputError(f"bins = {bins}, expected 3 to 200.")
        ranks = np.ceil(np.arange(1, bins) * members / bins).astype(int) - 1
        edges = np.empty((bins - 1, examples))
        low, high = np.empty(examples), np.empty(examples)
        for part in slices(examples, 4 * members):
            ordered = np.sort(oracle[:, part], axis=0)
            edges[:, part], low[part], high[part] = ordered[ranks], ordered[0], ordered[-1]
        # The first of several equal edges moves just below the value: the atom becomes a cell of its own.
        equal, none = edges[1:] == edges[:-1], np.zeros((1, examples), bool)
        first = np.concatenate([equal, none]) & ~np.concatenate([none, equal])
        edges = np.where(first, np.nextafter(edges, -np.inf), edges)
        real = np.ones((examples, bins + 1), dtype=bool)
        real[:, 1 : bins - 1] = (edges[1:] > edges[:-1]).T
        with np.errstate(over="ignore"):
            reach = REACH * (high - low)
        codes = _digitise(oracle, edges, low, high, bins)
        return cls(edges, real, low - reach, high + reach, codes, _count(codes, bins + 1))

    @property
    def failure(self) -> int:
        """Code of the cell for failures."""
        return len(self.edges) + 1

    def digitise(self, margins: Array, failed: NDArray[np.bool_]) -> Codes:
        """Return the cell of every margin (members, examples), with failures and absurd margins in the last cell."""
        codes = _digitise(margins, self.edges, self.lowest, self.highest, self.failure)
        codes[failed] = self.failure
        return codes

    def counts(self, codes: Codes) -> Array:
        """Return how many members are in each cell, (examples, cells)."""
        return _count(codes, self.failure + 1)

    def place(self, codes: Codes, direction: Direction) -> Codes:
        """Return the codes with each example's failures moved into the cell where they raise KLoM most."""
        bad = codes == self.failure
        where = np.flatnonzero(bad.any(0))
        if len(where) == 0:
            return codes
        codes = codes.copy()
        for part in slices(len(where), len(codes) + 4 * (self.failure + 1)):
            some = where[part]
            counts = self.counts(codes[:, some])
            failures = counts[:, -1:].copy()
            counts[:, -1] = 0
            before = self._terms(counts, len(codes), direction, some)
            after = self._terms(counts + failures, len(codes), direction, some)
            gain = np.where(self.real[some], after - before, -np.inf)
            worst = np.argmax(gain, axis=1).astype(np.uint8)
            codes[:, some] = np.where(bad[:, some], worst, codes[:, some])
        return codes

    def divergence(self, counts: Array, members: int, direction: Direction) -> Array:
        """Return KLoM (examples,) from counts of unlearned members (examples, cells)."""
        out = np.empty(len(counts))
        for part in slices(len(counts), 6 * (self.failure + 1)):
            terms = self._terms(counts[part], members, direction, part)
            out[part] = np.where(self.real[part], terms, 0).sum(1)
        return np.asarray(np.maximum(out, 0))

    def _terms(self, counts: Array, members: int, direction: Direction, which: Any) -> Array:
        """The summand of each cell, (examples, cells), in the exact form of the module's formula."""
        added = self.real[which].sum(1, keepdims=True) * SMOOTHING
        p = (counts + SMOOTHING) / (members + added)
        q = (self.oracle_counts[which] + SMOOTHING) / (len(self.oracle_codes) + added)
        ratio = np.log(p / q)
        if direction == "unlearned_oracle":
            return np.asarray(p * ratio)
        if direction == "oracle_unlearned":
            return np.asarray(-q * ratio)
        return np.asarray((p - q) * ratio / 2)


def _digitise(margins: Array, edges: Array, lowest: Array, highest: Array, failure: int) -> Codes:
    """Number of edges below each margin; `failure` for what is not between lowest and highest, NaN included."""
    codes = np.zeros(margins.shape, np.uint8)
    for part in slices(margins.shape[1], 8 * len(margins)):
        piece, out = margins[:, part], codes[:, part]
        for edge in edges[:, part]:
            out += piece > edge
        out[~((piece >= lowest[part]) & (piece <= highest[part]))] = failure
    return codes


def _count(codes: Codes, cells: int) -> Array:
    out = np.empty((codes.shape[1], cells))
    for part in slices(codes.shape[1], 8 * len(codes)):
        for cell in range(cells):
            out[part, cell] = np.count_nonzero(codes[:, part] == cell, axis=0)
    return out
