"""Section 5.2 and Fig. 5: a two-parameter network in which descent-ascent falls into another basin.

Points x = -1, 1, 3, 4 with features (x, x^2), labels -, +, -, + and weights 5, 4, 1, 4; output
h = sigma(a x + b x^2) with sigma(z) = 1 / (1 + exp(-(1 + z) / 2)), so the decision boundary is z = -1; squared loss,
summed with the weights, and ridge (lambda / 2)(a^2 + b^2), lambda = 0.1. Forgetting two of the last group leaves weight
2 for retraining and weight 0 for descent-ascent (2 descended, 2 ascended).

The text does not fix how labels and outputs meet. Three readings, as `CONVENTIONS`:

    literal     targets -1 and 1, output sigma in (0, 1)
    symmetric   targets -1 and 1, output 2 sigma - 1 in (-1, 1)
    zero_one    targets 0 and 1, output sigma

Source: "Ascent Fails to Forget" (arXiv 2509.26427), sec. 5.2, Fig. 5. Conventions and basins are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import minimize
from scipy.special import expit

from expunge.core.checks import one_of, positive, whole

Array = np.ndarray[Any, Any]
Convention = Literal["literal", "symmetric", "zero_one"]
Objective = Literal["pretrained", "oracle", "descent_ascent"]

CONVENTIONS: tuple[Convention, ...] = ("literal", "symmetric", "zero_one")
OBJECTIVES: dict[Objective, tuple[float, ...]] = {
    "pretrained": (5.0, 4.0, 1.0, 4.0),
    "oracle": (5.0, 4.0, 1.0, 2.0),
    "descent_ascent": (5.0, 4.0, 1.0, 0.0),
}
"""Weights of the four points under each objective."""

POINTS = np.array([-1.0, 1.0, 3.0, 4.0])
LABELS = np.array([-1.0, 1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Basin:
    """One local minimum."""

    a: float
    """Coefficient of x."""
    b: float
    """Coefficient of x^2."""
    loss: float
    """Objective there."""
    pattern: str
    """Predicted labels of the four points, such as `-+++`."""
    share: float
    """Share of the starting points that end here."""


@dataclass(frozen=True)
class Landscape:
    """One objective in one convention."""

    convention: Convention
    """How labels and outputs meet."""
    objective: Objective
    """Whose weights."""
    ridge: float = 0.1
    """lambda, above 0."""

    def __post_init__(self) -> None:
        """Check names and range."""
        one_of(CONVENTIONS, convention=self.convention)
        one_of(tuple(OBJECTIVES), objective=self.objective)
        positive(ridge=self.ridge)

    def loss(self, a: Any, b: Any) -> Array:
        """Return the objective on arrays of coefficients of any common shape."""
        a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
        total = 0.5 * self.ridge * (a**2 + b**2)
        for x, weight, target in zip(POINTS, OBJECTIVES[self.objective], self._targets(), strict=True):
            total = total + weight * (self._output(a * x + b * x * x) - target) ** 2
        return np.asarray(total)

    def gradient(self, w: Array) -> Array:
        """Return the gradient at (a, b), shape (2,)."""
        z = w[0] * POINTS + w[1] * POINTS**2
        s = expit((1 + z) / 2)
        scale = 2.0 if self.convention == "symmetric" else 1.0
        inner = np.array(OBJECTIVES[self.objective]) * 2 * (self._output(z) - self._targets()) * scale * s * (1 - s) / 2
        return np.array([inner @ POINTS, inner @ POINTS**2]) + self.ridge * w

    def basins(self, starts: int = 15, reach: float = 12.0) -> tuple[Basin, ...]:
        """Return every local minimum found by multi-start, the lowest first.

        Args:
            starts: Starting points along each axis of a square grid, at least 2.
            reach: Half the side of the square, above 0.
        """
        whole(minimum=2, starts=starts)
        positive(reach=reach)
        found: dict[tuple[float, float], tuple[Array, int]] = {}
        for a in np.linspace(-reach, reach, starts):
            for b in np.linspace(-reach, reach, starts):
                w = self.descend(np.array([a, b]))
                key = (round(float(w[0]), 3), round(float(w[1]), 3))
                match = next((k for k in found if abs(k[0] - key[0]) + abs(k[1] - key[1]) < 0.01), key)
                found[match] = (w, found[match][1] + 1 if match in found else 1)
        kept = [(w, count) for w, count in found.values() if self._is_minimum(w)]
        basins = [
            Basin(float(w[0]), float(w[1]), float(self.loss(w[0], w[1])), pattern(w), count / starts**2)
            for w, count in kept
        ]
        return tuple(sorted(basins, key=lambda basin: basin.loss))

    def descend(self, start: Array) -> Array:
        """Return the minimum that a quasi-Newton method reaches from (a, b)."""
        result = minimize(
            lambda w: float(self.loss(w[0], w[1])), start, jac=self.gradient, method="BFGS", options={"gtol": 1e-9}
        )
        return np.asarray(result.x)

    def flow(self, start: Array, time: float = 200.0, points: int = 200) -> Array:
        """Return the path of gradient flow from (a, b), shape (points, 2): fine-tuning with infinitely small steps.

        Args:
            start: (a, b).
            time: Length of the flow; the slowest direction has rate of at least lambda near a minimum.
            points: Rows returned, spaced evenly in the logarithm of time.
        """
        positive(time=time)
        at = np.concatenate([[0.0], np.geomspace(1e-3, time, points - 1)])
        path = solve_ivp(
            lambda _, w: -self.gradient(w), (0.0, time), start, method="LSODA", t_eval=at, rtol=1e-9, atol=1e-11
        )
        return np.asarray(path.y.T)

    def _is_minimum(self, w: Array) -> bool:
        step = 1e-5
        rows = [
            (self.gradient(w + step * np.eye(2)[k]) - self.gradient(w - step * np.eye(2)[k])) / (2 * step)
            for k in (0, 1)
        ]
        flat = float(np.abs(self.gradient(w)).max()) < 1e-5
        return flat and float(np.linalg.eigvalsh((np.array(rows) + np.array(rows).T) / 2)[0]) > 0

    def _output(self, z: Array) -> Array:
        s = expit((1 + z) / 2)
        return np.asarray(2 * s - 1 if self.convention == "symmetric" else s)

    def _targets(self) -> Array:
        return (LABELS + 1) / 2 if self.convention == "zero_one" else LABELS


def pattern(w: Array) -> str:
    """Return the predicted labels of the four points at (a, b), such as `-+++`."""
    return "".join("+" if w[0] * x + w[1] * x * x > -1 else "-" for x in POINTS)


@dataclass(frozen=True)
class Comparison:
    """What happens in one convention."""

    convention: Convention
    """How labels and outputs meet."""
    basins: dict[Objective, tuple[Basin, ...]]
    """Local minima of each objective, the lowest first."""
    unlearned: Basin
    """Minimum that descent-ascent reaches by gradient flow from the pretrained global minimum."""
    fine_tuned: Basin
    """Minimum that gradient flow on R reaches from there."""

    @property
    def shares_minimum(self) -> bool:
        """Whether pretrained and oracle predict alike at their global minima."""
        return self.basins["pretrained"][0].pattern == self.basins["oracle"][0].pattern

    @property
    def wrong_basin(self) -> bool:
        """Whether descent-ascent predicts otherwise than the oracle."""
        return self.unlearned.pattern != self.basins["oracle"][0].pattern

    @property
    def trapped(self) -> bool:
        """Whether fine-tuning on R ends elsewhere than in the oracle's global minimum."""
        target = self.basins["oracle"][0]
        return abs(self.fine_tuned.a - target.a) + abs(self.fine_tuned.b - target.b) > 0.01

    @property
    def holds(self) -> bool:
        """Whether the paper's whole claim holds: shared minimum, wrong basin, trapped."""
        return self.shares_minimum and self.wrong_basin and self.trapped


def compare(convention: Convention, ridge: float = 0.1, starts: int = 15) -> Comparison:
    """Return all basins of one convention, and where unlearning and then fine-tuning end."""
    landscapes = {name: Landscape(convention, name, ridge) for name in OBJECTIVES}
    basins = {name: landscape.basins(starts) for name, landscape in landscapes.items()}
    start = np.array([basins["pretrained"][0].a, basins["pretrained"][0].b])
    unlearned = _end(landscapes["descent_ascent"], start)
    return Comparison(convention, basins, unlearned, _end(landscapes["oracle"], np.array([unlearned.a, unlearned.b])))


def _end(landscape: Landscape, start: Array) -> Basin:
    w = landscape.descend(landscape.flow(start)[-1])
    return Basin(float(w[0]), float(w[1]), float(landscape.loss(w[0], w[1])), pattern(w), 0.0)
