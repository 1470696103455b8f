import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from expunge.core import InputError
from expunge.metrics.roc import auc, balanced_accuracy, clopper_pearson, clopper_pearson_upper, roc, tpr_at_fpr

scores = st.lists(st.integers(-2, 2), min_size=1, max_size=12)


@given(scores, scores)
def test_auc_counts_pairs_and_agrees_with_scikit_learn(p, n):
    slow = np.mean([(a > b) + 0.5 * (a == b) for a in p for b in n])
    assert float(auc(p, n)) == pytest.approx(slow)
    assert float(auc(p, n)) == pytest.approx(roc_auc_score([1] * len(p) + [0] * len(n), p + n))
    assert float(auc(p, n) + auc(n, p)) == pytest.approx(1)


def test_auc_works_along_the_last_axis():
    rng = np.random.default_rng(0)
    p, n = rng.normal(size=(3, 4, 9)), rng.normal(size=(3, 4, 7))
    np.testing.assert_allclose(auc(p, n), [[auc(p[i, j], n[i, j]) for j in range(4)] for i in range(3)])


@pytest.mark.parametrize(("d", "area"), [(0.5, 0.63816), (1, 0.76025), (2, 0.92135)])
def test_area_of_a_gaussian_shift_is_phi_of_d_over_root_two(d, area):
    grid = stats.norm.ppf((np.arange(5000) + 0.5) / 5000)
    assert float(auc(grid + d, grid)) == pytest.approx(area, abs=1e-4)
    assert stats.norm.cdf(d / np.sqrt(2)) == pytest.approx(area, abs=1e-5)


@pytest.mark.parametrize(("d", "rate"), [(1, 0.01830), (2, 0.13781), (3, 0.46405)])
def test_true_positive_rate_of_a_gaussian_shift(d, rate):
    grid = stats.norm.ppf((np.arange(200000) + 0.5) / 200000)
    assert tpr_at_fpr(grid + d, grid, 0.001).value == pytest.approx(rate, rel=5e-3)


@given(scores, scores, st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]))
def test_the_false_positive_rate_is_never_exceeded(p, n, fpr):
    best = max(np.mean(np.array(p) > t) for t in [-np.inf, *n, np.inf] if np.mean(np.array(n) > t) <= fpr + 1e-12)
    assert tpr_at_fpr(p, n, fpr).value == pytest.approx(best)


def test_ties_at_the_threshold_do_not_help():
    # All equal: roc_curve has only (0, 0) and (1, 1), so nothing is reached at a false-positive rate of 1 %.
    assert tpr_at_fpr([1] * 50, [1] * 50, 0.01).value == 0
    assert roc_curve([1] * 50 + [0] * 50, [1] * 100)[1].tolist() == [0, 1]


def test_clopper_pearson_against_its_defining_tails():
    for k, n in [(0, 10), (3, 10), (10, 10), (17, 512)]:
        _, low, high = clopper_pearson(k, n)
        if k:
            assert stats.binom.sf(k - 1, n, low) == pytest.approx(0.025)
        if k < n:
            assert stats.binom.cdf(k, n, high) == pytest.approx(0.025)
    assert clopper_pearson_upper(0, 100, 0.05) == pytest.approx(1 - 0.05 ** (1 / 100))


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.97])
@pytest.mark.parametrize("n", [20, 100])
def test_clopper_pearson_covers_exactly_at_least_95_percent(p, n):
    # Coverage is a finite sum, so it is computed and not simulated.
    covered = sum(
        stats.binom.pmf(k, n, p) for k in range(n + 1) if clopper_pearson(k, n)[1] <= p <= clopper_pearson(k, n)[2]
    )
    assert covered >= 0.95 - 1e-9


def test_roc_puts_them_together_and_says_its_resolution():
    rng = np.random.default_rng(0)
    result = roc(rng.normal(1, 1, 400), rng.normal(size=500), threshold=0.5, fpr=0.01)
    assert result.balanced_accuracy == pytest.approx(stats.norm.cdf(0.5), abs=0.04)
    assert result.resolution == 1 / 500
    assert result.tpr.low < result.tpr.value < result.tpr.high
    assert np.isnan(roc([1.0], [0.0]).balanced_accuracy)
    assert balanced_accuracy([1, 1], [1, 1], 1.0) == 0.5


def test_not_a_number_is_refused():
    with pytest.raises(InputError, match="1 scores are NaN"):
        auc([np.nan], [0.0])
    with pytest.raises(InputError, match="NaN"):
        tpr_at_fpr([1.0], [np.nan])
    with pytest.raises(InputError, match="successes = 4 of trials = 3"):
        clopper_pearson(4, 3)
