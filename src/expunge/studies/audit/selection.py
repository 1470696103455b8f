"""Selection: one configuration a method, chosen by a declared rule that never reads the target's oracles.

The objective (`core.objective`) is read on a calibration forget set of the same kind with oracles of
its own. The best of the grid on the target's oracles is shown beside it, as what a leaking study would report; how much
it gains beyond luck is the illusion gap (`illusion`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.objective import objective, target_objective
from expunge.core.record import ConfigurationRecord, SelectionRecord
from expunge.methods.method import Choice
from expunge.studies.audit.illusion import Gaps

OBJECTIVE = "the largest excess over the floor among forget, retain and validation (P95 KLoM, nats)"
RULE = "least objective on a calibration forget set of the same kind, scored against its own oracles"
CHEAPEST = "the cheapest within the tolerance on a calibration forget set of the same kind"
NONE_WITHIN = f"{RULE}; none was within the tolerance there"
LAST = "the last stopping time; nothing is chosen"
ONLY = "the only configuration there is"


def select_all(
    configurations: Sequence[ConfigurationRecord], chosen: Mapping[str, Choice], gap: Gaps
) -> list[SelectionRecord]:
    """Choose one configuration of every method.

    Args:
        configurations: All of a forget set.
        chosen: How each method's is chosen, by name (`Method.chosen`).
        gap: Returns the illusion gap.
    """
    groups: dict[str, list[ConfigurationRecord]] = {}
    for configuration in configurations:
        groups.setdefault(configuration.method, []).append(configuration)
    made = []
    for name, tried in groups.items():
        if chosen[name] == "calibration":
            made.append(select(tried, gap))
        elif chosen[name] == "cheapest":
            made.append(select_cheapest(tried, _closest_cost(configurations), gap))
        else:
            made.append(_record(tried[-1:], tried[-1], LAST, gap))
    return sorted(made, key=lambda selection: chosen[selection.method] == "cheapest")


def select(configurations: Sequence[ConfigurationRecord], gap: Gaps) -> SelectionRecord:
    """Choose among the configurations of one method, all of which have calibration scores (or there is only one).

    Ties go to the cheaper configuration, then to the earlier one.
    """
    if len(configurations) == 1:
        return _record(configurations, configurations[0], ONLY, gap)
    chosen = min(configurations, key=_rank)
    return _record(configurations, chosen, RULE, gap, edges(configurations, chosen))


def select_cheapest(configurations: Sequence[ConfigurationRecord], cost: float, gap: Gaps) -> SelectionRecord:
    """Choose the cheapest configuration that works on the calibration set, or the closest if none does.

    More is always better where cost buys quality, as in retraining: what counts is how little is enough. Beside it
    stands the cheapest that costs at least `cost`. The gap is to what costs no more than the chosen one.
    """
    if len(configurations) == 1:
        return _record(configurations, configurations[0], ONLY, gap)
    working = [c for c in configurations if _calibrated(c) <= c.verdict.tolerance]
    chosen = min(working or configurations, key=lambda c: (c.cost if working else _calibrated(c), c.cost))
    affordable = [c for c in configurations if c.cost <= chosen.cost]
    record = _record(affordable, chosen, CHEAPEST if working else NONE_WITHIN, gap)
    enough = [c for c in configurations if c.cost >= cost]
    equal = min(enough, key=lambda c: c.cost) if enough else max(configurations, key=lambda c: c.cost)
    record.equal_cost = "" if equal is chosen or cost == 0 else equal.id
    return record


def best_of_runs(configurations: Sequence[ConfigurationRecord]) -> set[str]:
    """Return the id of one stopping time a run: the best on the calibration set, the last where none was read there."""
    found: dict[str, ConfigurationRecord] = {}
    for each in configurations:
        if each.run not in found or each.calibration is None or _rank(each) < _rank(found[each.run]):
            found[each.run] = each
    return {each.id for each in found.values()}


def _rank(configuration: ConfigurationRecord) -> tuple[float, float]:
    return _calibrated(configuration), configuration.cost


def _closest_cost(configurations: Sequence[ConfigurationRecord]) -> float:
    """Return what the candidate costs that came closest on the calibration set, of those cheaper than retraining."""
    candidates = [c for c in configurations if not c.control and c.cost < 1]
    return min(candidates, key=lambda c: (_calibrated(c), -c.cost)).cost if candidates else 0.0


def _calibrated(configuration: ConfigurationRecord) -> float:
    return objective(configuration.calibration or {})


def _record(
    tried: Sequence[ConfigurationRecord],
    chosen: ConfigurationRecord,
    rule: str,
    gap: Gaps,
    edge: Sequence[str] = (),
) -> SelectionRecord:
    found = gap(chosen.id, [c.id for c in tried])
    return SelectionRecord(
        method=chosen.method,
        rule=rule,
        chosen=chosen.id,
        best=min(tried, key=lambda c: (target_objective(c), c.cost)).id,
        illusion_gap=found.value,
        gap_low=found.low,
        gap_high=found.high,
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
