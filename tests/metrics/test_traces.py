"""Traces of what was to be forgotten, in an ensemble that is otherwise perfect: no verdict may call it retrained.

With 100 members a side, and 70 or 300 rows. With the seeds given the outcome is fixed; `benchmarks/gaming.py --traces`
counts how often each trace passes over fresh draws. That an untouched row is told beside the changed ones has a chance
of 5 % at most with another seed, which is the level of the test over rows.
"""

import numpy as np
import pytest

from expunge.metrics import Judge
from expunge.metrics.traces import ridge_solve
from metrics.gaming import FAR, TRACES

MEMBERS, OTHERS = 100, 200


def law(seed, rows, shift=0.0):
    """Margins N(3 + shift, 1) by split; retain and validation are never touched."""
    rng = np.random.default_rng([17, seed])
    sizes = {"forget": rows, "retain": OTHERS, "validation": OTHERS}
    return {split: rng.normal(3, 1, (MEMBERS, n)) + shift * (split == "forget") for split, n in sizes.items()}


@pytest.fixture(scope="module", params=[70, 300])
def world(request):
    rows = request.param
    pretrained = law(2, rows, FAR)
    return rows, pretrained, Judge(law(0, rows), law(1, rows), pretrained)


@pytest.mark.parametrize("trace", TRACES)
def test_no_trace_passes_for_retrained(trace, world):
    rows, pretrained, decide = world
    fresh = law(3, rows)
    handed_in = {**fresh, "forget": TRACES[trace](fresh["forget"], pretrained["forget"])}
    if "copies" in trace:  # of whole models
        handed_in = {split: TRACES[trace](margins, None) for split, margins in fresh.items()}
    verdict = decide(handed_in)
    assert verdict.name != "indistinguishable"
    if trace == "copies":
        assert "90 of 100 members are copies of other members" in verdict.sentence
    if "remembered" in trace or "wrong" in trace:
        changed = np.flatnonzero((handed_in["forget"] != fresh["forget"]).any(0))
        assert verdict.name == ("over-forgotten" if "wrong" in trace else "under-forgotten")
        assert verdict.rows["forget"].counted == verdict.rows["forget"].told == len(changed)
        assert {row.position for row in verdict.rows["forget"].rows} <= set(changed.tolist())


def test_what_the_traces_are_put_in_passes(world):
    rows, _, decide = world
    assert decide(law(3, rows)).name == "indistinguishable"


def test_ridge_solve_is_the_plain_solution():
    rows = np.random.default_rng(3).normal(size=(12, 5))
    matrix, right = rows @ rows.T, rows[:, :2]
    plain = np.linalg.solve(matrix + np.trace(matrix) / 12 * np.eye(12), right)
    np.testing.assert_allclose(ridge_solve(matrix, right), plain, rtol=1e-12)
    np.testing.assert_array_equal(ridge_solve(0 * matrix, 0 * right), 0)
