"""The forecast end to end on a small problem: the record, the resumption, the refusals, the command line."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from typer.testing import CliRunner

import expunge as ex
from expunge.cli import app
from expunge.core import DamagedFileError, InputError
from expunge.core.forecast import ForecastRecord, ForecastRun, load_forecast_margins
from expunge.core.record import SPLITS
from expunge.dependence.linearised import Linearised
from expunge.methods import DoNothing, FineTune, GradientAscent, MarginMatching
from expunge.methods.problem import FORWARD_SHARE
from expunge.studies.run import forget_specs
from expunge.studies.run.forecasting import compact
from expunge.studies.run.forget_specs import resolve
from expunge.studies.run.prediction import Subject, predict_targets, prediction_cost
from expunge.studies.run.seeds import pretrained_seed

# The package exports the function of this name.

MEMBERS, FOLLOWED = 6, 3


def small_task(model=None) -> ex.Task:
    """Two hundred digits: enough to overfit, small enough to train in a second."""
    digits = load_digits()
    x = (digits.data / 16).astype("float32")
    return ex.Task(
        name="small",
        train=(x[:200], digits.target[:200]),
        validation=(x[200:300], digits.target[200:300]),
        model=model or (lambda: nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))),
        recipe=ex.Recipe(epochs=6, batch_size=32, lr=0.2, peak_epoch=2),
    )


METHODS = [GradientAscent(lr=0.2, epochs=2), FineTune(lr=0.02, epochs=1), MarginMatching(lr=0.02, epochs=1)]
SETS = ["random:20", "cluster:20"]


def request(out: Path, **changes):
    return {
        "forget": SETS,
        "methods": METHODS,
        "members": MEMBERS,
        "followed": FOLLOWED,
        "out": out,
        "seed": 3,
        "chunk": 3,
        **changes,
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> ex.Forecast:
    return ex.forecast(small_task(), **request(tmp_path_factory.mktemp("forecast") / "run"))


def strip_times(folder: Path) -> dict:
    """The record without what depends on the clock."""
    raw = json.loads((folder / "forecast.json").read_text())
    for key in ("seconds", "started", "command", "environment", "training_seconds"):
        raw.pop(key)
    for item in raw["forget_sets"]:
        item["forecast"].pop("seconds")
    return raw


def test_record_is_complete_and_loads(run):
    record = ForecastRun.load(run.folder)
    assert record == run.record
    assert record.status == "complete"
    assert [item.name for item in record.forget_sets] == ["random-20-seed-3", "cluster-20-seed-3"]
    for item in record.forget_sets:
        assert item.size == sum(item.classes) == 20
        assert item.forecast.members == MEMBERS
        assert item.forecast.followed == FOLLOWED
        assert {m.method for m in item.forecast.methods} == {"gradient_ascent", "fine_tune", "margin_matching"}
        assert item.forecast.advice
    assert run.report == run.folder / "forecast.html"
    assert not list((run.folder / "parts").glob("*.part"))


def test_no_oracle_is_trained(run):
    """Every ensemble in the store was trained on all examples: the pretrained one, and earlier states of it."""
    manifests = [json.loads(path.read_text()) for path in run.folder.glob("ensembles/*/manifest.json")]
    assert manifests
    everything = {json.dumps(m["specification"]["examples"]) for m in manifests}
    assert len(everything) == 1
    full = ex.train(small_task(), members=2, seed=0).provenance["specification"]["examples"]
    assert everything == {json.dumps(full)}
    assert {m["specification"]["seed"] for m in manifests} == {pretrained_seed(3)}


def test_margins_are_those_of_the_members(run):
    """Pretrained margins are what a user gets by hand; predicted oracles are these moved by the stated amount."""
    task = small_task()
    again = ex.train(task, members=MEMBERS, seed=pretrained_seed(3), chunk=3)
    for item in run.record.forget_sets:
        margins = load_forecast_margins(run.folder, item)
        assert sorted(margins) == sorted(f"{who}/{split}" for who in ("pretrained", "predicted") for split in SPLITS)
        by_hand = again.margins(task.validation.x, task.validation.y)
        assert torch.allclose(torch.from_numpy(margins["pretrained/validation"]), by_hand, atol=1e-4)
        for split in SPLITS:
            change = margins[f"predicted/{split}"].astype(float) - margins[f"pretrained/{split}"]
            assert change.shape[0] == MEMBERS
            assert change[:FOLLOWED].mean() == pytest.approx(item.forecast.removal[split], abs=1e-4)
            assert np.allclose(change[:FOLLOWED], change[FOLLOWED:], atol=1e-4)


def test_an_audit_finds_the_pretrained_ensemble(run, tmp_path):
    out = tmp_path / "both"
    ex.forecast(small_task(), **request(out, members=20, methods=[DoNothing()], forget=["random:20"]))
    audited = ex.audit(
        small_task(), forget=["random:20"], methods=[DoNothing()], members=20, seed=3, out=out, resume=True
    )
    assert [e.reused for e in audited.record.ensembles if e.role == "pretrained"] == [True]
    assert (out / "forecast.html").is_file()
    assert audited.report == out / "report.html"


def test_models_that_are_given_are_forecast_and_not_trained(run, tmp_path):
    """A saved ensemble says how it was trained, and gives the same numbers; checkpoints do not, and a note says so."""
    task = small_task()
    ensemble = ex.train(task, members=MEMBERS, seed=pretrained_seed(3), chunk=3)
    ensemble.save(tmp_path / "saved")
    for member in range(MEMBERS):
        ensemble.export(member, tmp_path / f"{member}.safetensors")
    asked = {"forget": ["random:20"], "methods": [GradientAscent(lr=0.2, epochs=2)], "members": 50}
    saved = ex.forecast(task, **request(tmp_path / "a", pretrained=str(tmp_path / "saved"), **asked))
    files = ex.forecast(task, **request(tmp_path / "b", pretrained=str(tmp_path / "*.safetensors"), **asked))
    trained = run.record.forget_sets[0].forecast
    for found, retraced in ((saved, True), (files, False)):
        item = found.record.forget_sets[0].forecast
        assert (found.record.members, item.members, found.record.training_seconds) == (MEMBERS, MEMBERS, 0)
        assert item.notes[0].startswith("The pretrained models were given, not trained here.")
        assert any("could not be retraced" in note for note in item.notes) != retraced
        assert (item.removal == pytest.approx(trained.removal, abs=1e-4)) == retraced
        assert "pretrained=" in found.record.command
    assert not list((tmp_path / "b").glob("ensembles/*"))
    again = request(tmp_path / "b", pretrained=str(tmp_path / "*.safetensors"), resume=True, **asked)
    assert ex.forecast(task, **again).record == files.record
    with pytest.raises(InputError, match="given"):
        ex.forecast(task, **{**again, "pretrained": ex.train(task, members=2, seed=9)})


def test_too_few_given_models_are_refused(tmp_path):
    task = small_task()
    one = ex.Ensemble.from_modules([task.build(0)], task)
    with pytest.raises(InputError, match="pretrained has 1 members, expected at least 2: with fewer, a prediction"):
        ex.forecast(task, **request(tmp_path / "run", pretrained=one))
    assert not (tmp_path / "run").exists()


def test_removal_does_not_depend_on_the_order_of_parameters():
    """A store returns the tensors of a member in any order; sums over them must not be rounded accordingly."""
    task = small_task()
    forget = ex.tasks.random_forget_set(task, 20)
    found = []
    for backwards in (False, True):
        pretrained = ex.train(task, members=2, seed=1, chunk=2)
        names = sorted(pretrained.params, reverse=backwards)
        pretrained = pretrained.with_state({name: pretrained.params[name] for name in names}, pretrained.buffers)
        found.append(Subject.of(task, pretrained, followed=2).removal(forget))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_forget_sets_along_components(tmp_path, monkeypatch):
    """Their subset models are trained into the new folder before the run begins, and do not stand in its way."""
    monkeypatch.setattr(forget_specs, "resolve", functools.partial(resolve, subsets=64))
    out = tmp_path / "run"
    run = ex.forecast(small_task(), **request(out, forget=["component:1:top:20"], methods=[DoNothing()]))
    assert run.record.forget_sets[0].size == 20
    assert (out / "subsets").is_dir()
    audited = ex.audit(
        small_task(), forget=["component:1:top:20"], methods=[DoNothing()], members=20, seed=3, out=out, resume=True
    )
    assert audited.record.forget_sets[0].name == run.record.forget_sets[0].name
    assert audited.record.forget_sets[0].size == 20


def test_finished_run_is_refused_and_resumed_for_free(run):
    with pytest.raises(InputError, match="--resume"):
        ex.forecast(small_task(), **request(run.folder))
    before = run.report.read_bytes()
    again = ex.forecast(small_task(), **request(run.folder, resume=True))
    assert again.record == run.record
    assert again.report.read_bytes() == before


def test_another_request_is_not_mixed_in(run):
    with pytest.raises(InputError, match=r"holds another forecast \(different: .*followed"):
        ex.forecast(small_task(), **request(run.folder, resume=True, followed=2))


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import expunge as ex
from test_forecast_run import request, small_task
ex.forecast(small_task(), **request(Path({out!r}), resume=True))
"""


@pytest.mark.slow
def test_killed_forecast_resumes_to_identical_numbers(run, tmp_path):
    """SIGKILL once the first forget set is done; the resumed record and arrays equal the uninterrupted ones."""
    out = tmp_path / "killed"
    script = SCRIPT.format(tests=str(Path(__file__).parent), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("parts/*.part")) and time.monotonic() < deadline:
        assert process.poll() is None, "the forecast ended before it could be killed"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert ForecastRun.load(out).status == "running"
    assert len(list(out.glob("parts/*.part"))) == 1
    made = next(out.glob("parts/*.part")).stat().st_mtime_ns
    ex.forecast(small_task(), **request(out, resume=True))
    assert strip_times(out) == strip_times(run.folder)
    assert made < (out / "forecast.json").stat().st_mtime_ns
    for item in run.record.forget_sets:
        assert (out / item.margins).read_bytes() == (run.folder / item.margins).read_bytes()


def test_damaged_or_foreign_files_are_named(run, tmp_path):
    folder = tmp_path / "run"
    ex.forecast(small_task(), **request(folder, methods=[DoNothing()], forget=["random:20"], members=2, followed=2))
    record = ForecastRun.load(folder)
    arrays = folder / record.forget_sets[0].margins
    other = run.folder / run.record.forget_sets[1].margins
    arrays.write_bytes(other.read_bytes())
    with pytest.raises(DamagedFileError, match=r"random-20-seed-3\.safetensors is not the file that was written"):
        ex.forecast(
            small_task(),
            **request(folder, methods=[DoNothing()], forget=["random:20"], members=2, followed=2, resume=True),
        )
    arrays.unlink()
    with pytest.raises(InputError, match=r"random-20-seed-3\.safetensors does not exist"):
        load_forecast_margins(folder, record.forget_sets[0])
    (folder / "forecast.json").write_text('{"schema_version": 99}')
    with pytest.raises(DamagedFileError, match="record format 99"):
        ForecastRun.load(folder)


class Radial(nn.Module):
    """A model that can be trained, but has no forward derivative: PyTorch has none for distances."""

    def __init__(self):
        super().__init__()
        self.centres, self.second = nn.Parameter(torch.randn(8, 64)), nn.Linear(8, 10)

    def forward(self, x):
        return self.second(torch.cdist(x, self.centres))


def batchwise() -> nn.Module:
    """A model whose output for one example depends on the others, always."""
    return nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 10))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": 1}, "members = 1, expected"),
        ({"followed": 1}, "followed = 1, expected"),
        ({"forget": []}, "no forget set"),
        ({"forget": ["random:20", "random:20"]}, "share a name"),
        ({"forget": ["component:99:top:20"]}, "component 99, expected"),
        ({"methods": ["ascend"]}, "method 'ascend' is unknown"),
        ({"tolerance": 0.0}, "tolerance"),
    ],
)
def test_bad_requests_fail_before_any_training(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        ex.forecast(small_task(), **request(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Radial, "a forecast needs derivatives of the model forward and backward"),
        (batchwise, "layer '1' is a BatchNorm1d without running statistics"),
    ],
)
def test_model_that_cannot_be_linearised_is_refused_before_training(tmp_path, model, reason):
    with pytest.raises(InputError, match=reason):
        ex.forecast(small_task(model), **request(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_audit_of_a_model_that_cannot_be_linearised_says_so_and_goes_on(tmp_path):
    audited = ex.audit(
        small_task(Radial), forget=["random:20"], methods=[DoNothing()], members=20, out=tmp_path / "audit"
    )
    assert any(note.startswith("No forecast was made: a forecast needs derivatives") for note in audited.record.notes)
    assert audited.record.forget_sets[0].forecast is None


def test_prediction_cost_counts_every_pass(monkeypatch):
    """Brute force: every example that goes through the followed members is counted as it goes."""
    task = small_task()
    forget = ex.tasks.random_forget_set(task, 20)
    pretrained = ex.train(task, members=5, seed=1)
    subject = Subject.of(task, pretrained, followed=2)
    spent: dict[str, list[int]] = {"forward": [], "both": []}
    plain = {"_jvp": Linearised._jvp, "_vjp": Linearised._vjp}

    def jvp(self, batch, direction):
        spent["forward"].append(2 * len(batch) * self.members)
        return plain["_jvp"](self, batch, direction)

    def vjp(self, batch, cotangent):
        spent["both"].append(len(batch) * self.members)
        return plain["_vjp"](self, batch, cotangent)

    monkeypatch.setattr(Linearised, "_jvp", jvp)
    monkeypatch.setattr(Linearised, "_vjp", vjp)
    targets, cost = predict_targets(subject, forget)
    # The last state is the pretrained ensemble itself.
    earlier = sum(segment.ensemble.provenance["specification"]["epochs"] for segment in subject.segments[:-1])
    passes = sum(spent["both"]) + FORWARD_SHARE * sum(spent["forward"]) + 2 * earlier * len(task.train)
    own_margins = FORWARD_SHARE * len(task.train)
    retraining = (len(task.train) - 20) * task.recipe.epochs
    assert cost == pytest.approx((passes / 5 + own_margins) / retraining)
    assert cost == prediction_cost(subject, forget)
    assert targets.shape == (5, 200)


def test_paths_in_a_record_have_four_digits(run):
    """What a record keeps is the prediction to rounding."""
    record = run.record.forget_sets[0].forecast
    assert compact(record) == record
    points = [point for method in record.methods for point in method.path]
    assert all(float(f"{point.excess['forget']:.4g}") == point.excess["forget"] for point in points)
    again = ForecastRecord.model_validate_json(record.model_dump_json())
    assert again == record


USER_TASK = """
import numpy as np
import torch
import expunge

rng = np.random.default_rng(0)
x = rng.normal(size=(160, 5)).astype("float32")
y = (x[:, 0] + 0.3 * rng.normal(size=160) > 0).astype(int)
task = expunge.Task(
    name="mine",
    train=(x[:120], y[:120]),
    validation=(x[120:], y[120:]),
    model=lambda: torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)),
    recipe=expunge.Recipe(epochs=4, batch_size=16, lr=0.1, peak_epoch=1),
)
"""


def test_newcomer_on_the_command_line(tmp_path, monkeypatch):
    """A user's own data and model, a list of indices, one command; advice, a table and a page that is drawn again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_task.py").write_text(USER_TASK)
    (tmp_path / "forget.csv").write_text("index\n" + "\n".join(map(str, range(12))) + "\n")
    words = ["forecast", "my_task.py", "--forget", "forget.csv", "--methods", "gradient_ascent", "--members", "4"]
    monkeypatch.setattr(sys, "argv", ["expunge", *words, "--out", "run"])
    done = CliRunner().invoke(app, [*words, "--out", "run"])
    assert done.exit_code == 0, done.output
    assert "Report: run/forecast.html" in done.output
    assert "Gradient ascent" in done.output
    assert "nothing was retrained" in " ".join(done.output.split())
    record = ForecastRun.load(tmp_path / "run")
    assert record.command == "expunge " + " ".join(words) + " --out run"
    page = tmp_path / "run" / "forecast.html"
    before = page.read_bytes()
    page.unlink()
    drawn = CliRunner().invoke(app, ["report", "run"])
    assert drawn.exit_code == 0, drawn.output
    assert page.read_bytes() == before


def test_report_recognises_what_a_folder_holds(tmp_path):
    none = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert isinstance(none.exception, InputError)
    assert "expected a folder with one of: record.json, forecast.json" in str(none.exception)
    theory = CliRunner().invoke(app, ["theory", "corollary-1", "--out", str(tmp_path / "theory")])
    assert theory.exit_code == 0, theory.output
    drawn = CliRunner().invoke(app, ["report", str(tmp_path / "theory")])
    assert drawn.exit_code == 0, drawn.output
    assert "theory/report.html" in "".join(drawn.output.split())
