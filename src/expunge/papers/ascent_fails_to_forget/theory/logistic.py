"""Logistic regression with ridge: a convex problem whose oracle is known to machine precision.

    w(a) = argmin sum_i a_i log(1 + exp(-y_i x_i.w)) + (lambda / 2) |w|^2,      y_i = -1 or 1

solved by Newton's method with halving. For a >= 0 the objective is strictly convex and the minimiser unique. A
forgotten example with negative weight makes it concave along some directions; it stays coercive for every finite
weight only while the ridge dominates, which it does at infinity (the loss grows linearly, the ridge quadratically),
so that a minimum exists but need not be unique: the one reached from the pretrained solution is returned, and its
curvature checked.

Source: D. A. Pregibon, Logistic regression diagnostics, Ann. Stat. 9 (1981), for the one-step estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from expunge.core.checks import positive
from expunge.core.errors import InputError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Logistic:
    """Data of one problem."""

    x: Array
    """Rows, shape (examples, features)."""
    y: Array
    """Labels -1 or 1, shape (examples,)."""
    ridge: float
    """lambda, above 0; it multiplies |w|^2 / 2, next to a sum (not a mean) of losses."""

    def __post_init__(self) -> None:
        """Check shapes, labels and range."""
        positive(ridge=self.ridge)
        if self.x.ndim != 2 or self.y.shape != (len(self.x),):
            raise InputError(
                f"x has shape {self.x.shape} and y {self.y.shape}, expected (examples, features) and (examples,)."
            )
        if not np.all(np.abs(self.y) == 1):
            raise InputError("y holds labels other than -1 and 1; write 2 * y - 1 for labels 0 and 1.")

    def loss(self, w: Array, weights: Array | None = None) -> float:
        """Return the objective at w, shape (features,)."""
        a = np.ones(len(self.x)) if weights is None else weights
        return float(a @ np.logaddexp(0.0, -self.y * (self.x @ w)) + 0.5 * self.ridge * w @ w)

    def gradient(self, w: Array, weights: Array | None = None) -> Array:
        """Return the gradient at w, shape (features,)."""
        a = np.ones(len(self.x)) if weights is None else weights
        return np.asarray(-self.x.T @ (a * self.y * expit(-self.y * (self.x @ w))) + self.ridge * w)

    def hessian(self, w: Array, weights: Array | None = None) -> Array:
        """Return the Hessian at w, shape (features, features)."""
        a = np.ones(len(self.x)) if weights is None else weights
        s = expit(self.x @ w)
        return np.asarray((self.x * (a * s * (1 - s))[:, None]).T @ self.x + self.ridge * np.eye(self.x.shape[1]))

    def solve(self, weights: Array | None = None, start: Array | None = None) -> Array:
        """Return the minimiser reached from `start` (zeros by default), shape (features,), gradient below 1e-10.

        Raises:
            InputError: If Newton's method does not arrive at a point of positive curvature.
        """
        w = np.zeros(self.x.shape[1]) if start is None else np.array(start, dtype=float)
        for _ in range(200):
            gradient = self.gradient(w, weights)
            values, vectors = np.linalg.eigh(self.hessian(w, weights))
            # Absolute curvature turns a Newton step into a descent direction where negative weights make it concave.
            move = vectors @ ((vectors.T @ gradient) / np.maximum(np.abs(values), 1e-8))
            size, now = 1.0, self.loss(w, weights)
            while size > 1e-12 and self.loss(w - size * move, weights) > now:
                size /= 2
            w = w - size * move
            if float(np.abs(self.gradient(w, weights)).max()) < 1e-11 * (1 + len(self.x)):
                break
        smallest = float(np.linalg.eigvalsh(self.hessian(w, weights))[0])
        if smallest <= 0 or float(np.abs(self.gradient(w, weights)).max()) > 1e-8 * (1 + len(self.x)):
            raise InputError(
                f"no minimum was reached (smallest curvature {smallest:.3g}); use smaller negative weights or a larger "
                "ridge."
            )
        return w

    def oracle(self, forget: Array) -> Array:
        """Return the minimiser without the examples `forget` (positions)."""
        return self.solve(self._weights(forget, 0.0))

    def descent_ascent(self, forget: Array, weight: float) -> Array:
        """Return the minimiser, from the pretrained one, when each forgotten example has weight a."""
        return self.solve(self._weights(forget, weight), self.solve())

    def influence(self, forget: Array) -> Array:
        """Return the first-order estimate of the oracle, one Newton step with the Hessian of D."""
        w = self.solve()
        part = Logistic(self.x[forget], self.y[forget], self.ridge)
        return np.asarray(w + np.linalg.solve(self.hessian(w), part.gradient(w) - self.ridge * w))

    def newton(self, forget: Array) -> Array:
        """Return one Newton step on the objective of R from the pretrained minimiser; error of second order."""
        w, a = self.solve(), self._weights(forget, 0.0)
        return np.asarray(w - np.linalg.solve(self.hessian(w, a), self.gradient(w, a)))

    def _weights(self, forget: Array, weight: float) -> Array:
        forget = np.asarray(forget)
        if len(np.unique(forget)) >= len(self.x):
            raise InputError(
                f"the forget set has all {len(self.x)} examples, expected fewer: nothing is left to retrain on."
            )
        a = np.ones(len(self.x))
        a[forget] = weight
        return a


def logistic_problem(examples: int = 80, features: int = 6, ridge: float = 1.0, seed: int = 0) -> Logistic:
    """Return a random problem: Gaussian rows, labels drawn from the logistic model of a Gaussian rule."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(examples, features))
    chance = expit(x @ rng.normal(size=features))
    return Logistic(x, np.where(rng.random(examples) < chance, 1.0, -1.0), ridge)
