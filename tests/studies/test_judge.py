"""`expunge judge` and `ex.judge`: a checkpoint by the oracles of an audit, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.reference.problems import small_task

import expunge as ex
from expunge.core import Ensemble, InputError
from expunge.core.record import SPLITS, ForgetRecord, Record, load_margins
from expunge.metrics import one_model
from expunge.studies.run.measure import Parts, margins_of
from expunge.studies.run.seeds import digest_forget

Shell = Callable[..., SimpleNamespace]

TASK = small_task("mlp_norm", n=90, precision="float32")
MEMBERS, SEED = 20, 3


def write_run(folder: Path, forget: ex.ForgetSet) -> None:
    """Write what an audit of the forget set leaves: its record, and the margins of its ensembles."""
    parts, tensors = Parts.of(TASK, forget, SEED), {}
    for seed, (who, without) in enumerate({"pretrained": None, "oracle": forget, "held_out": forget}.items()):
        measured = parts.measure(ex.train(TASK, members=MEMBERS, without=without, seed=10 + seed))
        tensors |= {f"{who}/{split}": measured[f"margins/{split}"] for split in SPLITS}
    path = f"margins/{forget.name}.safetensors"
    (folder / "margins").mkdir(parents=True)
    save_file(tensors, folder / path)
    by_split = "floor pretrained pretrained_public floor_public oracle_accuracy pretrained_accuracy"
    empty: dict[str, Any] = {name: {} for name in by_split.split()}
    empty |= {name: [] for name in ("classes", "checklist", "configurations", "selections", "worst")}
    Record(
        status="complete",
        started="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        command="expunge audit",
        request={
            "fingerprint": TASK.fingerprint,
            "seed": SEED,
            "forget": [{"name": forget.name, "digest": digest_forget(forget)}],
        },
        environment={},
        study="audit",
        task=TASK.describe(),
        members=MEMBERS,
        tolerance=0.125,
        forget_sets=[
            ForgetRecord(
                name=forget.name,
                size=len(forget),
                how=forget.how,
                chooser=forget.chooser,
                calibration_name="",
                calibration_how="",
                retain_examples=80,
                nothing_to_unlearn=False,
                margins=path,
                **empty,
            )
        ],
    ).save(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, forget: ex.ForgetSet) -> Path:
    place = tmp_path_factory.mktemp("judged")
    write_run(place / "run", forget)
    return place


@pytest.fixture(scope="module")
def forget() -> ex.ForgetSet:
    return ex.tasks.random_forget_set(TASK, size=10, seed=SEED)


@pytest.fixture(scope="module")
def retrained(forget: ex.ForgetSet) -> Ensemble:
    return ex.train(TASK, without=forget, members=1, seed=77)


def test_a_run_judges_as_its_margins_do(folder: Path, forget: ex.ForgetSet, retrained: Ensemble) -> None:
    found = ex.judge(retrained, task=TASK, run=folder / "run")
    assert found.oracles == 2 * MEMBERS
    assert found.pretrained == MEMBERS
    kept = load_margins(folder / "run", Record.load(folder / "run").forget_sets[0])

    def side(*names: str) -> dict[str, Any]:
        return {split: np.concatenate([kept[f"{name}/{split}"] for name in names]) for split in found.shifts}

    ours = margins_of(Parts.of(TASK, forget, SEED).measure(retrained))
    assert one_model(ours, side("oracle", "held_out"), side("pretrained")) == found
    by_name = ex.judge(retrained, task=TASK, run=str(folder / "run"), forget="random-10-seed-3")
    by_rows = ex.judge(dict(ours), task=TASK, run=folder / "run", forget=forget)
    assert by_name == by_rows == found


def test_a_checkpoint_a_module_and_an_ensemble_are_the_same_model(
    folder: Path, retrained: Ensemble, tmp_path: Path
) -> None:
    torch.save(retrained.module(0).state_dict(), tmp_path / "model.pt")
    found = [
        ex.judge(model, task=TASK, run=folder / "run")
        for model in (
            retrained,
            retrained.module(0),
            tmp_path / "model.pt",
            str(retrained.export(0, tmp_path / "m.safetensors")),
        )
    ]
    assert all(each == found[0] for each in found)


def test_rows_of_a_list_are_those_that_the_record_holds(
    folder: Path, forget: ex.ForgetSet, retrained: Ensemble, tmp_path: Path
) -> None:
    listed = ex.ForgetSet.of(TASK, forget.indices, name="listed", how="by hand")
    write_run(tmp_path / "run", listed)
    with pytest.raises(InputError, match="does not hold the rows of listed"):
        ex.judge(retrained, task=TASK, run=tmp_path / "run")
    record = Record.load(tmp_path / "run")
    record.rows = "rows.safetensors"
    positions = Parts.of(TASK, listed, SEED).positions
    save_file({f"listed/{split}": positions[split] for split in SPLITS}, tmp_path / "run" / record.rows)
    record.save(tmp_path / "run")
    assert ex.judge(retrained, task=TASK, run=tmp_path / "run") == ex.judge(retrained, task=TASK, run=folder / "run")


def test_oracles_without_a_run(folder: Path, forget: ex.ForgetSet, retrained: Ensemble) -> None:
    oracles = ex.train(TASK, without=forget, members=24, seed=5)
    found = ex.judge(oracles[3:4], task=TASK, forget=forget, oracle=oracles)
    assert found.name == "told"
    assert "copy of an oracle" in found.sentence
    assert ex.judge(retrained, task=TASK, forget=forget, oracle=oracles).name != "compatible"


def test_the_command_prints_writes_json_and_can_fail(
    folder: Path, retrained: Ensemble, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("expunge.cli.shared.task_named", lambda name, train: TASK)
    scaled = {name: 3 * value for name, value in retrained.module(0).state_dict().items()}
    torch.save(scaled, tmp_path / "scaled.pt")
    words = ["judge", str(tmp_path / "scaled.pt"), "task.py", "--run", str(folder / "run")]
    plain = shell(*words)
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.startswith("Told from retraining (p = 0.0")
    assert max(map(len, plain.stdout.splitlines())) <= 80
    asked = shell(*words, "--json", "--fail-unless", "compatible")
    assert asked.returncode == 3
    answer = json.loads(asked.stdout)
    assert answer["verdict"] == "told"
    assert answer["rows"][0].keys() == {"position", "shift", "p_value"}
    assert "not so" in asked.stderr
    assert shell(*words, "--quiet").stdout == ""
    assert shell(*words, "--fail-unless", "told").returncode == 2


def refusals(folder: Path, forget: ex.ForgetSet, retrained: Ensemble) -> list[tuple[dict[str, Any], str]]:
    other = small_task("mlp_norm", n=80, precision="float32")
    run = folder / "run"
    return [
        ({}, "expected one of run"),
        ({"run": run, "oracle": retrained}, "expected one of run"),
        ({"run": run, "task": TASK, "pretrained": retrained}, "expected one of them"),
        ({"run": run}, "task"),
        ({"run": folder, "task": TASK}, "record.json"),
        ({"run": run, "task": other}, "other data"),
        ({"run": run, "task": TASK, "forget": "random:11"}, "other rows"),
        ({"oracle": retrained}, "task and forget are missing"),
        ({"oracle": retrained, "task": TASK}, "expected both"),
    ]


@pytest.mark.parametrize("case", range(9))
def test_what_does_not_belong_together_is_refused(
    case: int, folder: Path, forget: ex.ForgetSet, retrained: Ensemble
) -> None:
    options, match = refusals(folder, forget, retrained)[case]
    with pytest.raises(InputError, match=match):
        ex.judge(retrained, **options)


def test_what_is_no_single_model_of_the_task_is_refused(folder: Path, forget: ex.ForgetSet) -> None:
    for model, match in (
        (ex.train(TASK, members=2, seed=1), "2 members"),
        (torch.nn.Linear(3, 3), "does not fit"),
        (7, "expected the path"),
        ({"forget": np.zeros(10)}, "splits"),
    ):
        with pytest.raises(InputError, match=match):
            ex.judge(model, task=TASK, run=folder / "run")
