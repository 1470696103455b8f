"""Selection: one configuration a method, chosen by a declared rule that never reads the target's oracles.

The objective is the worst of the three splits' excess over the floor: a model passes only if forget, retain and
validation margins are all like the oracle's. It is read on a calibration forget set of the same kind with oracles of
its own. The best of the grid on the target's oracles is shown beside it, as what a leaking study would report; the
difference is the illusion gap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.record import SPLITS, ConfigurationRecord, SelectionRecord, SplitName

OBJECTIVE = "the largest excess over the floor among forget, retain and validation (P95 KLoM, nats)"
RULE = "least objective on a calibration forget set of the same kind, scored against its own oracles"
ONLY = "the only configuration there is"
EQUAL_COST = "the cheapest that costs at least as much as the dearest configuration chosen for a candidate method"


def objective(excess: Mapping[SplitName, float]) -> float:
    """Return the worst excess over the floor; NaN counts as infinitely bad.

    >>> objective({"forget": 0.5, "retain": 0.1, "validation": float("nan")})
    inf
    """
    return max(math.inf if math.isnan(value) else value for value in (excess[split] for split in SPLITS))


def target_objective(configuration: ConfigurationRecord) -> float:
    """Return the objective on the target's own oracles."""
    return objective({split: score.excess for split, score in configuration.scores.items()})


def select(configurations: Sequence[ConfigurationRecord]) -> SelectionRecord:
    """Choose among the configurations of one method, all of which have calibration scores (or there is only one).

    Ties go to the cheaper configuration, then to the earlier one.
    """
    best = min(configurations, key=lambda c: (target_objective(c), c.cost))
    if len(configurations) == 1:
        chosen, rule = configurations[0], ONLY
    else:
        chosen, rule = min(configurations, key=lambda c: (objective(c.calibration or {}), c.cost)), RULE
    return _record(configurations, chosen, best, rule)


def select_at_cost(configurations: Sequence[ConfigurationRecord], cost: float) -> SelectionRecord:
    """Choose the cheapest configuration that costs at least `cost`, or the dearest there is."""
    enough = [c for c in configurations if c.cost >= cost]
    chosen = min(enough, key=lambda c: c.cost) if enough else max(configurations, key=lambda c: c.cost)
    best = min(configurations, key=lambda c: (target_objective(c), c.cost))
    return _record(configurations, chosen, best, EQUAL_COST)


def _record(
    configurations: Sequence[ConfigurationRecord],
    chosen: ConfigurationRecord,
    best: ConfigurationRecord,
    rule: str,
) -> SelectionRecord:
    gap = target_objective(chosen) - target_objective(best)
    return SelectionRecord(
        method=chosen.method,
        rule=rule,
        chosen=chosen.id,
        best=best.id,
        illusion_gap=0.0 if math.isnan(gap) else max(0.0, gap),
        objective=OBJECTIVE,
        edge=edges(configurations, chosen) if len(configurations) > 1 else [],
    )


def edges(configurations: Sequence[ConfigurationRecord], chosen: ConfigurationRecord) -> list[str]:
    """Return which numeric options of the chosen configuration lie on the edge of what was tried.

    An optimum on the edge says that the grid was too small in that direction.
    """
    found = []
    tried: dict[str, set[Any]] = {"epoch": {c.epoch for c in configurations}}
    for configuration in configurations:
        for name, value in configuration.options.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and name != "relative_lr":
                tried.setdefault(name, set()).add(value)
    tried.pop("epochs", None)
    for name, values in tried.items():
        own = chosen.epoch if name == "epoch" else chosen.options[name]
        if len(values) < 3:
            continue
        if own == max(values):
            found.append(f"{name} at its largest value {own:g}")
        elif own == min(values) and name != "epoch":
            found.append(f"{name} at its smallest value {own:g}")
    return found
