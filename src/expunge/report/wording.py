"""The report's words: what a verdict means, what to do about it, and what stands in a row.

Everything here is a pure function from parts of a record to text, so that the page and the terminal say the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from expunge.core.record import (
    SPLITS,
    ConfigurationRecord,
    ForgetRecord,
    SelectionRecord,
    SplitName,
    VerdictName,
    VerdictRecord,
)
from expunge.core.result import Result
from expunge.report import numbers


@dataclass(frozen=True)
class VerdictWords:
    """How one verdict is explained."""

    short: str
    """One word for narrow places."""
    meaning: str
    """What was seen, for someone who has not read the paper."""
    action: str
    """What to do about it."""


VERDICTS: dict[VerdictName, VerdictWords] = {
    "indistinguishable": VerdictWords(
        "matches",
        "On forget, retain and validation examples alike, the models cannot be told from retrained ones, within the "
        "stated tolerance.",
        "Usable at this tolerance and this number of models.",
    ),
    "under-forgotten": VerdictWords(
        "under",
        "The models still treat the forget examples as something they were trained on, or have not followed retraining "
        "elsewhere: they lie on the pretrained side.",
        "Do not rely on it: the examples are still visible in the models' behaviour. Retrain, or try another method.",
    ),
    "over-forgotten": VerdictWords(
        "over",
        "The models do worse on the forget examples than models that never saw them; that mistake is itself a trace.",
        "Stop earlier or lower the rate; otherwise retrain.",
    ),
    "damaged": VerdictWords(
        "damaged",
        "Behaviour on retain or validation examples is further from retraining than it was before unlearning.",
        "Do not deploy: what was to be kept has changed. Retrain.",
    ),
    "diverged": VerdictWords(
        "diverged",
        "Too many models ended in non-finite or absurd numbers, or give one answer to everything.",
        "Do not deploy. Lower the rate, or retrain.",
    ),
    "undecided": VerdictWords(
        "undecided",
        "The interval contains both acceptable and unacceptable values: these models are too few to decide.",
        "Repeat the audit with more members.",
    ),
    "unjudged": VerdictWords(
        "unjudged",
        "Nothing chose this setting, so its scores were read without intervals and tests.",
        "Audit this setting alone, if it is of interest.",
    ),
}
"""Every verdict of the record's schema, in the order in which a page lists them."""

OPTION_NAMES = {"msteps": "ascent epochs (msteps)", "cost": "share of the epochs"}
"""Options whose name in Python says little to somebody who does not know the code that it comes from."""


def options_text(options: Mapping[str, Any], keys: Sequence[str] | None = None) -> str:
    """Write options as `name value` pairs; the rate also in units of the recipe's peak rate.

    >>> options_text({"lr": 0.02, "relative_lr": 0.05, "epochs": 10, "momentum": 0.0}, ["lr", "relative_lr", "epochs"])
    'rate 0.02 (0.05 of the recipe peak), epochs 10'

    Args:
        options: All options of a configuration.
        keys: Which to write; all by default.
    """
    parts = []
    shown = [key for key in options if keys is None or key in keys]
    for key in shown:
        if key == "lr":
            relative = options.get("relative_lr")
            beside = f" ({numbers.value_text(relative)} of the recipe peak)" if relative is not None else ""
            parts.append(f"rate {numbers.value_text(options[key])}{beside}")
        elif key == "relative_lr":
            if "lr" not in shown:
                parts.append(f"rate {numbers.value_text(options[key])} of the recipe peak")
        else:
            parts.append(f"{OPTION_NAMES.get(key, key.replace('_', ' '))} {numbers.value_text(options[key])}")
    return ", ".join(parts)


def varying(configurations: Sequence[ConfigurationRecord]) -> list[str]:
    """Return the options that differ between configurations of a method; the rate always."""
    keys = list(dict.fromkeys(key for c in configurations for key in c.options))
    first = configurations[0].options if configurations else {}
    return [
        key
        for key in keys
        if key in ("lr", "relative_lr")
        or any(c.options.get(key, "absent") != first.get(key, "absent") for c in configurations)
    ]


def setting(forget: ForgetRecord, configuration: ConfigurationRecord) -> str:
    """Write what tells a configuration from the others of its method; nothing where there is no other."""
    own = [c for c in forget.configurations if c.method == configuration.method]
    if len(own) < 2:
        return ""
    options = options_text(configuration.options, varying(own))
    stops = len({c.epoch for c in own if c.run == configuration.run}) > 1
    stop = f"stopped after {numbers.count(configuration.epoch, 'epoch')}" if stops else ""
    return ", ".join(part for part in (options, stop) if part)


def short_label(label: str, statistics: str) -> str:
    """Write a method's label, with its choice of normalisation statistics where that is not the default."""
    return label if statistics in ("frozen", "retrained") else f"{label} (statistics {statistics})"


def worst_excess(configuration: ConfigurationRecord) -> float:
    """Return the largest excess over the floor among the splits; infinite where a score is not a number."""
    excesses = [score.excess for score in configuration.scores.values()]
    return max((math.inf if math.isnan(excess) else excess for excess in excesses), default=math.inf)


@dataclass(frozen=True)
class Row:
    """A method with the configuration that was chosen for it, if any."""

    method: str
    label: str
    control: bool
    selection: SelectionRecord | None
    chosen: ConfigurationRecord | None
    best: ConfigurationRecord | None
    configurations: int
    equal_cost: ConfigurationRecord | None = None
    """Of the same method, what costs about as much as the closest candidate, where that is another."""


def rows(forget: ForgetRecord) -> list[Row]:
    """Return one row a method, candidates before controls, in the order of the record."""
    by_id = {c.id: c for c in forget.configurations}
    selections = {s.method: s for s in forget.selections}
    found: list[Row] = []
    for method in dict.fromkeys([*selections, *(c.method for c in forget.configurations)]):
        own = [c for c in forget.configurations if c.method == method]
        selection = selections.get(method)
        chosen = by_id.get(selection.chosen) if selection else None
        best = by_id.get(selection.best) if selection else None
        some = chosen or best or (own[0] if own else None)
        control = some.control if some else False
        equal = by_id.get(selection.equal_cost) if selection else None
        found.append(Row(method, some.label if some else method, control, selection, chosen, best, len(own), equal))
    return sorted(found, key=lambda row: row.control)


def with_equal_cost(found: Sequence[Row]) -> list[Row]:
    """Return the rows, each followed by that of what costs as much as the closest candidate, where that is another."""
    out = []
    for row in found:
        out.append(row)
        if row.equal_cost is not None:
            label = f"{row.label}, at equal cost"
            out.append(replace(row, label=label, selection=None, chosen=row.equal_cost, equal_cost=None))
    return out


def other_results(forget: ForgetRecord) -> list[tuple[Row, str, Mapping[SplitName, Result]]]:
    """Return what metrics beside KLoM read of each chosen configuration, by metric, then by method."""
    chosen = [(row, row.chosen.others) for row in rows(forget) if row.chosen and row.selection]
    names = dict.fromkeys(name for _, others in chosen for name in others)
    return [(row, name, others[name]) for name in names for row, others in chosen if name in others]


def chip(verdict: VerdictRecord) -> str:
    """Write a verdict's name, with how many forget rows count against it where every row was looked at."""
    seen = verdict.rows.get("forget")
    if seen is None or verdict.name not in ("under-forgotten", "over-forgotten"):
        return verdict.name
    if seen.counted:
        return f"{verdict.name} ({seen.counted} of {numbers.count(seen.examples, 'row')})"
    traces = verdict.joint is not None and verdict.joint.counts
    return f"{verdict.name} (traces over all rows)" if traces else verdict.name


def tails(verdict: VerdictRecord) -> str:
    """Say on how many retain and validation rows more is wrong than the tolerance allows; nothing if on none.

    Nor where the percentile says it already, or says that the models are still where they were.
    """
    found = [
        f"{seen.counted} of {seen.examples:,} {split} rows"
        for split, seen in verdict.rows.items()
        if split != "forget" and seen.counted
    ]
    told = verdict.name in ("damaged", "diverged")
    return "" if told or not found else f"damage on {numbers.listing(found)}"


@dataclass(frozen=True)
class ToldRow:
    """A forget row that counts against a verdict."""

    index: int
    """In the training data."""
    text: str
    """Its direction and size."""


SIDES = {"remembered": "remembered", "beyond": "forgotten beyond retraining", "spread": "of another spread"}
MOST_SHOWN = 6
"""Told rows that a page lists a method."""


def told_rows(verdict: VerdictRecord) -> tuple[list[ToldRow], int]:
    """Return the largest forget rows that count against a verdict, and how many more there are."""
    seen = verdict.rows.get("forget")
    if seen is None or not seen.counted:
        return [], 0
    found = [
        ToldRow(
            row.position if row.index is None else row.index,
            f"{SIDES[row.side]}, {numbers.signed(row.shift)} sd",
        )
        for row in seen.rows
        if row.counts
    ][:MOST_SHOWN]
    return found, seen.counted - len(found)


def beside_floor(result: Result | None) -> str:
    """Write a value with what oracles read; nothing where it was not read."""
    return "" if result is None else f"{numbers.number(result.value)} ({numbers.number(result.floor)})"


def is_noise(selection: SelectionRecord) -> bool:
    """Return whether an illusion gap cannot be told from 0; unknown, so no, where it has no interval."""
    low, high = selection.gap_low, selection.gap_high
    return low is not None and high is not None and low <= 0 <= high and low < high


def gap_text(selection: SelectionRecord) -> str:
    """Write an illusion gap; one within its interval is called noise."""
    return "noise" if is_noise(selection) else numbers.number(selection.illusion_gap)


def gap_interval(selection: SelectionRecord) -> str:
    """Write the interval of an illusion gap, or why there is none."""
    if selection.gap_low is None or selection.gap_high is None:
        return "no interval, at least 0" if selection.illusion_gap else ""
    if selection.gap_low == selection.gap_high:
        return ""
    return f"{numbers.number(selection.gap_low)} to {numbers.number(selection.gap_high)}"


def starts_pretrained(configuration: ConfigurationRecord) -> bool:
    """Return whether a configuration is a stopping time of a run from the pretrained models on.

    Retraining, whole or cut short, starts from nothing, and doing nothing has no time.
    """
    return configuration.statistics != "retrained" and configuration.epoch > 0


def timing_sentence(forget: ForgetRecord, method: str) -> str:
    """Count how many runs of a method ever match retraining on forget, and how many still do at their last epoch."""
    runs: dict[str, list[ConfigurationRecord]] = {}
    for c in forget.configurations:
        if c.method == method:
            runs.setdefault(c.run, []).append(c)
    if not runs:
        return "No run of this method is on record."

    def close(c: ConfigurationRecord) -> bool:
        scores = [c.scores.get(split) for split in SPLITS]
        return all(s is not None and s.excess <= c.verdict.tolerance for s in scores)

    ever = [run for run in runs.values() if any(close(c) for c in run)]
    last = [run for run in ever if close(max(run, key=lambda c: c.epoch))]
    stops = sum(len(run) for run in runs.values())
    hits = sum(close(c) for run in runs.values() for c in run)
    text = f"{numbers.count(len(runs), 'run')}, {numbers.count(stops, 'stopping time')}: "
    if not ever:
        return text + "none comes within the tolerance of the floor on all three splits at any time."
    return text + (
        f"{hits} of {stops} stopping times come within the tolerance of the floor on all three splits. "
        f"{len(ever)} of {numbers.count(len(runs), 'run')} {'pass' if len(ever) != 1 else 'passes'} through at some "
        "time, "
        f"{len(last) or 'none'} {'are' if len(last) > 1 else 'is'} still there at the end. To use the method one must "
        "know the setting and the stopping time beforehand."
    )


@dataclass(frozen=True)
class Disagreement:
    """A run that the public estimator likes and ours does not."""

    configuration: ConfigurationRecord
    """The stopping time at which the two disagree on most splits."""
    splits: list[str]
    """Splits on which the public variant reads no more than its own floor."""
    stops: int
    """Stopping times of the run at which they disagree."""


def disagreements(forget: ForgetRecord) -> list[Disagreement]:
    """Return runs that the public variant puts at or below its floor while ours says damaged or diverged.

    Worst first: by the number of splits that look perfect, then by our largest excess.
    """
    runs: dict[str, list[tuple[ConfigurationRecord, list[str]]]] = {}
    for c in forget.configurations:
        if c.verdict.name not in ("damaged", "diverged"):
            continue
        fooled = [
            split
            for split in SPLITS
            if split in c.public and split in forget.floor_public and c.public[split] <= forget.floor_public[split]
        ]
        if fooled:
            runs.setdefault(c.run, []).append((c, list(fooled)))

    def weight(item: tuple[ConfigurationRecord, list[str]]) -> tuple[int, float]:
        return len(item[1]), worst_excess(item[0])

    found = [Disagreement(*max(stops, key=weight), len(stops)) for stops in runs.values()]
    return sorted(found, key=lambda d: weight((d.configuration, d.splits)), reverse=True)
