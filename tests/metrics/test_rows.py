"""The test over rows: its twin, its level under dependence and ties, its step-down, its order of rows and members."""

import numpy as np
import pytest
from scipy import stats

from expunge.metrics.rows import OFFSET, ORDERS, SLOPE, Ranks, deal, groups_of_equals, row_test
from reference import rows_slow


@pytest.mark.parametrize("kind", ["continuous", "ties", "constant"])
def test_is_its_twin(kind):
    rng = np.random.default_rng(1)
    unlearned, reference = rng.normal(size=(7, 6)), rng.normal(size=(11, 6))
    unlearned[:, 2] += 3
    if kind == "ties":
        unlearned, reference = np.round(unlearned), np.round(reference)
    if kind == "constant":
        unlearned[:, 4] = reference[:, 4] = 1.5
    found = row_test(unlearned, reference, permutations=60, seed=3)
    masks = deal(7, 11, 60, 3).T > 0
    pooled = np.concatenate([unlearned, reference])
    assert masks[0].tolist() == [True] * 7 + [False] * 11
    assert (masks.sum(1) == 7).all()
    assert len({mask.tobytes() for mask in masks}) > 55
    np.testing.assert_allclose(
        found.statistic, [rows_slow.statistic(row, masks[0]) for row in pooled.T], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        found.z, [rows_slow.components(row, masks[0])[0] for row in pooled.T], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_array_equal(found.p_value, rows_slow.p_values(pooled, masks))


def test_pieces_do_not_change_the_answer(monkeypatch):
    rng = np.random.default_rng(2)
    unlearned, reference = rng.normal(size=(20, 50)), rng.normal(size=(30, 50))
    unlearned[:, [3, 7]] += 1.5
    whole = row_test(unlearned, reference, permutations=199)
    monkeypatch.setattr("expunge.metrics.rows.CACHED", 500)
    pieces = row_test(unlearned, reference, permutations=199)
    np.testing.assert_array_equal(whole.p_value, pieces.p_value)
    np.testing.assert_allclose(whole.largest, pieces.largest, rtol=1e-5)


def test_the_order_of_rows_and_any_increasing_scale_do_not_matter():
    rng = np.random.default_rng(3)
    unlearned, reference = rng.normal(size=(20, 30)), rng.normal(size=(30, 30))
    unlearned[:, 11] += 2
    found, order = row_test(unlearned, reference, permutations=199), rng.permutation(30)
    again = row_test(np.exp(unlearned[:, order]), np.exp(reference[:, order]), permutations=199)
    np.testing.assert_array_equal(found.p_value[order], again.p_value)


def test_the_scale_of_four_squares_is_that_of_one():
    for p in (1e-3, 1e-4, 1e-5, 1e-6):
        assert stats.chi2.isf(p, 1) == pytest.approx(SLOPE * stats.chi2.isf(p, ORDERS) - OFFSET, rel=0.02)


def test_scores_have_mean_0_and_variance_1_and_are_uncorrelated():
    scores = Ranks.of(np.random.default_rng(0).normal(size=(3, 40))).scores().astype(float)
    np.testing.assert_allclose(scores.mean(-1), 0, atol=1e-6)
    gram = np.einsum("arm,brm->rab", scores, scores) / 40
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(ORDERS), gram.shape), atol=0.02)


def laws(rng, members, kind):
    shape = (members, 25)
    if kind == "err together":
        return np.sqrt(0.3) * rng.normal(size=shape) + np.sqrt(0.7) * rng.normal(size=(members, 1))
    if kind == "heavy":
        return rng.standard_t(2, size=shape)
    return np.round(rng.exponential(size=shape) * 2)


@pytest.mark.parametrize("kind", ["err together", "heavy", "ties"])
def test_level_is_exact_whatever_the_law(kind):
    """At 5 % of 400 runs 20 are expected; 45 or more would have probability 2e-7."""
    told = 0
    for run in range(400):
        rng = np.random.default_rng([run, len(kind)])
        told += row_test(laws(rng, 10, kind), laws(rng, 17, kind), permutations=99, seed=run).told(0.05).any()
    assert told < 45


def test_a_row_that_differs_does_not_make_others_told_nor_hide_them():
    """Step-down: with half of the rows far off the others keep their level, and a second small one is still found."""
    others = found = 0
    for run in range(200):
        rng = np.random.default_rng([run, 7])
        unlearned, reference = laws(rng, 20, "err together"), laws(rng, 40, "err together")
        unlearned[:, :12] += 5
        unlearned[:, 12] += 1.5
        told = row_test(unlearned, reference, permutations=99, seed=run).told(0.05)
        assert told[:12].all()
        found += told[12]
        others += told[13:].any()
    assert found > 150
    # 10 are expected; 28 or more would have probability 3e-7.
    assert others < 28


def test_equal_statistics_are_one_group_in_the_order_of_rows():
    """Which of two equal sums comes out larger is a matter of the processor; the list of rows must not be."""
    values = np.array([3.0, 1.0, 3.0 + 1e-6, 2.0, 1.0 - 1e-6])
    assert groups_of_equals(values).tolist() == [2, 0, 2, 1, 0]
    assert groups_of_equals(-values).tolist() == [0, 2, 0, 1, 2]
    assert groups_of_equals(np.zeros(0)).tolist() == []
