"""What Gaussian noise is worth: the exact trade-off of a shift, as (epsilon, delta), and back.

N(0, sigma^2 I) and N(v, sigma^2 I) with |v| = mu sigma are (epsilon, delta)-indistinguishable exactly where

    delta >= Phi(-eps/mu + mu/2) - e^eps Phi(-eps/mu - mu/2)

Nothing is lost here, unlike on the way over Renyi divergences, whose order must be carried along: the divergence of
order alpha is alpha mu^2 / 2, not mu^2 / 2.

Source: Balle and Wang (arXiv 1805.06530), Theorem 8; Dong, Roth and Su (arXiv 1905.02383), Corollary 1.
"""

from __future__ import annotations

import numpy as np
import scipy
from scipy.special import log_ndtr

from expunge.core.checks import between, non_negative, plain_arguments
from expunge.core.errors import InputError


@plain_arguments
def gaussian_delta(epsilon: float, mu: float) -> float:
    """Return delta(epsilon) of a mu-Gaussian trade-off: `Phi(-eps/mu + mu/2) - e^eps Phi(-eps/mu - mu/2)`.

    Args:
        epsilon: At least 0.
        mu: At least 0.

    Source: Dong, Roth and Su (arXiv 1905.02383), Corollary 1.
    """
    non_negative(mu=mu, epsilon=epsilon)
    if mu == 0:
        return 0.0
    first, second = log_ndtr(-epsilon / mu + mu / 2), epsilon + log_ndtr(-epsilon / mu - mu / 2)
    return float(max(0.0, -np.exp(first) * np.expm1(min(0.0, second - first))))


@plain_arguments
def gaussian_epsilon(mu: float, delta: float = 1e-5) -> float:
    """Return the epsilon of a mu-Gaussian trade-off at a delta, by bisection of `gaussian_delta`.

    Args:
        mu: At least 0.
        delta: Between 0 and 1, above 0.

    >>> round(gaussian_epsilon(1.0, 1e-5), 4)
    4.3772
    """
    between(0, 1, delta=delta)
    if delta == 0:
        raise InputError("delta = 0, expected above 0: a Gaussian trade-off has no finite epsilon at delta 0.")
    if mu == 0 or gaussian_delta(0.0, mu) <= delta:
        return 0.0
    high = 1.0
    while gaussian_delta(high, mu) > delta:
        high *= 2
    return float(scipy.optimize.brentq(lambda epsilon: gaussian_delta(epsilon, mu) - delta, 0.0, high, xtol=1e-10))


@plain_arguments
def gaussian_shift(epsilon: float, delta: float = 1e-5) -> float:
    """Return the largest mu whose Gaussian trade-off is (epsilon, delta); noise of sensitivity / mu is what it takes.

    Args:
        epsilon: At least 0.
        delta: Between 0 and 1, above 0 and below 1.

    >>> round(1 / gaussian_shift(1.0, 1e-5), 5)
    3.73063
    """
    non_negative(epsilon=epsilon)
    between(0, 1, delta=delta)
    if delta in (0, 1):
        raise InputError(f"delta = {delta}, expected above 0 and below 1.")
    high = 1.0
    while gaussian_delta(epsilon, high) <= delta:
        high *= 2
    return float(scipy.optimize.brentq(lambda mu: gaussian_delta(epsilon, mu) - delta, 0.0, high, xtol=1e-14))
