"""A ledger of deletion requests: nothing lost, nothing done twice, and every changed line named."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import expunge as ex
from expunge.core import DamagedFileError, InputError
from expunge.core.schema import write_atomically
from expunge.core.unlearning import Unlearning
from expunge.studies.request import ledger as room
from expunge.studies.request.drift import BLOCK, MEASURED, predicted_drift
from expunge.tasks import digits

ROWS = 12


def small_task(rows=ROWS, **options):
    x = torch.arange(float(rows)).unsqueeze(1).expand(-1, 3) / 7
    data = (x + torch.tensor([0.0, 0.5, -0.5]), torch.arange(rows) % 2)
    return ex.Task(
        name="small", train=data, validation=(data[0] + 0.1, data[1]), model=lambda: torch.nn.Linear(3, 2), **options
    )


TASK = small_task()


def toy(task, forget, start, method, *, out, seed, resume, **options):
    """Writes a model that remembers all that was ever unlearned from it, in order."""
    before = json.loads(Path(start).read_text())
    assert not set(forget.indices.tolist()) & set(forget.gone.tolist())
    assert forget.gone.tolist() == sorted(row for rows in before for row in rows)
    path, asked = out / Path(start).name, out / "toy.json"
    request = json.dumps([before, forget.indices.tolist(), method, seed])
    if asked.is_file() and asked.read_text() != request:
        raise InputError("the folder holds another run")
    if not (resume and path.is_file()):
        write_atomically(asked, request.encode())
        write_atomically(path, json.dumps([*before, forget.indices.tolist()]).encode())
    return out, SimpleNamespace(
        after=SimpleNamespace(path=path.name, sha256=room._sha256(path)),
        before=SimpleNamespace(sha256=room._sha256(Path(start))),
        failed_checks=[],
        method=method,
        label=method,
        statistics="retrained" if method == "retrain" else "frozen",
    )


class KilledError(BaseException):
    """Nobody in the program catches it."""


@contextlib.contextmanager
def killed_at(boundary):
    """End the block by force at the n-th moment before or after a file takes its name, or a folder goes."""
    count = 0

    def dying(function):
        def wrapper(*args, **options):
            nonlocal count
            for moment in (0, 1):
                count += 1
                if count == boundary:
                    raise KilledError
                if moment == 0:
                    result = function(*args, **options)
            return result

        return wrapper

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", dying(os.replace))
        patch.setattr(shutil, "rmtree", dying(shutil.rmtree))
        with contextlib.suppress(KilledError):
            yield


class Machine(RuleBasedStateMachine):
    """Requests come, runs are killed at any write, and the ledger is opened again each time."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.start = self.folder / "start.json"
        self.start.write_text("[]")
        self.requests, self.runs = [], []  # sets of rows; lists of numbers of requests
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(room, "unlearn_checkpoint", toy)

    def teardown(self):
        self.patch.undo()
        shutil.rmtree(self.folder)

    @property
    def ledger(self):
        return ex.Ledger(self.folder / "ledger", TASK)

    def named(self):
        return set().union(*self.requests)

    @rule(rows=st.sets(st.integers(0, ROWS - 1), min_size=1, max_size=4), boundary=st.none() | st.integers(1, 5))
    def add(self, rows, boundary):
        new = rows - self.named()
        if len(self.named() | rows) == ROWS:
            with pytest.raises(InputError, match="nothing would be left"):
                self.ledger.add(sorted(rows))
            return
        with killed_at(boundary):
            found = self.ledger.add(sorted(rows))
            assert set(found.rows) == new
            assert set(found.rows) | set(found.pending) | set(found.gone) == rows
            assert (found.request is None) == (not new)
        if len(self.ledger.status().requests) > len(self.requests):  # whether it was entered before the kill
            assert new
            self.requests.append(new)
        elif boundary is None:
            assert not new

    @rule(method=st.sampled_from(["retrain", "scrub"]), boundary=st.none() | st.integers(1, 13))
    def run(self, method, boundary):
        if not self.requests:
            with contextlib.suppress(InputError):  # unless its first line was written before a kill
                assert self.ledger.run(method) is None
            return
        done = [number for run in self.runs for number in run]
        pending = [number for number in range(1, len(self.requests) + 1) if number not in done]
        with killed_at(boundary):
            found = self.ledger.run(method, checkpoint=None if self.runs else self.start)
            assert (found is None) == (not pending)
        if self.ledger.status().runs > len(self.runs):
            self.runs.append(pending)
        else:
            assert not pending or boundary is not None

    @invariant()
    def the_model_has_forgotten_each_row_once(self):
        status = self.ledger.status()
        done = [number for run in self.runs for number in run]
        assert status.runs == len(self.runs)
        assert [one.request for one in status.requests if one.run is not None] == done
        removed = [sorted(row for number in run for row in self.requests[number - 1]) for run in self.runs]
        assert status.removed == sum(map(len, removed))
        assert status.pending == len(self.named()) - status.removed
        if self.runs:
            assert json.loads(Path(status.model).read_text()) == removed


Machine.TestCase.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
TestMachine = Machine.TestCase


@pytest.fixture
def toys(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "unlearn_checkpoint", toy)
    (tmp_path / "start.json").write_text("[]")
    ledger = ex.Ledger(tmp_path / "ledger", TASK)
    ledger.add([1, 2], note="first")
    ledger.add([2, 3])
    ledger.run("scrub", checkpoint=tmp_path / "start.json")
    ledger.add([4])
    return ledger


def test_what_is_known_pending_or_gone_is_said(toys):
    toys_again = ex.Ledger(toys.folder, TASK)
    assert str(toys_again.add([4])) == "No row is new: these are the rows of request 3, which is pending."
    assert str(toys_again.add([3, 2])) == "No row is new: these are the rows of request 2, which run 1 carried out."
    found = toys_again.add([3, 4, 5])
    assert str(found) == "Request 4: 1 row is pending. Asked for before and still pending: 4. Already gone: 3."
    assert (found.rows, found.pending, found.gone) == ((5,), (4,), (3,))


def test_ids_are_read_and_named(tmp_path):
    task = small_task(ids=[f"c{row}" for row in range(ROWS)])
    ledger = ex.Ledger(tmp_path / "ledger", task)
    (tmp_path / "rows.csv").write_text("name,customer\nA,c3\nB,c4\n")
    assert ledger.add(tmp_path / "rows.csv", id_column="customer").rows == (3, 4)
    assert "still pending: 'c3'" in str(ledger.add([3, 7]))
    (tmp_path / "rows.csv").write_text("name,customer\nA,c3\nB,nobody\n")
    with pytest.raises(InputError, match="'nobody'"):
        ledger.add(tmp_path / "rows.csv", id_column="customer")
    with pytest.raises(InputError, match="without a file"):
        ledger.add([3], id_column="customer")
    with pytest.raises(InputError, match="12"):
        ledger.add([12])
    with pytest.raises(InputError, match="note"):
        ledger.add([5], note="two\nlines")
    assert len(ledger.status().requests) == 2


def test_a_changed_line_is_named(toys):
    path = toys.folder / "ledger.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    rng = np.random.default_rng(0)
    for place in rng.choice(len(whole), 60, replace=False):
        bad = bytearray(whole)
        bad[place] ^= int(rng.integers(1, 256))
        path.write_bytes(bad)
        line = whole[:place].count(b"\n") + 1
        # A new end of line, or one that went, shows in the line before or after as well.
        with pytest.raises(DamagedFileError, match=rf"line ({line}|{line + 1}) "):
            ex.Ledger(toys.folder, TASK)
    for number, changed in (
        (1, [*lines[1:]]),
        (2, [lines[0], *lines[2:]]),
        (3, [*lines[:2], lines[3], lines[2], *lines[4:]]),
        (6, [*lines, lines[-1]]),
        (5, [*lines[:4], lines[4][:-5]]),
    ):
        path.write_bytes(b"".join(changed))
        with pytest.raises(DamagedFileError, match=f"line {number} "):
            toys.add([7])
    path.write_bytes(b"".join(lines[:3]))  # two lines at the end, one of them before the last run
    toys.status()
    path.write_bytes(b"".join(lines[:2]))
    with pytest.raises(DamagedFileError, match="lacks its last lines"):
        toys.status()
    path.unlink()
    with pytest.raises(DamagedFileError, match="no ledger"):
        toys.status()


def test_what_an_oracle_leaves_out_is_all_that_was_removed(toys, tmp_path):
    assert toys.removed().indices.tolist() == [1, 2, 3]
    with pytest.raises(InputError, match="accepted yet"):
        ex.Ledger(tmp_path / "other", TASK).removed()


def test_the_last_model_must_be_what_was_accepted(toys, tmp_path):
    model = Path(toys.status().model)
    (tmp_path / "other.json").write_text("[[9]]")
    with pytest.raises(InputError, match="not the last accepted model"):
        toys.run("scrub", checkpoint=tmp_path / "other.json")
    model.write_text("[]")
    with pytest.raises(DamagedFileError, match="another file"):
        toys.run("scrub")
    model.unlink()
    with pytest.raises(DamagedFileError, match="missing"):
        toys.run("scrub")


def test_nothing_is_removed_outside_of_the_folder(toys, tmp_path):
    (tmp_path / "precious" / "002").mkdir(parents=True)
    shutil.move(toys.folder / "models" / "001", tmp_path / "precious" / "001")
    (toys.folder / "models").rmdir()
    (toys.folder / "models").symlink_to(tmp_path / "precious")
    with pytest.raises(DamagedFileError, match="leads out of"):
        toys.run("scrub")
    assert (tmp_path / "precious" / "002").is_dir()


def test_a_ledger_is_of_its_data(toys):
    with pytest.raises(InputError, match="begin a ledger in another folder"):
        ex.Ledger(toys.folder, small_task(rows=11))
    (toys.folder.parent / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        ex.Ledger(toys.folder.parent / "file" / "ledger", TASK)


def test_writers_at_once_lose_nothing(tmp_path):
    task = small_task(rows=40)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda row: ex.Ledger(tmp_path / "ledger", task).add([row]), [*range(30), *range(10)]))
    assert sum(one.request is not None for one in found) == 30
    status = ex.Ledger(tmp_path / "ledger", task).status()
    assert (status.pending, len(status.requests)) == (30, 30)


def test_only_one_is_at_a_run(toys, monkeypatch):
    inside, go_on = threading.Event(), threading.Event()

    def slow(*args, **options):
        inside.set()
        assert go_on.wait(60)
        return toy(*args, **options)

    monkeypatch.setattr(room, "unlearn_checkpoint", slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(toys.run, "scrub")
        assert inside.wait(60)
        with pytest.raises(InputError, match="another process is at a run"):
            ex.Ledger(toys.folder, TASK).run("scrub")
        assert ex.Ledger(toys.folder, TASK).add([8]).request == 4  # which does not wait for the run
        go_on.set()
        assert first.result().requests == (3,)
    assert toys.status().pending == 1


def test_a_method_that_failed_its_checks_is_not_accepted(toys, monkeypatch):
    def failing(*args, **options):
        out, record = toy(*args, **options)
        record.failed_checks = [SimpleNamespace(name="moved")]
        return out, record

    monkeypatch.setattr(room, "unlearn_checkpoint", failing)
    with pytest.raises(InputError, match=r"not accepted.*moved"):
        toys.run("scrub")
    monkeypatch.setattr(room, "unlearn_checkpoint", toy)
    assert toys.status().pending == 1
    assert toys.run("retrain").run == 2


def test_drift_grows_with_the_rows_until_a_retraining(toys):
    one = toys.status()
    assert one.runs_since_retraining == 1
    assert one.drift == pytest.approx(predicted_drift(["scrub"], 3 / ROWS))
    assert one.drift < one.drift_after
    assert "etrain" in toys.status(tolerance=1e-3).advice
    assert toys.status(tolerance=100).advice.startswith("No need")
    toys.run("retrain")
    two = toys.status()
    assert (two.runs_since_retraining, two.drift) == (0, 0.0)
    assert predicted_drift(["scrub"], 2 * BLOCK) == pytest.approx(MEASURED["scrub"][0] * 2 ** MEASURED["scrub"][1])
    assert predicted_drift(["mine"], 0.1) == max(predicted_drift([name], 0.1) for name in MEASURED)


def test_requests_from_the_letter_to_the_model(tmp_path, shell):
    script = tmp_path / "task.py"
    script.write_text("import expunge as ex\ntask = ex.tasks.digits(epochs=1)\n")
    task = digits(epochs=1)
    ex.train(task, members=1, seed=0).export(0, tmp_path / "model.safetensors")
    words = ("requests", str(script), "--ledger", str(tmp_path / "ledger"))
    for name, rows in (("a", range(10)), ("b", range(5, 15))):
        (tmp_path / f"{name}.csv").write_text("\n".join(map(str, rows)))
    said = shell(*words, "add", str(tmp_path / "a.csv"), "--note", "a letter")
    assert "Request 1: 10 rows are pending." in said.stdout
    assert "--checkpoint" in shell(*words, "run").stderr
    done = json.loads(shell(*words, "run", "--checkpoint", str(tmp_path / "model.safetensors"), "--json").stdout)
    assert (done["run"], done["requests"]) == (1, [1])
    assert json.loads(shell(*words, "add", str(tmp_path / "b.csv"), "--json").stdout)["gone"] == [5, 6, 7, 8, 9]
    assert "Accepted as run 2" in shell(*words, "run", "--method", "fine_tune").stdout
    assert shell(*words, "run").stdout.strip() == "Nothing is pending."
    said = shell(*words, "status", "--removed", str(tmp_path / "removed.csv"))
    assert (tmp_path / "removed.csv").read_text().split() == [str(row) for row in range(15)]
    assert "0 rows pending; 15 of 1,437 removed so far (runs: 2, 1 of them" in " ".join(said.stdout.split())
    status = json.loads(shell(*words, "status", "--json").stdout)
    assert status["runs_since_retraining"] == 1
    record = Unlearning.load(tmp_path / "ledger" / "models" / "002")
    assert record.forget.size == 5
    assert record.splits["retain"].examples == 500
    # What was retrained is member 0 of the ensemble trained without these rows: nothing else was seen.
    first = ex.Ensemble.from_files(str(tmp_path / "ledger" / "models" / "001" / "model.safetensors"), task)
    assert record.before.path.endswith("models/001/model.safetensors")
    assert bool(first.finite().all())
    bad = shell("requests", str(script), "--ledger", str(tmp_path / "ledger"), "add", str(tmp_path / "none.csv"))
    assert bad.returncode == 2
    assert "does not exist" in bad.stderr
