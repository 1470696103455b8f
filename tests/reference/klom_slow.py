"""KLoM one example at a time, in plain loops: the judge of `expunge.metrics.klom`."""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy import stats


def klom_slow(unlearned, oracle, direction="jeffreys", failed=None, bins=None):
    """Ours, from the words of its definition; failures are tried in every way of placing them in one cell."""
    failed = [False] * len(unlearned) if failed is None else failed
    return np.array(
        [
            _example([None if f else v for v, f in zip(u, failed, strict=True)], sorted(o), direction, bins)
            for u, o in zip(np.asarray(unlearned, float).T, np.asarray(oracle, float).T, strict=True)
        ]
    )


def _example(unlearned, oracle, direction, bins):
    number = len(oracle)
    bins = bins or min(20, max(3, math.isqrt(number)))
    edges = [oracle[math.ceil(k * number / bins) - 1] for k in range(1, bins)]
    # Intervals (left, right] and, for a value that fills several edges, the single point.
    cells, left = [], -math.inf
    for value in sorted(set(edges)):
        if edges.count(value) > 1:
            below = math.nextafter(value, -math.inf)
            if below > left or left == -math.inf:
                cells.append((left, below))
            cells.append((below, value))
        else:
            cells.append((left, value))
        left = value
    cells.append((left, math.inf))
    reach = 3 * (oracle[-1] - oracle[0])

    def sound(v):
        return v is not None and math.isfinite(v) and oracle[0] - reach <= v <= oracle[-1] + reach

    def count(values):
        return [sum(low < v <= high for v in values) for low, high in cells] + [0]

    good = [v for v in unlearned if sound(v)]
    bad = len(unlearned) - len(good)
    p, q = count(good), count(oracle)
    readings = []
    for place in range(len(p)):
        placed = [c + bad * (cell == place) for cell, c in enumerate(p)]
        readings.append(_divergence(placed, q, direction))
    return max(readings)


def _divergence(p, q, direction):
    p, q = ([(c + 0.5) / (sum(counts) + len(counts) / 2) for c in counts] for counts in (p, q))
    forwards = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    backwards = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    return {"jeffreys": (forwards + backwards) / 2, "unlearned_oracle": forwards, "oracle_unlearned": backwards}[
        direction
    ]


def worst_placement(unlearned, oracle, members):
    """The largest KLoM over all ways of putting the named members' margins anywhere; one example."""
    spots = np.concatenate([np.unique(oracle), [np.min(oracle) - 0.5, np.max(oracle) + 0.5]])
    best = -math.inf
    for values in itertools.product(spots, repeat=len(members)):
        trial = np.array(unlearned, float)
        trial[members] = values
        best = max(best, klom_slow(trial[:, None], np.asarray(oracle)[:, None])[0])
    return best


def easydub_slow(unlearned, oracle):
    return np.array([_public(u, o, renormalise=False) for u, o in zip(unlearned.T, oracle.T, strict=True)])


def dub_slow(unlearned, oracle):
    return np.array([_public(o, u, renormalise=True) for u, o in zip(unlearned.T, oracle.T, strict=True)])


def _public(p_margins, q_margins, renormalise):
    p_margins, q_margins = np.clip(p_margins, -100, 100), np.clip(q_margins, -100, 100)
    low, high = min(p_margins.min(), q_margins.min()), max(p_margins.max(), q_margins.max())
    edges = np.linspace(low, high if high > low else low + 1, 21)
    p, q = (np.bincount(np.digitize(m, edges), minlength=22)[1:21].astype(float) for m in (p_margins, q_margins))
    p, q = (c / c.sum() if c.sum() else c for c in (p, q))
    q = np.where(p > 0, np.maximum(q, 1e-5), q)
    if renormalise:
        with np.errstate(invalid="ignore", divide="ignore"):
            return stats.entropy(p, q)
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def a2d_slow(unlearned, oracle):
    out = []
    for u, o in zip(np.clip(unlearned, -100, 100).T, oracle.T, strict=True):
        edges = np.linspace(min(u.min(), o.min()), max(u.max(), o.max()), 20)
        with np.errstate(invalid="ignore", divide="ignore"):
            p, q = (np.bincount(np.digitize(m, edges), minlength=21)[:20] for m in (u, o))
            out.append(stats.entropy(p / p.sum(), np.clip(q / q.sum(), 1e-5, None)))
    return np.array(out)


def trail_slow(unlearned, oracle):
    out = []
    for u, o in zip(unlearned.T, oracle.T, strict=True):
        q, p = (np.histogram(np.clip(m, -100, 100), bins=20, range=(-100, 100))[0] + 1e-5 for m in (u, o))
        out.append(stats.entropy(p, q))
    return np.array(out)


def own_ranges_slow(unlearned, oracle):
    out = []
    for u, o in zip(unlearned.T, oracle.T, strict=True):
        p, q = (np.histogram(np.clip(m, -100, 100), bins=20)[0] / len(m) for m in (u, o))
        out.append(sum(a * math.log(a / max(b, 1e-5)) for a, b in zip(p, q, strict=True) if a > 0))
    return np.array(out)


SLOW = {
    "easydub": easydub_slow,
    "dub": dub_slow,
    "a2d": a2d_slow,
    "trail": trail_slow,
    "own-ranges": own_ranges_slow,
}
