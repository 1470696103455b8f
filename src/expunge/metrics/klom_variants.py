"""KLoM as five public codes compute it, defects included, so that tables elsewhere can be compared with.

All are histograms with 20 as their number. What differs, and what goes wrong:

    name        cells                           clip at +-100  zeros                           direction as executed
    easydub     20 between joint min and max    both           floor 1e-5 where the first > 0  KL(unlearned | oracle)
    dub         the same                        both           the same, then renormalised     KL(oracle | unlearned)
    a2d         19 between joint min and max    unlearned      floor 1e-5 in all 20 slots,     KL(unlearned | oracle)
                                                               then renormalised
    trail       20 on [-100, 100], 10 wide      both           1e-5 added to every count       KL(oracle | unlearned)
    own-ranges  20 between own min and max      both           floor 1e-5 where the first > 0  KL(unlearned | oracle)

- The first three use half-open cells, so the largest pooled margin is counted in no cell: members that all sit at the
  maximum leave an empty histogram, which `easydub` scores 0 (perfect) and the renormalising codes NaN or 0.
- One NaN margin makes every edge NaN and empties both histograms, with the same result.
- Two members far away stretch the cells until the other 98 fall into one.
- `trail`'s cells are wider than almost any difference between models.
- `own-ranges` lays each side's cells over that side's own range, so that position and scale drop out: margins that all
  move by any amount score what identical laws do.

For judging a method use `expunge.metrics.klom` with its own estimator. Numbers are computed in float64; code that keeps
float32 edges can put a margin that lies exactly on an edge into the neighbouring cell.

Sources, read in November 2026: easydub/EasyDUB-code `easydub/eval.py`; RoyRin/data-unlearning-bench
`unlearning_bench/eval.py`, called by `run.py` with the oracle first, and its earlier `unlearning/auditors/direct.py`
(of arXiv 2410.23232); sepehrkdi/trail `trail/metrics/klom.py`. `own-ranges` is the first public release of
easydub/EasyDUB-code, whose history has been rewritten since: it is built from a description (each side binned on its
own range) and from what that release read for N(9, 1) against N(3, 1) with 100 members, 0.47. Its cells are those of
`numpy.histogram`, which come nearest to that; a margin that is not finite, which stops `numpy.histogram`, reads NaN.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.special import rel_entr

from expunge.metrics.arrays import Array, slices

Published = Literal["easydub", "dub", "a2d", "trail", "own-ranges"]
Way = Literal["unlearned_oracle", "oracle_unlearned"]

PUBLISHED: dict[Published, Way] = {
    "easydub": "unlearned_oracle",
    "dub": "oracle_unlearned",
    "a2d": "unlearned_oracle",
    "trail": "oracle_unlearned",
    "own-ranges": "unlearned_oracle",
}
"""Published variants, and the direction in which their code runs."""

EPS = 1e-5
LIMIT = 100.0


def published_klom(unlearned: Array, oracle: Array, variant: Published, way: Way | None = None) -> Array:
    """Return KLoM in nats as a public code computes it.

    Args:
        unlearned: Margins (members, examples), checked; may hold NaN.
        oracle: Margins (oracles, examples), checked.
        variant: Which code.
        way: Which side comes first; None is the direction that the code runs in.

    Returns:
        Shape (examples,); NaN where the code returns NaN.
    """
    first, second = (unlearned, oracle)
    if (way or PUBLISHED[variant]) == "oracle_unlearned":
        first, second = oracle, unlearned
    out = np.empty(first.shape[1])
    for part in slices(first.shape[1], len(first) + len(second)):
        with np.errstate(invalid="ignore", divide="ignore"):
            out[part] = _KERNELS[variant](first[:, part], second[:, part])
    return out


def _easydub(p_margins: Array, q_margins: Array) -> Array:
    return _floored(*_adaptive_shares(p_margins, q_margins))


def _floored(p: Array, q: Array) -> Array:
    """KL(p | q) with q at least EPS where p is above 0, not renormalised."""
    q = np.where(p > 0, np.maximum(q, EPS), q)
    return np.asarray(np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / np.where(p > 0, q, 1)), 0).sum(0))


def _dub(p_margins: Array, q_margins: Array) -> Array:
    p, q = _adaptive_shares(p_margins, q_margins)
    return _renormalised(p, np.where(p > 0, np.maximum(q, EPS), q))


def _adaptive_shares(p_margins: Array, q_margins: Array) -> tuple[Array, Array]:
    """Histograms on 20 cells over the joint range after clipping; an empty histogram stays all zero."""
    p_margins, q_margins = np.clip(p_margins, -LIMIT, LIMIT), np.clip(q_margins, -LIMIT, LIMIT)
    low, high = np.minimum(p_margins.min(0), q_margins.min(0)), np.maximum(p_margins.max(0), q_margins.max(0))
    edges = _linspace(low, np.where(low >= high, high + 1, high), 21)
    shares = []
    for margins in (p_margins, q_margins):
        counts = _half_open_counts(margins, edges)
        total = counts.sum(0)
        shares.append(np.where(total > 0, counts / np.maximum(total, 1), 0))
    return shares[0], shares[1]


def _a2d(p_margins: Array, q_margins: Array) -> Array:
    p_margins = np.clip(p_margins, -LIMIT, LIMIT)
    low, high = np.minimum(p_margins.min(0), q_margins.min(0)), np.maximum(p_margins.max(0), q_margins.max(0))
    edges = _linspace(low, high, 20)
    p, q = _half_open_counts(p_margins, edges), _half_open_counts(q_margins, edges)
    # The code counts one more slot, below the smallest edge: always empty, but the floor gives it mass.
    below = np.zeros((1, p.shape[1]))
    p, q = np.concatenate([below, p]), np.concatenate([below, q])
    return _renormalised(p / p.sum(0), np.maximum(q / q.sum(0), EPS))


def _trail(p_margins: Array, q_margins: Array) -> Array:
    edges = np.linspace(-LIMIT, LIMIT, 21)
    shares = []
    for margins in (p_margins, q_margins):
        # NaN reaches no edge and is dropped.
        counts = _closed_counts(np.clip(margins, -LIMIT, LIMIT), edges) + EPS
        shares.append(counts / counts.sum(0))
    p, q = shares
    return np.asarray((p * (np.log(p) - np.log(q))).sum(0))


def _own_ranges(p_margins: Array, q_margins: Array) -> Array:
    shares = []
    for margins in (p_margins, q_margins):
        clipped = np.clip(margins, -LIMIT, LIMIT)
        low, high = clipped.min(0), clipped.max(0)
        # A constant has a range of 1 around it, as numpy.histogram gives it.
        half = np.where(low == high, 0.5, 0.0)
        counts = _closed_counts(clipped, _linspace(low - half, high + half, 21))
        shares.append(np.where(np.isfinite(low), counts / len(margins), np.nan))
    p, q = shares
    return np.where(np.isnan(p).any(0) | np.isnan(q).any(0), np.nan, _floored(p, q))


_KERNELS = {"easydub": _easydub, "dub": _dub, "a2d": _a2d, "trail": _trail, "own-ranges": _own_ranges}


def _linspace(low: Array, high: Array, number: int) -> Array:
    """Edges of each example, shape (number, examples), rounded as `numpy.linspace` rounds them one by one."""
    edges = np.arange(number)[:, None] * ((high - low) / (number - 1)) + low
    edges[-1] = high
    return np.asarray(edges)


def _half_open_counts(margins: Array, edges: Array) -> Array:
    """Members in [edge_i, edge_i+1), shape (cells, examples): the last cell leaves out its right end, as they do."""
    reached = np.stack([(margins >= edge).sum(0) for edge in edges]).astype(np.float64)
    return np.asarray(reached[:-1] - reached[1:])


def _closed_counts(margins: Array, edges: Array) -> Array:
    """The same with the right end of the last cell in it, as `numpy.histogram` counts."""
    reached = np.stack([(margins >= edge).sum(0) for edge in edges[:-1]]).astype(np.float64)
    return np.asarray(np.concatenate([reached[:-1] - reached[1:], reached[-1:]]))


def _renormalised(p: Array, q: Array) -> Array:
    """scipy.stats.entropy(p, q) along the first axis: both sides are divided by their sums, 0 / 0 included."""
    return np.asarray(rel_entr(p / p.sum(0), q / q.sum(0)).sum(0))
