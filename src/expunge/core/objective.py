"""What unlearning has to make small, and what a method that makes it so small can do.

A model passes only if its forget, retain and validation margins are all like the oracle's, so the objective is the
worst of the three.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from expunge.core.forecast import Outlook
from expunge.core.record import ConfigurationRecord
from expunge.core.schema import SplitName


def objective(excess: Mapping[SplitName, float]) -> float:
    """Return the worst excess over the floor; NaN, and no split at all, count as infinitely bad.

    >>> objective({"forget": 0.5, "retain": 0.1, "validation": float("nan")})
    inf
    """
    return max((math.inf if math.isnan(value) else value for value in excess.values()), default=math.inf)


def target_objective(configuration: ConfigurationRecord) -> float:
    """Return the objective on the target's own oracles."""
    return objective({split: score.excess for split, score in configuration.scores.items()})


def outlook(nothing: float, best: float, reaches: bool, tolerance: float) -> Outlook:
    """Return what can be expected of a method; the words are explained at `ForecastRecord`.

    Args:
        nothing: Objective of doing nothing, nats.
        best: Least objective of any setting, doing nothing included.
        reaches: Whether some setting brings the forget margins down to the oracles' mean.
        tolerance: Objective that counts as indistinguishable.
    """
    if nothing <= tolerance:
        return "nothing to unlearn"
    if best <= tolerance:
        return "can work"
    if best <= nothing / 2:
        return "partly"
    return "breaks first" if reaches else "cannot forget"
