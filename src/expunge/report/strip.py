"""A score on a scale, beside its floor and the tolerance: the small bars of the result table."""

from __future__ import annotations

import math
from dataclasses import dataclass

from expunge.core.result import Result


@dataclass(frozen=True)
class Strip:
    """A score on a scale: the interval as a line, the value as a dot, the floor and the tolerance as bands."""

    value: float
    low: float
    high: float
    floor_low: float
    floor_high: float
    limit: float
    """Floor plus tolerance: within this a score counts as the same."""
    beyond: bool
    """Whether the value lies beyond the right end of the scale."""


def strip(score: Result, tolerance: float, top: float) -> Strip:
    """Place a score on a scale from 0 to `top`; all positions are shares of the width.

    The scale is a square root, so that the neighbourhood of the floor is visible beside large scores.
    """

    def at(value: float) -> float:
        if math.isnan(value):
            return 1.0
        return round(math.sqrt(min(max(value, 0.0) / top, 1.0)), 4)

    return Strip(
        value=at(score.value),
        low=at(score.low if not math.isnan(score.low) else score.value),
        high=at(score.high),
        floor_low=at(score.floor_low),
        floor_high=at(score.floor_high),
        limit=at(score.floor + tolerance),
        beyond=not score.value <= top,
    )
