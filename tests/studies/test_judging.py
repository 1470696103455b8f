"""The bench: one member's failure on any split counts on all, and published estimators see what really came out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expunge.core.record import SPLITS
from expunge.metrics import klom
from expunge.studies.audit.judging import Bench

SIZES = {"forget": 30, "retain": 60, "validation": 50}
MEMBERS = 40


def measured(seed: int, shift: float = 0.0) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    out = {}
    for split in SPLITS:
        moved = shift if split == "forget" else 0.0
        out[f"margins/{split}"] = torch.from_numpy(rng.normal(3 + moved, 1, (MEMBERS, SIZES[split]))).float()
        out[f"accuracy/{split}"] = torch.ones(MEMBERS, dtype=torch.float64)
    return out


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench({"oracle": measured(0), "held_out": measured(1), "pretrained": measured(2, shift=2.5)}, 0.25)


def test_pretrained_is_under_forgotten_and_there_is_something_to_unlearn(bench):
    assert bench.read(measured(2, shift=2.5)).verdict.name == "under-forgotten"
    assert not bench.nothing_to_unlearn()


def test_excess_is_value_minus_floor(bench):
    reading = bench.read(measured(3, shift=1.0))
    excess = bench.excess(measured(3, shift=1.0))
    for split in SPLITS:
        assert excess[split] == pytest.approx(reading.scores[split].value - bench.floors()[split].value)


def test_without_a_judge_the_same_is_read_but_intervals_and_tests(bench):
    judged, read = bench.read(measured(3, shift=1.0)), bench.read(measured(3, shift=1.0), judged=False)
    assert (read.verdict.name, read.verdict.rows, read.verdict.joint) == ("unjudged", {}, None)
    assert (read.means, read.shifts, read.public, read.failed) == (judged.means, judged.shifts, judged.public, 0)
    for split in SPLITS:
        assert np.isnan([read.scores[split].low, read.scores[split].high]).all()
        assert (read.scores[split].value, read.scores[split].floor) == (
            judged.scores[split].value,
            judged.scores[split].floor,
        )
    assert bench.judge({s: measured(3, shift=1.0)[f"margins/{s}"].numpy() for s in SPLITS}) == (
        judged.scores,
        judged.verdict,
    )


def test_what_diverged_is_seen_without_a_judge(bench):
    broken = measured(4)
    broken["margins/validation"][:3] = float("inf")
    assert bench.read(broken, judged=False).verdict == bench.read(broken).verdict
    assert bench.read(broken).verdict.name == "diverged"


def test_a_member_that_fails_on_one_split_counts_on_all(bench):
    honest, broken = measured(4), measured(4)
    broken["margins/retain"][:4] = float("nan")
    before, after = bench.read(honest), bench.read(broken)
    assert (before.failed, after.failed) == (0, 4)
    for split in SPLITS:
        assert after.scores[split].failed == 4
        assert after.scores[split].value > before.scores[split].value
    assert after.verdict.name == "diverged"


def test_published_estimator_reads_margins_as_they_came_out(bench):
    """Marking a failed member with NaN would make easydub read 0; it must be shown what a user would have shown it."""
    huge = measured(5)
    for split in SPLITS:
        huge[f"margins/{split}"][0] = -1e7
    reading = bench.read(huge)
    assert reading.failed == 1
    oracle = measured(0)
    for split in SPLITS:
        by_hand = klom(huge[f"margins/{split}"], oracle[f"margins/{split}"], variant="easydub")
        assert reading.public[split] == pytest.approx(np.percentile(by_hand, 95))
        assert reading.public[split] > 0


def test_worst_examples_are_those_that_moved_most(bench):
    assert len(set(bench.worst(5))) == 5
    shifts = np.abs(bench.rulers["forget"].shift_by_example(measured(2, shift=2.5)["margins/forget"].numpy()))
    assert bench.worst(1)[0] == int(np.argmax(shifts))
