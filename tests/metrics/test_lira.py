import numpy as np
import pytest
from scipy import stats

from expunge.core import InputError
from expunge.metrics.lira import lira, lira_roc
from expunge.metrics.ulira import ulira
from reference import lira_slow

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
    assert result.auc.value == pytest.approx(stats.norm.cdf(1 / np.sqrt(2)), abs=0.02)
    if mode == "online":
        assert result.balanced_accuracy.value == pytest.approx(stats.norm.cdf(0.5), abs=0.02)


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


@pytest.mark.parametrize("variance", ["per_example", "fixed", "per_example_published", "fixed_published"])
@pytest.mark.parametrize("mode", ["online", "offline", "offline_published"])
def test_scores_are_those_of_the_definition(mode, variance):
    """Spreads that differ between the sides, levels that differ between the examples, sides of different sizes."""
    (shadow, inside), (target, _) = world(1.0, shadows=9, targets=3, examples=4, augmentations=2)
    shadow = np.where(inside[:, :, None], shadow, 1.7 * shadow)
    expected = lira_slow.lira(target, shadow, inside, mode, variance)
    np.testing.assert_allclose(lira(target, shadow, inside, mode=mode, variance=variance), expected, rtol=1e-9)


def test_offline_needs_no_shadow_inside():
    (shadow, _), (target, _) = world(1.0, targets=3, examples=4)
    none = np.zeros(shadow.shape[:2], dtype=bool)
    for variance in ("fixed", "fixed_published"):
        assert np.isfinite(lira(target, shadow, none, mode="offline", variance=variance)).all()


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
    assert result.auc.value == pytest.approx(0.5, abs=0.02)
    assert result.tpr.low - 0.01 < 0.01 < result.tpr.high + 0.01


def test_a_broken_target_is_marked_and_a_broken_shadow_is_refused():
    (shadow, inside), (target, _) = world(1.0)
    target[0, 0] = np.nan
    target[1] = 4.0
    target[2] *= 1e4
    marked = np.isnan(lira(target, shadow, inside)).all(1)
    assert np.flatnonzero(marked).tolist() == [0, 1, 2]
    shadow[3, 5] = np.nan
    with pytest.raises(InputError, match="1 shadow models"):
        lira(target, shadow, inside)


@pytest.mark.parametrize(
    "destroy",
    [
        lambda m: np.full_like(m, np.nan),
        lambda m: np.full_like(m, 7.0),
        lambda m: m * 1e6,
        lambda m: np.where(np.arange(m.shape[1])[None, :, None] == 3, np.inf, m),
    ],
)
def test_destroyed_targets_are_told_right(destroy):
    (shadow, inside), (target, truth) = world(1.0, examples=100)
    ruined = lira_roc(lira(destroy(target), shadow, inside), truth, oracle=(lira(target, shadow, inside), truth))
    assert (ruined.auc.value, ruined.balanced_accuracy.value, ruined.tpr.value) == (1, 1, 1)
    assert (ruined.failed, ruined.side, ruined.targets) == (40, "failed", 40)
    assert ruined.distance >= 0.5


@pytest.mark.parametrize("d", [-1.0, 0.0, 1.0])
def test_failed_targets_never_come_closer_to_the_oracles(d):
    (shadow, inside), (target, truth) = world(1.0, examples=100)
    unlearned = target + (d - 1) * truth[:, :, None]
    oracle = lira(target - truth[:, :, None], shadow, inside), truth
    honest = lira_roc(lira(unlearned, shadow, inside), truth, oracle=oracle)
    unlearned[:6] = np.nan
    broken = lira_roc(lira(unlearned, shadow, inside), truth, oracle=oracle)
    assert broken.distance >= honest.distance - 0.01
    assert broken.auc.value > honest.auc.value
    assert broken.side == "failed"


def test_lira_beside_the_oracles_has_a_side():
    (shadow, inside), (target, truth) = world(1.0, examples=100)
    retrained = target - truth[:, :, None]
    oracle = lira(retrained[:20], shadow, inside), truth[:20]
    sides = {}
    for d in (-1.0, 0.0, 1.0):
        found = lira_roc(lira(retrained[20:] + d * truth[20:, :, None], shadow, inside), truth[20:], oracle=oracle)
        sides[d] = found.side
        assert found.oracle_auc.value == pytest.approx(0.5, abs=0.05)
        assert found.oracle_auc.low < found.oracle_auc.value < found.oracle_auc.high
        assert found.distance == pytest.approx(abs(found.auc.value - found.oracle_auc.value))
        assert (found.oracles, found.failed) == (20, 0)
    assert sides == {-1.0: "over-forgotten", 0.0: "not told from the oracle", 1.0: "under-forgotten"}
    alone = lira_roc(lira(target, shadow, inside), truth)
    assert (alone.side, alone.oracles) == ("undecided", 0)
    assert np.isnan([alone.oracle_auc.value, alone.distance]).all()
    broken = oracle[0].copy()
    broken[2] = np.nan
    with pytest.raises(InputError, match="non-finite in 1 of 20 oracles"):
        lira_roc(lira(target, shadow, inside), truth, oracle=(broken, truth[:20]))


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


@pytest.mark.parametrize("members", [20, 60])
@pytest.mark.parametrize("d", [0.0, 2.0])
def test_the_worst_example_has_the_floor_of_its_number_of_members(members, d):
    # Two worst examples of 400 differ by .011 (20 members) and .006 (60 members), one standard deviation.
    o, h, u = (rng.normal(size=(members, 400)) for _ in range(3))
    null = ulira(h, o).worst
    assert null > 0.55
    for held_out in (None, rng.normal(size=(members, 400)), rng.normal(size=(members // 2, 400))):
        found = ulira(u + d, o, held_out=held_out)
        assert found.worst_floor == pytest.approx(null, abs=1 / members + 0.015)
        assert (found.worst > found.worst_floor + 0.1) == (d > 0)
    goal = rng.normal(size=(members, 400)) + d, rng.normal(size=(members, 400))
    assert ulira(u + d, o, targets=goal).worst_floor == pytest.approx(null, abs=1 / members + 0.015)


@pytest.mark.parametrize("d", [0.0, 1.0, 2.0])
def test_area_and_rate_at_a_low_false_positive_rate(d):
    u, o = rng.normal(d, 1, (150, 100)), rng.normal(size=(150, 100))
    found = ulira(u, o, held_out=rng.normal(size=(150, 100)), fpr=0.01)
    assert found.auc.value == pytest.approx(stats.norm.cdf(d / np.sqrt(2)), abs=0.02)
    assert found.auc.low < found.auc.value < found.auc.high
    assert found.tpr.low < found.tpr.value < found.tpr.high
    if d:
        assert found.tpr.value == pytest.approx(stats.norm.cdf(stats.norm.ppf(0.01) + d), rel=0.35)
        assert found.auc.low > found.auc_floor.high
    assert found.auc_floor.value == pytest.approx(0.5, abs=0.02)
    assert found.tpr_floor.value == pytest.approx(0.01, abs=0.006)
    assert ulira(u, o, fpr=0.01).tpr_floor.value == 0.01


def test_intervals_of_area_and_rate_cover_when_examples_move_together():
    covered = []
    for _ in range(100):
        o, u = (rng.normal(size=(16, 12)) + rng.normal(size=(16, 1)) for _ in range(2))
        found = ulira(u, o, fpr=0.1)
        covered.append([found.auc.low <= 0.5 <= found.auc.high, found.tpr.low <= 0.1 <= found.tpr.high])
    # Conservative by construction, as for the accuracy.
    assert (np.mean(covered, 0) >= 0.92).all()


def test_sides_of_ulira_are_about_evidence():
    u, o = rng.normal(size=(40, 50)), rng.normal(size=(40, 50))
    assert ulira(u, o).side == "not told from the oracle"
    few = u.copy()
    few[:2] = np.nan
    assert ulira(few, o).side == "not told from the oracle"
    few[:3] = np.nan
    assert ulira(few, o).side == "failed"
    assert ulira(u, o, targets=(u[:1] + 3, o)).side == "undecided"
    with pytest.raises(InputError, match="unlearned has 3 members, expected at least 4"):
        ulira(u[:3], o)


def test_broken_held_out_oracles_are_refused():
    u, o = rng.normal(size=(40, 50)), rng.normal(size=(40, 50))
    for poison in (np.nan, np.inf, 5.0):
        held_out = rng.normal(size=(40, 50))
        held_out[:9] = poison
        with pytest.raises(InputError, match="held_out has non-finite, collapsed or exploded margins in 9 of 40"):
            ulira(u, o, held_out=held_out)


def test_order_does_not_matter():
    u, o = rng.normal(0.5, 1, (20, 30)), rng.normal(size=(25, 30))
    # Halves are drawn by position, so the order of members matters within the noise of the draw only.
    assert ulira(u[::-1], rng.permutation(o)).accuracy == pytest.approx(ulira(u, o).accuracy, abs=0.08)
    np.testing.assert_allclose(ulira(u[:, ::-1], o[:, ::-1]).per_example, ulira(u, o).per_example[::-1])
