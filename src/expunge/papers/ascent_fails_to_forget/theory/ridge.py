"""Ridge regression: a problem in which pretrained model, oracle and every influence estimate are exact.

With rows X, targets y and per-example weights a,

    w(a) = argmin 1/2 sum_i a_i (y_i - x_i.w)^2 + (lambda / 2) |w|^2 = (X^T A X + lambda I)^{-1} X^T A y

The oracle for a forget set is a = 0 there. Removing it exactly needs one |F| x |F| system (block form of Sherman,
Morrison and Woodbury), so it is known in closed form what influence functions approximate:

    w_R = w_D - H^{-1} X_F^T (I - X_F H^{-1} X_F^T)^{-1} (y_F - X_F w_D),      H = X^T X + lambda I
    first order (influence function):   w_D - H^{-1} X_F^T (y_F - X_F w_D)

Source: R. D. Cook and S. Weisberg, Residuals and Influence in Regression (1982), ch. 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.core.checks import positive
from expunge.core.errors import InputError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Ridge:
    """Data of one problem."""

    x: Array
    """Rows, shape (examples, features)."""
    y: Array
    """Targets, shape (examples,) or (examples, outputs)."""
    ridge: float
    """lambda, above 0; it multiplies |w|^2 / 2, next to a sum (not a mean) of half squares."""

    def __post_init__(self) -> None:
        """Check shapes and range."""
        positive(ridge=self.ridge)
        if self.x.ndim != 2 or len(self.x) != len(self.y):
            raise InputError(
                f"x has shape {self.x.shape} and y {self.y.shape}, expected (examples, features) and (examples, ...)."
            )

    def solve(self, weights: Array | None = None) -> Array:
        """Return the minimiser, shape (features,) or (features, outputs).

        Args:
            weights: One weight a example, any sign, shape (examples,); None means 1 for all.

        Raises:
            InputError: If negative weights make the objective unbounded below (no minimiser).
        """
        a = np.ones(len(self.x)) if weights is None else np.asarray(weights, dtype=float)
        hessian = (self.x * a[:, None]).T @ self.x + self.ridge * np.eye(self.x.shape[1])
        smallest = float(np.linalg.eigvalsh(hessian)[0])
        if smallest <= 0:
            raise InputError(
                f"the weights make the smallest curvature {smallest:.3g}, expected above 0: ascent outweighs "
                "descent and there is no minimiser; use smaller negative weights or a larger ridge."
            )
        return np.asarray(np.linalg.solve(hessian, (self.x * a[:, None]).T @ self.y))

    def oracle(self, forget: Array) -> Array:
        """Return the minimiser without the examples `forget` (positions)."""
        return self.solve(self._weights(forget, 0.0))

    def descent_ascent(self, forget: Array, weight: float) -> Array:
        """Return the minimiser when each forgotten example has weight a (0 oracle, 1 pretrained, below 0 ascent)."""
        return self.solve(self._weights(forget, weight))

    def removed(self, forget: Array) -> Array:
        """Return the oracle from the pretrained solution by the block update above; equals `oracle` to rounding."""
        xf, step, residual = self._parts(forget)
        gram = np.eye(len(xf)) - xf @ step
        return np.asarray(self.solve() - step @ np.linalg.solve(gram, residual))

    def influence(self, forget: Array) -> Array:
        """Return the first-order estimate of the oracle (one Newton step with the Hessian of D)."""
        _, step, residual = self._parts(forget)
        return np.asarray(self.solve() - step @ residual)

    def newton(self, forget: Array) -> Array:
        """Return one Newton step with the Hessian of R; exact here, because the loss is quadratic."""
        w = self.solve()
        xf = self.x[forget]
        hessian = self.x.T @ self.x - xf.T @ xf + self.ridge * np.eye(self.x.shape[1])
        # The gradient on R at w_D is minus that on F, since they sum to zero: sum over F of (y - x.w) x.
        return np.asarray(w - np.linalg.solve(hessian, xf.T @ (self.y[forget] - xf @ w)))

    def _parts(self, forget: Array) -> tuple[Array, Array, Array]:
        xf = self.x[forget]
        hessian = self.x.T @ self.x + self.ridge * np.eye(self.x.shape[1])
        return xf, np.linalg.solve(hessian, xf.T), self.y[forget] - xf @ self.solve()

    def _weights(self, forget: Array, weight: float) -> Array:
        forget = np.asarray(forget)
        if len(np.unique(forget)) >= len(self.x):
            raise InputError(
                f"the forget set has all {len(self.x)} examples, expected fewer: nothing is left to retrain on."
            )
        a = np.ones(len(self.x))
        a[forget] = weight
        return a


def ridge_problem(
    examples: int = 60, features: int = 8, noise: float = 0.3, ridge: float = 1.0, seed: int = 0
) -> Ridge:
    """Return a random problem: Gaussian rows, a Gaussian rule, Gaussian noise of standard deviation `noise`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(examples, features))
    return Ridge(x, x @ rng.normal(size=features) + noise * rng.normal(size=examples), ridge)
