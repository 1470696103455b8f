"""Lemmas 6 to 10 and Appendix J: two correlated directions, with every stationary point found.

Retained points (1, eps), r of them, and forgotten points (eps, 1), alpha r of them, same label; all other points are
orthogonal. In the coordinates x = w_1 + eps w_2, y = eps w_1 + w_2, with p = 1 + eps^2, q = 2 eps and masses a on
exp(-x) and b on exp(-y) (both divided by lambda), stationarity reads

    x = a p exp(-x) + b q exp(-y)
    y = a q exp(-x) + b p exp(-y)

    pretrained      a = b_D, b = alpha b_D           b_D = r / (lambda |D|)
    oracle          a = b_R, b = 0                   b_R = r / (lambda |R|)
    descent-ascent  a = b_R, b = -alpha b_F          b_F = r / (lambda |F|)

For b >= 0 the objective is strictly convex: one solution. For b < 0 there are at most two, and we know why. Put
X = W_0(a p) and d = X - x > 0. The first equation gives exp(-y) = (X expm1(d) + d) / (q |b|), and the second becomes

    g(d) = -log[(X expm1(d) + d) / (q |b|)] + ((1 - eps^2)^2 / (p q)) X exp(d) - (p / q) (X - d) = 0

The derivative of the logarithm, (X e^d + 1) / (X expm1(d) + d), falls from infinity up to some d* and then rises
towards 1 from below, while the rest of g' is at least p / q >= 1 and rises. So g' changes sign exactly once: g has one
minimum, and zero roots (descent-ascent runs to infinity) or two, one on each side: a local minimum (small d) and a
saddle.

Source: "Ascent Fails to Forget" (arXiv 2509.26427), sec. 4.2, Lemmas 6-10, Fig. 4, App. J. The one-variable reduction
and the count of stationary points are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from expunge.core.checks import non_negative, positive
from expunge.core.errors import InputError
from expunge.papers.ascent_fails_to_forget.theory.lambert import EDGE, principal, real_solutions

_SMALLEST, _LARGEST = -690.0, math.log(600.0)
"""Range of log d in which g is searched: below it X - d equals X in double precision, above it exp(d) overflows."""


@dataclass(frozen=True)
class Point:
    """One stationary point."""

    x: float
    """w_1 + eps w_2: the margin of a retained point."""
    y: float
    """eps w_1 + w_2: the margin of a forgotten point."""
    curvature: float
    """Smallest eigenvalue of the Hessian divided by lambda: above 0 at a minimum, below 0 at a saddle."""

    @property
    def minimum(self) -> bool:
        """Whether it is a local minimum."""
        return self.curvature > 0


@dataclass(frozen=True)
class TwoDirections:
    """Sizes of one problem.

    Raises:
        InputError: If eps is outside (0, 1], a size is not above 0, alpha is negative, or a group does not fit its set.
    """

    retain: float
    """|R|, above 0; only ratios of sizes matter."""
    forget: float
    """|F|, above 0."""
    group: float
    """r, retained points in the pair of directions, above 0 and at most |R|."""
    alpha: float
    """Forgotten points there relative to r, at least 0, alpha r at most |F|."""
    ridge: float
    """lambda, above 0."""
    correlation: float
    """eps, above 0 and at most 1; 1 is the limit of App. J, where both directions are one."""

    def __post_init__(self) -> None:
        """Check ranges and that groups fit into their sets."""
        positive(retain=self.retain, forget=self.forget, group=self.group, ridge=self.ridge)
        non_negative(alpha=self.alpha)
        if not 0.0 < self.correlation <= 1.0:
            raise InputError(f"correlation = {self.correlation}, expected eps above 0 and at most 1.")
        if self.group > self.retain * (1 + 1e-12):
            raise InputError(f"group = {self.group} points of R, expected at most retain = {self.retain}.")
        if self.alpha * self.group > self.forget * (1 + 1e-9):
            raise InputError(
                f"alpha = {self.alpha} means {self.alpha * self.group:g} forgotten points in the pair, expected at "
                f"most forget = {self.forget}: alpha from 0 to {self.forget / self.group:g}."
            )

    @property
    def p(self) -> float:
        """1 + eps^2."""
        return 1 + self.correlation**2

    @property
    def q(self) -> float:
        """2 eps."""
        return 2 * self.correlation

    @property
    def total(self) -> float:
        """|D|."""
        return self.retain + self.forget

    @property
    def b_D(self) -> float:
        """The mass b_D = r / (lambda |D|)."""
        return self.group / (self.ridge * self.total)

    @property
    def b_R(self) -> float:
        """The mass b_R = r / (lambda |R|)."""
        return self.group / (self.ridge * self.retain)

    @property
    def b_F(self) -> float:
        """The mass b_F = r / (lambda |F|)."""
        return self.group / (self.ridge * self.forget)

    @property
    def pretrained(self) -> Point:
        """The pretrained solution."""
        return stationary_points(self.b_D, self.alpha * self.b_D, self.correlation)[0]

    @property
    def oracle(self) -> Point:
        """The oracle: x_R = W_0(b_R p), y_R = (q / p) x_R (Lemma 6)."""
        return stationary_points(self.b_R, 0.0, self.correlation)[0]

    @property
    def descent_ascent(self) -> tuple[Point, ...]:
        """All stationary points of descent-ascent, the minimum first; empty where it runs to infinity."""
        return stationary_points(self.b_R, -self.alpha * self.b_F, self.correlation)


def stationary_points(a: float, b: float, correlation: float) -> tuple[Point, ...]:
    """Return every stationary point of a exp(-x) + b exp(-y) + |w|^2 / 2, the local minimum first.

    Args:
        a: Mass of retained points over lambda, above 0.
        b: Mass of forgotten points over lambda, any sign.
        correlation: eps in (0, 1].

    Returns:
        One point for b >= 0; none or two for b < 0 (two that coincide in the boundary case).
    """
    positive(a=a)
    p, q = 1 + correlation**2, 2 * correlation
    if b == 0:
        x = principal(a * p)
        return (_point(a, b, correlation, x, q / p * x),)
    if b > 0:
        return (_convex(a, b, correlation),)
    if correlation == 1:
        # The equations force x = y: one direction with doubled mass, and no search is needed.
        return tuple(_point(a, b, correlation, x, x) for x in real_solutions(2 * (a + b)))
    top = principal(a * p)
    offset = math.log(q * -b)
    cross = (1 - correlation**2) ** 2 / (p * q) * top

    def log_h(d: float) -> float:
        # For tiny d: X expm1(d) + d = d (1 + X) to first order; expm1 keeps the digits.
        return math.log(top * math.expm1(d) + d)

    def g(s: float) -> float:
        d = math.exp(s)
        return offset - log_h(d) + cross * math.exp(d) - p / q * (top - d)

    def slope(s: float) -> float:
        d = math.exp(s)
        # For large d the ratio tends to 1; exp(-d) keeps it finite.
        ratio = (top + math.exp(-d)) / (-top * math.expm1(-d) + d * math.exp(-d))
        return cross * math.exp(d) + p / q - ratio

    if slope(_LARGEST) <= 0:
        raise InputError(f"a = {a}, b = {b}, correlation = {correlation}: masses too extreme to be solved in doubles.")
    bottom = brentq(slope, _SMALLEST, _LARGEST, xtol=1e-13)
    if g(bottom) > 0:
        return ()
    found = []
    for low, high in ((_SMALLEST, bottom), (bottom, _LARGEST)):
        d = math.exp(brentq(g, low, high, xtol=1e-14, rtol=1e-14))
        found.append(_point(a, b, correlation, top - d, offset - log_h(d)))
    return tuple(found)


def _convex(a: float, b: float, correlation: float) -> Point:
    """Solve the strictly convex case by Newton's method with halving."""
    first, second = np.array([1.0, correlation]), np.array([correlation, 1.0])
    w = np.zeros(2)

    def value(w: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        return float(a * math.exp(-first @ w) + b * math.exp(-second @ w) + 0.5 * w @ w)

    for _ in range(200):
        ex, ey = a * math.exp(-first @ w), b * math.exp(-second @ w)
        gradient = w - ex * first - ey * second
        hessian = np.eye(2) + ex * np.outer(first, first) + ey * np.outer(second, second)
        move = np.linalg.solve(hessian, gradient)
        if float(np.abs(move).max()) < 1e-15 * (1 + float(np.abs(w).max())):
            break
        size, now = 1.0, value(w)
        while size > 1e-10 and value(w - size * move) > now:
            size /= 2
        w = w - size * move
    return _point(a, b, correlation, float(first @ w), float(second @ w))


def _point(a: float, b: float, correlation: float, x: float, y: float) -> Point:
    first, second = np.array([1.0, correlation]), np.array([correlation, 1.0])
    hessian = np.eye(2) + a * math.exp(-x) * np.outer(first, first) + b * math.exp(-y) * np.outer(second, second)
    return Point(x, y, float(np.linalg.eigvalsh(hessian)[0]))


# Lemmas: each returns bounds, or None where its arguments do not allow it.


def lemma_7(problem: TwoDirections) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the bounds on x_D and on y_D, each (lower, upper).

    The lower one on x_D and the upper one on y_D are derived here from y_D <= x_D, which holds exactly for alpha <= 1:
    then exp(-y) >= exp(-x), so x >= b_D (p + q alpha) exp(-x) and y <= b_D (q + p alpha) exp(-y).
    """
    p, q, b, alpha = problem.p, problem.q, problem.b_D, problem.alpha
    x = (principal(b * (p + q * alpha)), principal(b * p) + q / p * principal(alpha * b * p))
    y = (principal(alpha * b * p), principal(b * (q + alpha * p)))
    return x, y


def lemma_8(problem: TwoDirections) -> tuple[float | None, float | None]:
    """Return the upper bounds on x_DA and y_DA, None where the Lambert function is not defined."""
    p, q, a, b = problem.p, problem.q, problem.b_R, problem.alpha * problem.b_F
    x, y = a * p - q * b, a * q - p * b
    return (principal(x) if x >= EDGE else None, principal(y) if y >= EDGE else None)


def lemma_9(retain: float, forget: float, correlation: float) -> float:
    """Return the smallest alpha from which Lemma 9 says x_D >= x_DA and y_D >= y_DA."""
    p, q, total = 1 + correlation**2, 2 * correlation, retain + forget
    return max(p / q * forget**2, q / p * forget * total) / (retain * (total + forget))


def lemma_10(retain: float, forget: float, group: float, ridge: float, correlation: float) -> tuple[float, float]:
    """Return the largest alpha up to which x_R >= x_D, and up to which y_R >= y_D, are proved."""
    p, q = 1 + correlation**2, 2 * correlation
    b_D, b_R = group / (ridge * (retain + forget)), group / (ridge * retain)
    u = p / q * (principal(b_R * p) - principal(b_D * p))
    v = q / p * principal(b_R * p)
    return u * math.exp(u) / (b_D * p), (v * math.exp(v) / b_D - q) / p


@dataclass(frozen=True)
class Window:
    """Range of alpha in which descent-ascent is harmful; empty when `low` is not below `high`."""

    low: float
    """Smallest alpha."""
    high: float
    """Largest alpha."""

    @property
    def empty(self) -> bool:
        """Whether no alpha qualifies."""
        return not self.low < self.high


def provable_window(retain: float, forget: float, group: float, ridge: float, correlation: float) -> Window:
    """Return the alphas between Lemma 9's lower and Lemma 10's smaller upper bound (Fig. 4)."""
    high = min(*lemma_10(retain, forget, group, ridge, correlation), forget / group)
    return Window(lemma_9(retain, forget, correlation), high)


def true_window(retain: float, forget: float, group: float, ridge: float, correlation: float) -> Window:
    """Return the alphas for which DA <= D <= R in both coordinates, from the solutions themselves.

    D <= R fails from some alpha on, because x_D and y_D grow with alpha; DA <= D holds from some alpha on, because x_DA
    and y_DA fall with alpha while x_D and y_D rise. So both ends are roots found by bisection. Where descent-ascent
    has no stationary point it is counted as harmful: it runs to infinity.
    """
    limit = forget / group
    make = {"retain": retain, "forget": forget, "group": group, "ridge": ridge, "correlation": correlation}

    def below_oracle(alpha: float) -> bool:
        problem = TwoDirections(alpha=alpha, **make)
        before, target = problem.pretrained, problem.oracle
        return before.x <= target.x and before.y <= target.y

    def beyond(alpha: float) -> bool:
        problem = TwoDirections(alpha=alpha, **make)
        after, before = problem.descent_ascent, problem.pretrained
        return not after or (after[0].x <= before.x and after[0].y <= before.y)

    low = 0.0 if beyond(0.0) else _first(beyond, limit)
    high = -math.inf if not below_oracle(0.0) else _last(below_oracle, limit)
    return Window(low, high)


def _first(test: Callable[[float], bool], limit: float) -> float:
    if not test(limit):
        return math.inf
    low, high = 0.0, limit
    for _ in range(36):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if test(middle) else (middle, high)
    return high


def _last(test: Callable[[float], bool], limit: float) -> float:
    if test(limit):
        return limit
    low, high = 0.0, limit
    for _ in range(36):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if test(middle) else (low, middle)
    return low
