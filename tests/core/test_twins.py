"""Rows that stay and equal those to be forgotten: found by brute force as well, listed by row, told by target."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expunge.core import twins as module
from expunge.core.task import Split
from expunge.core.twins import find_twins


def brute(x, forget, retain, limit, distance):
    return {(int(f), int(r)) for f in forget for r in retain if (d := distance(x[f], x[r])) == 0 or d < limit}


def planted(kind, n=80):
    rng = np.random.default_rng(0)
    if kind == "tokens":
        x = torch.from_numpy(rng.integers(0, 50, (n, 12)))
    elif kind == "uint8 images":
        x = torch.from_numpy(rng.integers(0, 256, (n, 5, 5, 3), dtype=np.uint8))
    else:
        x = torch.from_numpy(rng.normal(size=(n, 6) if kind == "table" else (n, 1, 5, 5)).astype(np.float32))
    x[40] = x[3]  # equal
    x[41] = x[4]  # nearly
    flat = x.view(n, -1)
    flat[41, 0] = flat[41, 0] + 1 if kind in ("tokens", "uint8 images") else flat[41, 0] + 0.01
    y = torch.from_numpy(rng.integers(0, 3, n))
    y[40], y[41] = y[3], (y[4] + 1) % 3
    return Split(x, y)


@pytest.mark.parametrize("kind", ["table", "images", "uint8 images", "tokens"])
def test_planted_twins_are_found_and_no_others(kind, monkeypatch):
    monkeypatch.setattr(module, "ROOM", 2**9)  # several blocks
    train, forget, retain = planted(kind), torch.arange(10), torch.arange(10, 80)
    found = find_twins(train, forget, retain)
    assert list(zip(found.forget.tolist(), found.retain.tolist(), strict=True)) == [(3, 40), (4, 41)]
    assert found.distance[0] == 0 < found.distance[1] < found.limit
    assert found.same_target.tolist() == [True, False]


def test_distances_and_rule_are_those_of_brute_force():
    train, forget, retain = planted("table"), torch.arange(10), torch.arange(10, 80)
    x = (train.x / train.x.std(0)).double().numpy()
    nearest = [min(np.linalg.norm(x[a] - x[b]) for b in range(10, 80) if b != a) for a in range(10, 80)]
    usual = np.sort(nearest)[(len(nearest) - 1) // 2]
    limit = min(max(0.25 * usual, np.quantile(nearest, 0.001)), 0.5 * usual)
    found = find_twins(train, forget, retain)
    assert found.limit * usual == pytest.approx(limit, rel=1e-4)
    pairs = brute(x, range(10), range(10, 80), limit, lambda a, b: np.linalg.norm(a - b))
    assert set(zip(found.forget.tolist(), found.retain.tolist(), strict=True)) == pairs


def test_a_column_scale_does_not_matter_and_constant_columns_are_left_out():
    train = planted("table")
    scaled = Split(torch.cat([1000 * train.x, torch.full((80, 1), 5.0)], dim=1), train.y)
    one, other = (find_twins(s, torch.arange(10), torch.arange(10, 80)) for s in (train, scaled))
    assert one.forget.tolist() == other.forget.tolist()
    np.testing.assert_allclose(one.distance, other.distance, rtol=1e-3)


@pytest.mark.parametrize("rows", [2, 3])
def test_few_rows_and_data_that_repeat_themselves(rows):
    same = Split(torch.ones(rows, 4), torch.zeros(rows, dtype=torch.int64))
    found = find_twins(same, torch.arange(1), torch.arange(1, rows))
    assert found.forget.tolist() == [0] * (rows - 1)
    assert found.distance.tolist() == [0.0] * (rows - 1)
    apart = Split(torch.eye(rows), torch.zeros(rows, dtype=torch.int64))
    assert len(find_twins(apart, torch.arange(1), torch.arange(1, rows)).forget) == 0
