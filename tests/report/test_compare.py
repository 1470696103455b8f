"""Runs beside each other: what passes in all, where they differ, no row dropped, and files that carry no code."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import expunge as ex
from expunge.core import DamagedFileError, InputError
from expunge.core.forecast import ForecastRun
from expunge.core.record import ConfigurationRecord, Record
from expunge.report.compare import compare
from expunge.report.compare_page import render_comparison
from expunge.report.compare_table import comparison_text
from expunge.report.comparison import Answer, Comparison

FORGET = {"random:70": "a" * 64, "cluster:70": "b" * 64}


@pytest.fixture
def two(example: ModuleType) -> tuple[Record, Record]:
    """Two audits of one task: the second has more members, and one forget set fewer."""
    records = example.example_record(members=40, epochs=3), example.example_record(members=100, epochs=3)
    for seed, record in enumerate(records):
        forget = [{"name": name, "digest": digest} for name, digest in FORGET.items()]
        record.request |= {"seed": seed, "forget": forget}
        record.environment = {"expunge": "0.1.0", "device": "cpu", "packages": {"torch": "2.13.0"}}
    records[1].forget_sets = records[1].forget_sets[:2]
    return records


def compared(folder: Path, *records: Record | ForecastRun) -> Comparison:
    for name, record in zip("abcd", records, strict=False):
        record.save(folder / name)
    return compare([folder / name for name, _ in zip("abcd", records, strict=False)])


def chosen(record: Record, forget: str, method: str) -> ConfigurationRecord:
    found = next(f for f in record.forget_sets if f.name == forget)
    key = next(s.chosen for s in found.selections if s.method == method)
    return next(c for c in found.configurations if c.id == key)


def answer(found: Comparison, forget: str) -> Answer:
    return next(a for a in found.answers if a.forget_set == forget)


def test_the_cheapest_that_passes_in_every_run(tmp_path: Path, two: tuple[Record, Record]) -> None:
    """Gradient ascent is cheapest in both; when one run breaks it, what passes in both is dearer, and both are said."""
    said = answer(compared(tmp_path, *two), "cluster:70")
    cost = chosen(two[0], "cluster:70", "gradient_ascent").cost
    assert (said.tone, said.differing) == ("good", [])
    assert said.sentence.startswith(f"Gradient ascent cannot be told from retraining in both runs, at {100 * cost:.2f}")

    chosen(two[1], "cluster:70", "gradient_ascent").verdict.name = "damaged"
    said = answer(compared(tmp_path, *two), "cluster:70")
    assert said.sentence.startswith("Gradient descent/ascent cannot be told from retraining in both runs")
    assert "The cheapest of each: Gradient ascent at 0.36 % in a and Gradient descent/ascent at" in said.sentence
    assert said.differing == ["Gradient ascent: indistinguishable in a and damaged in b."]

    chosen(two[1], "cluster:70", "gradient_descent_ascent").verdict.name = "undecided"
    said = answer(compared(tmp_path, *two), "cluster:70")
    assert said.tone == "open"
    assert said.sentence == (
        "Nothing cheaper than retraining passes in both runs. The cheapest that passes: Gradient ascent at 0.36 % in a "
        "and nothing cheaper than retraining in b."
    )
    assert said.differing[1].endswith("undecided in b (too few members there, no contradiction).")


def test_what_saves_nothing_is_no_answer(tmp_path: Path, two: tuple[Record, Record]) -> None:
    for record in two:
        for c in record.forget_sets[1].configurations:
            c.cost = 1.0
    said = answer(compared(tmp_path, *two), "cluster:70")
    assert (said.tone, said.sentence) == ("bad", "Retrain: nothing cheaper is known to work in both runs.")


def test_no_row_is_dropped(tmp_path: Path, two: tuple[Record, Record]) -> None:
    scrub = [c for c in two[1].forget_sets[0].configurations if c.method != "scrub"]
    two[1].forget_sets[0].configurations = scrub
    two[1].forget_sets[0].selections = [s for s in two[1].forget_sets[0].selections if s.method != "scrub"]
    found = compared(tmp_path, *two)
    rows = {(line.forget_set, line.method, line.run): line.verdict for line in found.lines}
    assert rows["random:70", "scrub", "b"] == "not run"
    assert rows["random:70", "scrub", "a"] == "under-forgotten"
    assert rows["random:70", "do_nothing", "a"] == "not chosen"
    for forget in (f.name for f in two[0].forget_sets):
        methods = {method for name, method, _ in rows if name == forget}
        assert {(forget, method, run) for method in methods for run in "ab"} <= set(rows)
    third = answer(found, two[0].forget_sets[2].name)
    assert (third.tone, third.audits) == ("empty", 1)
    assert third.sentence == "There is nothing to unlearn, in a, the only run that has audited it."


def test_what_the_runs_do_not_share_is_said(tmp_path: Path, two: tuple[Record, Record]) -> None:
    assert compared(tmp_path, *two).differences == [
        "Members: 40 in a, 100 in b; with more, intervals are narrower and smaller traces are told.",
        "Seed: 0 in a, 1 in b.",
    ]
    two[1].tolerance, two[1].status = 0.3, "running"
    two[1].environment["expunge"] = "0.2.0"
    two[1].task["fingerprint"] = "77" * 32
    two[1].request["forget"][0]["digest"] = "c" * 64
    two[1].request["row_tolerance"] = 2.0
    said = " ".join(compared(tmp_path, *two).differences)
    for part in (
        "b is not complete",
        "digits is not the same data, model and recipe in all runs: 9f3c9f3c9f3c in a, 777777777777 in b.",
        "random:70 of digits is not the same rows in all runs: aaaaaaaaaaaa in a, cccccccccccc in b.",
        "Tolerance: 0.15 in a, 0.3 in b; a verdict at a wider tolerance is easier to earn.",
        "Row tolerance: 1 in a, 2 in b",
        "Version of expunge: 0.1.0 in a, 0.2.0 in b; verdicts of different versions may follow different rules.",
    ):
        assert part in said


def forecast_of(forecasts: ModuleType, name: str, digest: str) -> ForecastRun:
    record = forecasts.example_run()
    assert isinstance(record, ForecastRun)
    record.task["name"] = "digits"
    record.forget_sets[0].name = name
    record.forget_sets = record.forget_sets[:1]
    record.request["forget"] = [{"name": name, "digest": digest}]
    return record


def test_a_forecast_stands_beside_audits_of_the_same_rows(
    tmp_path: Path, two: tuple[Record, Record], forecasts: ModuleType
) -> None:
    record = forecast_of(forecasts, "random:70", FORGET["random:70"])
    expected = {m.method: m for m in record.forget_sets[0].forecast.methods}
    found = compared(tmp_path, *two, record)
    assert found.columns == ["a", "b"]
    line = next(x for x in found.lines if (x.forget_set, x.method) == ("random:70", "gradient_ascent"))
    assert line.forecast == expected["gradient_ascent"].outlook
    assert line.forecast_excess == expected["gradient_ascent"].objective
    assert not any(line.forecast for line in found.lines if line.forget_set == "cluster:70")

    other = forecast_of(forecasts, "random:70", "d" * 64)
    found = compared(tmp_path, *two, other)
    assert not any(line.forecast for line in found.lines if line.method == "gradient_ascent")
    assert any("random:70 of digits is not the same rows" in sentence for sentence in found.differences)


def test_forecasts_alone_and_sets_that_none_has_audited(
    tmp_path: Path, two: tuple[Record, Record], forecasts: ModuleType
) -> None:
    records = [forecast_of(forecasts, "elsewhere", "e" * 64) for _ in range(2)]
    found = compared(tmp_path, *records)
    assert found.columns == ["a", "b"]
    assert {line.verdict for line in found.lines} == {"not run"}
    assert "forecast, not measured" in found.answers[0].sentence
    found = compared(tmp_path, *two, records[0])
    assert answer(found, "elsewhere").audits == 0
    lines = [line for line in found.lines if line.forget_set == "elsewhere"]
    assert {line.run for line in lines} == {"a", "b"}
    assert all(line.forecast and line.verdict == "not run" for line in lines)


def test_the_table_as_csv_and_json(tmp_path: Path, two: tuple[Record, Record]) -> None:
    two[0].forget_sets[0].name = "=HYPERLINK(1)"
    found = compared(tmp_path, *two)
    rows = list(csv.DictReader(io.StringIO(found.csv())))
    assert len(rows) == len(found.lines)
    assert rows[0]["forget_set"] == "'=HYPERLINK(1)"
    c = chosen(two[0], "cluster:70", "scrub")
    row = next(r for r in rows if (r["forget_set"], r["method"], r["run"]) == ("cluster:70", "scrub", "a"))
    score = c.scores["forget"]
    assert float(row["excess_forget"]) == pytest.approx(score.value - score.floor)
    assert float(row["excess_forget_high"]) == pytest.approx(score.high - score.floor)
    assert (float(row["floor_forget"]), float(row["cost"])) == pytest.approx((score.floor, c.cost))
    json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert [line["verdict"] for line in found.as_json()["lines"]] == [line.verdict for line in found.lines]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_terminal_cuts_it(tmp_path: Path, two: tuple[Record, Record], width: int) -> None:
    found = compared(tmp_path, *two)
    text = comparison_text(found, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    words = " ".join(text.split())
    for line in found.lines:
        assert line.verdict in words
    assert str(found) == comparison_text(found)


def test_the_page_holds_every_number_and_no_code_of_a_record(
    tmp_path: Path, two: tuple[Record, Record], example: ModuleType
) -> None:
    two[0].task["name"] = two[1].task["name"] = example.HOSTILE
    found = compared(tmp_path, *two)
    page = render_comparison(found, tmp_path)
    assert page == render_comparison(found, tmp_path)
    assert example.HOSTILE not in page
    assert page.count("<script") == 2  # data and our script: no figures, so no plotly
    assert "script-src 'sha256-" in page
    assert page.count(">not run<") >= sum(line.verdict == "not run" for line in found.lines)
    assert len(page) < 1e5
    for sentence in found.differences:
        assert sentence.split(";")[0] in page


def test_links_to_pages_cannot_lead_to_code(tmp_path: Path, two: tuple[Record, Record]) -> None:
    for name, record in zip(("javascript:alert(1)", "b"), two, strict=True):
        record.save(tmp_path / name)
        (tmp_path / name / "report.html").write_text("page")
    found = ex.compare(tmp_path / "javascript:alert(1)", str(tmp_path / "b"), out=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert found.runs[0].name in page
    assert 'href="b/report.html"' in page
    assert 'href="javascript%3Aalert%281%29/report.html"' in page


def test_runs_of_one_name_keep_their_paths(tmp_path: Path, two: tuple[Record, Record]) -> None:
    for name, record in zip("xy", two, strict=True):
        record.save(tmp_path / name / "digits")
    found = compare([tmp_path / name / "digits" for name in "xy"])
    assert found.columns == [str(tmp_path / name / "digits") for name in "xy"]


def test_what_is_no_run_is_named(tmp_path: Path, two: tuple[Record, Record]) -> None:
    two[0].save(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="1 run to compare, expected two or more"):
        ex.compare(tmp_path / "a")
    with pytest.raises(InputError, match="one run is named twice"):
        ex.compare(tmp_path / "a", tmp_path / "a" / "record.json")
    with pytest.raises(InputError, match=r"empty holds no run to compare, expected the folder of an audit"):
        ex.compare(tmp_path / "a", tmp_path / "empty")
    with pytest.raises(InputError, match=r"runs\[1\] is an int"):
        ex.compare(tmp_path / "a", 3)  # type: ignore[arg-type]
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "record.json").write_text("{}")
    with pytest.raises(DamagedFileError, match="no schema_version"):
        ex.compare(tmp_path / "a", tmp_path / "b")


def test_the_command(tmp_path: Path, two: tuple[Record, Record], shell: Callable[..., SimpleNamespace]) -> None:
    for name, record in zip("ab", two, strict=True):
        record.save(tmp_path / name)
    done = shell("compare", "a", "b", "--out", "page.html", "--csv", "all.csv", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [run["name"] for run in found["runs"]] == ["a", "b"]
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 1 + len(found["lines"])
    assert "Every number" in (tmp_path / "page.html").read_text()
    done = shell("compare", "a", cwd=tmp_path)
    assert done.returncode == 2
    assert "expected two or more" in done.stderr
