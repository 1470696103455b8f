"""The table of `expunge score` in a terminal."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from expunge.core.schema import SPLITS
from expunge.core.scoring import GROUPS, ScoreLine, ScoreResult
from expunge.report.fitting import print_fitting


def print_scores(result: ScoreResult, console: Console) -> None:
    """Print a result as tables.

    Args:
        result: Of `expunge score`.
        console: Where to print; its width decides what the tables look like.
    """
    if result.verdict is not None:
        console.print(Text(f"Verdict: {result.verdict}.", "bold").append(f" {result.verdict_sentence}\n", "not bold"))
    for split in SPLITS:
        lines = [line for line in result.lines if line.split == split]
        if not lines:
            continue
        shapes = [result.shapes[f"{who} {split}"] for who in ("unlearned", "oracle")]
        table = Table(
            title=f"{split}: {shapes[0][1]} examples, {shapes[0][0]} unlearned members, {shapes[1][0]} oracles",
            title_justify="left",
        )
        table.add_column("metric", min_width=18)
        for column in ("value", "95 % interval", "oracles read"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("reading", min_width=14)
        for group in dict.fromkeys((*GROUPS, *(line.group for line in lines))):
            _add_group(table, group, [line for line in lines if line.group == group])
        print_fitting(console, table)
    console.print(
        "Compare a value with what oracles read, not with 0 or 1. KLoM and the distances are lower the nearer the "
        "members are to the oracles; they do not say on which side, the attacks and the verdict do.",
        highlight=False,
    )
    for note in result.notes:
        console.print(f"Note: {note}", markup=False, highlight=False)
    if result.missing:
        table = Table(title="Not computed", title_justify="left")
        table.add_column("metric")
        table.add_column("needs")
        for missing in result.missing:
            table.add_row(missing.metric, missing.needs)
        print_fitting(console, table)


def score_text(result: ScoreResult, width: int = 120) -> str:
    """Return what `print_scores` prints in a terminal of a width, without colours."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    print_scores(result, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _add_group(table: Table, group: str, lines: list[ScoreLine]) -> None:
    """Append the lines of one kind under its name, closed by a rule."""
    if not lines:
        return
    table.add_row(Text(group, "bold"))
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
            "" if np.isnan(line.low) else f"{_number(line.low)} to {_number(line.high)}",
            _number(line.floor),
            "; ".join(part for part in parts if part),
        )
    table.add_section()


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}"
