"""The slow obvious twins of the outcomes: one member and one example at a time, with Python's own arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence


def softplus(z: float) -> float:
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


def log_sum_exp(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def classes(z: Sequence[float], y: int) -> tuple[float, float, bool]:
    """Loss, statistic, and whether it is right."""
    others = [value for number, value in enumerate(z) if number != y]
    return log_sum_exp(z) - z[y], z[y] - log_sum_exp(others), z[y] > max(others)


def binary(z: Sequence[float], y: int) -> tuple[float, float, bool]:
    signed = z[0] if y == 1 else -z[0]
    return softplus(-signed), signed, signed > 0


def labels(z: Sequence[float], y: Sequence[int]) -> tuple[float, float, float]:
    each = [binary([value], label) for value, label in zip(z, y, strict=True)]
    return tuple(sum(row[k] for row in each) / len(each) for k in range(3))  # type: ignore[return-value]


def regression(z: Sequence[float], y: Sequence[float], scale: float) -> tuple[float, float, None]:
    squares = [(a - b) ** 2 for a, b in zip(z, y, strict=True)]
    mean = sum(squares) / len(squares)
    return mean, -math.sqrt(mean) / scale, None


def sequences(z: Sequence[Sequence[float]], y: Sequence[int]) -> tuple[float, float, tuple[int, int]]:
    """Loss, statistic, and how many of how many counted tokens are the likeliest."""
    counted = [(row, token) for row, token in zip(z, y, strict=True) if token != -100]
    losses = [log_sum_exp(row) - row[token] for row, token in counted]
    right = sum(row[token] == max(row) for row, token in counted)
    return sum(losses) / len(losses), -sum(losses) / len(losses), (right, len(counted))


def r_squared(z: Sequence[Sequence[float]], y: Sequence[Sequence[float]]) -> float:
    targets = len(y[0])
    means = [sum(row[k] for row in y) / len(y) for k in range(targets)]
    error = sum((a - b) ** 2 for p, t in zip(z, y, strict=True) for a, b in zip(p, t, strict=True))
    return 1 - error / sum((t[k] - means[k]) ** 2 for t in y for k in range(targets))
