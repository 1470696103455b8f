"""Slow obvious twins of datamodels: explicit penalised least squares, one target and one left-out subset at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Fit(NamedTuple):
    intercept: float
    own: float
    weights: np.ndarray
    """All weights, own included, shape (examples,)."""


def ridge(masks: np.ndarray, margins: np.ndarray, own: int, penalty: float) -> Fit:
    """Minimise |m - c - Z w|^2 + penalty * (sum of squares of all weights but `own`), by the normal equations."""
    k, n = masks.shape
    design = np.column_stack([np.ones(k), masks - masks.mean(0)])
    weight = np.full(n + 1, penalty)
    weight[0] = 0.0
    if own >= 0:
        weight[1 + own] = 0.0
    solution = np.linalg.solve(design.T @ design + np.diag(weight), design.T @ margins)
    return Fit(solution[0], solution[1 + own] if own >= 0 else 0.0, solution[1:])


def left_out_errors(masks: np.ndarray, margins: np.ndarray, own: int, penalty: float) -> np.ndarray:
    """Refit without each subset in turn and predict it, shape (subsets,)."""
    errors = []
    for k in range(len(masks)):
        keep = np.arange(len(masks)) != k
        fit = ridge(masks[keep], margins[keep], own, penalty)
        errors.append(margins[k] - fit.intercept - (masks[k] - masks[keep].mean(0)) @ fit.weights)
    return np.array(errors)


def fixed_effects(masks: np.ndarray, margins: np.ndarray, columns: np.ndarray, penalty: float):
    """Generalised least squares of margins on fixed `columns` with covariance s^2 (Z Z^T / penalty + I).

    Returns the effects, their covariance, and the variance of one random weight, with s^2 by restricted maximum
    likelihood (an intercept is fixed too).
    """
    z = masks - masks.mean(0)
    k = len(z)
    inverse = np.linalg.inv(z @ z.T / penalty + np.eye(k))
    design = np.column_stack([np.ones(k), columns])
    information = design.T @ inverse @ design
    effects = np.linalg.solve(information, design.T @ inverse @ margins)
    residual = margins - design @ effects
    variance = residual @ inverse @ residual / (k - design.shape[1])
    return effects[1:], variance * np.linalg.inv(information)[1:, 1:], variance / penalty


def difference(values: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Mean with the example minus mean without it, and the standard error of two independent means."""
    a, b = values[mask], values[~mask]
    return a.mean() - b.mean(), np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
