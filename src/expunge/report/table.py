"""The verdict in a terminal: what a person sees when an audit ends."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from expunge.core.record import SPLITS, ForgetRecord, Record, VerdictName
from expunge.core.score import Score
from expunge.report import wording

STYLES: dict[VerdictName, str] = {
    "indistinguishable": "bold green",
    "under-forgotten": "yellow",
    "over-forgotten": "magenta",
    "damaged": "red",
    "diverged": "bold red",
    "undecided": "dim",
}
"""Colour of each verdict; the word itself is always printed, so nothing is said by colour alone."""

WIDE = 132
"""Columns of a terminal from which on intervals are printed; narrower ones would break the verdicts."""

_TONES = {"good": "bold green", "bad": "bold red", "open": "bold yellow", "empty": "bold cyan"}


def print_table(record: Record, console: Console) -> None:
    """Print the verdicts of a record, the most important sentence first.

    Args:
        record: A study's record, complete or still running.
        console: Where to print; its width decides how the table wraps.
    """
    if record.status == "running":
        console.print(Text("This audit is not complete; what follows is what is known so far.", "bold yellow"))
    for forget in record.forget_sets:
        console.print()
        console.print(Text(f"{forget.name}", "bold").append(f"  {wording.count(forget.size, 'forget example')}", "dim"))
        words = wording.headline(forget)
        console.print(Text(words.sentence, _TONES[words.tone]))
        console.print(Text(words.action))
        console.print(_table(forget, intervals=console.width >= WIDE))
    if record.forget_sets:
        console.print(
            Text(
                f"KLoM in nats, 95th percentile over examples, {wording.count(record.members, 'member')}. Compare "
                f"with the floor (last row), not with 0; tolerance {record.tolerance:g} above it.",
                "dim",
            )
        )
    else:
        console.print(Text("No forget set has been audited yet.", "bold yellow"))
    for note in record.notes:
        console.print(Text(f"Note: {note}", "dim"))


def _table(forget: ForgetRecord, *, intervals: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("method", min_width=12)
    table.add_column("verdict", no_wrap=True)
    for split in SPLITS:
        table.add_column(split, justify="right", no_wrap=True)
    table.add_column("cost", justify="right", no_wrap=True)
    table.add_column("illusion gap" if intervals else "gap", justify="right", no_wrap=True)
    table.add_column("checks")
    for row in wording.rows(forget):
        name = Text(row.label + (" (control)" if row.control else ""), "dim" if row.control else "")
        if row.chosen is None or row.selection is None:
            if not row.control:
                table.add_row(name, Text("not chosen", "dim"), "", "", "", "", "", f"{row.configurations} tried")
            continue
        c = row.chosen
        failed = [check.name for check in c.checks if not check.passed]
        remarks = [f"FAILED: {', '.join(failed)}"] * bool(failed)
        remarks += [f"{wording.count(c.failed, 'member')} failed"] * bool(c.failed)
        remarks += ["edge of grid"] * bool(row.selection.edge)
        table.add_row(
            name,
            Text(c.verdict.name, STYLES[c.verdict.name]),
            *(_score(c.scores.get(split), intervals) for split in SPLITS),
            wording.percent(c.cost),
            wording.number(row.selection.illusion_gap),
            Text("; ".join(remarks) or "passed", "bold red" if failed or c.failed else "dim"),
        )
    shown = [row.chosen.scores for row in wording.rows(forget) if row.chosen and row.selection]
    for name_, scores, cost in (("pretrained", forget.pretrained, "0 %"), ("floor (retrained)", forget.floor, "100 %")):
        if scores in shown:  # a do-nothing control is the pretrained ensemble
            continue
        table.add_row(Text(name_, "dim"), "", *(_score(scores.get(split), intervals) for split in SPLITS), cost, "", "")
    return table


def _score(score: Score | None, intervals: bool) -> Text:
    if score is None:
        return Text("not scored", "dim")
    found = Text(wording.number(score.value))
    return found.append(f" [{wording.number(score.low)}, {wording.number(score.high)}]", "dim") if intervals else found
