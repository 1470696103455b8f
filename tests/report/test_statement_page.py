"""The page for the person who signs: what it shows, that nothing in it can run, and how it prints."""

from __future__ import annotations

import re
from types import ModuleType

import pytest

from expunge.core.evidence import Difference, Statement, Verification
from expunge.core.record import Record
from expunge.report import draw_statement
from expunge.report.verification import verification_text

ROOT = "0123456789abcdef" * 4


@pytest.fixture
def statement(example: ModuleType) -> Statement:
    return Statement(
        request=["Forget these."],
        done=["An audit."],
        shown=[f"Shown {example.HOSTILE}"],
        assumed=["Assumed."],
        not_shown=["Copies. Backups are out of scope."],
    )


def test_the_page_shows_everything_that_is_signed(record: Record, statement: Statement) -> None:
    page = draw_statement(statement, record, None, ROOT)
    assert page == draw_statement(statement, record, None, ROOT)
    for text in (ROOT, "Forget these.", "An audit.", "Assumed.", "<b>Copies.</b> Backups", "signature", "Prepared by"):
        assert text in page
    assert "@page" in page
    assert "@media print" in page
    for forget in record.forget_sets:
        chosen = {selection.chosen for selection in forget.selections}
        assert page.count('class="badge') >= len(chosen)
    assert "not a number" not in re.sub(r"<td.*?</td>", "", page, flags=re.DOTALL)


def test_nothing_in_the_page_can_run_or_load(record: Record, statement: Statement, example: ModuleType) -> None:
    record.task["name"] = example.HOSTILE
    page = draw_statement(statement, record, None, ROOT)
    assert example.HOSTILE not in page
    assert "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'" in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=", page.replace("&lt;img src=x", ""))


def test_what_a_check_found_is_said_in_order() -> None:
    found = Verification(bundle="b.zip", root=ROOT, written_by="0.1.0", files=7, bytes=5_200_000, unchecked=["who"])
    text = verification_text(found)
    assert text.splitlines()[:2] == ["b.zip: 7 files, 5.2 MB, written by expunge 0.1.0", "Nothing differs."]
    assert text.splitlines()[-1].strip() == ROOT
    found.differences = [Difference(where="record.json", what="was changed")]
    assert "1 thing differs:\n  record.json: was changed\n" in verification_text(found)
    assert "write it down" in text
    found.root_expected = ROOT
    assert "as it was given" in verification_text(found)
