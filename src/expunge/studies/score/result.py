"""What `expunge score` says: lines of metrics, the verdict, what could not be computed; and how it is printed."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from expunge.core.record import SPLITS, SplitName

Group = Literal["KLoM", "attacks", "distances", "joint tests", "outputs", "epsilon", "published elsewhere"]
"""Kinds of metrics, in the order in which they are printed."""


class Model(BaseModel):
    """Part of the result; NaN and infinities are written as text, so that the JSON is valid everywhere."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")


class ScoreLine(Model):
    """One metric on one split."""

    split: SplitName
    group: Group
    """The kind of metric."""
    metric: str
    value: float
    low: float | None = None
    """Lower end of the 95 % interval of `value`; None where the metric has none."""
    high: float | None = None
    """Upper end of it."""
    oracle: float | None = None
    """The floor: what the metric reads for oracles."""
    oracle_low: float | None = None
    oracle_high: float | None = None
    p_value: float | None = None
    unit: str
    ideal: str
    """What a perfect method would read."""
    side: str | None = None
    """Where the value lies beside the oracle's, in words."""
    failed: int = 0
    """Unlearned members that failed."""
    published: bool = False
    """Whether it is somebody else's definition, defects included, for comparison with their tables."""


class Missing(Model):
    """What could not be computed."""

    metric: str
    needs: str
    """The input that would allow it."""


class ScoreResult(Model):
    """All that the given arrays allow."""

    files: dict[str, str]
    """What was given, by argument."""
    shapes: dict[str, list[int]]
    """Shape of each array that was read."""
    lines: list[ScoreLine]
    verdict: str | None = None
    """One word, when retain and validation were given."""
    verdict_sentence: str | None = None
    tolerance: float | None = None
    members_needed: int | None = None
    missing: list[Missing] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    """What a reader has to know, such as few members or a resampled floor."""


def print_scores(result: ScoreResult, console: Any) -> None:
    """Print a result as tables.

    Args:
        result: From `score_files`.
        console: A `rich.console.Console`, or anything with its `print`.
    """
    from rich.table import Table

    if result.verdict is not None:
        console.print(f"[bold]Verdict: {result.verdict}.[/bold] {result.verdict_sentence}\n", highlight=False)
    for split in SPLITS:
        lines = [line for line in result.lines if line.split == split]
        if not lines:
            continue
        shapes = [result.shapes[f"{who} {split}"] for who in ("unlearned", "oracle")]
        table = Table(
            title=f"{split}: {shapes[0][1]} examples, {shapes[0][0]} unlearned members, {shapes[1][0]} oracles",
            title_justify="left",
        )
        for column, justify in (("metric", "left"), ("value", "right"), ("95 % interval", "right")):
            table.add_column(column, justify=justify)  # type: ignore[arg-type]
        table.add_column("oracles read", justify="right")
        table.add_column("reading")
        for group in get_args(Group):
            _add_group(table, group, [line for line in lines if line.group == group])
        console.print(table)
    console.print(
        "Compare a value with what oracles read, not with 0 or 1. KLoM and the distances are lower the nearer the "
        "members are to the oracles; they do not say on which side, the attacks and the verdict do.",
        highlight=False,
    )
    for note in result.notes:
        console.print(f"Note: {note}", highlight=False)
    if result.missing:
        table = Table(title="Not computed", title_justify="left")
        table.add_column("metric")
        table.add_column("needs")
        for missing in result.missing:
            table.add_row(missing.metric, missing.needs)
        console.print(table)


def _add_group(table: Any, group: str, lines: list[ScoreLine]) -> None:
    """Append the lines of one kind under its name, closed by a rule."""
    if not lines:
        return
    table.add_row(f"[bold]{group}[/bold]")
    for line in lines:
        failed = f"{line.failed} failed" if line.failed else None
        parts = (
            line.side,
            None if line.p_value is None else f"p = {line.p_value:.3g}",
            failed,
            f"ideal: {line.ideal}" if line.side is None else None,
        )
        table.add_row(
            f"  {line.metric}",
            "no number" if np.isnan(line.value) else _number(line.value),
            "" if line.low is None or np.isnan(line.low) else f"{_number(line.low)} to {_number(line.high)}",
            _number(line.oracle),
            "; ".join(part for part in parts if part),
        )
    table.add_section()


def _number(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}"
