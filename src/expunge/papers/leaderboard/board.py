"""The board: rows of audits, and how methods stand over all of them; pure functions of records.

    a method passes on a forget set      its verdict is `indistinguishable` and none of its checks failed
    at most at a cost                    as before, and what was chosen costs no more
    ahead at equal cost                  its excess is less than that of early-stopped retraining at no less cost

Methods stand in the order of the sets on which they pass, then by cost, and those that pass nowhere by excess: the
order in which one would try them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from expunge.core.objective import objective, target_objective
from expunge.core.passing import failed_checks
from expunge.core.record import SPLITS, ConfigurationRecord, ForgetRecord, Record, SplitName
from expunge.methods import METHODS, EarlyStoppedRetrain, FineTune, Method, NegGradPlus, Retrain
from expunge.papers.leaderboard.record import BoardRow, DialRow, LeaderboardRecord
from expunge.report.numbers import count, percent

LIMITS = (0.25, 0.5, 0.9)
"""Costs, relative to retraining, below which it is asked who passes."""


@dataclass(frozen=True)
class Standing:
    """One method over all forget sets that were looked at."""

    method: str
    label: str
    control: bool
    climbs: bool
    needs: tuple[str, ...]
    certificate: str | None
    sets: int
    """Forget sets on which it ran."""
    passing: int
    """Those on which it passes."""
    undecided: int
    """Those on which more members would be needed to say."""
    cost: float
    """Median over the sets on which it passes, or over all where there are none; relative to retraining."""
    excess: float
    """Median over the sets, nats."""
    gap: float
    """Median illusion gap, nats."""
    ahead: int
    """Sets on which it is ahead of early-stopped retraining at equal cost."""
    compared: int
    """Sets on which that is known."""
    failed_checks: int
    """Sets on which a check of it failed."""
    within: Mapping[float, int]
    """Sets on which it passes at most at a cost, by that cost."""


def passes(row: BoardRow, most: float = math.inf) -> bool:
    """Return whether a method cannot be told from retraining, ran as it says, and costs no more than `most`."""
    return row.verdict == "indistinguishable" and not row.failed_checks and row.cost <= most


def standings(rows: Sequence[BoardRow], most: float = math.inf) -> list[Standing]:
    """Return how methods stand, the best first.

    Args:
        rows: Of any tasks and forget sets.
        most: Cost above which a method does not pass.
    """
    found = []
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        good = [row for row in own if passes(row, most)]
        known = [row for row in own if row.at_equal_cost is not None]
        found.append(
            Standing(
                method=method,
                label=own[0].label,
                control=own[0].control,
                climbs=own[0].climbs,
                needs=tuple(own[0].needs),
                certificate=own[0].certificate,
                sets=len(own),
                passing=len(good),
                undecided=sum(row.verdict == "undecided" for row in own),
                cost=median(row.cost for row in good or own),
                excess=median(_worst_if_none(row.excess) for row in own),
                gap=median(row.gap for row in own),
                ahead=sum(row.excess < row.at_equal_cost for row in known if row.at_equal_cost is not None),
                compared=len(known),
                failed_checks=sum(bool(row.failed_checks) for row in own),
                within={limit: sum(passes(row, limit) for row in own) for limit in LIMITS},
            )
        )
    return sorted(found, key=_order)


def _order(each: Standing) -> tuple[float, float, float]:
    return -each.passing / each.sets, each.cost if each.passing else math.inf, each.excess


def _worst_if_none(value: float) -> float:
    return math.inf if math.isnan(value) else value


def board_rows(record: Record, task: str, kinds: Mapping[str, str], own: Mapping[str, Method]) -> Iterator[BoardRow]:
    """Yield the row of every method on every forget set of an audit.

    Args:
        record: Of the audit.
        task: What the task is called.
        kinds: Kinds of forget sets by name; others are called by how the audit chose them.
        own: Methods that are not in the registry, by name.
    """
    for forget in record.forget_sets:
        by_id = {each.id: each for each in forget.configurations}
        for selection in forget.selections:
            chosen = by_id[selection.chosen]
            kind = METHODS.get(chosen.method) or own.get(chosen.method)
            split, excess, low, high = _worst(chosen)
            yield BoardRow(
                task=task,
                forget_set=forget.name,
                kind=kinds.get(forget.name, forget.chooser),
                method=chosen.method,
                label=chosen.label,
                control=chosen.control,
                climbs=bool(kind and kind.raises),
                needs=sorted(kind.needs) if kind else [],
                certificate=chosen.certificate,
                setting=chosen.id,
                cost=chosen.cost,
                verdict=chosen.verdict.name,
                worst=split,
                excess=excess,
                low=low,
                high=high,
                gap=selection.illusion_gap,
                failed_checks=failed_checks(chosen),
                failed_members=chosen.failed,
                at_equal_cost=_early_stopped(forget, chosen),
            )


def dial_rows(record: Record, task: str, kinds: Mapping[str, str]) -> Iterator[DialRow]:
    """Yield, for every forget set of an audit, NegGrad+ at each weight of the climb, and fine-tuning as its end."""
    for forget in record.forget_sets:
        weighted = [c for c in forget.configurations if c.method == NegGradPlus.name]
        groups = {a: [c for c in weighted if c.options["retain_weight"] == a] for a in _weights(weighted)}
        groups[1.0] = [c for c in forget.configurations if c.method == FineTune.name]
        for weight, tried in groups.items():
            read = [c for c in tried if c.calibration is not None]
            if not weighted or not read:
                continue
            chosen = min(read, key=lambda c: (objective(c.calibration or {}), c.cost))
            _, excess, low, high = _worst(chosen)
            yield DialRow(
                task=task,
                forget_set=forget.name,
                kind=kinds.get(forget.name, forget.chooser),
                retain_weight=weight,
                setting=chosen.id,
                cost=chosen.cost,
                excess=excess,
                low=low,
                high=high,
            )


def _weights(configurations: Sequence[ConfigurationRecord]) -> list[float]:
    return sorted({float(c.options["retain_weight"]) for c in configurations})


def _worst(configuration: ConfigurationRecord) -> tuple[SplitName, float, float, float]:
    """Return the split with the largest excess, that excess, and the ends of the score's interval above the floor."""
    split = max(SPLITS, key=lambda each: _worst_if_none(configuration.scores[each].excess))
    score = configuration.scores[split]
    return split, target_objective(configuration), score.low - score.floor, score.high - score.floor


def _early_stopped(forget: ForgetRecord, configuration: ConfigurationRecord) -> float | None:
    """Return the excess of early-stopped retraining at the least cost that is no less than that of a configuration."""
    if configuration.method == EarlyStoppedRetrain.name:
        return None
    enough = [
        c for c in forget.configurations if c.method == EarlyStoppedRetrain.name and c.cost >= configuration.cost - 1e-9
    ]
    return target_objective(min(enough, key=lambda c: c.cost)) if enough else None


def answer(record: LeaderboardRecord) -> list[str]:
    """Return what was found, in sentences; the first answers what to use instead of ascent, and at which price."""
    found = standings(record.rows)
    if not found:
        return ["No method was run."]
    tasks = list(dict.fromkeys(row.task for row in record.rows))
    sets = len({(row.task, row.forget_set) for row in record.rows})
    where = f"{count(sets, 'forget set')} of {', '.join(tasks)}"
    gentle = next((each for each in found if not each.control and not each.climbs and each.passing), None)
    climbing = next((each for each in found if each.climbs), None)
    control = next((each for each in found if each.method == EarlyStoppedRetrain.name), None)
    if gentle is None:
        first = f"Instead of ascent, on {where}: no method that does not climb is shown to be like retraining."
    else:
        first = f"Instead of ascent, on {where}: {gentle.label} cannot be told from retraining {_price(gentle)}."
    sentences = [first]
    if climbing is not None:
        sentences.append(f"The best method that climbs is {climbing.label}, {_price(climbing)}.")
    if control is not None:
        sentences.append(f"Retraining stopped early passes {_price(control)}.")
    retrained = next((each for each in found if each.method == Retrain.name), None)
    if retrained is not None and retrained.undecided:
        sentences.append(
            f"With {record.members} models even retraining is undecided on {retrained.undecided} of {retrained.sets}: "
            "more would say more."
        )
    for limit in LIMITS[:2]:
        cheap = max(found, key=lambda each: (each.within[limit], -each.cost))
        if cheap.within[limit]:
            name = cheap.label + " (control)" * cheap.control
            sentences.append(
                f"At no more than {percent(limit)} of the cost: {name}, on {cheap.within[limit]} of {cheap.sets}."
            )
    if not any(each.within[0.5] for each in found):
        sentences.append(f"At no more than {percent(0.5)} of the cost nothing passes.")
    return [*sentences, *dial_answer(record.dial)]


def dial_answer(dial: Sequence[DialRow]) -> list[str]:
    """Return whether some weight of the climb was better than none, over the forget sets."""
    better, worse, open_, which = 0, 0, 0, []
    for key in dict.fromkeys((row.task, row.forget_set) for row in dial):
        own = [row for row in dial if (row.task, row.forget_set) == key]
        none = next((row for row in own if row.retain_weight == 1), None)
        climbing = [row for row in own if row.retain_weight < 1]
        if none is None or not climbing:
            continue
        best = min(climbing, key=lambda row: _worst_if_none(row.excess))
        # Two intervals that do not meet: a difference that chance alone does not make.
        if best.high < none.low:
            better += 1
            which.append(none.forget_set)
        elif best.low > none.high:
            worse += 1
        else:
            open_ += 1
    if not better + worse + open_:
        return []
    sets = f" ({', '.join(which)})" if which else ""
    return [
        "Does a weight of the climb help? NegGrad+ at the best of the weights tried, beside fine-tuning without any: "
        f"better on {count(better, 'forget set')}{sets}, worse on {worse}, not told apart on {open_}."
    ]


def _price(each: Standing) -> str:
    times = f"on {each.passing} of {each.sets}"
    return f"{times}, at {percent(each.cost)} of its cost (median)" if each.passing else times
