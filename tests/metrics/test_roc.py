import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from expunge.core import InputError
from expunge.metrics.roc import (
    auc,
    balanced_accuracy,
    clopper_pearson,
    clopper_pearson_upper,
    pooled_roc,
    roc,
    tpr_at_fpr,
)

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


@pytest.mark.parametrize(
    ("positives", "negatives", "fpr", "d"), [(200, 200, 0.05, 1.0), (100, 1000, 0.01, 2.0), (60, 80, 0.05, 1.5)]
)
def test_interval_of_the_true_positive_rate_covers_although_the_threshold_is_estimated(positives, negatives, fpr, d):
    draw, truth = np.random.default_rng(4), stats.norm.cdf(stats.norm.ppf(fpr) + d)
    covered, fixed = [], []
    for _ in range(600):
        value, low, high = tpr_at_fpr(draw.normal(d, 1, positives), draw.normal(size=negatives), fpr)
        alone = clopper_pearson(round(value * positives), positives)
        assert low <= value <= high
        covered.append(low <= truth <= high)
        fixed.append(alone.low <= truth <= alone.high)
    # Nominal or more; Clopper-Pearson alone, which takes the threshold as given, does not.
    assert np.mean(covered) >= 0.95 - 0.02
    assert np.mean(fixed) < 0.9


def test_interval_of_the_true_positive_rate_at_its_ends():
    few = tpr_at_fpr(np.arange(50) + 100, np.arange(50), 0.001)
    # All positives are above all negatives, but 50 negatives do not say where 1 in 1,000 of them lie.
    assert (few.value, few.low, few.high) == (1, 0, 1)
    assert tpr_at_fpr(np.arange(50) + 100.0, np.arange(10_000) / 1000, 0.01).low > 0.9
    assert tpr_at_fpr(np.arange(50), np.arange(50), 1.0).low == pytest.approx(clopper_pearson(50, 50).low)
    none = tpr_at_fpr(np.zeros(50), np.arange(10_000) + 1.0, 0.01)
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(clopper_pearson(0, 50).high)


def models(draw, count, examples=40, d=1.0, shared=0.5):
    """Scores of models that err together on all examples, half of which are positives of either model."""
    positive = draw.random((count, examples)) < 0.5
    noise = np.sqrt(1 - shared) * draw.normal(size=(count, examples)) + np.sqrt(shared) * draw.normal(size=(count, 1))
    return d * positive + noise, positive


@pytest.mark.parametrize("count", [15, 40])
def test_pooled_intervals_cover_when_the_scores_of_a_model_move_together(count):
    draw, area = np.random.default_rng(8), stats.norm.cdf(1 / np.sqrt(2))
    truth = area, stats.norm.cdf(0.5), stats.norm.cdf(stats.norm.ppf(0.05) + 1)
    covered = []
    for repeat in range(300):
        found = pooled_roc(*models(draw, count), threshold=0.5, fpr=0.05, replicates=200, seed=repeat)
        seen = found.auc, found.balanced_accuracy, found.tpr
        covered.append([x.low <= value <= x.high for x, value in zip(seen, truth, strict=True)])
    # The area of few models that err together is skewed; the docstring says how often its interval covers.
    assert (np.mean(covered, 0) >= [0.86 if count < 30 else 0.91, 0.915, 0.92]).all()


def test_pooled_values_are_those_of_all_scores_together_and_cells_barely_move_their_spread(monkeypatch):
    scores, positive = models(np.random.default_rng(9), 12, examples=300)
    found = pooled_roc(scores, positive, fpr=0.02)
    assert found.auc.value == float(auc(scores[positive], scores[~positive]))
    assert found.balanced_accuracy.value == balanced_accuracy(scores[positive], scores[~positive], 0.0)
    assert found.tpr.value == tpr_at_fpr(scores[positive], scores[~positive], 0.02).value
    monkeypatch.setitem(pooled_roc.__globals__, "CELLS", 200)
    rough = pooled_roc(scores, positive, fpr=0.02)
    np.testing.assert_allclose(rough.auc, found.auc, atol=2e-3)
    np.testing.assert_allclose(rough.tpr, found.tpr, atol=0.02)
    single = pooled_roc(scores[:1], positive[:1])
    assert np.isnan([single.auc.low, single.auc.high]).all()


def test_pooled_errors():
    scores, positive = models(np.random.default_rng(9), 4)
    with pytest.raises(InputError, match="expected both positives and negatives"):
        pooled_roc(scores, np.ones_like(positive))
    scores[0, 0] = np.nan
    with pytest.raises(InputError, match="1 scores are NaN"):
        pooled_roc(scores, positive)


def test_not_a_number_is_refused():
    with pytest.raises(InputError, match="1 scores are NaN"):
        auc([np.nan], [0.0])
    with pytest.raises(InputError, match="NaN"):
        tpr_at_fpr([1.0], [np.nan])
    with pytest.raises(InputError, match="successes = 4 of trials = 3"):
        clopper_pearson(4, 3)
