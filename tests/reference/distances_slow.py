"""Distances between two samples by their definitions, one example at a time, with double loops."""

import math

import numpy as np
from scipy import stats


def wasserstein(u, o):
    return stats.wasserstein_distance(u, o) / np.std(o, ddof=1)


def energy(u, o):
    def mean_distance(a, b):
        return np.mean([abs(x - y) for x in a for y in b])

    return (2 * mean_distance(u, o) - mean_distance(u, u) - mean_distance(o, o)) / np.std(o, ddof=1)


def kolmogorov_smirnov(u, o):
    return max(abs(np.mean(u <= t) - np.mean(o <= t)) for t in np.concatenate([u, o]))


def jensen_shannon(u, o, bins=10):
    ordered, edges = sorted(o), []
    for i in range(1, bins):
        k = min(max(int(np.round(i * len(o) / bins)), 1), len(o) - 1)
        edges.append((ordered[k - 1], ordered[k - 1] == ordered[k]))

    def cell(x):
        if not math.isfinite(x):
            return "failed"
        return tuple((x > e, x >= e) if tie else (x > e,) for e, tie in edges)

    p, q = [cell(x) for x in u], [cell(x) for x in o]
    total = 0.0
    for name in set(p) | set(q):
        a, b = p.count(name) / len(p), q.count(name) / len(q)
        m = (a + b) / 2
        total += 0.5 * (a * math.log(a / m) if a else 0) + 0.5 * (b * math.log(b / m) if b else 0)
    return total
