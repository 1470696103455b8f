"""The terminal shows the same verdicts as the page, the most important sentence first."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from expunge.core.record import SPLITS, Record
from expunge.report import numbers, print_table, wording


def printed(record: Record, width: int = 240) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_table(record, console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_verdicts_and_numbers(record: Record) -> None:
    text = printed(record)
    lines = text.splitlines()
    for forget in record.forget_sets:
        assert wording.headline(forget).sentence in text
        for row in wording.rows(forget):
            if row.chosen is None or row.selection is None:
                continue
            c = row.chosen
            wanted = [c.label, c.verdict.name, numbers.percent(c.cost), numbers.number(row.selection.illusion_gap)]
            wanted += [numbers.number(c.scores[s].value) for s in SPLITS]
            wanted += [f"[{numbers.number(c.scores[s].low)}, {numbers.number(c.scores[s].high)}]" for s in SPLITS]
            assert any(all(part in line for part in wanted) for line in lines), wanted
    assert text.index(wording.headline(record.forget_sets[0]).sentence) < text.index("verdict  ")


def test_failed_checks_and_members_are_named(record: Record) -> None:
    forget = record.forget_sets[0]
    chosen = next(c for c in forget.configurations if c.id == forget.selections[0].chosen)
    chosen.checks[0].passed = False
    chosen.failed = 2
    line = next(line for line in printed(record).splitlines() if line.startswith(chosen.label))
    assert f"FAILED: {chosen.checks[0].name}" in line
    assert "2 members failed" in line


def test_markup_in_names_is_printed_not_obeyed(record: Record) -> None:
    record.forget_sets[0].name = "[red]x[/red] [/]"
    record.notes = ["[bold]note[/]"]
    text = printed(record)
    assert "[red]x[/red] [/]" in text
    assert "[bold]note[/]" in text


def test_running_and_empty_records_say_so(record: Record) -> None:
    record.status = "running"
    record.forget_sets = []
    text = printed(record)
    assert "not complete" in text
    assert "No forget set has been audited yet." in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_narrow_terminals(record: Record, width: int) -> None:
    text = printed(record, width)
    assert max(len(line) for line in text.splitlines()) <= width
    chosen = [
        row.chosen for forget in record.forget_sets for row in wording.rows(forget) if row.chosen and row.selection
    ]
    # A verdict is never cut off.
    assert sum(text.count(name) for name in wording.VERDICTS) >= len(chosen)
