"""Slow, obvious twins of the closed forms: minimisation and quadrature by brute force."""

from __future__ import annotations

import math

import numpy as np
from scipy.integrate import quad
from scipy.optimize import fsolve, minimize
from scipy.stats import norm


def one_direction(mass: float, ridge: float) -> float:
    """Minimum of mass exp(-w) + ridge w^2 / 2, by a quasi-Newton search from zero (mass > 0)."""
    return float(
        minimize(lambda w: mass * math.exp(-w[0]) + ridge * w[0] ** 2 / 2, [0.0], tol=1e-14, method="Nelder-Mead",
                 options={"xatol": 1e-12, "fatol": 1e-16}).x[0]
    )  # fmt: skip


def all_roots(a: float, b: float, correlation: float) -> list[tuple[float, float]]:
    """Stationary points of the two-direction problem from many starting points."""
    p, q = 1 + correlation**2, 2 * correlation

    def system(z):
        ex, ey = math.exp(min(-z[0], 50)), math.exp(min(-z[1], 50))
        return [z[0] - a * p * ex - b * q * ey, z[1] - a * q * ex - b * p * ey]

    found: list[tuple[float, float]] = []
    for x in np.linspace(-6, 6, 13):
        for y in np.linspace(-6, 6, 13):
            z, _, flag, _ = fsolve(system, [x, y], full_output=True, xtol=1e-13)
            good = flag == 1 and max(abs(v) for v in system(z)) < 1e-9 and min(z) > -40
            if good and all(abs(z[0] - u) + abs(z[1] - v) > 1e-5 for u, v in found):
                found.append((float(z[0]), float(z[1])))
    return found


def max_margin(majority: int, minority: int, invariant: float, noise: float) -> tuple[float, float]:
    """(u, v) of the geometric problem, as the full quadratic programme over every point's noise weight."""
    count = majority + minority
    rows = np.zeros((count, 2 + count))
    rows[:, 0] = invariant
    rows[:, 1] = np.where(np.arange(count) < majority, 1.0, -1.0)
    rows[np.arange(count), 2 + np.arange(count)] = noise
    found = minimize(
        lambda w: 0.5 * w @ w, np.full(2 + count, 0.5), jac=lambda w: w, method="SLSQP",
        constraints={"type": "ineq", "fun": lambda w: rows @ w - 1, "jac": lambda w: rows},
        options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    return float(found.x[0]), float(found.x[1])


def group_error(teacher_mean: float, mean: float, correlation: float) -> float:
    """P(sign(teacher) != sign(student)) for unit normals with given means and correlation, by quadrature."""
    left = math.sqrt(1 - correlation**2)

    def integrand(t: float) -> float:
        wrong = norm.cdf(-(mean + correlation * t) / left)
        return norm.pdf(t) * (wrong if t > -teacher_mean else 1 - wrong)

    parts = quad(integrand, -9, -teacher_mean, epsabs=1e-12), quad(integrand, -teacher_mean, 9, epsabs=1e-12)
    return float(sum(value for value, _ in parts))
