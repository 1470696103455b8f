"""The page says what the record says, holds all it needs, and cannot be made to run what a name contains."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import plotly.graph_objects as go
import pytest

from expunge.core.errors import DamagedFileError, InputError
from expunge.core.record import SPLITS, Record
from expunge.report import draw, numbers, render, wording
from expunge.report.definitions import DEFINITIONS
from expunge.report.headline import headline


class Parsed(HTMLParser):
    """What a browser would find in a page: text, table rows, scripts, elements with their attributes."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.rows: list[str] = []
        self.words: list[str] = []
        self.inside: list[str] = []
        self.feed(source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside.append(tag)
            self.scripts.append((dict(attrs), ""))
        if tag == "tr":
            self.rows.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
            return
        self.words.append(data)
        if self.rows:
            self.rows[-1] = " ".join(f"{self.rows[-1]} {data}".split())


@pytest.fixture(scope="session")
def parsed(drawn: tuple[Record, Path]) -> Parsed:
    return Parsed(drawn[1].read_text())


def payload(source: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="payload">(.*?)</script>', source, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def squeeze(text: str) -> str:
    return " ".join(text.split())


def test_every_verdict_stands_in_a_row_with_its_numbers(drawn: tuple[Record, Path], parsed: Parsed) -> None:
    for forget in drawn[0].forget_sets:
        by_id = {c.id: c for c in forget.configurations}
        for selection in forget.selections:
            c = by_id[selection.chosen]
            wanted = [c.label, c.verdict.name, numbers.percent(c.cost), wording.gap_text(selection)]
            for split in SPLITS:
                score = c.scores[split]
                wanted.append(f"{numbers.number(score.value)} {numbers.number(score.low)}–{numbers.number(score.high)}")
            assert any(all(part in row for part in wanted) for row in parsed.rows), wanted
            assert squeeze(c.verdict.sentence) in parsed.text


def test_most_important_sentence_comes_first(drawn: tuple[Record, Path], parsed: Parsed) -> None:
    record = drawn[0]
    for forget in record.forget_sets:
        words = headline(forget)
        at = parsed.text.index(squeeze(words.sentence))
        assert at < parsed.text.index(squeeze(words.action))
        assert at < parsed.text.index("What the words mean")
    first = parsed.text.index(squeeze(headline(record.forget_sets[0]).sentence))
    assert first < parsed.text.index("Forgetting against keeping")


def test_nothing_to_unlearn_is_said(parsed: Parsed) -> None:
    assert "There is nothing to unlearn" in parsed.text
    assert "nothing to unlearn" in next(row for row in parsed.rows if row.startswith("before any method"))


def test_floor_and_pretrained_are_rows(drawn: tuple[Record, Path], parsed: Parsed) -> None:
    for forget in drawn[0].forget_sets:
        for name, table in (("Pretrained", forget.pretrained), ("Retrained", forget.floor)):
            wanted = [numbers.number(table[split].value) for split in SPLITS]
            assert any(row.startswith(name) and all(part in row for part in wanted) for row in parsed.rows)


def test_doing_nothing_takes_the_place_of_the_pretrained_row(record: Record, example: ModuleType) -> None:
    forget = record.forget_sets[0]
    nothing = next(c for c in forget.configurations if c.method == "do_nothing")
    assert nothing.scores == forget.pretrained
    forget.selections.append(
        forget.selections[0].model_copy(update={"method": "do_nothing", "chosen": nothing.id, "best": nothing.id})
    )
    record.forget_sets = [forget]
    margins = example.example_margins(record, forget)
    margins[f"{nothing.id}/forget"] = margins["pretrained/forget"].copy()
    rows = Parsed(render(record, {forget.name: margins})).rows
    assert [row for row in rows if row.startswith("Do nothing control") and nothing.verdict.name in row]
    assert not [row for row in rows if row.startswith("Pretrained nothing done")]
    assert len([row for row in rows if row.startswith("Pretrained, nothing done")]) == 1
    # Beside the answer, in the verdicts and in the controls; not in the histograms (the same models) or the selection.
    assert len([row for row in rows if row.startswith("Do nothing")]) == 3


def test_checks_selection_facts_and_command_are_there(drawn: tuple[Record, Path], parsed: Parsed) -> None:
    record = drawn[0]
    for forget in record.forget_sets:
        assert all(squeeze(check.detail) in parsed.text for check in forget.checklist)
        assert all(part in parsed.text for s in forget.selections for part in (s.rule, s.objective, *s.edge))
        for c in forget.configurations:
            for check in c.checks:
                own = [
                    k for o in forget.configurations if o.method == c.method for k in o.checks if k.name == check.name
                ]
                count = f"{sum(k.passed for k in own)} of {len(own)}"
                assert any(c.label in r and check.name in r and count in r for r in parsed.rows), (c.label, check.name)
    for ensemble in record.ensembles:
        assert any(row.startswith(squeeze(ensemble.role)) for row in parsed.rows)
    assert record.command in parsed.text
    assert record.task["fingerprint"] in parsed.text
    assert all(note in parsed.text for note in record.notes)
    assert all(term in parsed.text for term, _ in DEFINITIONS)


def test_timing_is_of_what_starts_from_the_pretrained_models(record: Record, parsed: Parsed) -> None:
    source = render(record, {})
    listed = set(re.findall(r'<div class="timing" data-method="([^"]+)"', source))
    methods = {c.method for c in record.forget_sets[0].configurations}
    assert listed == methods - {"do_nothing", "retrain_early"}
    for forget in record.forget_sets:
        forget.configurations = [c for c in forget.configurations if c.method in ("do_nothing", "retrain_early")]
        forget.selections = []
    assert "Over unlearning time" not in Parsed(render(record, {})).text


def test_the_summary_says_what_each_costs(record: Record) -> None:
    chosen = next(c for c in record.forget_sets[1].configurations if c.id == record.forget_sets[1].selections[0].chosen)
    chosen.cost = 1.11
    rows = [row for row in Parsed(render(record, {})).rows if row.startswith(chosen.label)]
    assert f"{chosen.verdict.name} 111 %" in rows[0]


def test_the_answer_comes_before_everything_and_says_when_and_from_what_it_is(record: Record) -> None:
    record.task["fingerprint"] = "0123456789abcdef"
    record.environment = {"expunge": "7.8.9", "packages": {"torch": "1.2.3"}}
    text = Parsed(render(record, {})).text
    top = text.index("The cheapest known way there")
    for forget in record.forget_sets:
        assert top < text.index(squeeze(headline(forget).sentence)) < text.index("All forget sets")
    made = ["2026-03-01", "data 0123456789ab", "expunge 7.8.9, torch 1.2.3"]
    assert all(part in text[:top] for part in made)


def test_one_forget_set_has_its_verdicts_beside_the_answer(record: Record) -> None:
    assert 'class="ladder"' not in render(record, {})
    record.forget_sets = record.forget_sets[:1]
    assert render(record, {}).count('class="ladder"') == 1


def test_a_failed_check_does_not_read_as_the_finding(record: Record) -> None:
    check = record.forget_sets[0].checklist[1]
    check.name, check.passed = "the gap is on F, not on R and V", False
    text = Parsed(render(record, {})).text
    assert f'Before any method ran, 1 check failed. Not so here: "{check.name}".' in text
    assert f"not so: {check.name}" in text


def test_letters_and_terms_are_explained(parsed: Parsed) -> None:
    words = " ".join(text for _, text in DEFINITIONS)
    terms = " ".join(term for term, _ in DEFINITIONS)
    for term in ("(F)", "(R)", "(V)", "Excess", "Lemma 1"):
        assert term in terms
    for term in ("P95", "nats (", "msteps", "lr is"):
        assert term in words
    assert "F, R, V" not in parsed.text
    assert not re.search(r"[0-9] sd\b", re.sub(r"margins [+-][0-9.]+ sd from oracles", "", parsed.text))


def test_the_condition_for_identical_numbers_is_said(parsed: Parsed) -> None:
    again = parsed.text[parsed.text.index("Run it again") :]
    assert "last digit" in again
    assert "--chunk" in again


def test_failed_check_stands_beside_its_score(record: Record) -> None:
    forget = record.forget_sets[0]
    chosen = next(c for c in forget.configurations if c.id == forget.selections[0].chosen)
    chosen.checks[0].passed = False
    chosen.checks[0].name = "weights moved, my own name"
    rows = Parsed(render(record, {})).rows
    row = next(r for r in rows if r.startswith(chosen.label) and numbers.number(chosen.scores["forget"].value) in r)
    assert "check failed: weights moved, my own name" in row


def test_every_configuration_is_a_dot_at_its_scores(drawn: tuple[Record, Path]) -> None:
    data = payload(drawn[1].read_text())
    for i, forget in enumerate(drawn[0].forget_sets):
        for other in ("validation", "retain"):
            figure = data["figures"][f"{i}-plane-{other}"]
            dots = {
                position: (x, y)
                for trace in figure["data"]
                if (trace.get("meta") or {}).get("method")
                for position, x, y in zip(trace["customdata"], trace["x"], trace["y"], strict=True)
            }
            assert sorted(dots) == list(range(len(forget.configurations)))
            for position, c in enumerate(forget.configurations):
                expected = (c.scores[other].value, c.scores["forget"].value)
                for seen, true, axis in zip(dots[position], expected, ("xaxis", "yaxis"), strict=True):
                    if math.isfinite(true):
                        assert seen == pytest.approx(true, rel=1e-3)
                    else:
                        assert 10 ** figure["ranges"][axis]["log"][1] > seen > 0.9 * figure["ranges"][axis]["linear"][1]
                assert c.label in data["hover"][str(i)][position][0].replace("&lt;", "<")


def test_figures_are_valid_plotly(drawn: tuple[Record, Path]) -> None:
    # A place on the colour scale is our own notation, which the script replaces before plotly sees it.
    found = re.sub(r'"cost\([01]\.\d+\)"', '"var(--cost-1)"', json.dumps(payload(drawn[1].read_text())["figures"]))
    for figure in json.loads(found).values():
        go.Figure({"data": figure["data"], "layout": figure["layout"]})


def test_table_holds_every_configuration(drawn: tuple[Record, Path]) -> None:
    data = payload(drawn[1].read_text())
    for i, forget in enumerate(drawn[0].forget_sets):
        table = data["tables"][str(i)]
        assert [row[table["columns"].index("id")] for row in table["rows"]] == [c.id for c in forget.configurations]
        at = table["columns"].index("forget")
        for row, c in zip(table["rows"], forget.configurations, strict=True):
            value = c.scores["forget"].value
            assert row[at] == (pytest.approx(value, rel=1e-3) if math.isfinite(value) else "infinite")


def test_a_name_cannot_become_code(drawn: tuple[Record, Path], parsed: Parsed, example: ModuleType) -> None:
    assert example.HOSTILE in parsed.text
    assert all(tag != "img" for tag, _ in parsed.elements)
    assert all(not name.startswith("on") for _, attributes in parsed.elements for name in attributes)
    assert len([1 for tag, _ in parsed.elements if tag == "script"]) == 3
    assert "<img" not in json.dumps(payload(drawn[1].read_text())["hover"])


@pytest.mark.parametrize(
    "name", ["</script><script>alert(1)</script>", "{{ 7 * 7 }}", "%{x}<b>", "a & b \" ' `", "\u2028"]
)
def test_hostile_names_arrive_as_they_are(record: Record, name: str) -> None:
    record.task["name"] = name
    record.notes = [name]
    for forget in record.forget_sets:
        forget.name = forget.how = name
        for c in forget.configurations:
            c.label = name
            c.options = {name: name}
    source = render(record, {})
    parsed = Parsed(source)
    assert squeeze(name) in parsed.text
    assert "49" not in Parsed(source.replace("1,437", "")).text.split("Notes")[1][:20]
    assert len([1 for tag, _ in parsed.elements if tag == "script"]) == 3
    assert payload(source)["tables"]["0"]["rows"][0][0].startswith(name)


def test_nothing_is_loaded_and_only_our_scripts_run(drawn: tuple[Record, Path], parsed: Parsed) -> None:
    for tag, attributes in parsed.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert "@import" not in drawn[1].read_text().split("</style>")[0]
    assert "url(" not in drawn[1].read_text().split("</style>")[0]
    policy = next(a["content"] for t, a in parsed.elements if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    executed = [text for attributes, text in parsed.scripts if not attributes][-2:]
    for text in executed:
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
    assert "unsafe-inline" not in policy.split("script-src")[1]


def test_same_record_same_bytes(drawn: tuple[Record, Path]) -> None:
    before = drawn[1].read_bytes()
    assert draw(drawn[1].parent) == drawn[1]
    assert drawn[1].read_bytes() == before
    assert draw(drawn[1].parent / "record.json") == drawn[1]


def test_fifteen_hundred_configurations_stay_small(record: Record) -> None:
    forget = record.forget_sets[0]
    forget.configurations = [
        c.model_copy(update={"id": f"{c.id}#{i}", "run": f"{c.run}#{i}"})
        for i in range(1 + 1500 // len(forget.configurations))
        for c in forget.configurations
    ][:1500]
    record.forget_sets = [forget]
    source = render(record, {})
    assert len(source) < 8_000_000
    assert (
        sum(len(t["x"]) for t in payload(source)["figures"]["0-plane-retain"]["data"] if "method" in t.get("meta", {}))
        == 1500
    )


def test_no_record(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"record\.json does not exist, expected the folder of a finished run"):
        draw(tmp_path)


@pytest.mark.parametrize("content", ["{", '{"schema_version": 99}', "[]", '{"schema_version": 1}', "\x00"])
def test_damaged_record(tmp_path: Path, content: str) -> None:
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(DamagedFileError, match=r"record\.json"):
        draw(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_complete_record_without_margins_is_refused(tmp_path: Path, record: Record) -> None:
    record.save(tmp_path)
    with pytest.raises(InputError, match="incomplete"):
        draw(tmp_path)


def test_damaged_margins(tmp_path: Path, record: Record, example: ModuleType) -> None:
    example.write_example(tmp_path, record)
    path = tmp_path / record.forget_sets[1].margins
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DamagedFileError, match=path.name):
        draw(tmp_path)


def test_running_record_without_margins(tmp_path: Path, record: Record) -> None:
    record.status = "running"
    record.forget_sets[0].configurations = []
    record.forget_sets[0].selections = []
    record.save(tmp_path)
    parsed = Parsed(draw(tmp_path).read_text())
    assert "Not complete" in parsed.text
    assert "No method has been chosen and judged for this forget set yet." in parsed.text
    assert "The margins have not been written yet." in parsed.text


def test_empty_record(tmp_path: Path) -> None:
    record = Record(
        study="audit",
        status="running",
        started="2026-01-01T00:00:00Z",
        seconds=0,
        command="expunge audit",
        request={},
        environment={},
        task={},
        members=5,
        tolerance=0.1,
    )
    record.save(tmp_path)
    parsed = Parsed(draw(tmp_path).read_text())
    assert "No result yet." in parsed.text
    assert "unnamed task" in parsed.text


def test_missing_parts_of_a_record_do_not_break_the_page(record: Record) -> None:
    forget = record.forget_sets[0]
    forget.selections = forget.selections[:1]
    forget.selections[0].best = "a configuration that is not on record"
    for c in forget.configurations:
        c.scores.pop("retain")
        c.public.clear()
        c.calibration = None
    forget.floor.pop("retain")
    forget.worst = []
    record.ensembles = []
    parsed = Parsed(render(record, {forget.name: {}}))
    assert "not on record: a configuration that is not on record" in parsed.text
    assert "not scored" in parsed.text
    # A method with configurations and no selection is named, not left out.
    assert any("tried, none chosen" in row and "SCRUB" in row for row in parsed.rows)


def test_not_a_number_is_written_in_words(record: Record) -> None:
    forget = record.forget_sets[0]
    c = next(c for c in forget.configurations if c.id == forget.selections[0].chosen)
    c.scores = {
        split: type(s)(**{**s.__dict__, "value": math.nan, "low": math.nan, "high": math.inf})
        for split, s in c.scores.items()
    }
    source = render(record, {})
    row = next(r for r in Parsed(source).rows if r.startswith(c.label) and "not a number" in r)
    assert "infinite" in row
    assert not re.search(r"\b(nan|inf)\b", Parsed(source).text)
    payload(source)


def test_failed_training_is_on_top(record: Record) -> None:
    record.ensembles[1].failed = 3
    text = Parsed(render(record, {})).text
    assert text.index("no verdict below is safe") < text.index("All forget sets")


def test_templates_are_part_of_the_package() -> None:
    folder = resources.files("expunge.report") / "templates"
    assert {"page.html.j2", "panel.html.j2", "parts.html.j2", "style.css", "script.js"} <= {
        f.name for f in folder.iterdir()
    }
