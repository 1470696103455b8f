"""What the sources of certified methods ask for, which ours replace by exact or tighter bounds: for golden numbers."""

from __future__ import annotations

import math


def descent_to_delete_sigma(epsilon, delta, *, lipschitz, convexity, smoothness, examples, steps) -> float:
    """Noise of arXiv 2007.02923, Theorem 3.1: 4 sqrt2 M gamma^I / (m n (1 - gamma^I) (sqrt(a + eps) - sqrt a))."""
    left = ((smoothness - convexity) / (smoothness + convexity)) ** steps
    a = math.log(1 / delta)
    root = math.sqrt(a + epsilon) - math.sqrt(a)
    return 4 * math.sqrt(2) * lipschitz * left / (convexity * examples * (1 - left) * root)


def rewind_to_delete_growth(kept: int, steps: int, *, rate: float, smoothness: float, rows: int, forget: int) -> float:
    """h(K) of arXiv 2409.09778 for smooth losses: ((1 + a n / (n - k))^(T - K) - 1) (1 + a)^K with a = eta L."""
    a = rate * smoothness
    return ((1 + a * rows / (rows - forget)) ** (steps - kept) - 1) * (1 + a) ** kept


def rewind_to_delete_shift(growth: float, *, gradient: float, smoothness: float, rows: int, forget: int) -> float:
    """Distance from retraining of arXiv 2409.09778: 2 k G h(K) / (L n)."""
    return 2 * forget * gradient * growth / (smoothness * rows)


def certified_removal_sigma(epsilon: float, delta: float, *, residual: float) -> float:
    """Perturbation of arXiv 1911.03030, Theorem 3: residual sqrt(2 log(1.5 / delta)) / epsilon."""
    return residual * math.sqrt(2 * math.log(1.5 / delta)) / epsilon


def worst_residual(hessian_lipschitz: float, lipschitz: float, l2: float, examples: int) -> float:
    """Bound of arXiv 1911.03030, Theorem 1, for one row, whatever the data: 4 gamma C^2 / (l2^2 (n - 1))."""
    return 4 * hessian_lipschitz * lipschitz**2 / (l2**2 * (examples - 1))


def langevin_renyi(order, *, groups, lipschitz, convexity, sigma, examples, rate, steps) -> float:
    """Renyi divergence of arXiv 2401.10371: exp(-K m eta / alpha) 4 alpha S^2 M^2 / (m sigma^2 n^2)."""
    start = 4 * order * groups**2 * lipschitz**2 / (convexity * sigma**2 * examples**2)
    return math.exp(-steps * convexity * rate / order) * start


def noisy_sgd_renyi(order, *, lipschitz, convexity, sigma, examples, batch_size, rate, epochs) -> float:
    """Renyi divergence of arXiv 2403.17105: alpha Z^2 / (2 eta sigma^2) c^(2 K n / b), Z the distance of two models."""
    turns, c = examples / batch_size, 1 - rate * convexity
    z = 2 * rate * lipschitz / (batch_size * (1 - c**turns))
    return order * z**2 / (2 * rate * sigma**2) * c ** (2 * epochs * turns)
