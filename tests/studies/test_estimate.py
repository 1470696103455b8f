"""A dry run: what an audit would take; it leaves nothing behind. What one took stands beside it in `test_audit.py`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import expunge as ex
from expunge.core import InputError
from expunge.dependence.reduced import DIMENSIONS
from expunge.dependence.unrolled import STEPS, segment_plan
from expunge.studies.audit import estimate_audit, reading_costs
from expunge.studies.forecast import estimate_forecast
from expunge.studies.run import forecast_costs, trying
from expunge.studies.run.trying import try_training, undisturbed


def task(**more) -> ex.Task:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(160, 64)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    recipe = ex.Recipe(epochs=2, batch_size=16, lr=0.1, peak_epoch=1)
    return ex.Task(
        name="small",
        train=(x[:120], y[:120]),
        validation=(x[120:], y[120:]),
        model=lambda: torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.Linear(128, 2)),
        recipe=recipe,
        **more,
    )


ASKED = {
    "forget": ["random:9"],
    "methods": [ex.methods.GradientAscent(lr=0.01, epochs=2)],
    "members": 20,
}


def test_component_sets_count_their_subset_models_and_train_none(tmp_path):
    plain = estimate_audit(task(), **ASKED, out=tmp_path / "run", chunk=10)
    more = estimate_audit(task(), **{**ASKED, "forget": ["component:1:top:9"]}, out=tmp_path / "run", chunk=10)
    assert list(tmp_path.iterdir()) == []
    assert more.disk > plain.disk
    assert more.seconds["forecasts"] > 0
    assert more.ensembles == plain.ensembles


def test_a_fit_and_estimators_are_tried_on_some_rows(tmp_path):
    def fit(model, dataset, seed):
        with torch.no_grad():
            model[1].weight[0] = dataset.x.mean(0).repeat(2) + 0.1 * torch.randn(128)

    looped = estimate_audit(task(fit=fit), **ASKED, out=tmp_path / "run", forecast=False)
    assert looped.tried.startswith("fit trained ")
    assert looped.seconds["training"] > 0


def test_models_that_are_given_are_not_trained_and_what_an_audit_refuses_is_refused(tmp_path):
    pretrained = ex.train(task(), members=20, seed=5)
    told = estimate_audit(task(), **ASKED, pretrained=pretrained, out=tmp_path / "run", forecast=False, chunk=10)
    assert told.ensembles == 4
    with pytest.raises(InputError, match="members = 3, expected at least 20"):
        estimate_audit(task(), **{**ASKED, "members": 3}, out=tmp_path / "run")
    for name in ("tolerance", "row_tolerance"):
        with pytest.raises(InputError, match=f"{name} = -1"):
            estimate_audit(task(), **ASKED, out=tmp_path / "run", **{name: -1})


def test_a_forecast_trains_one_ensemble_and_nothing_that_is_given(tmp_path):
    asked = {**ASKED, "out": tmp_path / "run", "chunk": 10}
    plain = estimate_forecast(task(), **asked)
    assert (plain.ensembles, plain.runs, plain.members) == (1, 0, 20)
    assert str(plain).splitlines()[3] == "That is 1 ensemble of 20 models."
    more = estimate_forecast(task(), **{**asked, "forget": ["random:9", "component:1:top:9"]})
    assert more.disk > plain.disk
    given = estimate_forecast(task(), **asked, pretrained=ex.train(task(), members=7, seed=5))
    assert (given.ensembles, given.members, given.seconds["training"]) == (0, 7, 0)
    with pytest.raises(InputError, match="members = 1, expected"):
        estimate_forecast(task(), **{**asked, "members": 1})
    with pytest.raises(InputError, match="method 'nothing' is unknown"):
        estimate_forecast(task(), **{**asked, "methods": ["nothing"]})
    with pytest.raises(InputError, match="tolerance = -1"):
        estimate_forecast(task(), **asked, tolerance=-1)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_forecast_on_the_command_line(tmp_path, shell, monkeypatch):
    monkeypatch.setattr("expunge.cli.shared.task_named", lambda name, train: task())
    words = ["forecast", "mine.py", "--forget", "random:9", "--members", "20", "--chunk", "10", "--dry-run"]
    done = shell(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[:3]] == ["time", "memory", "disk"]
    assert json.loads(shell(*words, "--json", cwd=tmp_path).stdout)["ensembles"] == 1
    assert list(tmp_path.iterdir()) == []


def test_on_the_command_line(tmp_path, shell, monkeypatch):
    monkeypatch.setattr("expunge.cli.shared.task_named", lambda name, train: task())
    words = [
        "audit",
        "mine.py",
        "--forget",
        "random:9",
        "--members",
        "20",
        "--no-forecast",
        "--chunk",
        "10",
        "--dry-run",
    ]
    words += ["--methods", "gradient_ascent"]
    done = shell(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[:3]] == ["time", "memory", "disk"]
    assert json.loads(shell(*words, "--json", cwd=tmp_path).stdout)["ensembles"] == 5
    assert list(tmp_path.iterdir()) == []


def test_time_of_other_programs_does_not_count_and_workers_share_the_cores(monkeypatch):
    cpu = torch.device("cpu")
    passing = {"process_time": iter([10.0, 17.0]), "thread_time": iter([3.0, 4.0])}
    for clock, times in passing.items():
        monkeypatch.setattr(trying.time, clock, lambda times=times: next(times))
    monkeypatch.setattr(trying, "worker_count", lambda device: 3)
    assert undisturbed(lambda: "done", cpu) == (1 + 6 / 3, "done")


@pytest.mark.parametrize(
    ("members", "rows", "largest"), [(60, 70, 60), (1000, 70, 400), (50, 9000, 50), (1000, 9000, 400)]
)
def test_readings_are_followed_by_their_law_and_measured_with_few(monkeypatch, members, rows, largest):
    seen = []

    def law(members, rows):
        return 0.1 + 2e-3 * members + 4e-6 * members**2 + 1e-6 * members * max(0, rows - 1000)

    def measure(measured, labels, members, rows):
        seen.append((members, rows))
        return law(members, rows), 1e-4 * members

    monkeypatch.setattr(reading_costs, "_measure", measure)
    measured = {"margins/forget": torch.zeros(2, rows)}
    cost = reading_costs.reading_cost(measured, {}, members)
    assert cost == pytest.approx((law(members, rows), 1e-4 * members))
    assert max(members for members, _ in seen) == largest
    assert max(rows if members <= 100 else 4 * rows for members, rows in seen) <= 4000
    seen.clear()
    assert reading_costs.reading_cost(measured, {}, members, as_it_is=True).reading == law(members, rows)
    assert seen == [(members, rows)]


@pytest.mark.parametrize("slow", [False, True])
def test_a_forecast_is_the_sum_of_its_parts(monkeypatch, slow):
    """Every part counts a second; each segment takes a function of the curvature.

    Of a slow network one product of its many is tried, and some of the coordinates, with one member.
    """
    monkeypatch.setattr(forecast_costs, "SLOW", 0.5 if slow else 2.0)
    monkeypatch.setattr(forecast_costs._Clock, "of", lambda clock, work: [work(), 1.0][1])
    monkeypatch.setattr(forecast_costs._Clock, "grown", lambda clock, work, few, members: (work(few), 1.0))
    small = task()
    runs = [ex.methods.GradientAscent(lr=lr, epochs=epochs) for lr, epochs in ((0.01, 2), (0.02, 2), (0.01, 6))]
    trial = try_training(small, 8, torch.device("cpu"), None, 0)
    forget = ex.tasks.random_forget_set(small, 9)
    cost = forecast_costs.forecast_cost(small, forget, runs, trial, members=30, followed=6, seed=0)
    segments, few = len(segment_plan(small.recipe, 120)), forecast_costs.FEW
    assert segments > 1
    aims = segments * (STEPS if slow else 1) + 1
    reducing, few = (DIMENSIONS / forecast_costs.FEWEST, 1) if slow else (1, few)
    paths = 10 / 2  # the first run and its two stopping times, for the ten of all runs
    assert cost.aims == aims
    assert cost.each == pytest.approx(aims + reducing + 10 / few + paths)
    assert cost.once == pytest.approx(trial.alone * 1 / 2 + 1)
