"""Statistical and geometric skew: how a spurious feature survives when points that speak for or against it go.

Statistical skew. An invariant feature always agrees with the label, a spurious one with probability p. Exponential
loss on margins u + v (agree) and u - v (disagree), gradient flow from (u, v):

    u' = p e^{-u-v} + (1 - p) e^{-u+v}          v' = p e^{-u-v} - (1 - p) e^{-u+v}

With v* = log(p / (1 - p)) / 2, k = 2 sqrt(p (1 - p)) and E = e^u, dividing gives dv/du = -tanh(v - v*), so that

    sinh(v - v*) e^u = S is conserved,          sqrt(E^2 + S^2) grows at the constant rate k

which is the whole solution. v approaches v* like S / (k t), while u grows like log t: the direction v / u goes to
zero only as v* / log t although the limit direction ignores the spurious feature.

Unlearning. Pretrain for time T with p, then forget, then fine-tune on R with p_R. If R is balanced (p_R = 1/2),
fine-tuning must still multiply e^u to bring v down, so that it takes a time proportional to e^{u(T)}: of the order of
pretraining itself, however small the forget set. If F is the whole minority (p_R = 1), u - v is conserved by the flow
on R: fine-tuning keeps the trace of the minority for ever.

Geometric skew. Majority and minority points (n_M, n_m of them) with invariant feature B y, spurious feature +-y and
an own noise direction of length s each: the norm that memorising a point costs grows with the number of points. The
max-margin solution minimises |w|^2 / 2 with unit margins; by symmetry each point's noise weight is z = (1 - B u -+
v)_+ / s and what is left are two variables:

    (u^2 + v^2) / 2 + (n_M / 2 s^2) (1 - B u - v)_+^2 + (n_m / 2 s^2) (1 - B u + v)_+^2

Source: V. Nagarajan, A. Andreassen, B. Neyshabur, Understanding the failure modes of out-of-distribution
generalization (arXiv 2010.15775), for both mechanisms; the conserved quantity, the time law and the unlearning
statements are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from expunge.core.checks import between, non_negative, positive, whole
from expunge.core.errors import InputError


@dataclass(frozen=True)
class State:
    """A model of the statistical problem."""

    invariant: float = 0.0
    """u, weight of the invariant feature."""
    spurious: float = 0.0
    """v, weight of the spurious feature."""

    @property
    def direction(self) -> float:
        """V / u: how much of the decision the spurious feature takes, NaN at the origin."""
        return self.spurious / self.invariant if self.invariant else math.nan


def flow(start: State, agreement: float, time: float) -> State:
    """Return the state after gradient flow of the mean exponential loss, in closed form.

    Args:
        start: Where the flow begins.
        agreement: p, share of points whose spurious feature agrees with the label, from 0 to 1.
        time: t, at least 0, in units of 1 / (learning rate x step).
    """
    between(0.0, 1.0, agreement=agreement)
    non_negative(time=time)
    u, v = start.invariant, start.spurious
    if agreement in (0.0, 1.0):
        sign = 1.0 if agreement == 1.0 else -1.0
        margin, across = u + sign * v, u - sign * v
        margin = margin + math.log1p(2 * time * math.exp(-margin))
        return State((margin + across) / 2, sign * (margin - across) / 2)
    rest = resting_point(agreement)
    rate = 2 * math.sqrt(agreement * (1 - agreement))
    conserved = math.sinh(v - rest) * math.exp(u)
    # E^2 = (sqrt(E_0^2 + S^2) + k t)^2 - S^2, written without the difference of two large squares.
    first = math.hypot(math.exp(u), conserved)
    grown = math.exp(2 * u) + rate * time * (2 * first + rate * time)
    end = 0.5 * math.log(grown)
    return State(end, rest + math.asinh(conserved * math.exp(-end)))


def resting_point(agreement: float) -> float:
    """Return v* = log(p / (1 - p)) / 2, where the spurious weight comes to rest; infinite for p = 0 or 1."""
    between(0.0, 1.0, agreement=agreement)
    if agreement in (0.0, 1.0):
        return math.inf if agreement == 1.0 else -math.inf
    return 0.5 * math.log(agreement / (1 - agreement))


def time_to_forget(start: State, agreement: float, tolerance: float) -> float:
    """Return how long fine-tuning takes until |v - v*| <= tolerance.

    Args:
        start: The pretrained state.
        agreement: p_R of the retain set, between 0 and 1.
        tolerance: Above 0.

    Returns:
        Time, 0 if the state is already there, infinite for p_R = 0 or 1, where v has no resting point.
    """
    positive(tolerance=tolerance)
    rest = resting_point(agreement)
    if math.isinf(rest):
        return math.inf
    gap = abs(start.spurious - rest)
    if gap <= tolerance:
        return 0.0
    rate = 2 * math.sqrt(agreement * (1 - agreement))
    conserved = math.sinh(gap) * math.exp(start.invariant)
    needed = conserved / math.sinh(tolerance)
    return (math.hypot(needed, conserved) - math.hypot(math.exp(start.invariant), conserved)) / rate


def retain_agreement(agreement: float, forget_majority: float, forget_minority: float) -> float:
    """Return p_R after forgetting shares of the majority (agree) and of the minority (disagree).

    Args:
        agreement: p of the whole data, from 0 to 1.
        forget_majority: Share of the agreeing points that is forgotten, 0 to 1.
        forget_minority: Share of the disagreeing points that is forgotten, 0 to 1.

    Raises:
        InputError: If everything is forgotten.
    """
    between(0.0, 1.0, agreement=agreement, forget_majority=forget_majority, forget_minority=forget_minority)
    agree, disagree = agreement * (1 - forget_majority), (1 - agreement) * (1 - forget_minority)
    if agree + disagree <= 0:
        raise InputError("everything is forgotten, expected at least some points to be retained.")
    return agree / (agree + disagree)


@dataclass(frozen=True)
class MaxMargin:
    """The max-margin solution of the geometric problem."""

    invariant: float
    """u."""
    spurious: float
    """v; 0 would be a model that uses the invariant feature alone."""
    majority_noise: float
    """z of each majority point, 0 where it needs no memorising."""
    minority_noise: float
    """z of each minority point."""
    norm: float
    """|w|, square root of u^2 + v^2 + n_M z_M^2 + n_m z_m^2."""


def max_margin(majority: int, minority: int, *, invariant: float = 1.0, noise: float = 1.0) -> MaxMargin:
    """Return the hard-margin solution with the fewest assumptions: all noise directions orthogonal.

    Args:
        majority: n_M, points whose spurious feature agrees with the label, at least 0.
        minority: n_m, points where it disagrees, at least 0; not both 0.
        invariant: B, size of the invariant feature, above 0.
        noise: s, length of each noise direction, above 0.

    >>> max_margin(10, 10).spurious
    0.0
    """
    whole(minimum=0, majority=majority, minority=minority)
    positive(invariant=invariant, noise=noise)
    if majority + minority == 0:
        raise InputError("majority and minority are both 0, expected at least one point.")
    agree, disagree = np.array([invariant, 1.0]), np.array([invariant, -1.0])
    # Convex and piecewise quadratic: solve for each pattern of active margins; the consistent pattern is the answer.
    for first in (True, False):
        for second in (True, False):
            matrix, right = np.eye(2), np.zeros(2)
            for active, count, row in ((first, majority, agree), (second, minority, disagree)):
                if active:
                    matrix = matrix + count / noise**2 * np.outer(row, row)
                    right = right + count / noise**2 * row
            w = np.linalg.solve(matrix, right)
            slack = 1 - float(agree @ w), 1 - float(disagree @ w)
            fits = [
                count == 0 or (gap >= -1e-12) == active or abs(gap) < 1e-12
                for active, gap, count in ((first, slack[0], majority), (second, slack[1], minority))
            ]
            if all(fits):
                z = tuple(max(gap, 0.0) / noise for gap in slack)
                size = math.sqrt(float(w @ w) + majority * z[0] ** 2 + minority * z[1] ** 2)
                return MaxMargin(
                    float(w[0]),
                    0.0 if majority == minority else float(w[1]),
                    z[0] if majority else 0.0,
                    z[1] if minority else 0.0,
                    size,
                )
    raise AssertionError("a convex quadratic programme has a solution")
