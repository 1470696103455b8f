"""A run in MLflow: a run of its own with the page, and below it one for each method on each forget set.

Everything is read from the record and the page, so that a run can be logged long after it ended. Where it goes is
MLflow's own choice: a local file, unless MLFLOW_TRACKING_URI, or `uri`, names another store; the experiment is named by
MLFLOW_EXPERIMENT_NAME, or after the task.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from expunge.core.errors import InputError, told
from expunge.core.forecast import ForecastRun
from expunge.core.passing import failed_checks
from expunge.core.record import Record
from expunge.core.result import Result
from expunge.report import wording
from expunge.report.html import flat

DIGEST = "expunge.record"
"""Tag by which a record that was logged already is known."""

LONGEST = 500
"""Characters of a parameter that every version of MLflow takes."""

AT_ONCE = 100
"""Parameters, metrics or tags in one request: the most that MLflow takes."""


@dataclass(frozen=True)
class Logged:
    """Where a run was logged."""

    experiment: str
    run: str
    """Id of the run that holds the page."""
    store: str
    earlier: bool
    """Whether it was there already, so that nothing was written."""


@dataclass(frozen=True)
class Entry:
    """One MLflow run: a method on a forget set, or the whole."""

    name: str
    tags: Mapping[str, str]
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]


def log(record: Record | ForecastRun, folder: Path, page: Path, uri: str | None = None) -> Logged:
    """Log a finished audit or forecast; one that is there already is left as it is.

    Args:
        record: Of the run.
        folder: Where it is.
        page: Its page, which is kept with the record.
        uri: MLflow's tracking store, such as `sqlite:///mlflow.db` or `http://localhost:5000`; None for MLflow's own
            choice.

    Raises:
        InputError: If MLflow is not installed or does not do it, or the run is not finished.
    """
    if record.status != "complete":
        raise InputError(f"{folder} is not finished, expected a finished run to log; go on with it by --resume.")
    try:
        # What a run holds is nobody else's business: nothing is reported to MLflow's makers unless a user says so.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow
        from mlflow.entities import Metric, Param, RunTag
    except ImportError as error:
        raise InputError(
            f"MLflow is not installed ({error}), expected it for logging; pip install 'expunge[mlflow]'."
        ) from error
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or f"expunge {record.task.get('name') or 'task'}"
        found = client.get_experiment_by_name(name)
        experiment = client.create_experiment(name) if found is None else found.experiment_id
        digest = hashlib.sha256((folder / record.FILE).read_bytes()).hexdigest()
        store = uri or mlflow.get_tracking_uri()
        there = client.search_runs(
            [experiment], f"tags.`{DIGEST}` = '{digest}' and attributes.status = 'FINISHED'", max_results=1
        )
        if there:
            return Logged(name, there[0].info.run_id, store, earlier=True)
        start = _milliseconds(record.started)
        times = {"start_time": start}
        end = None if start is None else start + int(1000 * record.seconds)
        whole = client.create_run(experiment, run_name=f"{record.KIND} {folder.resolve().name}", **times).info.run_id
        try:
            for entry in (_whole(record), *_parts(record)):
                run = whole
                if entry.name:
                    below = {"mlflow.parentRunId": whole}
                    run = client.create_run(experiment, run_name=entry.name, tags=below, **times).info.run_id
                at = start or 0
                _send(client, run, metrics=[Metric(k, v, at, 0) for k, v in entry.metrics.items()])
                _send(client, run, params=[Param(k, v[:LONGEST]) for k, v in entry.parameters.items() if v])
                _send(client, run, tags=[RunTag(k, v) for k, v in entry.tags.items() if v])
                if entry.name:
                    client.set_terminated(run, end_time=end)
            for file in (page, folder / record.FILE):
                client.log_artifact(whole, str(file))
            _send(client, whole, tags=[RunTag(DIGEST, digest)])
        except BaseException:
            client.set_terminated(whole, "FAILED")
            raise
        client.set_terminated(whole, end_time=end)
    except Exception as error:
        raise InputError(f"MLflow did not take it (it said: {told(error)}); look at MLFLOW_TRACKING_URI.") from error
    return Logged(name, whole, store, earlier=False)


def _whole(record: Record | ForecastRun) -> Entry:
    """Return what a run as a whole was asked, on what, and by which versions."""
    parameters = {"members": str(record.members), "tolerance": f"{record.tolerance:g}"}
    parts = {"task": record.task, "request": record.request, "environment": record.environment}
    for name, part in parts.items():
        parameters |= {f"{name}.{key}": text for key, text in flat(part)}
    parameters.pop("task.architecture", None)
    return Entry("", {"kind": record.KIND, "command": record.command}, parameters, {"seconds": record.seconds})


def _parts(record: Record | ForecastRun) -> Iterator[Entry]:
    """Yield what was found of each method on each forget set: at its chosen setting, or its predicted best one."""
    if isinstance(record, ForecastRun):
        for item in record.forget_sets:
            for m in item.forecast.methods:
                tags = {"forget_set": item.name, "method": m.method, "outlook": m.outlook, "control": str(m.control)}
                metrics = {"cost": m.best.cost} | {f"predicted_excess_{s}": v for s, v in m.best.excess.items()}
                settings = {"setting": m.best.run, "epoch": str(m.best.epoch)}
                yield Entry(f"{m.label} on {item.name}", tags, settings, _numbers(metrics))
        return
    for forget in record.forget_sets:
        for name, scores in (("floor", forget.floor), ("pretrained", forget.pretrained)):
            yield Entry(f"{name} on {forget.name}", {"forget_set": forget.name, "method": name}, {}, _scores(scores))
        for row in wording.rows(forget):
            c = row.chosen
            if c is None:
                continue
            tags = {
                "forget_set": forget.name,
                "method": row.method,
                "verdict": c.verdict.name,
                "control": str(row.control),
                "failed checks": ", ".join(failed_checks(c)),
            }
            settings = {**dict(flat(c.options)), "epoch": str(c.epoch), "statistics": c.statistics}
            metrics = {"cost": c.cost, "failed_members": float(c.failed)}
            metrics |= {f"accuracy_{split}": value for split, value in c.accuracy.items()}
            if row.selection is not None:
                metrics["illusion_gap"] = row.selection.illusion_gap
            found = {**_scores(c.scores), **_numbers(metrics)}
            yield Entry(f"{row.label} on {forget.name}", tags, settings, found)


def _scores(scores: Mapping[Any, Result]) -> dict[str, float]:
    """Return KLoM with its interval, its floor and what lies between, by split."""
    found = {}
    for split, score in scores.items():
        found[f"klom_{split}"] = score.value
        found |= {f"klom_{split}_low": score.low, f"klom_{split}_high": score.high}
        found |= {f"floor_{split}": score.floor, f"excess_{split}": score.excess}
    return _numbers(found)


def _numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in metrics.items() if not math.isnan(value)}


def _send(client: Any, run: str, **things: Sequence[Any]) -> None:
    for kind, items in things.items():
        for first in range(0, len(items), AT_ONCE):
            client.log_batch(run, **{kind: items[first : first + AT_ONCE]})


def _milliseconds(started: str) -> int | None:
    """Return when a run started, in milliseconds since 1970; None where that is not on record."""
    try:
        return int(1000 * datetime.fromisoformat(started).timestamp())
    except ValueError:
        return None
