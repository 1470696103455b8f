"""The page of a forecast, and forecast beside outcome on the page of an audit: they say what the records say."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from rich.console import Console
from scipy.stats import spearmanr

from expunge.core.errors import DamagedFileError, InputError
from expunge.core.forecast import ForecastRun
from expunge.core.record import SPLITS, ForgetRecord, Record
from expunge.report import draw_forecast, numbers, print_forecast, print_table, render, render_forecast
from expunge.report.forecast_words import forecast_headline
from expunge.report.outcome import _rank_correlation, outcome, outcome_sentence, paired

HOSTILE = '</script><img src=x onerror="document.title=`owned`">'


def text_of(source: str) -> str:
    """The words of a page."""
    body = re.sub(r"<(script|style)[^>]*>.*?</\1>", " ", source, flags=re.DOTALL)
    words = re.sub(r"<[^>]+>", " ", body)
    return " ".join(words.replace("&lt;", "<").replace("&gt;", ">").replace("&#34;", '"').replace("&amp;", "&").split())


def payload(source: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="payload">(.*?)</script>', source, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, forecasts: ModuleType) -> tuple[ForecastRun, Path]:
    folder = tmp_path_factory.mktemp("forecast")
    run = forecasts.write_run(folder)
    return run, draw_forecast(folder)


def test_advice_comes_first_and_whole(page: tuple[ForecastRun, Path]) -> None:
    text = text_of(page[1].read_text())
    for item in page[0].forget_sets:
        words = forecast_headline(item.forecast)
        at = text.index(words.sentence)
        assert at < text.index(words.action, at) < text.index("What the words mean")
        assert all(sentence in text for sentence in item.forecast.advice[1:])
    assert text.index("Retrain, or match predicted margins.") < text.index("Where each method is predicted to go")
    assert "nothing has been retrained or unlearned" in text


@pytest.mark.parametrize(
    ("first", "outlooks", "tone"),
    [
        ("Retrain: it is 0.9 nats off.", ("breaks first", "cannot forget"), "bad"),
        ("Retrain: it is 0.4 nats off.", ("breaks first", "partly"), "open"),
        ("SCRUB can work: scrub/lr=0.1 is near.", ("breaks first", "can work"), "good"),
        ("Nothing to unlearn: it is the same already.", ("nothing to unlearn", "nothing to unlearn"), "empty"),
    ],
)
def test_tone_follows_the_outlooks(forecasts: ModuleType, first: str, outlooks: Any, tone: str) -> None:
    words = forecast_headline(forecasts.forecast_record(first, outlooks))
    assert words.tone == tone
    assert words.sentence == first.split(":")[0] + "."
    assert words.action[1:] == first.split(": ")[1][1:]


def test_a_method_as_dear_as_retraining_is_not_good_news(forecasts: ModuleType) -> None:
    record = forecasts.forecast_record("Retrain: SCRUB can work, but is no cheaper.", ("breaks first", "can work"))
    record.methods[1].best.cost = 1.1
    assert forecast_headline(record).tone == "open"


def test_every_number_of_a_method_stands_in_its_row(page: tuple[ForecastRun, Path]) -> None:
    rows = [text_of(row) for row in re.findall(r"<tr.*?</tr>", page[1].read_text(), re.DOTALL)]
    for item in page[0].forget_sets:
        for method in item.forecast.methods:
            wanted = [method.label, method.outlook, numbers.percent(method.best.cost), numbers.number(method.objective)]
            wanted += [numbers.number(method.best.excess[split]) for split in SPLITS]
            wanted.append("never there" if method.damage is None else "0.46")
            assert any(all(part in row for part in wanted) for row in rows), wanted
        for measure in item.forecast.measures:
            assert any(measure.description in row and numbers.number(measure.value) in row for row in rows)
        for split in SPLITS:
            assert any(row.startswith(split) and numbers.signed(item.forecast.removal[split]) in row for row in rows)
        assert all(note in text_of(page[1].read_text()) for note in item.forecast.notes)
    assert page[0].command in text_of(page[1].read_text())


def test_every_predicted_point_is_a_mark_at_its_scores(page: tuple[ForecastRun, Path]) -> None:
    data = payload(page[1].read_text())
    for i, item in enumerate(page[0].forget_sets):
        points = [p for method in item.forecast.methods for p in method.path]
        assert len(data["hover"][str(i)]) == len(points)
        for other in ("validation", "retain"):
            figure = data["figures"][f"{i}-plane-{other}"]
            marks = {
                position: (x, y)
                for trace in figure["data"]
                if trace["mode"] == "markers" and isinstance((trace.get("customdata") or [[]])[0], int)
                for position, x, y in zip(trace["customdata"], trace["x"], trace["y"], strict=True)
            }
            assert sorted(marks) == list(range(len(points)))
            for position, p in enumerate(points):
                assert marks[position] == pytest.approx((p.excess[other], p.excess["forget"]), rel=1e-3)
        for split in ("forget", "validation"):
            lines = data["figures"][f"{i}-time-{split}"]["data"]
            assert len(lines) == len({p.run for p in points})
            assert all(line["x"][0] == 0 for line in lines)


def test_epochs_are_whole_ticks(page: tuple[ForecastRun, Path]) -> None:
    figures = payload(page[1].read_text())["figures"]
    assert figures["0-time-forget"]["layout"]["xaxis"]["dtick"] == 1


def test_letters_are_explained(page: tuple[ForecastRun, Path]) -> None:
    text = text_of(page[1].read_text())
    assert "Forget set (F), retain set (R), validation (V)" in text
    assert "lr is the learning rate" in text


def test_histogram_counts_every_example(page: tuple[ForecastRun, Path], forecasts: ModuleType) -> None:
    bars = payload(page[1].read_text())["figures"]["0-change"]["data"]
    assert {bar["name"].split(" ")[0] for bar in bars} == set(SPLITS)
    margins = forecasts.example_margins(page[0].forget_sets[0])
    for bar in bars:
        assert sum(bar["y"]) == pytest.approx(1.0, abs=5e-3)
        split = bar["name"].split(" ")[0]
        mean = float((margins[f"predicted/{split}"] - margins[f"pretrained/{split}"]).mean())
        assert np.dot(bar["x"], bar["y"]) == pytest.approx(mean, abs=bar["width"])


def test_figures_are_valid_plotly(page: tuple[ForecastRun, Path]) -> None:
    found = re.sub(r'"cost\([01]\.\d+\)"', '"var(--cost-1)"', json.dumps(payload(page[1].read_text())["figures"]))
    for figure in json.loads(found).values():
        go.Figure({"data": figure["data"], "layout": figure["layout"]})


def test_nothing_is_loaded_and_only_our_scripts_run(page: tuple[ForecastRun, Path]) -> None:
    source = page[1].read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', source)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'")
    assert "unsafe-inline" not in policy[1].split("script-src")[1]
    scripts = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy[1]
    body = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", source, flags=re.DOTALL)
    assert not re.search(r"\ssrc=|<link|<iframe|@import|href=\"(?!#)", body)


def test_a_name_cannot_become_code(forecasts: ModuleType) -> None:
    run = forecasts.example_run(HOSTILE)
    for item in run.forget_sets:
        item.name = item.how = HOSTILE
        item.forecast.advice = [HOSTILE, HOSTILE]
        item.forecast.measures[0].name = item.forecast.measures[0].description = HOSTILE
        for method in item.forecast.methods:
            method.label = HOSTILE
    source = render_forecast(run, {})
    assert "<img" not in source.replace("\\u003cimg", "")
    assert len(re.findall(r"<script", re.sub(r"<script>.*?</script>", "<script>", source, flags=re.DOTALL))) == 3
    assert HOSTILE in text_of(source)
    assert "<img" not in json.dumps(payload(source)["hover"])


def test_same_record_same_bytes(page: tuple[ForecastRun, Path]) -> None:
    before = page[1].read_bytes()
    assert draw_forecast(page[1].parent).read_bytes() == before
    assert draw_forecast(page[1].parent / "forecast.json").read_bytes() == before


def test_running_and_empty_runs(tmp_path: Path, forecasts: ModuleType) -> None:
    run = forecasts.example_run(sets=0)
    run.status = "running"
    run.save(tmp_path)
    text = text_of(draw_forecast(tmp_path).read_text())
    assert "Not complete." in text
    assert "No result yet." in text
    bare = forecasts.example_run(sets=1)
    bare.forget_sets[0].forecast.methods = []
    bare.forget_sets[0].forecast.measures = []
    text = text_of(render_forecast(bare, {}))
    assert "No method was forecast." in text
    assert "Where each method is predicted to go" not in text
    assert "The margins have not been written yet." in text


def test_missing_and_damaged_files_are_named(tmp_path: Path, forecasts: ModuleType) -> None:
    with pytest.raises(InputError, match=r"forecast\.json does not exist"):
        draw_forecast(tmp_path)
    run = forecasts.write_run(tmp_path)
    arrays = tmp_path / run.forget_sets[1].margins
    arrays.write_bytes(arrays.read_bytes()[:-8])
    with pytest.raises(DamagedFileError, match=arrays.name):
        draw_forecast(tmp_path)
    arrays.unlink()
    with pytest.raises(InputError, match=arrays.name):
        draw_forecast(tmp_path)
    assert not (tmp_path / "forecast.html").exists()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_terminal_says_the_same(forecasts: ModuleType, width: int) -> None:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    run = forecasts.example_run()
    print_forecast(run, console)
    console.file.close()
    text = " ".join(console.export_text().split())
    for item in run.forget_sets:
        assert " ".join(item.forecast.advice[1].split()) in text
        for method in item.forecast.methods:
            assert numbers.number(method.best.excess["forget"]) in text
    assert text.index("Retrain, or match predicted margins.") < text.index("breaks first")
    assert ("predicted best setting" in text) == (width >= 132) or width < 132


# Forecast beside outcome, on the page of an audit.


@pytest.fixture
def forecast_audit(record: Record, forecasts: ModuleType) -> Record:
    forecasts.add_forecasts(record)
    return record


def objectives(forget: ForgetRecord) -> tuple[list[float], list[float]]:
    """Worst predicted and measured excess, by a slow obvious loop."""
    predicted, measured = [], []
    for c in forget.configurations:
        for method in forget.forecast.methods if forget.forecast else []:
            for point in method.path:
                if (point.run, point.epoch) == (c.run, c.epoch):
                    predicted.append(max(point.excess.values()))
                    measured.append(max(score.excess for score in c.scores.values()))
    return predicted, measured


def test_configurations_and_points_meet_by_run_and_epoch(forecast_audit: Record) -> None:
    for forget in forecast_audit.forget_sets:
        predicted, measured = objectives(forget)
        pairs = paired(forget)
        assert [pair.values(None) for pair in pairs] == list(zip(predicted, measured, strict=True))
        assert len(pairs) == sum(len(method.path) for method in forget.forecast.methods)
        found = outcome(forget, None)
        assert found is not None
        assert found.correlations[0][1] == pytest.approx(spearmanr(predicted, measured).statistic)
        assert f"rank correlation {found.correlations[0][1]:.2f}" in found.sentence
        assert found.removal is None


def test_rank_correlation_against_scipy_with_ties_and_infinities() -> None:
    noise = np.random.default_rng(0)
    a = np.round(noise.normal(size=60), 1)
    b = np.where(noise.uniform(size=60) < 0.2, np.inf, a + noise.normal(size=60))
    assert _rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert _rank_correlation(a, np.full(60, 2.0)) is None
    assert _rank_correlation(a[:4], b[:4]) is None


def test_outcome_stands_in_the_report(forecast_audit: Record, example: ModuleType) -> None:
    margins = {}
    for forget in forecast_audit.forget_sets:
        own = example.example_margins(forecast_audit, forget)
        # A prediction of the oracles that is right on average over members, but for a factor of 0.8.
        change = own["oracle/forget"].mean(0) - own["pretrained/forget"].mean(0)
        own["forecast/forget"] = (own["pretrained/forget"] + 0.8 * change).astype(np.float32)
        margins[forget.name] = own
    source = render(forecast_audit, margins)
    text = text_of(source)
    data = payload(source)
    for i, forget in enumerate(forecast_audit.forget_sets):
        assert all(sentence in text for sentence in forget.forecast.advice)
        assert outcome_sentence(forget) in text
        figure = data["figures"][f"{i}-outcome"]
        dots = [d for trace in figure["data"] if trace["mode"] == "markers" for d in trace["customdata"]]
        wanted = {(p.run, p.epoch) for method in forget.forecast.methods for p in method.path}
        assert {(forget.configurations[d].run, forget.configurations[d].epoch) for d in dots} == wanted
        colours = {trace["marker"]["color"] for trace in figure["data"] if trace["mode"] == "markers"}
        assert len(colours) == len({method.method for method in forget.forecast.methods})
        changes = data["figures"][f"{i}-changes"]["data"][1]
        assert np.array(changes["x"]) == pytest.approx(0.8 * np.array(changes["y"]), rel=2e-2, abs=1e-3)
        found = outcome(forget, margins[forget.name])
        assert found is not None
        assert found.removal is not None
        assert found.removal[0] == pytest.approx(0.8 * found.removal[1], rel=1e-3)
        assert found.removal[2] == pytest.approx(1.0)
    for figure in data["figures"].values():
        go.Figure(
            json.loads(re.sub(r'"cost\([01]\.\d+\)"', '"red"', json.dumps({k: figure[k] for k in ("data", "layout")})))
        )
    assert "not independent, so no interval is given" in text


def test_realised_outlook_follows_the_measurements(forecast_audit: Record) -> None:
    """The first example set is solved by no method, the third has nothing to unlearn."""
    first, _, third = (outcome(forget, None) for forget in forecast_audit.forget_sets)
    assert first is not None
    assert third is not None
    for found, forget in ((first, forecast_audit.forget_sets[0]), (third, forecast_audit.forget_sets[2])):
        nothing = max(score.excess for score in forget.pretrained.values())
        for method in found.methods:
            if nothing <= forget.forecast.tolerance:
                assert method.realised == "nothing to unlearn"
            elif min(method.best, nothing) <= forget.forecast.tolerance:
                assert method.realised == "can work"
            else:
                assert method.realised in ("partly", "breaks first", "cannot forget")
            assert method.there is not None
            assert method.best <= method.there + 1e-12
            assert method.chosen is None or method.best <= method.chosen


def test_audits_without_a_forecast_are_as_before(record: Record, example: ModuleType) -> None:
    source = render(record, {record.forget_sets[0].name: example.example_margins(record, record.forget_sets[0])})
    assert "What was forecast" not in source
    assert not [key for key in payload(source)["figures"] if key.endswith(("-outcome", "-changes"))]


def test_terminal_has_one_line_on_the_forecast(forecast_audit: Record) -> None:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_table(forecast_audit, console)
    console.file.close()
    lines = [line for line in console.export_text().splitlines() if line.startswith("Forecast beforehand: Retrain.")]
    assert len(lines) == len(forecast_audit.forget_sets)
