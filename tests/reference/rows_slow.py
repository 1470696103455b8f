"""The test over rows from its definition: ranks one by one, every permutation in a loop, every subset of rows anew."""

import numpy as np
from scipy import stats

LEGENDRE = (
    lambda u: u,
    lambda u: (3 * u**2 - 1) / 2,
    lambda u: (5 * u**3 - 3 * u) / 2,
    lambda u: (35 * u**4 - 30 * u**2 + 3) / 8,
)


def components(row, chosen):
    """z_1 to z_4 of one row's margins (members,), with the unlearned members by mask."""
    total, ours = len(row), int(chosen.sum())
    u = (2 * stats.rankdata(row) - 1) / total - 1
    z = []
    for polynomial in LEGENDRE:
        score = polynomial(u)
        score = score - score.mean()
        size = np.sqrt((score**2).mean())
        score = score / size if size > 1e-6 else 0 * score
        z.append(score[chosen].sum() / np.sqrt(ours * (total - ours) / (total - 1)))
    return np.array(z)


def statistic(row, chosen):
    squares = components(row, chosen) ** 2
    return max(squares[0], squares[1], 0.885 * squares.sum() - 5.6)


def p_values(pooled, masks):
    """Adjusted p-values (examples,): `masks` are labels (1 + permutations, members), the first as they are."""
    values = np.array([[statistic(row, mask) for mask in masks] for row in pooled.T])
    order = np.argsort(-values[:, 0], kind="stable")
    out, last = np.empty(len(values)), 0.0
    for place, row in enumerate(order):
        rest = order[place:]
        largest = values[rest, 1:].max(0)
        last = max(last, (1 + (largest >= values[row, 0] - 1e-3).sum()) / len(masks))
        out[row] = last
    return out
