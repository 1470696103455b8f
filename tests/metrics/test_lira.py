import numpy as np
import pytest
from scipy import stats

from expunge.core import InputError
from expunge.metrics.lira import lira, lira_roc
from expunge.metrics.ulira import ulira

rng = np.random.default_rng(7)


def world(d, shadows=64, targets=40, examples=300, augmentations=1):
    """Margins N(d, 1) when trained on an example, N(0, 1) when not, around a level of its own for each example."""
    level = 3 * rng.normal(size=(1, examples, 1))
    out = []
    for models in (shadows, targets):
        trained = rng.random((models, examples)) < 0.5
        if models == shadows:
            trained[:2], trained[2:4] = True, False
        noise = rng.normal(size=(models, examples, augmentations))
        out.append((level + d * trained[:, :, None] + noise, trained))
    return out


@pytest.mark.parametrize("variance", ["per_example", "fixed", "fixed_published"])
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_area_is_phi_of_d_over_root_two(mode, variance):
    (shadow, inside), (target, truth) = world(1.0, shadows=256)
    result = lira_roc(lira(target, shadow, inside, mode=mode, variance=variance), truth)
    assert result.auc == pytest.approx(stats.norm.cdf(1 / np.sqrt(2)), abs=0.02)
    if mode == "online":
        assert result.balanced_accuracy == pytest.approx(stats.norm.cdf(0.5), abs=0.02)


def test_true_positive_rate_at_one_in_a_thousand():
    (shadow, inside), (target, truth) = world(3.0, shadows=512, targets=100)
    result = lira_roc(lira(target, shadow, inside, variance="fixed"), truth, fpr=0.001)
    assert result.tpr.low - 0.03 < 0.46405 < result.tpr.high + 0.03


def test_augmentations_add_their_log_ratios():
    (shadow, inside), (target, _) = world(1.0, augmentations=3)
    both = lira(target, shadow, inside)
    parts = [lira(target[:, :, i], shadow[:, :, i], inside) for i in range(3)]
    np.testing.assert_allclose(both, sum(parts))


def test_score_by_hand():
    (shadow, inside), (target, _) = world(1.0, targets=3, examples=4)
    for i in range(4):
        a, b = shadow[inside[:, i], i, 0], shadow[~inside[:, i], i, 0]
        for t in range(3):
            x = target[t, i, 0]
            n_in, n_out = stats.norm(np.median(a), a.std(ddof=1)), stats.norm(np.median(b), b.std(ddof=1))
            assert lira(target, shadow, inside)[t, i] == pytest.approx(n_in.logpdf(x) - n_out.logpdf(x))
            assert lira(target, shadow, inside, mode="offline")[t, i] == pytest.approx(n_out.logcdf(x))
            published = lira(target, shadow, inside, mode="offline_published")
            assert published[t, i] == pytest.approx(-n_out.logpdf(x))


def test_the_published_fixed_variance_uses_the_spread_of_the_inside_for_both():
    # In: sd 1, out: sd 3, so the published scores must differ where only the spread differs.
    inside = np.arange(200)[:, None] % 2 == 0
    shadow = np.where(inside, rng.normal(0, 1, (200, 1)), rng.normal(0, 3, (200, 1)))
    x = np.array([[0.0]])
    assert lira(x, shadow, inside, variance="fixed_published")[0, 0] == pytest.approx(0, abs=0.2)
    assert lira(x, shadow, inside, variance="fixed")[0, 0] == pytest.approx(np.log(3), abs=0.2)


def test_the_published_offline_score_calls_a_far_lower_margin_a_member():
    (shadow, inside), _ = world(0.0, examples=1)
    low = np.array([[shadow.mean() - 10.0]])
    level = np.array([[shadow.mean()]])
    assert lira(low, shadow, inside, mode="offline_published") > lira(level, shadow, inside, mode="offline_published")
    assert lira(low, shadow, inside, mode="offline") < lira(level, shadow, inside, mode="offline")


def test_shuffled_truth_is_chance_within_the_exact_interval():
    (shadow, inside), (target, truth) = world(2.0)
    scores = lira(target, shadow, inside)
    shuffled = rng.permuted(truth.ravel()).reshape(truth.shape)
    result = lira_roc(scores, shuffled, fpr=0.01)
    assert result.auc == pytest.approx(0.5, abs=0.02)
    assert result.tpr.low - 0.01 < 0.01 < result.tpr.high + 0.01


def test_a_broken_target_is_a_member_to_the_attacker_and_a_broken_shadow_is_refused():
    (shadow, inside), (target, _) = world(1.0)
    target[0, 0] = np.nan
    assert lira(target, shadow, inside)[0, 0] == np.inf
    shadow[3, 5] = np.nan
    with pytest.raises(InputError, match="1 shadow models"):
        lira(target, shadow, inside)


def test_lira_errors():
    (shadow, inside), (target, truth) = world(1.0)
    with pytest.raises(InputError, match="1 shadows in"):
        lira(target, shadow, np.arange(64)[:, None] == np.zeros((1, 300)))
    with pytest.raises(InputError, match="expected \\(shadows, examples\\)"):
        lira(target, shadow, inside[:, 1:])
    with pytest.raises(InputError, match="both members and non-members"):
        lira_roc(truth.astype(float), np.ones_like(truth))


# U-LiRA ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "accuracy"), [(0.5, 0.59871), (1, 0.69146), (2, 0.84134), (3, 0.93319)])
def test_accuracy_is_phi_of_half_the_shift(d, accuracy):
    result = ulira(rng.normal(d, 1, (200, 200)), rng.normal(size=(200, 200)))
    assert stats.norm.cdf(d / 2) == pytest.approx(accuracy, abs=1e-5)
    assert result.accuracy == pytest.approx(accuracy, abs=0.01)
    assert result.side == "under-forgotten"
    assert ulira(rng.normal(-d, 1, (200, 200)), rng.normal(size=(200, 200))).side == "over-forgotten"


@pytest.mark.parametrize("members", [5, 20, 100])
def test_oracles_as_unlearned_are_at_one_half(members):
    values = [ulira(*(rng.standard_t(5, (members, 200)) for _ in range(2))).accuracy for _ in range(20)]
    assert np.mean(values) == pytest.approx(0.5, abs=4 * np.std(values) / np.sqrt(20) + 0.002)


def test_interval_covers_when_examples_move_together():
    covered = []
    for _ in range(200):
        o, u = (rng.normal(size=(30, 20)) + rng.normal(size=(30, 1)) for _ in range(2))
        result = ulira(u, o)
        covered.append(result.low <= 0.5 <= result.high)
    # Conservative by construction: at least nominal, up to the noise of 200 repetitions.
    assert np.mean(covered) >= 0.92


def test_halves_equal_fitting_by_hand():
    u, o = rng.normal(0.5, 1, (6, 3)), rng.normal(size=(8, 3))
    order = np.random.default_rng(0)
    ours, theirs = np.array_split(order.permutation(6), 2), np.array_split(order.permutation(8), 2)
    right = np.zeros((14, 3))
    for fit, call in ((0, 1), (1, 0)):
        a, b = u[ours[fit]], o[theirs[fit]]
        laws = stats.norm(a.mean(0), a.std(0, ddof=1)), stats.norm(b.mean(0), b.std(0, ddof=1))
        right[ours[call]] = laws[0].logpdf(u[ours[call]]) > laws[1].logpdf(u[ours[call]])
        right[6 + theirs[call]] = laws[0].logpdf(o[theirs[call]]) < laws[1].logpdf(o[theirs[call]])
    result = ulira(u, o)
    np.testing.assert_allclose(result.per_example, 0.5 * (right[:6].mean(0) + right[6:].mean(0)))
    assert result.accuracy == pytest.approx(result.per_example.mean())


def test_targets_and_held_out_floor():
    result = ulira(
        rng.normal(1, 1, (50, 100)),
        rng.normal(size=(50, 100)),
        targets=(rng.normal(1, 1, (30, 100)), rng.normal(size=(40, 100))),
        held_out=rng.normal(size=(50, 100)),
    )
    assert (result.members, result.oracles) == (30, 40)
    assert result.accuracy == pytest.approx(0.69146, abs=0.03)
    assert result.floor == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("d", [0.0, 1.0, -3.0])
def test_failures_constants_and_outliers_do_not_improve_it(d):
    u, o = rng.normal(d, 1, (60, 150)), rng.normal(size=(60, 150))
    honest = ulira(u, o).accuracy
    for poison in (np.nan, np.inf):
        broken = u.copy()
        broken[:6] = poison
        assert ulira(broken, o).accuracy >= honest - 0.005
        assert ulira(broken, o).failed == 6
    assert ulira(np.full_like(u, np.nan), o).accuracy == 1
    assert ulira(np.full_like(u, 50.0), o).accuracy == 1
    outliers = u.copy()
    outliers[0], outliers[1] = 100, -100
    assert ulira(outliers, o).accuracy >= honest - 0.03


def test_order_does_not_matter():
    u, o = rng.normal(0.5, 1, (20, 30)), rng.normal(size=(25, 30))
    # Halves are drawn by position, so the order of members matters within the noise of the draw only.
    assert ulira(u[::-1], rng.permutation(o)).accuracy == pytest.approx(ulira(u, o).accuracy, abs=0.08)
    np.testing.assert_allclose(ulira(u[:, ::-1], o[:, ::-1]).per_example, ulira(u, o).per_example[::-1])
