"""Parts come back as they were written, and an altered one is named and refused."""

from __future__ import annotations

import pytest
import torch

from expunge.core import DamagedFileError
from expunge.core.record import CheckRecord
from expunge.methods import Stop
from expunge.studies.run.parts import PartStore


@pytest.fixture
def stops() -> list[Stop]:
    measured = {"margins/forget": torch.randn(5, 3), "accuracy/forget": torch.rand(5, dtype=torch.float64)}
    check = CheckRecord(name="weights moved", passed=False, detail="0 of 5 members moved")
    return [Stop(epoch, 0.1 * epoch, {k: v + epoch for k, v in measured.items()}, {}, (check,)) for epoch in (1, 2)]


def test_round_trip_is_exact(tmp_path, stops):
    store = PartStore(tmp_path)
    assert store.load({"a": 1}) is None
    store.save({"a": 1}, stops)
    found = store.load({"a": 1})
    assert [(s.epoch, s.cost, s.checks) for s in found] == [(s.epoch, s.cost, s.checks) for s in stops]
    for a, b in zip(found, stops, strict=True):
        assert a.measured.keys() == b.measured.keys()
        assert all(torch.equal(a.measured[key], b.measured[key]) for key in a.measured)
    assert store.load({"a": 2}) is None
    assert not list(tmp_path.glob(".*"))


def test_altered_part_is_named(tmp_path, stops):
    store = PartStore(tmp_path)
    store.save("key", stops)
    path = store.path("key")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=path.name):
        store.load("key")


def test_clear_removes_parts_only(tmp_path, stops):
    store = PartStore(tmp_path)
    store.save("key", stops)
    (tmp_path / "other").write_text("kept")
    store.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
