"""Slow obvious twins of the two-sample statistics: double sums and refits."""

from __future__ import annotations

import numpy as np
import torch


def entanglement_slow(features, index):
    phi = np.asarray(features, dtype=float)
    inside = np.isin(np.arange(len(phi)), index)
    f, r = phi[inside], phi[~inside]
    mu_f, mu_r = f.mean(0), r.mean(0)
    mu = (mu_f + mu_r) / 2
    above = np.mean([np.sum((v - mu_r) ** 2) for v in r]) + np.mean([np.sum((v - mu_f) ** 2) for v in f])
    return above / (0.5 * (np.sum((mu_r - mu) ** 2) + np.sum((mu_f - mu) ** 2)))


def mmd_slow(kernel, inside):
    first, second = np.flatnonzero(inside), np.flatnonzero(~inside)
    own = np.mean([kernel[i, j] for i in first for j in first if i != j])
    other = np.mean([kernel[i, j] for i in second for j in second if i != j])
    return own + other - 2 * np.mean([kernel[i, j] for i in first for j in second])


def hsic_slow(k, m):
    """Unbiased HSIC as sums over distinct indices."""
    n = len(k)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    a = sum(k[i, j] * m[i, j] for i, j in pairs) / (n * (n - 1))
    b = sum(k[i, j] * m[q, r] for i, j in pairs for q, r in pairs if len({i, j, q, r}) == 4)
    b /= n * (n - 1) * (n - 2) * (n - 3)
    c = sum(k[i, j] * m[i, q] for i, j in pairs for q in range(n) if q not in (i, j)) / (n * (n - 1) * (n - 2))
    return a + b - 2 * c


def leave_one_out_slow(phi, target, ridge):
    """Score of every row by the ridge regression that is fitted without it."""
    out = []
    for i in range(len(phi)):
        keep = np.arange(len(phi)) != i
        gram = phi[keep].T @ phi[keep] + ridge * np.eye(phi.shape[1])
        out.append(phi[i] @ np.linalg.solve(gram, phi[keep].T @ target[keep]))
    return np.array(out)


def area_slow(scores, inside):
    wins = [float(a > b) + 0.5 * float(a == b) for a in np.asarray(scores)[inside] for b in np.asarray(scores)[~inside]]
    return float(np.mean(wins))


def penultimate_slow(module, x):
    """Input of the last layer of a `Sequential` that ends in a linear layer."""
    with torch.no_grad():
        return module[:-1](x)
