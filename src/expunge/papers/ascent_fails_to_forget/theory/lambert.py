"""Both real branches of the Lambert function, with its domain as an answer instead of a NaN.

Every one-direction problem of the paper has the stationarity condition w exp(w) = c. Its real solutions are

    c >= 0          one:   W_0(c)
    -1/e < c < 0    two:   W_0(c) in (-1, 0) and W_{-1}(c) < -1
    c = -1/e        one:   -1, a double root
    c < -1/e        none

Source: R. M. Corless et al., On the Lambert W function, Adv. Comput. Math. 5 (1996).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import lambertw

from expunge.core import InputError

EDGE = -math.exp(-1.0)
"""Smallest argument with a real solution, -1/e."""


def principal(argument: float) -> float:
    """Return W_0(c), the larger real solution of w exp(w) = c.

    Args:
        argument: c, from -1/e up; infinity is refused.

    Raises:
        InputError: If c is below -1/e, where there is no real solution, or is not finite.

    >>> round(principal(1.0), 6)
    0.567143
    """
    solutions = real_solutions(argument)
    if not solutions:
        raise InputError(
            f"argument = {argument}, expected at least -1/e = {EDGE:.6f}: below it w exp(w) = c has no real solution."
        )
    return solutions[0]


def real_solutions(argument: float) -> tuple[float, ...]:
    """Return all real solutions of w exp(w) = c, the largest first: none, one or two numbers.

    Raises:
        InputError: If c is not finite.

    >>> real_solutions(-1.0)
    ()
    """
    if not math.isfinite(argument):
        raise InputError(f"argument = {argument}, expected a finite number.")
    if argument < EDGE:
        return ()
    if argument == EDGE:
        return (-1.0,)
    upper = _polish(float(np.real(lambertw(argument, 0))), argument)
    if argument >= 0:
        return (upper,)
    lower = float(np.real(lambertw(argument, -1)))
    return (upper, _polish(lower if math.isfinite(lower) else _far_below(argument), argument))


def _far_below(argument: float) -> float:
    """Return W_-1(c) for c so close to 0 that SciPy gives up: w = log(-c) - log(-w), iterated."""
    w = logarithm = math.log(-argument)
    for _ in range(20):
        w = logarithm - math.log(-w)
    return w


def _polish(w: float, argument: float) -> float:
    # One Newton step: SciPy loses digits close to the branch point, where the step is skipped because it is singular.
    slope = math.exp(w) * (w + 1) if w > -700 else 0.0
    if abs(w + 1) < 1e-6 or slope == 0.0:
        return w
    return w - (w * math.exp(w) - argument) / slope
