"""The teacher mixture drawn at finite dimension and solved directly: the twin of `teacher_mixture.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import expit

from expunge.core import InputError
from expunge.papers.ascent_fails_to_forget.theory.teacher_mixture import (
    Array,
    Estimator,
    Loss,
    Mixture,
    Solution,
    check,
    pack,
)


def simulate(
    mixture: Mixture,
    estimators: Sequence[Estimator],
    *,
    dimension: int = 500,
    loss: Loss = "square",
    seed: int = 0,
) -> Solution:
    """Return the same quantities measured on one random data set, by solving each minimisation directly.

    Args:
        mixture: The law of the data.
        estimators: As in `solve`.
        dimension: d, at least 10; order parameters differ from theory by about 1 / sqrt(d).
        loss: As in `solve`.
        seed: Of the data.

    Raises:
        InputError: If a Newton step meets negative curvature: there is no minimum.
    """
    check(estimators)
    vectors, x, y, _, forgotten = draw(mixture, dimension, seed)
    d = x.shape[1]
    design = np.hstack([x / math.sqrt(d), np.ones((len(x), 1))])
    found: list[Array] = []
    for estimator in estimators:
        a = np.where(forgotten, estimator.weight, 1.0)
        stiff = np.full(d + 1, estimator.ridge + estimator.pull)
        stiff[-1] = 0.0  # the bias is free
        pulled = np.zeros(d + 1)
        if estimator.pulled_to is not None:
            pulled = estimator.pull * found[estimator.pulled_to]
            pulled[-1] = 0.0
        w = np.zeros(d + 1)
        for _ in range(100):
            h = design @ w
            if loss == "square":
                first, second = h - y, np.ones(len(y))
            else:
                s = expit(y * h)
                first, second = -y * (1 - s), s * (1 - s)
            hessian = (design * (a * second)[:, None]).T @ design + np.diag(stiff)
            try:
                factor = np.linalg.cholesky(hessian)
            except np.linalg.LinAlgError:
                raise InputError(f"estimator {estimator.name!r} has no minimum on this data set.") from None
            gradient = design.T @ (a * first) + stiff * w - pulled
            move = np.linalg.solve(factor.T, np.linalg.solve(factor, gradient))
            w = w - move
            if float(np.abs(move).max()) < 1e-9:
                break
        found.append(w)
    stacked = np.array(found)
    weights, bias = stacked[:, :-1], stacked[:, -1]
    products = weights @ vectors.T / d
    overlap = weights @ weights.T / d
    return pack(mixture, estimators, products[:, :2], products[:, 2], overlap, np.full_like(overlap, np.nan), bias)


def draw(mixture: Mixture, dimension: int, seed: int = 0) -> tuple[Array, Array, Array, Array, Array]:
    """Return one data set with exact overlaps and exact subgroup sizes (rounded).

    Args:
        mixture: Its law.
        dimension: d, at least 10.
        seed: Any whole number.

    Returns:
        (W_+, W_-, v) with Gram matrix d G, shape (3, d); inputs x (n, d); labels -1 or 1 (n,); groups -1 or 1 (n,);
        which are forgotten (n,).
    """
    if dimension < 10:
        raise InputError(f"dimension = {dimension}, expected at least 10.")
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(dimension, 3)))
    values, axes = np.linalg.eigh(mixture.gram)
    vectors = math.sqrt(dimension) * (axes * np.sqrt(np.maximum(values, 0))) @ axes.T @ basis.T
    counts = [round(size * dimension) for _, _, size in mixture.subgroups]
    c = np.repeat([float(sign) for sign, _, _ in mixture.subgroups], counts)
    gone = np.repeat([forgotten for _, forgotten, _ in mixture.subgroups], counts)
    spread = np.sqrt(np.where(c > 0, *mixture.variance))
    x = c[:, None] * vectors[2] / math.sqrt(dimension) + spread[:, None] * rng.normal(size=(len(c), dimension))
    fields = np.where(c > 0, x @ vectors[0], x @ vectors[1]) / math.sqrt(dimension)
    y = np.where(fields + np.where(c > 0, *mixture.bias) >= 0, 1.0, -1.0)
    return vectors, x, y, c, gone
