"""Selection: one configuration a method, chosen by a declared rule that never reads the target's oracles.

The objective (`core.objective`) is read on a calibration forget set of the same kind with oracles of
its own. The best of the grid on the target's oracles is shown beside it, as what a leaking study would report; the
difference is the illusion gap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.objective import objective, target_objective
from expunge.core.record import ConfigurationRecord, SelectionRecord
from expunge.methods.method import Choice

OBJECTIVE = "the largest excess over the floor among forget, retain and validation (P95 KLoM, nats)"
RULE = "least objective on a calibration forget set of the same kind, scored against its own oracles"
LAST = "the last stopping time; nothing is chosen"
ONLY = "the only configuration there is"
DEAREST = "the dearest configuration chosen for a candidate method, among those that cost less than retraining"
EQUAL_COST = f"the cheapest that costs at least as much as {DEAREST}"
NONE_AS_DEAR = f"the dearest there is: none costs as much as {DEAREST}"
WITHIN_COST = f"{RULE}, among what costs at most as much as {DEAREST}"


def select_all(configurations: Sequence[ConfigurationRecord], chosen: Mapping[str, Choice]) -> list[SelectionRecord]:
    """Choose one configuration of every method: candidates on the calibration set, baselines at the candidates' cost.

    Args:
        configurations: All of a forget set.
        chosen: How each method's is chosen, by name (`Method.chosen`).
    """
    groups: dict[str, list[ConfigurationRecord]] = {}
    for configuration in configurations:
        groups.setdefault(configuration.method, []).append(configuration)
    made = {name: select(tried) for name, tried in groups.items() if chosen[name] == "calibration"}
    costs = {c.id: c.cost for c in configurations if not c.control}
    budget = max((costs[s.chosen] for s in made.values() if costs.get(s.chosen, 1.0) < 1), default=0.0)
    for name, tried in groups.items():
        if chosen[name] == "within cost":
            made[name] = select_within_cost(tried, budget)
        elif chosen[name] == "at cost":
            made[name] = select_at_cost(tried, budget)
        elif chosen[name] == "last":
            made[name] = _record(tried[-1:], tried[-1], LAST)
    return [made[name] for name in sorted(groups, key=lambda name: chosen[name] == "at cost")]


def select(configurations: Sequence[ConfigurationRecord]) -> SelectionRecord:
    """Choose among the configurations of one method, all of which have calibration scores (or there is only one).

    Ties go to the cheaper configuration, then to the earlier one.
    """
    if len(configurations) == 1:
        return _record(configurations, configurations[0], ONLY)
    chosen = min(configurations, key=lambda c: (objective(c.calibration or {}), c.cost))
    return _record(configurations, chosen, RULE, edges(configurations, chosen))


def select_within_cost(configurations: Sequence[ConfigurationRecord], cost: float) -> SelectionRecord:
    """Choose as `select` does among configurations that cost at most `cost`; the cheapest there are if none does."""
    if len(configurations) == 1:
        return _record(configurations, configurations[0], ONLY)
    least = min(c.cost for c in configurations)
    affordable = [c for c in configurations if c.cost <= max(cost, least)]
    chosen = min(affordable, key=lambda c: (objective(c.calibration or {}), c.cost))
    return _record(configurations, chosen, WITHIN_COST, edges(affordable, chosen))


def select_at_cost(configurations: Sequence[ConfigurationRecord], cost: float) -> SelectionRecord:
    """Choose the cheapest configuration that costs at least `cost`, or the dearest there is.

    It is not an optimum that more knowledge could better at this cost: no best of the grid is set beside it.
    """
    enough = [c for c in configurations if c.cost >= cost]
    chosen = min(enough, key=lambda c: c.cost) if enough else max(configurations, key=lambda c: c.cost)
    return _record([chosen], chosen, EQUAL_COST if enough else NONE_AS_DEAR)


def _record(
    configurations: Sequence[ConfigurationRecord], chosen: ConfigurationRecord, rule: str, edge: Sequence[str] = ()
) -> SelectionRecord:
    best = min(configurations, key=lambda c: (target_objective(c), c.cost))
    gap = target_objective(chosen) - target_objective(best)
    return SelectionRecord(
        method=chosen.method,
        rule=rule,
        chosen=chosen.id,
        best=best.id,
        illusion_gap=0.0 if math.isnan(gap) else max(0.0, gap),
        objective=OBJECTIVE,
        edge=list(edge),
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
