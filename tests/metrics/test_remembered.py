"""One model's memory of rows, by rank: closed forms, an exact level, classes that are no memory."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from expunge.core import InputError
from expunge.metrics import remembered as module
from expunge.metrics.remembered import remembered


def test_share_is_the_area_under_the_roc_and_p_that_of_mann_and_whitney():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0.6, 1, 30), rng.normal(0, 1, 50)
    found = remembered(ours, theirs)
    reference = stats.mannwhitneyu(ours, theirs, alternative="greater")
    assert found.share == pytest.approx(reference.statistic / 1500)
    # Five standard errors of 9,999 relabellings.
    assert found.p_value == pytest.approx(reference.pvalue, abs=5 * np.sqrt(reference.pvalue / 9999) + 1e-3)
    assert found.pairs == 1500


def test_ties_count_half_and_order_does_not_matter():
    assert remembered([1.0, 1.0], [1.0, 1.0]).share == 0.5
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(size=12), rng.normal(size=9)
    assert remembered(ours[::-1], theirs[::-1]).share == remembered(ours, theirs).share


def test_an_easy_class_is_no_memory():
    rng = np.random.default_rng(2)
    ours, theirs = rng.normal(5, 1, 60), rng.normal(np.repeat([5, 0], 60), 1)
    plain = remembered(ours, theirs)
    within = remembered(ours, theirs, np.zeros(60), np.repeat([0, 1], 60))
    assert plain.p_value < 1e-3 < within.p_value
    assert within.pairs == 3600


def test_level(monkeypatch):
    """300 trials of unseen rows: as many with p <= 0.1 as a binomial says, but for a chance of 1e-6."""
    monkeypatch.setattr(module, "PERMUTATIONS", 99)
    rng = np.random.default_rng(3)
    kinds, others = np.repeat([0, 1], [5, 9]), np.repeat([0, 1], [12, 8])
    told = sum(
        remembered(rng.normal(kinds, 1), rng.normal(others, 1), kinds, others, seed=trial).p_value <= 0.1
        for trial in range(300)
    )
    assert stats.binom.ppf(5e-7, 300, 0.1) <= told <= stats.binom.isf(5e-7, 300, 0.1)


def test_no_row_of_the_class_and_numbers_that_are_none():
    nothing = remembered([1.0], [2.0], [0], [1])
    assert nothing.pairs == 0
    assert np.isnan(nothing.share)
    with pytest.raises(InputError, match="not finite"):
        remembered([np.nan], [1.0])
