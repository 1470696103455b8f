"""`expunge plan`: what it says of a request, what it refuses, and that it writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import expunge as ex
from expunge.core import InputError
from expunge.core.plan import JOBS
from expunge.report.plan import plan_text
from expunge.studies.request import plan as module

Shell = Callable[..., SimpleNamespace]


def task(**more: Any) -> ex.Task:
    """Rows of two classes; 0 and 60 are equal, 1 and 61 nearly so with another label, 2 is a label that is wrong."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(140, 6)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    x[60], y[60] = x[0], y[0]
    x[61], y[61] = x[1] + 0.001, 1 - y[1]
    x[2, 0], y[2] = 2.5, 0
    options: dict[str, Any] = {
        "model": lambda: torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2)),
        "recipe": ex.Recipe(epochs=12, batch_size=20, lr=0.2, peak_epoch=2),
    }
    return ex.Task(name="small", train=(x[:100], y[:100]), validation=(x[100:], y[100:]), **(options | more))


ROWS = range(8)


def rows(of: ex.Task) -> ex.ForgetSet:
    return ex.ForgetSet.of(of, ROWS, name="eight", how="the first eight rows")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ex.train(task(), members=1, seed=8).export(0, tmp_path_factory.mktemp("deployed") / "model.pt")


@pytest.fixture(scope="module")
def found(checkpoint: Path) -> ex.api.RequestPlan:
    mine = task()
    return ex.plan(
        mine, forget=rows(mine), checkpoint=checkpoint, members=[40, 20], workers=3, methods="gradient_ascent"
    )


def test_costs_grow_with_members_and_shrink_with_machines(found: ex.api.RequestPlan) -> None:
    assert [scale.members for scale in found.scales] == [20, 40]
    few, many = (scale.jobs for scale in found.scales)
    for job in JOBS:
        assert 0 < few[job].shared_seconds <= few[job].seconds  # type: ignore[operator]
        assert few[job].disk < many[job].disk
        assert few[job].memory > 0
    assert few["retraining"].seconds < few["audit"].seconds
    assert few["retraining"].seconds < many["retraining"].seconds
    assert few["retraining"].shared_seconds == pytest.approx(few["retraining"].seconds / 3)


def test_twins_are_listed_by_row_with_label_conflicts(found: ex.api.RequestPlan) -> None:
    assert [(twin.row, twin.twin, twin.same_target) for twin in found.twins] == [(0, 60, True), (1, 61, False)]
    assert found.twins[0].distance == 0 < found.twins[1].distance < found.twins_limit
    assert "1 row to be forgotten has twins that stay" in found.advice[0]
    assert "another target" in found.advice[1]


def test_the_wrong_label_has_the_largest_influence(found: ex.api.RequestPlan) -> None:
    influence = found.influence
    assert influence is not None
    assert (influence.models, influence.row, influence.can_matter) == (2, 2, True)
    assert influence.largest < 0
    assert influence.retraced
    assert "to first order" in influence.rests_on


def test_the_deployed_model_is_looked_at(found: ex.api.RequestPlan) -> None:
    assert found.deployed is not None
    assert set(found.deployed.median) == {"forget", "retain", "validation"}
    assert 0 < found.deployed.p_value <= 1  # type: ignore[operator]
    assert found.smallest_gap == pytest.approx(ex.theory.random_forget_sets.smallest_gap(8, test=40))


def test_what_it_prints_fits_and_names_the_next_command(found: ex.api.RequestPlan) -> None:
    text = str(found)
    body, _, commands = text.partition("\nNext:")
    assert max(map(len, body.splitlines())) <= 80
    assert " expunge unlearn " in commands.splitlines()[0]
    assert "--method retrain" in commands.splitlines()[0]
    assert "Or: expunge forecast TASK.py --forget ROWS.csv --members 40" in text
    assert text == plan_text(found)
    for word in ("20", "40", "on 3:", "equal", "another"):
        assert word in text


def test_on_the_command_line_nothing_is_written(
    checkpoint: Path, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("expunge.cli.shared.task_named", lambda name, train: task())
    (tmp_path / "rows.csv").write_text("\n".join(map(str, ROWS)))
    before = sorted(tmp_path.rglob("*"))
    words = ["plan", "mine.py", "--forget", "rows.csv", "--members", "20", "--methods", "gradient_ascent", "--json"]
    done = shell(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["rows"] == 8
    assert answer["next"][0] == "expunge unlearn MODEL mine.py --forget rows.csv --method retrain"
    assert "training 2 models" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert "whole numbers with commas" in shell(*words, "--members", "some", cwd=tmp_path).stderr
    assert "at least 20" in shell(*words, "--members", "5", cwd=tmp_path).stderr


def test_a_loop_of_ones_own_is_followed_from_its_end_and_long_training_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fit(model: torch.nn.Module, dataset: Any, seed: int) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        for _ in range(15):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(dataset.x), dataset.y).backward()
            optimizer.step()

    mine = task(fit=fit)
    asked: dict[str, Any] = {"forget": rows(mine), "members": [20], "methods": "gradient_ascent"}
    found = ex.plan(mine, **asked)
    assert found.influence is not None
    assert "the end of their training alone" in found.influence.rests_on
    assert (found.influence.retraced, found.influence.can_matter) == (False, None)
    assert any("is not sure" in sentence for sentence in found.advice)
    assert len(found.next) == 2
    monkeypatch.setattr(module, "LONGEST", 0.0)
    long = ex.plan(mine, **asked)
    assert long.influence is None
    assert "more than 0 minutes" in long.no_influence
    assert any("was not predicted" in sentence for sentence in long.advice)
    assert long.next[1].startswith("expunge audit") or long.next[0].startswith("expunge audit")


def test_rows_that_cannot_matter_are_said_to_be_so(found: ex.api.RequestPlan) -> None:
    assert found.influence is not None
    small = found.influence.model_copy(update={"largest": 0.001, "together": 0.002, "can_matter": False})
    plain = found.model_copy(update={"influence": small})
    assert any("too little to be seen" in sentence for sentence in module.advise(plain))
    assert len(module.commands(plain, ())) == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"members": [5]}, "at least 20"),
        ({"members": "20"}, "members"),
        ({"workers": 0}, "workers"),
        ({"forget": 7}, "forget"),
        ({"checkpoint": "nowhere.pt"}, "nowhere.pt"),
    ],
)
def test_what_cannot_be_used_is_refused_early(
    options: dict[str, Any], match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "train", None)
    mine = task()
    with pytest.raises(InputError, match=match):
        ex.plan(mine, **({"forget": rows(mine)} | options))


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(6, 2).state_dict(), tmp_path / "other.pt")
    mine = task()
    with pytest.raises(InputError, match="does not fit the model of task 'small'"):
        ex.plan(mine, forget=rows(mine), checkpoint=tmp_path / "other.pt")
