"""The page, the table and the CSV of a leaderboard, from its record alone."""

from __future__ import annotations

import csv
import io
import math
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text

from expunge.core.record import write_atomically
from expunge.papers.leaderboard.board import LIMITS, Standing, answer, passes, standings
from expunge.papers.leaderboard.record import BoardRow, LeaderboardRecord
from expunge.report import numbers
from expunge.report.fitting import print_fitting
from expunge.report.html import fill, made_facts, script
from expunge.report.markdown import escaped

PAGE, TABLE = "leaderboard.html", "leaderboard.csv"
HERE = "expunge.papers.leaderboard.report"


def draw(folder: Path | str) -> Path:
    """Write the page and the CSV of a run, and return the page.

    Raises:
        InputError: If the folder holds no such run.
        DamagedFileError: If its record cannot be read.
    """
    folder = Path(folder)
    record = LeaderboardRecord.load(folder)
    write_atomically(folder / TABLE, as_csv(record).encode())
    return write_atomically(folder / PAGE, render(record).encode())


def render(record: LeaderboardRecord) -> str:
    """Return the page as HTML."""
    own = Markup(resources.files(HERE).joinpath("templates/board.js").read_text(encoding="utf-8"))
    kept = ("task", "kind", "method", "verdict", "cost", "excess", "gap", "at_equal_cost")
    rows = [{name: _number(getattr(row, name)) for name in kept} | {"good": passes(row)} for row in record.rows]
    return fill(
        "leaderboard.html.j2",
        [script(), own],
        {"figures": {}, "hover": {}, "tables": {}, "rows": rows},
        package=HERE,
        record=record,
        answer=answer(record),
        found=standings(record.rows),
        limits=LIMITS,
        tasks=list(dict.fromkeys(row.task for row in record.rows)),
        kinds=list(dict.fromkeys(row.kind for row in record.rows)),
        links={name: quote(f"{place}/report.html") for name, place in record.audits.items()},
        made=made_facts(record),
        dial=_dial(record),
    )


def as_csv(record: LeaderboardRecord) -> str:
    """Return every row as CSV, with a line of names."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = list(BoardRow.model_fields)
    writer.writerow(names)
    for row in record.rows:
        values = [getattr(row, name) for name in names]
        writer.writerow([numbers.cell("; ".join(v) if isinstance(v, list) else v) for v in values])
    return out.getvalue()


def print_tables(folder: Path | str, console: Console) -> None:
    """Print the answer and how methods stand."""
    record = LeaderboardRecord.load(Path(folder))
    for sentence in answer(record):
        console.print(sentence, markup=False, highlight=False)
    console.print()
    print_fitting(console, *(_table(standings(record.rows), wide) for wide in (True, False)))


def markdown(record: LeaderboardRecord) -> str:
    """Return the answer and the standings as Markdown."""
    found = [(escaped(_shown(each)), _facts(each)) for each in standings(record.rows)]
    names = ["method", *(found[0][1] if found else ())]
    lines = [" | ".join(names), " | ".join(["---", *["---:"] * (len(names) - 1)])]
    lines += [" | ".join([name, *facts.values()]) for name, facts in found]
    return "\n".join([*answer(record), "", *(f"| {line} |" for line in lines), ""])


def _table(found: list[Standing], wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("method", min_width=18)
    facts = [_facts(each) for each in found]
    kept = [name for name in (facts[0] if facts else ()) if wide or name not in ("gap", "checks failed")]
    for name in kept:
        table.add_column(name, justify="right", no_wrap=True)
    for each, own in zip(found, facts, strict=True):
        table.add_row(Text(_shown(each), "dim" if each.control else ""), *(own[name] for name in kept))
    return table


def _shown(each: Standing) -> str:
    return each.label + (" (control)" if each.control else "")


def _facts(each: Standing) -> dict[str, str]:
    return {
        "passes": f"{each.passing} of {each.sets}",
        "undecided": str(each.undecided or ""),
        "cost": numbers.percent(each.cost),
        "excess": numbers.signed(each.excess),
        "gap": numbers.signed(each.gap),
        "ahead": f"{each.ahead} of {each.compared}" if each.compared else "",
        "checks failed": str(each.failed_checks or ""),
    }


def _dial(record: LeaderboardRecord) -> list[tuple[str, str, list[tuple[float, float, float, float]]]]:
    """Return (task, forget set, (weight, excess, low, high) from the largest weight of the climb to none)."""
    keys = list(dict.fromkeys((row.task, row.forget_set) for row in record.dial))
    return [
        (
            *key,
            [
                (row.retain_weight, row.excess, row.low, row.high)
                for row in sorted(record.dial, key=lambda row: row.retain_weight)
                if (row.task, row.forget_set) == key
            ],
        )
        for key in keys
    ]


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
