"""Lemmas 2 to 5 and Corollary 1: one direction of logistic regression, solved exactly.

Exponential loss exp(-y w.x), orthogonal groups of points. A coordinate in which y x = 1 is used by |R_j| retained
points and by |F_j| = alpha |R_j| forgotten ones. With mass A on the exponential, the coordinate minimises

    A exp(-w) + (lambda / 2) w^2,      so  w exp(w) = A / lambda

and the three objectives (means over D, over R, and mean over R minus mean over F) differ only in A:

    A_D  = (1 + alpha) |R_j| / |D|       A_R = |R_j| / |R|       A_DA = (1 - alpha |R| / |F|) |R_j| / |R|

Where A is negative the objective falls to minus infinity as w does; a local minimum exists only while
A >= -lambda / e, next to a local maximum. No stationary point is an answer here: `minimum` is None.

Source: "Ascent Fails to Forget" (arXiv 2509.26427), sec. 4.1, Lemmas 2-5, Corollary 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from expunge.core.checks import non_negative, positive
from expunge.core.errors import InputError
from expunge.papers.ascent_fails_to_forget.theory.lambert import real_solutions

Outcome = Literal["towards", "away", "past", "infinity", "same"]
"""What descent-ascent does to the distance from the oracle: `towards` it (between pretrained and oracle), `away` from
it (beyond the pretrained weight), `past` it (beyond the oracle), to `infinity` (no stationary point), or `same` where
pretrained and oracle already agree and so does descent-ascent."""


@dataclass(frozen=True)
class Stationary:
    """The stationary points of A exp(-w) + (lambda / 2) w^2."""

    minimum: float | None
    """Local minimum (the global one when A >= 0); None if there is no stationary point."""
    maximum: float | None
    """Local maximum beside it, when A < 0; None otherwise."""
    argument: float
    """c = A / lambda in w exp(w) = c."""

    @property
    def bounded(self) -> bool:
        """Whether the objective is bounded below, so that the minimum is global."""
        return self.argument >= 0


@dataclass(frozen=True)
class OneDirection:
    """Sizes of one problem.

    Raises:
        InputError: If a size is not above 0, alpha is negative, or a group is larger than the set it belongs to.
    """

    retain: float
    """|R|, above 0; sizes may be fractions of |D|, as only ratios matter."""
    forget: float
    """|F|, above 0."""
    group: float
    """|R_j|, retained points that use the coordinate, above 0 and at most |R|."""
    alpha: float
    """|F_j| / |R_j|, at least 0; alpha |R_j| at most |F|."""
    ridge: float
    """lambda, above 0."""

    def __post_init__(self) -> None:
        """Check sizes and that groups fit into their sets."""
        positive(retain=self.retain, forget=self.forget, group=self.group, ridge=self.ridge)
        non_negative(alpha=self.alpha)
        if self.group > self.retain * (1 + 1e-12):
            raise InputError(f"group = {self.group} points of R, expected at most retain = {self.retain}.")
        if self.alpha * self.group > self.forget * (1 + 1e-9):
            raise InputError(
                f"alpha = {self.alpha} means {self.alpha * self.group:g} forgotten points in the group, expected at "
                f"most forget = {self.forget}: alpha from 0 to {self.forget / self.group:g}."
            )

    @property
    def total(self) -> float:
        """|D| = |R| + |F|."""
        return self.retain + self.forget

    def mass(self, weight: float) -> float:
        """Return A when each forgotten point has weight a and each retained point weight 1.

        The sum is divided by the positive weight in it, |R| + max(a, 0) |F|, so that a = 1 is the mean over D, a = 0
        the mean over R, and a = -|R| / |F| the paper's descent-ascent, all with the ridge they have there.

        Args:
            weight: a, any finite number.
        """
        if not math.isfinite(weight):
            raise InputError(f"weight = {weight}, expected a finite number.")
        return self.group * (1 + weight * self.alpha) / (self.retain + max(weight, 0.0) * self.forget)

    def solve(self, weight: float) -> Stationary:
        """Return the stationary points at per-example forget weight a (see `mass`)."""
        argument = self.mass(weight) / self.ridge
        solutions = real_solutions(argument)
        if not solutions:
            return Stationary(None, None, argument)
        return Stationary(solutions[0], solutions[1] if len(solutions) > 1 else None, argument)

    @property
    def paper_weight(self) -> float:
        """The paper's descent-ascent in per-example weights, -|R| / |F|."""
        return -self.retain / self.forget

    @property
    def pretrained(self) -> float:
        """w_D (Lemma 2)."""
        return _one(self.solve(1.0))

    @property
    def oracle(self) -> float:
        """w_R (Lemma 2)."""
        return _one(self.solve(0.0))

    @property
    def descent_ascent(self) -> Stationary:
        """w_DA (Lemma 2) on both branches; `minimum` is None beyond `breakdown`."""
        return self.solve(self.paper_weight)

    @property
    def breakdown(self) -> float:
        """Largest alpha at which descent-ascent has a stationary point: |F|/|R| + lambda |F| / (e |R_j|)."""
        return self.forget / self.retain + self.ridge * self.forget / (math.e * self.group)

    @property
    def harm_from(self) -> float:
        """Smallest alpha at which descent-ascent goes away from the oracle: |F|^2 / (|R| (|D| + |F|)) (Lemma 3)."""
        return self.forget**2 / (self.retain * (self.total + self.forget))

    @property
    def harm_to(self) -> float:
        """Largest alpha of Lemma 3, |F| / |R|, where pretrained and oracle agree."""
        return self.forget / self.retain

    def outcome(self, weight: float | None = None) -> Outcome:
        """Return what descent-ascent does; `weight` is the forget weight a, by default the paper's."""
        found = self.solve(self.paper_weight if weight is None else weight).minimum
        if found is None:
            return "infinity"
        before, target = self.pretrained - self.oracle, found - self.oracle
        scale = 1e-12 * (1 + abs(self.oracle))
        if abs(before) <= scale:
            return "same" if abs(target) <= scale else "away"
        if before * target < 0 and abs(target) > scale:
            return "past"
        return "towards" if abs(target) <= abs(before) + scale else "away"

    def distance_ratio(self, weight: float | None = None) -> float:
        """Return |w(a) - w_R| / |w_D - w_R|: above 1 is worse than nothing; infinity where none is stationary."""
        found = self.solve(self.paper_weight if weight is None else weight).minimum
        if found is None:
            return math.inf
        before, after = abs(self.pretrained - self.oracle), abs(found - self.oracle)
        if before == 0:
            return math.inf if after > 0 else 1.0
        return after / before

    def helpful_weights(self) -> tuple[float, float]:
        """Return the interval of forget weights a strictly closer to the oracle than doing nothing, (low, high).

        It contains every a in (0, 1), since w(a) is monotone between oracle and pretrained there, and ends below 0
        where the weight has moved as far on the other side of the oracle, or where nothing is stationary any more. With
        |w_D - w_R| = delta the lower end solves w(a) = w_R - delta or w_R + delta, whichever lies that way.
        Descent-ascent of the paper helps exactly if -|R| / |F| lies inside.
        """
        before = self.pretrained - self.oracle
        if self.alpha == 0:
            # No forgotten point uses the coordinate: every a <= 0 is the oracle itself.
            return (-math.inf, 1.0) if before != 0 else (math.nan, math.nan)
        if before == 0:
            return (math.nan, math.nan)
        # For a < 0 the mass is |R_j| (1 + a alpha) / |R|: w falls with -a, away from the oracle downwards.
        lowest = max(self.oracle - abs(before), -1.0)
        mass = self.ridge * lowest * math.exp(lowest)
        return ((mass * self.retain / self.group - 1) / self.alpha, 1.0)


def distance_bound(problem: OneDirection) -> float:
    """Return Lemma 4's bound on |w_R - w_D|: |ln((1 + alpha) |R| / |D|)|."""
    return abs(math.log((1 + problem.alpha) * problem.retain / problem.total))


def harm_bound(problem: OneDirection) -> float | None:
    """Return Lemma 5's lower bound on |w_R - w_DA|, which is w_R, for alpha >= |F| / |R|; None below that."""
    return problem.oracle if problem.alpha >= problem.harm_to * (1 - 1e-12) else None


def corollary(retain: float, forget: float, group: float, ridge: float) -> tuple[float, float]:
    """Return |w_R - w_D| and |w_R - w_DA| at alpha = |F| / |R| (Corollary 1).

    The first is zero; the second is W_0(|R_j| / (lambda |R|)), which grows without bound as lambda goes to 0.
    """
    problem = OneDirection(retain=retain, forget=forget, group=group, alpha=forget / retain, ridge=ridge)
    found = problem.descent_ascent.minimum
    assert found is not None  # the argument is 0 up to rounding
    return abs(problem.oracle - problem.pretrained), abs(problem.oracle - found)


def _one(point: Stationary) -> float:
    assert point.minimum is not None  # the mass of a mean over D or R is positive
    return point.minimum
