"""What `expunge unlearn` says in a terminal, from its record alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from expunge.core.claim import beside
from expunge.core.schema import SPLITS
from expunge.core.unlearning import Unlearning
from expunge.report import numbers, wording
from expunge.report.answer import valid
from expunge.report.fitting import print_fitting

SOURCES = {
    "retraining": "nothing to choose",
    "defaults": "the method's defaults",
    "given": "as given",
    "own function": "a function of your own",
    "audit": "chosen by an audit",
}
"""Where a setting comes from, in words."""

NOT_SHOWN = (
    "that this one model cannot be told from a retrained one (expunge judge compares it with those of an audit), and "
    "that no attack finds the rows in it. Copies, backups and twins of the rows stay where they are."
)
"""The record's `not_shown` in short."""


def print_unlearning(record: Unlearning, console: Console) -> None:
    """Print what was done to a checkpoint, what changed, and what to think of it.

    Args:
        record: Of a finished run.
        console: Where to print; nothing is cut at 80 columns.
    """
    if record.after is None:
        console.print(Text("This checkpoint has not been unlearned yet; go on with --resume.", "bold yellow"))
        return
    setting = wording.options_text(record.options) if record.options else ""
    stop = f", stopped after {numbers.count(record.stop, 'epoch')}" if record.stop is not None else ""
    console.print(
        Text(record.label, "bold").append(
            f"  {numbers.count(record.forget.size, 'row')} ({record.forget.how}), {record.task['name']}", "dim"
        )
    )
    console.print(Text(f"Setting: {SOURCES[record.source]}{f' ({setting}{stop})' if setting else ''}.", "dim"))
    for check in record.failed_checks:
        console.print(Text(f"FAILED: {check.name}: {check.detail}", "bold red"))
    if record.claim is not None:
        style = "bold green" if record.claim.holds else "bold red"
        console.print(Text(beside(record.claim, None) + " An audit measures one.", style))
        for each in record.claim.assumptions:
            console.print(Text(f"  {'holds' if each.holds else 'FAILS'}: {each}", "dim" if each.holds else "red"))
    for sentence in record.advice:
        console.print(Text(sentence))
    print_fitting(console, _table(record))
    moved = [each for each in record.changes if each.trained]
    norm = sum(each.norm**2 for each in moved) ** 0.5
    distance = sum(each.distance**2 for each in moved) ** 0.5
    total = sum(each.numbers for each in moved)
    share = sum(each.changed * each.numbers for each in moved) / max(1, total)
    console.print(
        Text(
            f"{share:.1%} of {total:,} weights changed, by {numbers.number(distance)} where their norm was "
            f"{numbers.number(norm)}; {record.method_seconds:.1f} s, {numbers.percent(record.cost)} of retraining; "
            f"{len(record.checks) - len(record.failed_checks)} of {len(record.checks)} runtime checks passed."
        )
    )
    for note in record.notes:
        console.print(Text(f"Note: {note}", "dim"))
    if record.not_shown:
        console.print(Text(f"Not shown: {NOT_SHOWN}", "dim"))


def unlearning_answer(record: Unlearning, folder: Path) -> dict[str, Any]:
    """Return what was done and what changed as a JSON value; numbers that are none are null.

    Args:
        record: Of a finished run.
        folder: Its folder.
    """
    left = {"schema_version", "task", "request", "environment", "started", "command"}
    said = record.model_dump(exclude=left)
    checkpoint = None if record.after is None else str(folder / record.after.path)
    return valid({"run": str(folder), "checkpoint": checkpoint, **said})


def unlearning_text(record: Unlearning, width: int = 80) -> str:
    """Return what `print_unlearning` prints in a terminal of a width, without colours."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    print_unlearning(record, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _table(record: Unlearning) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("before -> after", min_width=10)
    for name in ("loss", record.utility, record.statistic):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("same answer", justify="right", no_wrap=True)
    for split in SPLITS:
        seen = record.splits[split]
        table.add_row(
            split,
            *(
                f"{numbers.number(was)} -> {numbers.number(now)}"
                for was, now in (seen.loss, seen.utility, seen.statistic)
            ),
            "" if seen.agreement != seen.agreement else numbers.percent(seen.agreement),
        )
    return table
