"""The audit end to end on a small problem: the record, the resumption, the refusals, the command line."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from sklearn.datasets import load_digits
from torch import nn

import expunge as ex
from expunge.core import DamagedFileError, InputError, Record
from expunge.core.record import SPLITS, load_margins
from expunge.methods import DoNothing, FineTune, GradientAscent, GradientDescentAscent, MarginMatching, Retrain
from expunge.methods.problem import Problem
from expunge.studies.audit import estimate_audit
from expunge.studies.run.prediction import Subject, prediction_cost
from expunge.studies.run.trying import PAGE_BYTES

MEMBERS = 20


def small_task(norm: bool = False) -> ex.Task:
    """Two hundred digits: enough to overfit, small enough to train in a second."""
    digits = load_digits()
    x = (digits.data / 16).astype("float32")

    def model() -> nn.Module:
        middle = [nn.BatchNorm1d(16)] if norm else []
        return nn.Sequential(nn.Linear(64, 16), *middle, nn.ReLU(), nn.Linear(16, 10))

    return ex.Task(
        name="small",
        train=(x[:200], digits.target[:200]),
        validation=(x[200:300], digits.target[200:300]),
        model=model,
        recipe=ex.Recipe(epochs=6, batch_size=32, lr=0.2, peak_epoch=2),
    )


METHODS = [
    GradientAscent(lr=0.002, epochs=2),
    GradientAscent(lr=0.2, epochs=2),
    GradientDescentAscent(lr=0.02, epochs=2, ascent_epochs=1, batch_size=32),
    FineTune(lr=0.02, epochs=2),
    MarginMatching(lr=0.02, epochs=1),
]


@pytest.fixture(scope="module")
def drawn() -> dict[int, set[bytes]]:
    """The forget sets that were unlearned with each seed of a member in `run`."""
    return {}


@pytest.fixture(scope="module")
def run(tmp_path_factory, drawn) -> ex.Run:
    out = tmp_path_factory.mktemp("audit") / "run"
    begin = Problem.__init__

    def noted(self, start, task, forget, *rest):
        begin(self, start, task, forget, *rest)
        for own in self.seeds:
            drawn.setdefault(own, set()).add(forget.indices.tobytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Problem, "__init__", noted)
        return ex.audit(
            small_task(norm=True), forget=["random:20"], methods=METHODS, members=MEMBERS, out=out, seed=3, chunk=10
        )


def strip_times(folder: Path) -> dict:
    """The record without what depends on the clock."""
    raw = json.loads((folder / "record.json").read_text())
    for key in ("seconds", "started", "command", "environment"):
        raw.pop(key)
    for ensemble in raw["ensembles"]:
        for key in ("seconds", "reused"):
            ensemble.pop(key)
    for forget in raw["forget_sets"]:
        forget["forecast"].pop("seconds")
    return raw


def test_record_is_complete_and_loads(run):
    record = Record.load(run.folder)
    assert record.status == "complete"
    assert record.members == MEMBERS
    assert run.report.is_file()
    forget = record.forget_sets[0]
    assert forget.size == sum(forget.classes) == 20
    methods = {c.method for c in forget.configurations}
    assert {"do_nothing", "retrain", "early_stopped_retrain", "fine_tune", "gradient_ascent"} <= methods
    assert {s.method for s in forget.selections} == methods
    ids = [c.id for c in forget.configurations]
    assert len(set(ids)) == len(ids)
    assert not (run.folder / "parts").exists() or not list((run.folder / "parts").glob("*.part"))


def test_five_independent_ensembles(run):
    record = Record.load(run.folder)
    assert len(record.ensembles) == 5
    names = load_margins(run.folder, record.forget_sets[0])
    for a, b in (("oracle", "held_out"), ("oracle", "pretrained"), ("held_out", "pretrained")):
        first, second = names[f"{a}/validation"], names[f"{b}/validation"]
        assert not np.isclose(first, second).all(1).any(), (a, b)


def test_forecast_is_in_the_record_and_matches_configurations(run):
    """Made before the oracles, from the same pretrained members; one point for every candidate configuration."""
    record = Record.load(run.folder)
    forget = record.forget_sets[0]
    forecast = forget.forecast
    assert forecast is not None
    assert forecast.members == MEMBERS
    points = {(point.run, point.epoch) for method in forecast.methods for point in method.path}
    followed = {(c.run, c.epoch) for c in forget.configurations if c.options.get("lr") and c.statistics != "retrained"}
    assert points == followed
    margins = load_margins(run.folder, forget)
    change = margins["forecast/forget"].astype(float) - margins["pretrained/forget"]
    assert change[: forecast.followed].mean() == pytest.approx(forecast.removal["forget"], abs=1e-4)
    assert np.allclose(change[forecast.followed :], change[: MEMBERS - forecast.followed], atol=1e-4)
    assert record.request["forecast"] == {"followed": 12}
    page = run.report.read_text()
    assert "What was forecast, and what happened" in page
    assert forecast.advice[1].split(" is predicted")[0] in page


def test_margin_matching_pays_for_its_targets(run):
    """Its cost is what predicting oracles cost a member, and then its own steps."""
    forget = Record.load(run.folder).forget_sets[0]
    task = small_task(norm=True)
    subject = Subject.of(task, ex.train(task, members=MEMBERS, seed=0, chunk=10))
    # An epoch is 3 batches of the 180 retain examples, each with all 20 forget examples beside it.
    steps = (180 + 3 * 20) / (180 * task.recipe.epochs)
    expected = prediction_cost(subject, ex.tasks.random_forget_set(task, 20)) + steps
    matched = next(c for c in forget.configurations if c.method == "margin_matching")
    assert matched.cost == pytest.approx(expected, rel=1e-6)
    predicted = next(m for m in forget.forecast.methods if m.method == "margin_matching")
    assert predicted.path[0].cost == pytest.approx(expected, rel=1e-3)


def test_no_two_forget_sets_share_random_numbers(run, drawn):
    """Neither in the audit, of the target and of its calibration set, nor in the forecast."""
    assert len(set().union(*drawn.values())) == 2
    assert {len(sets) for sets in drawn.values()} == {1}


def test_audit_without_a_forecast(tmp_path):
    out = tmp_path / "run"
    run = ex.audit(small_task(), forget=["random:20"], methods=[DoNothing()], members=MEMBERS, out=out, forecast=False)
    assert run.record.forget_sets[0].forecast is None
    assert run.record.request["forecast"] is None
    assert "What was forecast" not in run.report.read_text()
    raw = json.loads((out / "record.json").read_text())
    raw["forget_sets"][0].pop("forecast")
    raw["request"].pop("forecast")
    (out / "record.json").write_text(json.dumps(raw))
    older = ex.audit(small_task(), forget=["random:20"], methods=[DoNothing()], members=MEMBERS, out=out, resume=True)
    assert older.record.forget_sets[0].forecast is None


def test_margin_matching_without_a_forecast_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"margin_matching needs oracle margins that a forecast predicts.*--no-forecast"
    ):
        ex.audit(
            small_task(),
            forget=["random:20"],
            methods=["margin_matching"],
            members=MEMBERS,
            out=tmp_path / "run",
            forecast=False,
        )
    assert not (tmp_path / "run").exists()


def test_every_epoch_is_a_stopping_time(run):
    configurations = Record.load(run.folder).forget_sets[0].configurations
    epochs = [
        c.epoch
        for c in configurations
        if c.run == "gradient_descent_ascent/lr=0.02,epochs=2,ascent_epochs=1,batch_size=32"
    ]
    assert epochs == [1, 2]


def test_scores_carry_floor_interval_and_counts(run):
    forget = Record.load(run.folder).forget_sets[0]
    for configuration in forget.configurations:
        for split in SPLITS:
            score = configuration.scores[split]
            if configuration.verdict.name == "unjudged":
                assert math.isnan(score.low)
                assert math.isnan(score.high)
            else:
                assert score.low <= score.value <= score.high
            assert score.floor == forget.floor[split].value
            assert (score.members, score.oracles) == (MEMBERS, MEMBERS)
    assert forget.configurations[0].scores["forget"].examples == 20


def test_what_is_shown_and_one_stopping_time_of_every_run_is_judged(run):
    forget = Record.load(run.folder).forget_sets[0]
    judged = {c.id for c in forget.configurations if c.verdict.name != "unjudged"}
    for selection in forget.selections:
        assert {selection.chosen, selection.best} <= judged
    assert {c.run for c in forget.configurations if c.id in judged} == {c.run for c in forget.configurations}
    assert len(judged) < len(forget.configurations)


def test_do_nothing_is_the_pretrained_row(run):
    forget = Record.load(run.folder).forget_sets[0]
    nothing = next(c for c in forget.configurations if c.method == "do_nothing")
    for split in SPLITS:
        assert nothing.scores[split].value == forget.pretrained[split].value
    assert nothing.cost == 0


def test_retraining_costs_one_and_is_not_called_under_forgotten(run):
    forget = Record.load(run.folder).forget_sets[0]
    retrain = next(c for c in forget.configurations if c.method == "retrain")
    assert retrain.cost == pytest.approx(1.0)
    assert retrain.verdict.name in ("indistinguishable", "undecided")


def test_rate_zero_control_shows_the_drift(run):
    """Property 3: with batch norm, an audit always has the row in which statistics are all that changes."""
    forget = Record.load(run.folder).forget_sets[0]
    drift = [c for c in forget.configurations if c.method == "statistics_alone"]
    assert drift
    assert all(c.control and c.still and c.statistics == "updated" for c in drift)
    assert all(check.passed for check in drift[-1].checks)
    assert max(drift[-1].shifts.values(), key=abs) != 0.0
    assert "no weight moves, and KLoM goes on" in run.report.read_text()


def test_chosen_reads_the_calibration_scores_only(run):
    forget = Record.load(run.folder).forget_sets[0]
    by_id = {c.id: c for c in forget.configurations}
    for selection in forget.selections:
        tried = [
            c for c in forget.configurations if c.method == selection.method and c.calibration and c.options.get("lr")
        ]
        if len(tried) > 1:
            worst = {c.id: max(c.calibration.values()) for c in tried}
            assert worst[selection.chosen] == min(worst.values())
        assert selection.gap_low <= selection.illusion_gap <= selection.gap_high
        assert selection.chosen in by_id
        assert selection.best in by_id


def test_margins_of_chosen_configurations_are_kept(run):
    forget = Record.load(run.folder).forget_sets[0]
    margins = load_margins(run.folder, forget)
    for selection in forget.selections:
        assert margins[f"{selection.chosen}/forget"].shape == (MEMBERS, 20)
        assert margins[f"{selection.chosen}/validation"].shape == (MEMBERS, 100)


def test_altered_margins_are_not_drawn(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "copy")
    forget = Record.load(folder).forget_sets[0]
    path = folder / forget.margins
    numbers = {name: array * 0 + 7 for name, array in load_margins(folder, forget).items()}
    path.write_bytes(save(numbers))
    with pytest.raises(DamagedFileError, match="is not the file that the run wrote"):
        load_margins(folder, forget)
    assert load_margins(folder, forget.model_copy(update={"margins_digest": ""})).keys() == numbers.keys()
    path.unlink()
    with pytest.raises(InputError, match="into another --out"):
        load_margins(folder, forget)


def test_report_alone_draws_the_same_page(run, shell):
    before = run.report.read_text()
    run.report.unlink()
    done = shell("report", str(run.folder))
    assert done.returncode == 0, done.stderr
    assert run.report.read_text() == before
    printed = shell("report", str(run.folder), "--markdown")
    assert printed.stdout.count("| cost | illusion gap |") == len(Record.load(run.folder).forget_sets)


def test_told_rows_are_named_by_their_index_in_the_training_data(run):
    forget = Record.load(run.folder).forget_sets[0]
    read = [c.verdict.rows["forget"].rows for c in forget.configurations if "forget" in c.verdict.rows]
    indices = {row.position: row.index for rows in read for row in rows}
    assert None not in indices.values()
    assert all(indices.get(example.position, example.index) == example.index for example in forget.worst)


def test_finished_run_is_refused_and_resumed_for_free(run):
    with pytest.raises(InputError, match="--resume"):
        ex.audit(small_task(norm=True), forget=["random:20"], methods=METHODS, members=MEMBERS, out=run.folder, seed=3)
    kept = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*.safetensors")}
    again = ex.audit(
        small_task(norm=True),
        forget=["random:20"],
        methods=METHODS,
        members=MEMBERS,
        out=run.folder,
        seed=3,
        resume=True,
    )
    assert again.record == Record.load(run.folder)
    assert kept == {path: path.stat().st_mtime_ns for path in run.folder.rglob("*.safetensors")} != {}


def test_another_request_is_not_mixed_in(run):
    with pytest.raises(InputError, match=r"different: .*seed"):
        ex.audit(
            small_task(norm=True),
            forget=["random:20"],
            methods=METHODS,
            members=MEMBERS,
            out=run.folder,
            seed=4,
            resume=True,
        )


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import expunge as ex
from test_audit import METHODS, MEMBERS, small_task
task = small_task(norm=True)
ex.audit(task, forget=["random:20"], methods=METHODS, members=MEMBERS, out={out!r}, seed=3, chunk=10, resume=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["ensembles", "parts"])
def test_killed_audit_resumes_to_identical_numbers(run, tmp_path, stage):
    """SIGKILL in the middle of training, or of unlearning; the resumed record equals the uninterrupted one."""
    out = tmp_path / "killed"
    script = SCRIPT.format(tests=str(Path(__file__).parent), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # The first part is the forecast, the second what a method reached.
    pattern, needed = ("ensembles/*/members-*.safetensors", 1) if stage == "ensembles" else ("parts/*.part", 2)
    deadline = time.monotonic() + 120
    while len(list(out.glob(pattern))) < needed and time.monotonic() < deadline:
        assert process.poll() is None, "the audit ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert Record.load(out).status == "running"
    arguments = {"methods": METHODS, "members": MEMBERS, "out": out, "seed": 3, "chunk": 10, "resume": True}
    ex.audit(small_task(norm=True), forget=["random:20"], **arguments)
    assert strip_times(out) == strip_times(run.folder)


def test_damaged_shard_is_named_on_resume(tmp_path):
    out = tmp_path / "run"
    arguments = {"forget": ["random:20"], "methods": [DoNothing(), Retrain()], "members": MEMBERS, "out": out}
    ex.audit(small_task(), **arguments)
    record = Record.load(out)
    record.status = "running"
    record.save(out)
    shard = sorted(out.glob("ensembles/*/members-*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-3])
    with pytest.raises(DamagedFileError, match=shard.name):
        ex.audit(small_task(), resume=True, **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": 5}, "members = 5, expected at least"),
        ({"tolerance": -1.0}, "tolerance = -1.0, expected"),
        ({"tolerance": 0.0}, "tolerance = 0.0, expected"),
        ({"row_tolerance": 0.0}, "row_tolerance = 0.0, expected"),
        ({"forget": []}, "no forget set"),
        ({"methods": ["ascend"]}, "method 'ascend' is unknown"),
        ({"forget": ["random:20", "random:20"]}, "share a name"),
        ({"forget": ["random:200"]}, "forget|size"),
        ({"methods": [GradientAscent(lr=0.1), GradientAscent(lr=0.1)]}, "2 times"),
        ({"methods": [GradientAscent(lr=0.1, batch_size=19, statistics="updated")]}, "batch of 1"),
    ],
)
def test_bad_requests_fail_before_any_training(tmp_path, changes, message):
    arguments = {"forget": ["random:20"], "members": MEMBERS, "out": tmp_path / "run", **changes}
    with pytest.raises(InputError, match=message):
        ex.audit(small_task(norm=True), **arguments)
    assert not (tmp_path / "run" / "ensembles").exists()


USER_TASK = """
import numpy as np
import torch
import expunge

rng = np.random.default_rng(0)
x = rng.normal(size=(160, 5)).astype("float32")
y = (x[:, 0] + 0.3 * rng.normal(size=160) > 0).astype(int)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(5, 8)
        self.second = torch.nn.Linear(8, 2)

    def forward(self, x):
        h = self.first(x)
        return self.second(h * torch.sigmoid(h))


def task():
    return expunge.Task(
        name="mine",
        train=(x[:120], y[:120]),
        validation=(x[120:], y[120:]),
        model=Net,
        recipe=expunge.Recipe(epochs=4, batch_size=16, lr=0.1, peak_epoch=1),
    )
"""


@pytest.mark.slow
def test_newcomer_on_the_command_line(tmp_path):
    """A user's own data and module, a list of indices in a CSV file, one command, one page."""
    (tmp_path / "my_task.py").write_text(USER_TASK)
    (tmp_path / "forget.csv").write_text("index\n" + "\n".join(map(str, range(12))) + "\n")
    command = [sys.executable, "-m", "expunge.cli", "audit", "my_task.py", "--forget", "forget.csv"]
    command += ["--methods", "gradient_ascent", "--members", "20", "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Report: " in done.stdout
    assert "Traceback" not in done.stderr
    record = Record.load(tmp_path / "run")
    assert record.command.startswith("expunge audit my_task.py")
    assert any("only an approximation" in note for note in record.notes)
    assert (tmp_path / "run" / "report.html").is_file()


def test_errors_on_the_command_line_are_one_clear_line(tmp_path, shell):
    done = shell("audit", "digits", "--members", "3", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: members = 3")
    assert "Traceback" not in done.stderr


def test_margins_recorded_are_those_of_the_models(run):
    """The record's arrays are what a user gets by hand from the same ensemble."""
    record = Record.load(run.folder)
    task = small_task(norm=True)
    margins = load_margins(run.folder, record.forget_sets[0])["pretrained/validation"]
    pretrained = next(e for e in record.ensembles if e.role == "pretrained")
    again = ex.train(task, members=MEMBERS, seed=pretrained.seed, chunk=pretrained.chunk)
    by_hand = again.margins(task.validation.x, task.validation.y)
    assert torch.allclose(torch.from_numpy(margins), by_hand, atol=1e-4)


def test_a_dry_run_tells_the_ensembles_runs_and_disk_of_the_audit(run, tmp_path):
    """Times are not compared: they are of this machine, now."""
    asked = {"forget": ["random:20"], "methods": METHODS, "members": MEMBERS, "seed": 3, "chunk": 10}
    told = estimate_audit(small_task(norm=True), **asked, out=tmp_path / "a" / "run")
    assert list(tmp_path.iterdir()) == []
    record = Record.load(run.folder)
    assert told.ensembles == len({(each.role, each.seed) for each in record.ensembles}) == 5
    made = {c.run for c in record.forget_sets[0].configurations}
    assert len(made) <= told.runs <= 2 * len(made)
    weights = sum(tensor.nbytes for tensor in small_task(norm=True).build(0).state_dict().values())
    arrays = (run.folder / record.forget_sets[0].margins).stat().st_size
    assert 0 < told.disk - PAGE_BYTES - 5 * MEMBERS * weights < 2 * arrays
    assert all(seconds > 0 for seconds in told.seconds.values())
    assert told.memory > 0
