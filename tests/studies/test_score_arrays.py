"""`ex.score` says of arrays and ensembles in memory what `expunge score` says of the same in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import expunge as ex
from expunge.cli import app
from expunge.core import InputError
from expunge.core.outcomes import Regression
from expunge.studies.score import score_files
from reference.problems import forget_set, small_task


def arrays(who: str, classes: int | None = None) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(len(who))
    shape = (12, 9) if classes is None else (12, 9, classes)
    return {split: draw.normal(who == "unlearned", 1, shape) for split in ("forget", "retain", "validation")}


SIDES = ("unlearned", "oracle", "held_out", "pretrained")


def test_arrays_say_what_files_say(tmp_path: Path) -> None:
    labels = np.arange(9) % 3
    for who in SIDES:
        np.savez(
            tmp_path / f"{who}.npz", **arrays(who, 3), labels=labels, labels_retain=labels, labels_validation=labels
        )
    u, o, h, p = (tmp_path / f"{who}.npz" for who in SIDES)
    files = score_files(u, o, held_out=h, pretrained=p, seed=3)
    by_split = dict.fromkeys(("forget", "retain", "validation"), labels)
    given = {who: {split: torch.from_numpy(a) for split, a in arrays(who, 3).items()} for who in SIDES}
    memory = ex.score(given.pop("unlearned"), **given, labels=by_split, seed=np.int64(3))
    assert memory.lines == files.lines
    assert (memory.verdict_sentence, memory.notes, memory.missing) == (
        files.verdict_sentence,
        files.notes,
        files.missing,
    )
    command = f"score --unlearned {u} --oracle {o} --held-out-oracle {h} --pretrained {p} --seed 3"
    run = CliRunner().invoke(app, command.split(), env={"COLUMNS": "120"}, catch_exceptions=False)
    assert run.output.endswith(str(memory))
    assert memory["accuracy", "retain"].floor == files["accuracy", "retain"].floor


def test_ensembles_are_read_where_an_audit_reads_them() -> None:
    task = small_task("mlp")
    forget = forget_set(task, 12)
    pretrained = ex.train(task, members=6, seed=0)
    oracle, held_out = (ex.train(task, without=forget, members=6, seed=seed) for seed in (1, 2))
    result = ex.score(pretrained, oracle=oracle, held_out=held_out, task=task, forget=forget)
    assert result.verdict is not None
    x, y = task.train.x[forget.indices], task.train.y[forget.indices]
    assert result["accuracy"].value == pytest.approx(float(pretrained.accuracy(x, y).mean()))
    alone = ex.score(pretrained.margins(x, y), oracle.margins(x, y), held_out=held_out.margins(x, y))
    assert result["wasserstein"].value == pytest.approx(alone["wasserstein"].value, rel=1e-5)
    assert {line.split for line in result.lines} == {"forget", "retain", "validation"}
    with pytest.raises(InputError, match="unlearned is an ensemble, and task or forget is missing"):
        ex.score(pretrained, oracle=oracle)
    with pytest.raises(InputError, match="one of task and forget was given"):
        ex.score(pretrained, oracle=oracle, task=task)
    with pytest.raises(InputError, match="was made for"):
        ex.score(pretrained, oracle=oracle, task=small_task("mlp", n=60), forget=forget)


def test_an_outcome_without_classes_is_scored_by_its_statistic() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(70, 3, generator=draw)
    y = x.sum(1) + 0.3 * torch.randn(70, generator=draw)
    task = ex.Task(
        name="sum",
        train=(x[:50], y[:50]),
        validation=(x[50:], y[50:]),
        model=lambda: torch.nn.Linear(3, 1),
        outcome="regression",
        recipe=ex.Recipe(epochs=2, batch_size=10),
    )
    assert isinstance(task.outcome, Regression)
    forget = ex.tasks.random_forget_set(task, size=8, seed=0)
    u, o = (ex.train(task, members=5, seed=seed) for seed in (0, 1))
    result = ex.score(u, oracle=o, task=task, forget=forget)
    assert result["KLoM, p95"].examples == 8
    assert "activation distance" not in {line.metric for line in result.lines}


BAD: list[tuple[Any, Any, str]] = [
    (None, np.ones((6, 4)), "unlearned is None, expected an array"),
    (np.ones((6, 4)), {"oops": np.ones((6, 4))}, r"oracle has \['oops'\], expected forget"),
    (np.ones((6, 4)), np.ones((6, 5)), "expected the same examples"),
    (np.ones((2, 4)), np.ones((6, 4)), "2 members, expected at least 5"),
    (np.ones((6, 4, 3)), np.ones((6, 4, 3)), "give labels"),
    (np.ones((6, 4), dtype=complex), np.ones((6, 4)), "complex"),
    (["a"], np.ones((6, 4)), "unlearned forget has dtype"),
]


@pytest.mark.parametrize(("unlearned", "oracle", "said"), BAD, ids=[said for *_, said in BAD])
def test_what_cannot_be_scored_is_said(unlearned: Any, oracle: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ex.score(unlearned, oracle=oracle)


def test_a_line_that_is_not_there_is_named() -> None:
    result = ex.score(np.random.default_rng(0).normal(size=(6, 4)), np.random.default_rng(1).normal(size=(6, 4)))
    with pytest.raises(InputError, match="'accuracy' was not computed on forget examples, expected one of: KLoM, p95"):
        result["accuracy"]
