"""Validation rows that are training rows are counted and named."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import expunge as ex
from expunge.cli import main
from expunge.core import InputError, Split
from expunge.core.overlap import CHUNK, shared_rows


def rows_in(part: Split, other: Split) -> list[int]:
    """The definition, one pair of rows at a time."""
    return [
        row
        for row in range(len(part))
        if any(
            torch.equal(part.x[row], x) and torch.equal(part.y[row], y) for x, y in zip(other.x, other.y, strict=True)
        )
    ]


@given(st.integers(0, 10**6), st.sampled_from([torch.float32, torch.float64, torch.uint8, torch.int64, torch.bool]))
@settings(max_examples=60, deadline=None)
def test_like_comparing_every_pair(seed: int, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(seed)
    shape = [(), (1,), (2,), (3, 3)][seed % 4]
    # Few values, so that rows are often equal, some of them in their inputs alone.
    x = torch.randint(-1 if dtype.is_signed else 0, 2, (30, *shape), generator=draw).to(dtype)
    y = torch.randint(0, 2, (30,), generator=draw)
    if dtype.is_floating_point:
        x[::3] *= -1  # -0.0 equals 0.0
    part, other = Split(x[:12], y[:12]), Split(x[12:], y[12:])
    assert shared_rows(part, other).tolist() == rows_in(part, other)


@pytest.mark.parametrize("targets", [torch.float32, torch.int64])
def test_large_rows_in_several_pieces(targets: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CHUNK > 0
    monkeypatch.setattr("expunge.core.overlap.CHUNK", 1000)
    x = torch.randn(200, 7, 11, generator=torch.Generator().manual_seed(0))
    y = torch.arange(200).to(targets)
    part = Split(x[[3, 150, 4, 199]].clone(), y[[3, 150, 5, 199]])
    part.x[3, 6, 10] += 1e-3
    assert shared_rows(part, Split(x, y)).tolist() == [0, 1]


def made(validation: np.ndarray, named: bool = False, dtype: str = "float32") -> ex.Task:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(60, 6)) * 100).astype(dtype)
    y = (x[:, 0] > 50).astype(int)
    fresh = (rng.normal(size=(20, 6)) * 100).astype(dtype)
    vx, vy = np.concatenate([x, fresh])[validation], np.concatenate([y, np.zeros(20, int)])[validation]

    class Net(nn.Linear):
        def forward(self, a: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
            whole = a if b is None else torch.cat([a, b], 1)
            return super().forward(whole if whole.is_floating_point() else whole.float() / 255)

    def inputs(values: np.ndarray) -> object:
        return {"a": values[:, :2], "b": values[:, 2:]} if named else values

    options = {"normalise": (0.5, 0.25)} if dtype == "uint8" and not named else {}
    return ex.Task(name="t", train=(inputs(x), y), validation=(inputs(vx), vy), model=lambda: Net(6, 2), **options)


@pytest.mark.parametrize(("named", "dtype"), [(False, "float32"), (True, "float32"), (False, "float64")])
def test_they_are_counted_and_named(named: bool, dtype: str) -> None:
    with pytest.warns(UserWarning, match=r"^3 of 10 validation .* \(rows 1, 4, 9\).*Leave them out") as said:
        task = made(np.array([60, 3, 61, 62, 17, 63, 64, 65, 66, 3]), named, dtype)
    assert task.overlap == str(said[0].message)
    assert said[0].filename == __file__
    with pytest.raises(InputError, match=r"4 of 4 validation examples .* \(rows 0, 1, 2, 3\); expected .* Hold some"):
        made(np.arange(4), named, dtype)
    assert made(np.arange(60, 70), named, dtype).overlap == ""


def test_rows_that_repeat_in_the_training_data_are_said_to_be_so() -> None:
    x = np.array([[0.0], [0.0], [1.0], [2.0], [3.0]])
    with pytest.warns(UserWarning, match=r"2 of 2 .* training data repeat 1 rows among themselves"):
        ex.Task(
            name="t", train=(x, [0, 0, 1, 1, 0]), validation=([[0.0], [1.0]], [0, 1]), model=lambda: nn.Linear(1, 2)
        )


def test_other_targets_make_other_rows() -> None:
    x = np.eye(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ex.Task(name="t", train=(x, [0, 1, 0, 1]), validation=(x, [1, 0, 1, 0]), model=lambda: nn.Linear(4, 2))


def test_the_shell_says_it_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch, expunge as ex\n"
        "x, y = torch.arange(40.0).reshape(20, 2), torch.arange(20) % 2\n"
        "def task():\n"
        "    validation = torch.cat([x[:3], -1 - x[:5]]), torch.cat([y[:3], y[:5]])\n"
        "    return ex.Task(name='t', train=(x, y), validation=validation, model=lambda: torch.nn.Linear(2, 2))\n"
    )
    monkeypatch.setattr("sys.argv", ["expunge", "audit", str(file), "--members", "3", "--out", str(tmp_path / "run")])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.raises(SystemExit):
            main()
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("warning: 3 of 8 validation examples are training examples as well")
    assert said[1].startswith("error: members = 3")
