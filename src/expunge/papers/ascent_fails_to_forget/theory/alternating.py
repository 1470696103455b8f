"""Appendix D.3: alternating descent and ascent is simultaneous descent-ascent with twice the ridge.

One step of rate eta down the mean loss over R, then one up the mean loss over F, each with ridge lambda (weight decay
acts in both). With r = |R_j| / |R| and f = |F_j| / |F|, the coordinate of `one_direction` moves as

    w'  = (1 - eta lambda) w  + eta r exp(-w)
    w'' = (1 - eta lambda) w' - eta f exp(-w')

    w'' = w + eta [(r - f) exp(-w) - 2 lambda w] + O(eta^2)

The neglected term per step is O(eta^2), so the point where the map comes to rest differs from the prediction
W_0((r - f) / (2 lambda)) by O(eta). Dropping the term also drops what stops divergence: at a very negative w the
descent step throws the weight far to the right, where the ascent step is weak, so that the alternating map can have a
fixed point where the simultaneous objective has none.

Source: "Ascent Fails to Forget" (arXiv 2509.26427), App. D.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from expunge.core.checks import non_negative, positive, whole
from expunge.core.errors import InputError
from expunge.papers.ascent_fails_to_forget.theory.lambert import real_solutions


@dataclass(frozen=True)
class Alternating:
    """One coordinate under alternating steps."""

    descent: float
    """r = |R_j| / |R|, above 0."""
    ascent: float
    """f = |F_j| / |F|, at least 0."""
    ridge: float
    """lambda, above 0."""

    def __post_init__(self) -> None:
        """Check ranges."""
        positive(descent=self.descent, ridge=self.ridge)
        non_negative(ascent=self.ascent)

    def step(self, w: float, rate: float) -> float:
        """Return the weight after one descent and one ascent step of rate eta."""
        decay = 1 - rate * self.ridge
        halfway = decay * w + rate * self.descent * _exp(-w)
        return decay * halfway - rate * self.ascent * _exp(-halfway)

    def predicted_step(self, w: float, rate: float) -> float:
        """Return the weight after one simultaneous step with ridge 2 lambda."""
        return w + rate * ((self.descent - self.ascent) * _exp(-w) - 2 * self.ridge * w)

    def predicted_fixed_point(self) -> float | None:
        """Return W_0((r - f) / (2 lambda)), or None where the simultaneous objective has no stationary point."""
        solutions = real_solutions((self.descent - self.ascent) / (2 * self.ridge))
        return solutions[0] if solutions else None

    def fixed_point(self, rate: float) -> float | None:
        """Return the largest fixed point of the alternating map with |w| <= 50, or None if it has none there.

        Args:
            rate: eta, above 0 and below 1 / lambda.
        """
        positive(rate=rate)
        if rate * self.ridge >= 1:
            raise InputError(
                f"rate = {rate} with ridge {self.ridge}, expected below {1 / self.ridge:g}, or decay flips signs."
            )
        grid = np.linspace(50.0, -50.0, 4001)
        values = [self.step(float(w), rate) - float(w) for w in grid]
        for k in range(len(grid) - 1):
            if values[k] == 0.0:
                return float(grid[k])
            if values[k] * values[k + 1] < 0:
                return float(brentq(lambda w: self.step(w, rate) - w, float(grid[k + 1]), float(grid[k]), xtol=1e-14))
        return None

    def run(self, rate: float, steps: int, start: float = 0.0) -> list[float]:
        """Return the weight before and after each of `steps` alternating steps, steps + 1 numbers."""
        positive(rate=rate)
        whole(steps=steps)
        path = [start]
        for _ in range(steps):
            path.append(self.step(path[-1], rate))
        return path


def _exp(value: float) -> float:
    # Beyond 700 a double overflows; the cap keeps the map monotone and finite, far outside any reported range.
    return math.exp(min(value, 700.0))
