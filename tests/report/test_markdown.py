"""The table as Markdown says what the terminal says, and a name cannot break it."""

from __future__ import annotations

from expunge.core.record import SPLITS, Record
from expunge.report import markdown, numbers, wording
from expunge.report.headline import headline


def test_every_chosen_setting_has_a_row_with_its_numbers(record: Record) -> None:
    lines = markdown(record).splitlines()
    for forget in record.forget_sets:
        assert any(headline(forget).sentence in line for line in lines)
        for row in wording.rows(forget):
            if row.chosen is None:
                continue
            read = [numbers.number(row.chosen.scores[split].value) for split in SPLITS]
            wanted = [row.label, row.chosen.verdict.name, f"| {' | '.join(read)} |", numbers.percent(row.chosen.cost)]
            assert any(all(part in line for part in wanted) for line in lines), wanted
    tables = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in tables} == {8}


def test_names_stay_text(record: Record) -> None:
    record.forget_sets = record.forget_sets[:1]
    record.forget_sets[0].name = "a|b<img src=x>"
    assert "| a\\|b&lt;img src=x> | verdict" in markdown(record)
