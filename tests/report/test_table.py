"""The terminal shows the same verdicts as the page, the most important sentence first."""

from __future__ import annotations

import io
from types import ModuleType

import pytest
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from expunge.core.record import SPLITS, Record, RowsRecord
from expunge.report import numbers, print_table, wording
from expunge.report.fitting import print_fitting
from expunge.report.headline import headline
from expunge.report.table import print_forecast


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
        assert headline(forget).sentence in text
        for row in wording.rows(forget):
            if row.chosen is None or row.selection is None:
                continue
            c = row.chosen
            wanted = [c.label, c.verdict.name, numbers.percent(c.cost), wording.gap_text(row.selection)]
            wanted += [numbers.number(c.scores[s].value) for s in SPLITS]
            wanted += [f"[{numbers.number(c.scores[s].low)}, {numbers.number(c.scores[s].high)}]" for s in SPLITS]
            assert any(all(part in line for part in wanted) for line in lines), wanted
    assert text.index(headline(record.forget_sets[0]).sentence) < text.index("verdict  ")


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


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_nothing_is_cut_at_any_width(record: Record, width: int) -> None:
    forget = record.forget_sets[0]
    chosen = next(c for c in forget.configurations if c.id == forget.selections[0].chosen)
    chosen.checks[0].passed = False
    forget.selections[0].edge = ["lr at its largest value 0.4"]
    text = printed(record, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    words = text.split()
    for part in (chosen.verdict.name, "FAILED:", *chosen.checks[0].name.split(), "edge", "grid", "cost"):
        assert any(part in word for word in words), part
    for row in (row for found in record.forget_sets for row in wording.rows(found)):
        if row.chosen and row.selection:
            assert all(numbers.number(row.chosen.scores[split].value) in text for split in SPLITS)


@pytest.mark.parametrize("width", [30, 60, 80, 120])
def test_a_forecast_at_any_width(forecasts: ModuleType, width: int) -> None:
    run = forecasts.example_run()
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_forecast(run, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    for method in run.forget_sets[0].forecast.methods:
        assert all(numbers.number(method.best.excess[split]) in text for split in SPLITS)


def test_a_pipe_has_eighty_columns_and_a_terminal_its_own(record: Record) -> None:
    pipe = Console(file=io.StringIO(), color_system=None, _environ={})
    print_table(record, pipe)
    lines = pipe.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 80
    # A table whose numbers stand under one another, with remarks beneath the names.
    assert any(line.split() == ["method", "verdict", "forget", "retain", "validation", "cost", "gap"] for line in lines)


@pytest.mark.parametrize("width", [20, 30, 60, 90])
def test_tables_become_lists_where_their_columns_do_not_fit(width: int) -> None:
    table = Table("name", Column("number", justify="right", no_wrap=True), "words", title="[a] title")
    table.add_row("first thing", "0.123 to 0.456", Text("what [b]it[/b] is"))
    table.add_row("second")
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_fitting(console, table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(len(line) for line in text.splitlines()) <= width
    for word in ("[a]", "first", "0.123", "0.456", "[b]it[/b]", "second"):
        assert word in text
    assert ("│" in text) == (width >= 40)


def test_a_title_has_the_width_of_the_terminal_and_numbers_in_a_list_their_names() -> None:
    def said(width: int) -> list[str]:
        table = Table("alpha", Column("from", justify="right", no_wrap=True), title="Weights that beat doing nothing")
        table.add_row("0.02", "-4.1 and then a little more")
        console = Console(file=io.StringIO(), width=width, color_system=None)
        print_fitting(console, table)
        return [line.strip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]

    assert said(80)[0] == said(35)[0] == "Weights that beat doing nothing"
    assert said(35)[1:] == ["alpha 0.02", "from -4.1 and then a little", "more"]


def test_rows_that_count_are_told_briefly(record: Record) -> None:
    forget = record.forget_sets[0]
    chosen = next(c for c in forget.configurations if c.id == forget.selections[0].chosen)
    for split, counted in (("forget", 3), ("retain", 4), ("validation", 2)):
        chosen.verdict.rows[split] = RowsRecord(
            examples=70, told=counted, counted=counted, remembered=counted, beyond=0, level=0.01, rows=[]
        )
    chosen.verdict.name = "under-forgotten"
    text = printed(record, 200)
    assert "3 of 70 rows; damage on 6 kept rows" in text
