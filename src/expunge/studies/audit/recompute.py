"""The numbers of a record once more from its margins, by the judge of the audit, and what differs.

The margins are kept as they were measured (float32), and the judge draws with fixed seeds, so on the machine of the run
every number comes out the same. Elsewhere exponentials and sums round differently. A statistic is a sum of at most some
million float64 terms of one size, whose relative error stays below 1e6 x 2.2e-16; a thousandfold more is allowed. The
ends of intervals come from a bootstrap in single precision that rounds resampled ranks to whole ones, and where one
falls to the other side an end moves by about 1e-5; fifty times that is allowed, and for the members that would decide,
which grow with the square of an interval, ten times more. Counts, names and words must be equal, numbers within a
sentence up to one unit of their last digit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel

from expunge.core.limits import DEFAULT_ROW_TOLERANCE
from expunge.core.record import SPLITS, ConfigurationRecord, ForgetRecord, Record, SplitName
from expunge.studies.audit.forget_set import WORST_EXAMPLES
from expunge.studies.audit.illusion import Gap
from expunge.studies.audit.judging import Bench
from expunge.studies.audit.selection import CHEAPEST, LAST, NONE_WITHIN, select_all

RELATIVE, ABSOLUTE = 1e-6, 1e-9
"""How far a recomputed number may be from the recorded one."""
OF_INTERVALS = 5e-4
"""How far the end of an interval may be, relative, and in nats."""
ENDS = ("low", "high", "floor_low", "floor_high")
OF_COUNTS = 5e-3
"""How far the number of members that would decide may be, relative."""

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


class Recomputed:
    """What recomputing one forget set found.

    Attributes:
        differences: What differs, as (place in the record, sentence).
        numbers: Numbers and words that were compared.
        settings: Settings whose scores and verdicts were computed again.
        left: Settings whose margins were not kept.
    """

    def __init__(self) -> None:
        self.differences: list[tuple[str, str]] = []
        self.numbers = 0
        self.settings = 0
        self.left = 0

    def compare(self, place: str, recorded: Any, found: Any) -> None:
        """Enter what differs between two values, part by part."""
        for where, one, other in _pairs(place, _plain(recorded), _plain(found)):
            self.numbers += 1
            if not _same(where.rpartition(".")[2], one, other):
                self.differences.append((where, f"is {_shown(one)}, the margins say {_shown(other)}"))


def recompute(
    record: Record,
    forget: ForgetRecord,
    margins: Mapping[str, np.ndarray[Any, Any]],
    positions: Mapping[SplitName, np.ndarray[Any, Any]] | None = None,
) -> Recomputed:
    """Compute what a record says of one forget set once more.

    Args:
        record: The run's.
        forget: The forget set in it.
        margins: Its arrays by `<who>/<split>`, each (members, examples).
        positions: Places of the scored rows in the data, by split, where they are known.

    Returns:
        What was compared, and what differs. Of settings whose margins were not kept, of costs, accuracies, forecasts,
        readings on calibration sets and illusion gaps nothing can be said.
    """
    out, name = Recomputed(), forget.name
    lacking = [who for who in _needed(forget) if any(f"{who}/{split}" not in margins for split in SPLITS)]
    if lacking:
        out.differences.append((name, f"the margins of {', '.join(lacking)} are missing"))
        return out
    known = {*_needed(forget), "forecast", *(c.id for c in forget.configurations)}
    strange = sorted({key for key in margins if key.rpartition("/")[0] not in known})
    if strange:
        out.differences.append((name, f"has margins that belong to nothing in the record: {', '.join(strange[:3])}"))
    measured = {who: _measured(margins, who) for who in ("oracle", "held_out", "pretrained")}
    rows = float(record.request.get("row_tolerance", DEFAULT_ROW_TOLERANCE))
    bench = Bench(measured, record.tolerance, row_tolerance=rows)
    sizes = {split: margins[f"oracle/{split}"].shape[1] for split in SPLITS}
    out.compare(f"{name}: size", forget.size, sizes["forget"])
    out.compare(f"{name}: retain_examples", forget.retain_examples, sizes["retain"])
    out.compare(f"{name}: floor", forget.floor, bench.floors())
    out.compare(f"{name}: pretrained", forget.pretrained, bench.pretrained_scores())
    out.compare(f"{name}: floor_public", forget.floor_public, bench.floor_public())
    out.compare(f"{name}: pretrained_public", forget.pretrained_public, bench.pretrained_public())
    out.compare(f"{name}: nothing_to_unlearn", forget.nothing_to_unlearn, bench.nothing_to_unlearn())
    out.compare(f"{name}: worst", [each.position for each in forget.worst], bench.worst(WORST_EXAMPLES))
    if positions is not None:
        for split in SPLITS:
            out.compare(f"{name}: positions of {split} rows", len(positions[split]), sizes[split])
        own = [int(positions["forget"][each.position]) for each in forget.worst if each.position < sizes["forget"]]
        out.compare(f"{name}: worst", [each.index for each in forget.worst], own)
    for configuration in forget.configurations:
        if any(f"{configuration.id}/{split}" not in margins for split in SPLITS):
            out.left += 1
            continue
        _compare(out, f"{name}: {configuration.id}", configuration, bench, margins, positions)
    _compare_selections(out, forget)
    return out


def _needed(forget: ForgetRecord) -> list[str]:
    """Return whose margins a run keeps."""
    chosen = {c for s in forget.selections for c in (s.chosen, s.best, s.equal_cost) if c}
    return [
        "oracle",
        "held_out",
        "pretrained",
        *(c.id for c in forget.configurations if c.control or c.id in chosen),
    ]


def _measured(margins: Mapping[str, np.ndarray[Any, Any]], who: str) -> dict[str, torch.Tensor]:
    arrays = {f"margins/{s}": torch.from_numpy(np.ascontiguousarray(margins[f"{who}/{s}"])) for s in SPLITS}
    return arrays | {f"accuracy/{s}": torch.zeros(1) for s in SPLITS}  # which margins do not say


def _compare(
    out: Recomputed,
    place: str,
    configuration: ConfigurationRecord,
    bench: Bench,
    margins: Mapping[str, np.ndarray[Any, Any]],
    positions: Mapping[SplitName, np.ndarray[Any, Any]] | None,
) -> None:
    """Compute the scores and the verdict of one setting."""
    out.settings += 1
    reading = bench.read(_measured(margins, configuration.id), judged=configuration.verdict.name != "unjudged")
    for row in reading.verdict.rows["forget"].rows if "forget" in reading.verdict.rows else []:
        row.index = None if positions is None else int(positions["forget"][row.position])
    recorded = configuration.verdict
    if positions is None:
        recorded = recorded.model_copy(deep=True)
        for row in recorded.rows["forget"].rows if "forget" in recorded.rows else []:
            row.index = None
    out.compare(f"{place}: verdict", recorded, reading.verdict)
    for what in ("scores", "means", "shifts", "public", "failed"):
        out.compare(f"{place}: {what}", getattr(configuration, what), getattr(reading, what))
    for metric, results in reading.others.items():
        out.compare(f"{place}: others.{metric}", configuration.others.get(metric), results)


def _compare_selections(out: Recomputed, forget: ForgetRecord) -> None:
    """Choose once more, from the readings on the calibration set and the scores that the record holds."""
    gaps = {s.chosen: Gap(s.illusion_gap, s.gap_low or 0.0, s.gap_high or 0.0) for s in forget.selections}

    def recorded(chosen: str, tried: Sequence[str]) -> Gap:
        return gaps.get(chosen, Gap(math.nan, math.nan, math.nan))

    how = {s.method: _how(s.rule) for s in forget.selections}
    known = [c for c in forget.configurations if c.method in how]
    found = {s.method: s for s in select_all(known, how, recorded)} if len(how) == len(forget.selections) else {}
    for selection in forget.selections:
        again = found.get(selection.method)
        for what in ("rule", "chosen", "best", "equal_cost", "objective", "edge"):
            out.compare(
                f"{forget.name}: selection of {selection.method}: {what}",
                getattr(selection, what),
                None if again is None else getattr(again, what),
            )


def _how(rule: str) -> Any:
    return {CHEAPEST: "cheapest", NONE_WITHIN: "cheapest", LAST: "last"}.get(rule, "calibration")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _plain(value.model_dump())
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _pairs(place: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Return the parts of two values that stand at the same place."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            yield from _pairs(f"{place}.{key}", one.get(key, "nothing"), other.get(key, "nothing"))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from _pairs(f"{place}[{number}]", left, right)
    else:
        yield place, one, other


def _same(name: str, one: Any, other: Any) -> bool:
    """Return whether two values of that name are equal but for rounding."""
    numbers = [isinstance(each, int | float) and not isinstance(each, bool) for each in (one, other)]
    if all(numbers) and any(isinstance(each, float) for each in (one, other)):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        near = OF_INTERVALS if name in ENDS else 0.0
        return math.isclose(one, other, rel_tol=max(RELATIVE, near), abs_tol=max(ABSOLUTE, near))
    if name == "members_needed" and all(numbers):
        return bool(abs(one - other) <= 1 + OF_COUNTS * abs(one))
    if isinstance(one, str) and isinstance(other, str) and one != other:
        return _same_words(one, other)
    return type(one) is type(other) and bool(one == other)


def _same_words(one: str, other: str) -> bool:
    """Return whether two sentences differ by nothing but the last digit of fractions, as rounding can."""
    if _NUMBER.sub("#", one) != _NUMBER.sub("#", other):
        return False
    for left, right in zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True):
        digits = len(left.partition(".")[2])
        if digits != len(right.partition(".")[2]):
            return False
        # A whole number in a sentence is a count, which rounding leaves alone, or the members that would decide.
        near = 1.5 * 10.0**-digits if digits else OF_COUNTS * abs(float(left)) if len(left) > 2 else 0.0
        if abs(float(left) - float(right)) > near:
            return False
    return True


def _shown(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
