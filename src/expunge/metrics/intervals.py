"""The bootstrap of KLoM: over members (rows, so that examples stay as dependent as they are) and over examples.

Two things go wrong with the plain bootstrap of a divergence, and both are cured here.

1. Near its floor a divergence is a sum of squares of noise. The plain bootstrap resamples around the observed
   difference of the two samples, which there is noise itself, and so adds noise twice: intervals up to sqrt(3) too
   wide. A replicate therefore starts from a part of the observed difference d = p - q between the shares of the cells,

       p* = q + a s + w (d - s) + noise of the unlearned members,     q* = q + noise of the oracles,
       s  = d projected on a line and a parabola over the cells: shifts and changes of spread,
       w^2 = 1 - floor / value,   a^2 = 1 - (1/M + 1/N)/2 / mean over examples of 1/2 sum_k s_k^2 / q_k,

   both 0 when negative. A divergence grows with the square of a difference, so the replicates read, on average, about
   what was observed; 1/M + 1/N is what two of the cells' degrees of freedom contribute when there is no difference, and
   half of it is taken off. The smooth part is kept apart, and shrunk with caution, because that is where members err
   together on all examples: shrinking it like the rest would make intervals too narrow when they do. a = w = 1 is the
   plain bootstrap, a = w = 0 is two sets of oracles.
2. The size of the noise in a replicate depends on the sum of the squared weights of the members, which is shared by all
   examples, differs between replicates, and makes thousands of independent examples look dependent. So each replicate
   uses the same set of weights, those of a Poisson(1) bootstrap, in another order. Their squared deviations from 1 sum
   to the number of members, which makes the variance of a mean exactly the unbiased one.

Where nearly no unlearned margin is inside the oracles' range, intervals are too wide (the cells are oracle quantiles,
whose shares do not vary; resampling lets them); there the verdict is not in doubt.

The value counts as an estimate of the average reading at these numbers of members, which is what the floor is too;
their difference is what verdicts are made from. Counting is a matrix product: member weights (replicates, members)
times cell indicators (members, examples * cells).

Source: Bretagnolle, Ann. Inst. H. Poincare B 19 (1983), on the bootstrap of degenerate statistics; the cures are ours,
and tests/metrics/test_intervals.py and benchmarks/coverage.py measure what the intervals cover.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from expunge.core.checks import between, whole
from expunge.metrics.arrays import Array
from expunge.metrics.klom import SMOOTHING, Cells, Codes, Direction

Summary = Literal["p95", "mean"]
Single = NDArray[np.float32]

SUMMARIES = ("p95", "mean")
NUMBERS = 2**22
"""Numbers in one temporary array of the bootstrap."""
KEEP = 2**25
"""Numbers of resampled oracle shares that are kept between calls."""


def summarise(values: Array, summary: Summary) -> Array:
    """Return the 95th percentile (linear interpolation) or the mean over the last axis (examples)."""
    if summary == "mean":
        return np.asarray(values.mean(-1))
    return np.asarray(np.percentile(values, 95, axis=-1))


def mixture_weight(value: float, floor: float) -> float:
    """Return the part w of the observed difference that is not noise, sqrt(1 - floor / value) cut to [0, 1].

    >>> mixture_weight(1.0, 0.19)
    0.9
    """
    return float(np.sqrt(min(1.0, max(0.0, 1 - floor / value)))) if value > 0 else 0.0


def interval(value: float, replicates: Array, confidence: float = 0.95, *, root: bool = False) -> tuple[float, float]:
    """Return `value` plus and minus z standard deviations of the replicates.

    Only the spread of the replicates is used: their mean carries the bias of the bootstrap, and tails of a few hundred
    replicates are rough.

    Args:
        value: The reading.
        replicates: Bootstrap readings (replicates,).
        confidence: Coverage, 0.5 to 0.9999.
        root: Build the interval for the square root and square its ends. A divergence is a sum of squares, so its
            root has nearly the same spread wherever it is, while its own spread grows with it.
    """
    between(0.5, 0.9999, confidence=confidence)
    if len(replicates) < 2:
        return float("nan"), float("nan")
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    if root:
        centre, half = math.sqrt(max(0.0, value)), z * float(np.sqrt(np.maximum(replicates, 0)).std(ddof=1))
        return max(0.0, centre - half) ** 2, (centre + half) ** 2
    half = z * float(replicates.std(ddof=1))
    return value - half, value + half


class Bootstrap:
    """Resamples one split: the same oracle noise and the same examples in each replicate, whatever is scored.

    Args:
        cells: The oracle side.
        replicates: Number of replicates, at least 2.
        seed: Any integer.
        resample_examples: Whether examples stand for a population (retain, validation) or are all there is (forget).
        direction: As in `klom`.
    """

    def __init__(self, cells: Cells, replicates: int, seed: int, resample_examples: bool, direction: Direction) -> None:
        whole(2, replicates=replicates)
        self.cells, self.replicates, self.seed, self.direction = cells, replicates, seed, direction
        self.oracles, self.examples = cells.oracle_codes.shape
        draw = np.random.default_rng([seed, 0])
        self._oracle_weights = member_weights(draw, self.oracles, replicates)
        self._picked = draw.integers(0, self.examples, (replicates, self.examples)) if resample_examples else None
        position = np.linspace(-1, 1, cells.failure)
        # Orthonormal, the constant dropped: a line and a parabola over the cells.
        self._basis = np.linalg.qr(np.stack([position**0, position, position**2], axis=1))[0][:, 1:]
        step = max(1, NUMBERS // (replicates * (cells.failure + 1)))
        self._parts = [slice(start, min(start + step, self.examples)) for start in range(0, self.examples, step)]
        self._kept: dict[int, tuple[Single, Single]] = {}
        self._keep = 2 * replicates * self.examples * (cells.failure + 1) <= KEEP

    def values(self, codes: Codes, weight: float, members: int | None = None, stream: int = 0) -> Array:
        """Return KLoM of every replicate and example, (replicates, examples).

        Args:
            codes: Placed cells of the unlearned members (members, examples).
            weight: Part of the observed difference from the oracles that is kept, 0 to 1.
            members: Number of members that the noise is for; by default those in `codes`.
            stream: Draws with another number are independent.
        """
        own, cells = len(codes), self.cells.failure + 1
        members = own if members is None else members
        # The draw does not depend on what is scored: two ensembles are compared with as little noise as can be.
        noise = member_weights(np.random.default_rng([self.seed, 1, stream]), own, self.replicates) - 1
        noise *= np.float32(np.sqrt(members / own))
        smooth_weight = self._weigh_smooth(codes, weight)
        out = np.empty((self.replicates, self.examples), np.float32)
        for number, part in enumerate(self._parts):
            indicators = _indicators(codes[:, part], cells)
            oracle = self.cells.oracle_counts[part] * (members / self.oracles)
            observed = indicators.sum(0).reshape(oracle.shape) * (members / own)
            counts: Single = (noise @ indicators).reshape(self.replicates, -1, cells)
            counts += self._start(oracle, observed - oracle, weight, smooth_weight).astype(np.float32)
            np.maximum(counts, 0, out=counts)
            out[:, part] = self._divergence(counts, members, number, part)
        if self._picked is not None:
            out = np.take_along_axis(out, self._picked, axis=1)
        return out.astype(np.float64)

    def _start(self, oracle: Array, difference: Array, weight: float, smooth_weight: float) -> Array:
        """The counts that noise is added to: the oracles' plus the part of the difference that is not noise."""
        smooth = self._smooth(difference)
        return np.asarray(oracle + smooth_weight * smooth + weight * (difference - smooth))

    def _smooth(self, difference: Array) -> Array:
        """Project differences (examples, cells) on a line and a parabola over the cells, failures left out."""
        out = np.zeros_like(difference)
        out[:, :-1] = difference[:, :-1] @ self._basis @ self._basis.T
        return out

    def _weigh_smooth(self, codes: Codes, weight: float) -> float:
        q = self.cells.oracle_counts / self.oracles
        smooth = self._smooth(self.cells.counts(codes) / len(codes) - q)
        size = float((smooth**2 / np.maximum(q, 0.5 / self.oracles)).sum(1).mean() / 2)
        return max(weight, mixture_weight(size, (1 / len(codes) + 1 / self.oracles) / 2))

    def _oracle_side(self, number: int, part: slice) -> tuple[Single, Single]:
        """Resampled oracle shares and their logarithms, (replicates, part, cells)."""
        if number in self._kept:
            return self._kept[number]
        indicators = _indicators(self.cells.oracle_codes[:, part], self.cells.failure + 1)
        q: Single = (self._oracle_weights @ indicators).reshape(self.replicates, -1, self.cells.failure + 1)
        np.maximum(q, 0, out=q)
        q += np.float32(SMOOTHING)
        q /= (self.oracles + SMOOTHING * self.cells.real[part].sum(1, keepdims=True)).astype(np.float32)
        log_q: Single = np.log(q)
        if self._keep:
            self._kept[number] = (q, log_q)
        return q, log_q

    def _divergence(self, counts: Single, members: int, number: int, part: slice) -> Single:
        q, log_q = self._oracle_side(number, part)
        real = self.cells.real[part]
        counts += np.float32(SMOOTHING)
        counts /= (members + SMOOTHING * real.sum(1, keepdims=True)).astype(np.float32)
        ratio: Single = np.log(counts)
        ratio -= log_q
        if not real.all():
            ratio *= real
        if self.direction == "unlearned_oracle":
            return np.asarray(np.einsum("rec,rec->re", counts, ratio), np.float32)
        if self.direction == "oracle_unlearned":
            return np.asarray(-np.einsum("rec,rec->re", q, ratio), np.float32)
        counts -= q
        return np.asarray(np.einsum("rec,rec->re", counts, ratio) / 2, np.float32)


def member_weights(draw: np.random.Generator, members: int, replicates: int) -> Single:
    """Return bootstrap weights (replicates, members): one fixed set, in a random order in each replicate.

    The set follows the quantiles of a Poisson(1) law, moved and scaled so that its sum and the sum of its squared
    deviations from 1 are both the number of members.
    """
    quantiles = stats.poisson.ppf((np.arange(members) + 0.5) / members, 1)
    if members < 2:
        return np.ones((replicates, members), np.float32)
    spread = quantiles.std()
    shape = (quantiles - quantiles.mean()) / spread if spread > 0 else np.linspace(-1, 1, members)
    return draw.permuted(np.tile((1 + shape).astype(np.float32), (replicates, 1)), axis=1)


def _indicators(codes: Codes, cells: int) -> Single:
    """Whether each margin is in each cell, (members, examples * cells)."""
    return np.asarray((codes[..., None] == np.arange(cells, dtype=np.uint8)).reshape(len(codes), -1), np.float32)
