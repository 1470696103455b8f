"""A run in MLflow: one entry a method and forget set, the page and the record, once; without MLflow a clear word."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from expunge.core import InputError
from expunge.core.forecast import ForecastRun
from expunge.core.record import Record
from expunge.report import draw, draw_forecast
from expunge.report.mlflow_log import DIGEST, log


class Client:
    """What is used of `mlflow.MlflowClient`, with its limits."""

    def __init__(self, tracking_uri: str | None = None) -> None:
        self.uri = tracking_uri

    experiments: ClassVar[dict[str, str]] = {}
    runs: ClassVar[dict[str, SimpleNamespace]] = {}

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name: str) -> str:
        self.experiments[name] = str(len(self.experiments))
        return self.experiments[name]

    def create_run(self, experiment: str, run_name: str, tags: Any = None, start_time: Any = None) -> SimpleNamespace:
        key = f"run-{len(self.runs)}"
        own = {
            "name": run_name,
            "tags": dict(tags or {}),
            "params": {},
            "metrics": {},
            "files": [],
            "status": "RUNNING",
        }
        self.runs[key] = SimpleNamespace(info=SimpleNamespace(run_id=key, experiment_id=experiment), **own)
        return self.runs[key]

    def log_batch(self, run: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        assert max(len(metrics), len(params), len(tags)) <= 100
        for kind, items in (("metrics", metrics), ("params", params), ("tags", tags)):
            for key, value in items:
                assert kind == "metrics" or (isinstance(value, str) and len(value) <= 8000)
                getattr(self.runs[run], kind)[key] = value

    def log_artifact(self, run: str, path: str) -> None:
        self.runs[run].files.append(Path(path).name)

    def set_terminated(self, run: str, status: str = "FINISHED", end_time: Any = None) -> None:
        self.runs[run].status = status

    def search_runs(self, experiments: list[str], text: str, max_results: int) -> list[SimpleNamespace]:
        digest = text.split("'")[1]
        done = [run for run in self.runs.values() if run.tags.get(DIGEST) == digest and run.status == "FINISHED"]
        return [run for run in done if run.info.experiment_id in experiments][:max_results]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> type[Client]:
    """A stand-in for MLflow, and its runs."""
    client = type("FreshClient", (Client,), {"experiments": {}, "runs": {}})
    entities = ModuleType("mlflow.entities")
    vars(entities).update(Metric=lambda k, v, at, step: (k, v), Param=lambda k, v: (k, v), RunTag=lambda k, v: (k, v))
    mlflow = ModuleType("mlflow")
    vars(mlflow).update(entities=entities, MlflowClient=client, get_tracking_uri=lambda: "file:mlruns")
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return client


def test_an_audit_is_a_run_with_one_below_for_each_method(drawn: tuple[Record, Path], store: type[Client]) -> None:
    record, page = drawn
    there = log(record, page.parent, page)
    assert (there.experiment, there.store, there.earlier) == ("expunge digits", "file:mlruns", False)
    whole = store.runs[there.run]
    assert whole.files == ["report.html", "record.json"]
    assert whole.tags[DIGEST] == hashlib.sha256((page.parent / "record.json").read_bytes()).hexdigest()
    assert (whole.params["members"], whole.params["tolerance"]) == ("100", "0.15")
    assert whole.params["task.recipe.epochs"] == "30"
    assert {run.status for run in store.runs.values()} == {"FINISHED"}

    below = {run.name: run for run in store.runs.values() if run.tags.get("mlflow.parentRunId") == there.run}
    assert len(below) == len(store.runs) - 1
    forget = record.forget_sets[0]
    c = next(c for c in forget.configurations if c.id == forget.selections[0].chosen)
    run, score = below[f"{c.label} on {forget.name}"], c.scores["forget"]
    assert run.tags["verdict"] == c.verdict.name
    assert (run.tags["forget_set"], run.tags["method"]) == (forget.name, c.method)
    assert {key: run.metrics[key] for key in ("klom_forget", "klom_forget_low", "klom_forget_high")} == {
        "klom_forget": score.value,
        "klom_forget_low": score.low,
        "klom_forget_high": score.high,
    }
    assert run.metrics["floor_forget"] == score.floor
    assert run.metrics["excess_forget"] == pytest.approx(score.value - score.floor)
    assert (run.metrics["cost"], run.params["epoch"]) == (c.cost, str(c.epoch))
    assert below[f"floor on {forget.name}"].metrics["klom_forget"] == forget.floor["forget"].value


def test_a_record_is_logged_once(drawn: tuple[Record, Path], store: type[Client]) -> None:
    record, page = drawn
    first = log(record, page.parent, page, "sqlite:///x.db")
    count = len(store.runs)
    again = log(record, page.parent, page, "sqlite:///x.db")
    assert (again.run, again.earlier, again.store, len(store.runs)) == (first.run, True, "sqlite:///x.db", count)


def test_what_breaks_on_the_way_is_not_taken_for_done(
    drawn: tuple[Record, Path], store: type[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    record, page = drawn

    def full(self: Client, run: str, path: str) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(store, "log_artifact", full)
        with pytest.raises(InputError, match=r"MLflow did not take it \(it said: OSError: no space left"):
            log(record, page.parent, page)
    assert next(iter(store.runs.values())).status == "FAILED"
    assert not log(record, page.parent, page).earlier


def test_forecasts_are_logged_and_what_is_not_finished_is_not(
    forecasts: ModuleType, tmp_path: Path, store: type[Client]
) -> None:
    run = forecasts.write_run(tmp_path / "f")
    page = draw_forecast(tmp_path / "f")
    log(ForecastRun.load(tmp_path / "f"), tmp_path / "f", page)
    best = run.forget_sets[0].forecast.methods[0]
    found = next(r for r in store.runs.values() if r.name == f"{best.label} on {run.forget_sets[0].name}")
    assert found.tags["outlook"] == best.outlook
    assert found.metrics["predicted_excess_forget"] == best.best.excess["forget"]
    run.status = "running"
    with pytest.raises(InputError, match="is not finished"):
        log(run, tmp_path / "f", page)


def test_the_command_names_the_extra(
    drawn: tuple[Record, Path],
    shell: Callable[..., SimpleNamespace],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    store: type[Client],
) -> None:
    done = shell("report", str(drawn[1].parent), "--mlflow", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "MLflow: logged, run run-0 of 'expunge digits' in file:mlruns" in done.stdout
    monkeypatch.setitem(sys.modules, "mlflow", None)
    done = shell("report", str(drawn[1].parent), "--mlflow", cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install 'expunge[mlflow]'" in done.stderr
    (tmp_path / "theory.json").write_text("{}")
    done = shell("report", str(tmp_path), "--mlflow", cwd=tmp_path)
    assert "logs an audit or a forecast" in done.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_itself_takes_it(example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    record = example.example_record(members=40, epochs=2)
    example.write_example(tmp_path / "run", record)
    page, uri = draw(tmp_path / "run"), f"sqlite:///{tmp_path}/m.db"
    there = log(record, tmp_path / "run", page, uri)
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(there.experiment).experiment_id
    name = record.forget_sets[0].name
    c = next(c for c in record.forget_sets[0].configurations if c.id == record.forget_sets[0].selections[0].chosen)
    run = client.search_runs([experiment], f"tags.forget_set = '{name}' and tags.method = '{c.method}'")[0]
    assert run.data.tags["verdict"] == c.verdict.name
    assert run.data.metrics["klom_forget"] == pytest.approx(c.scores["forget"].value)
    assert {f.path for f in client.list_artifacts(there.run)} == {"report.html", "record.json"}
    assert log(record, tmp_path / "run", page, uri).earlier
