import numpy as np
import pytest
from scipy import special, stats

from expunge.core import InputError
from expunge.metrics.joint import _gram, _smoother, classifier_two_sample, mmd

rng = np.random.default_rng(3)


def gaussian(a, b, width):
    return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * width**2))


def test_mmd_equals_the_double_sums():
    u, o = rng.normal(1, 1, (7, 3)), rng.normal(size=(9, 3))
    k_uu, k_oo, k_uo = gaussian(u, u, 1.5), gaussian(o, o, 1.5), gaussian(u, o, 1.5)
    slow = (k_uu.sum() - 7) / 42 + (k_oo.sum() - 9) / 72 - 2 * k_uo.mean()
    assert mmd(u, o, width=1.5, standardise=False).value == pytest.approx(slow)


@pytest.mark.parametrize(("d", "s"), [(1.0, 1.0), (2.0, 0.5), (0.5, 2.0)])
def test_mmd_closed_form_of_a_gaussian_shift(d, s):
    closed = 2 * s / np.sqrt(s**2 + 2) * (1 - np.exp(-(d**2) / (2 * (s**2 + 2))))
    values = [
        mmd(rng.normal(d, 1, (400, 1)), rng.normal(size=(400, 1)), width=s, standardise=False, permutations=19).value
        for _ in range(50)
    ]
    assert np.mean(values) == pytest.approx(closed, abs=5 * np.std(values) / np.sqrt(50))


def test_mmd_does_not_depend_on_the_order_of_members_or_examples():
    u, o = rng.normal(0.3, 1, (10, 6)), rng.normal(size=(12, 6))
    base = mmd(u, o).value
    assert mmd(u[::-1], rng.permutation(o)).value == pytest.approx(base)
    assert mmd(u[:, ::-1], o[:, ::-1]).value == pytest.approx(base)


def test_held_out_predictions_equal_refitting_ridge_regression_fold_by_fold():
    x, y = rng.normal(size=(12, 4)), rng.normal(size=12)
    fold = np.arange(12) % 3
    smoother = _smoother(x @ x.T, fold, 3, ridge=0.2)
    for i in range(3):
        train, test = fold != i, fold == i
        mean = x[train].mean(0)
        a = x[train] - mean
        penalty = 0.2 * np.trace(a @ a.T) / train.sum()
        weights = np.linalg.solve(a.T @ a + penalty * np.eye(4), a.T @ y[train])
        np.testing.assert_allclose((smoother @ y)[test], (x[test] - mean) @ weights)
        assert (smoother[np.ix_(test, test)] == 0).all()


def test_gram_is_the_same_in_pieces_and_leaves_constant_examples_out(monkeypatch):
    u, o = rng.normal(size=(5, 20)), rng.normal(size=(6, 20))
    u[:, 3] = o[:, 3] = 7.0
    whole, count = _gram(u, o, "gaussian")
    assert count == 19
    monkeypatch.setitem(_gram.__globals__["slices"].__globals__, "CHUNK", 50)
    np.testing.assert_allclose(_gram(u, o, "gaussian")[0], whole)


def test_null_p_values_are_uniform():
    # Members share a factor across examples, as trained models do.
    found: dict[str, list[float]] = {"gaussian": [], "linear": [], "mmd": []}
    for repeat in range(300):
        u = rng.normal(size=(15, 12)) + rng.normal(size=(15, 1))
        o = rng.normal(size=(20, 12)) + rng.normal(size=(20, 1))
        for kernel in ("gaussian", "linear"):
            result = classifier_two_sample(u, o, kernel=kernel, permutations=39, seed=repeat)
            found[kernel].append(result.p_value)
        found["mmd"].append(mmd(u, o, permutations=39, seed=repeat).p_value)
    for p_values in found.values():
        for level in (0.05, 0.1, 0.5):
            # Accuracies tie, which can only make rejections rarer than the level.
            rejected = int((np.array(p_values) <= level).sum())
            assert stats.binom.sf(rejected - 1, 300, level) > 1e-3
    # MMD has no ties: two-sided.
    assert stats.kstest(np.array(found["mmd"]) - rng.random(300) / 40, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("what", "sees"),
    [
        ("shift", "gaussian linear mmd"),
        ("spread", "gaussian mmd"),
        ("dependence", "gaussian mmd"),
        ("copies", "gaussian mmd"),
    ],
)
def test_power_against_what_margins_one_by_one_hide(what, sees):
    rejections = dict.fromkeys(("gaussian", "linear", "mmd"), 0)
    for _ in range(6):
        o = rng.normal(size=(50, 150))
        u = {
            "shift": rng.normal(0.3, 1, (50, 150)),
            "spread": rng.normal(0, 0.7, (50, 150)),
            # Every example's margins are N(0, 1) on both sides; only their dependence differs.
            "dependence": np.sqrt(0.7) * rng.normal(size=(50, 1)) + np.sqrt(0.3) * rng.normal(size=(50, 150)),
            "copies": rng.normal(size=(1, 150)) + 1e-3 * rng.normal(size=(50, 150)),
        }[what]
        for name in rejections:
            found = mmd(u, o) if name == "mmd" else classifier_two_sample(u, o, kernel=name, permutations=99)
            rejections[name] += found.p_value <= 0.05
            assert (found.value > found.floor_high) or found.p_value > 0.02
    for name in sees.split():
        assert rejections[name] >= 5
    if what == "dependence":
        # The common factor moves the mean a little, which is all that a linear classifier sees.
        assert rejections["linear"] < 6


def test_members_that_are_the_oracles_read_as_one_law():
    o = rng.normal(size=(30, 40))
    assert mmd(o, o).value < 0
    assert mmd(o, o).p_value > 0.5
    constant = np.zeros((10, 5))
    assert mmd(constant, constant).p_value == 1
    assert classifier_two_sample(constant, constant).value == 0.5


@pytest.mark.parametrize("test", [classifier_two_sample, mmd])
def test_a_failed_member_is_the_worst_outcome(test):
    u, o = rng.normal(5, 1, (20, 10)), rng.normal(size=(20, 10))
    honest = test(u, o, permutations=99)
    u[3, 2] = np.nan
    broken = test(u, o, permutations=99)
    assert broken.value >= honest.value
    assert broken.p_value == 0.01
    assert broken.failed == 1


def test_unequal_numbers_of_members_have_no_base_rate():
    values = [
        classifier_two_sample(rng.normal(size=(10, 8)), rng.normal(size=(60, 8)), permutations=19, seed=i).value
        for i in range(60)
    ]
    assert np.mean(values) == pytest.approx(0.5, abs=4 * np.std(values) / np.sqrt(60))


@pytest.mark.parametrize(("members", "oracles"), [(10, 60), (60, 10), (20, 20)])
def test_the_p_value_of_the_table_of_calls_keeps_its_level_at_unequal_sizes(members, oracles):
    draw, found = np.random.default_rng(2), []
    for repeat in range(300):
        u, o = draw.normal(size=(members, 12)), draw.normal(size=(oracles, 12))
        found.append(classifier_two_sample(u, o, permutations=19, seed=repeat).table_p_value)
    rejected = int((np.array(found) <= 0.05).sum())
    # Folds share members, so a little above 5 % is what there is.
    assert stats.binom.sf(rejected - 1, 300, 0.065) > 0.01


def test_the_p_value_of_the_table_is_fishers():
    u, o = rng.normal(3, 1, (10, 6)), rng.normal(size=(15, 6))
    # All calls are right: one table of C(25, 10).
    assert classifier_two_sample(u, o).table_p_value == pytest.approx(1 / special.comb(25, 10))
    assert np.isnan(mmd(u, o).table_p_value)
    u[0] = np.nan
    assert classifier_two_sample(u, o).table_p_value == pytest.approx(1 / special.comb(25, 10))


def test_errors():
    o = rng.normal(size=(10, 4))
    with pytest.raises(InputError, match="folds = 5, expected at least as many"):
        classifier_two_sample(o[:3], o)
    with pytest.raises(InputError, match="expected one of: gaussian, linear"):
        classifier_two_sample(o, o, kernel="rbf")
    with pytest.raises(InputError, match="at least 2"):
        mmd(o[:1], o)
    with pytest.raises(InputError, match="at least 19"):
        mmd(o, o, permutations=5)
