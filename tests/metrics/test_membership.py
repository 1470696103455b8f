import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.svm import SVC

from expunge.core import InputError
from expunge.core.margins import margins_from_logits
from expunge.metrics.membership import (
    FEATURES,
    SVC_FEATURES,
    _predict,
    entropy,
    loss,
    member_scores,
    modified_entropy,
    population_attack,
    svc_attack,
)
from expunge.metrics.reading import mean_interval
from expunge.metrics.roc import auc, tpr_at_fpr

rng = np.random.default_rng(5)
Z, Y = 2 * rng.normal(size=(3, 15, 4)), rng.integers(0, 4, 15)
P = np.exp(Z) / np.exp(Z).sum(-1, keepdims=True)


def test_features_equal_their_formulas_one_example_at_a_time():
    for m in range(3):
        for i, y in enumerate(Y):
            p = P[m, i]
            assert loss(Z, Y)[m, i] == pytest.approx(-np.log(p[y]))
            assert entropy(Z)[m, i] == pytest.approx(stats.entropy(p))
            others = sum(p[k] * np.log(1 - p[k]) for k in range(4) if k != y)
            assert modified_entropy(Z, Y)[m, i] == pytest.approx(-(1 - p[y]) * np.log(p[y]) - others)


def test_modified_entropy_separates_what_entropy_cannot():
    sure = np.array([[[30.0, 0.0, 0.0]]])
    assert modified_entropy(sure, [0])[0, 0] == pytest.approx(0, abs=1e-10)
    assert modified_entropy(sure, [1])[0, 0] > 50
    assert entropy(sure)[0, 0] < 1e-10
    # Saturated beyond what exp can hold: still finite, still ordered.
    assert np.isfinite(modified_entropy(np.array([[[1e5, 0.0]]]), [1])).all()


def published_by_its_own_steps(p, labels):
    log_prob = torch.where(p > 0, p.log(), torch.tensor(1e-30).double().log())
    changed, changed_log = p.clone(), log_prob.clone()
    changed[:, labels] = (1 - p)[:, labels]
    changed_log[:, labels] = log_prob[:, labels]
    return -(changed * changed_log).sum(-1)


def test_published_modified_entropy_keeps_both_defects():
    labels = np.array([0, 2] * 7 + [0])
    for m in range(3):
        expected = published_by_its_own_steps(torch.tensor(P[m]), torch.tensor(labels))
        np.testing.assert_allclose(modified_entropy(Z, labels, variant="published")[m], expected)
    # The defects: not the formula, and an example depends on the labels of its neighbours.
    alone = modified_entropy(Z[:, :1], labels[:1], variant="published")
    assert abs(alone - modified_entropy(Z, labels, variant="published")[:, :1]).max() > 0.01
    assert abs(modified_entropy(Z, labels, variant="published") - modified_entropy(Z, labels)).max() > 0.1
    np.testing.assert_allclose(modified_entropy(Z[:, :1], labels[:1]), modified_entropy(Z, labels)[:, :1])


@pytest.mark.parametrize("feature", FEATURES)
def test_scores_point_to_members_and_ignore_a_common_shift_of_logits(feature):
    y = np.zeros(2, int)
    sure, unsure = np.array([[[9.0, 0, 0], [9, 0, 0]]]), np.array([[[0.5, 0, 0.4], [0.4, 0, 0.5]]])
    if "published" not in feature:
        assert member_scores(sure, y, feature).mean() > member_scores(unsure, y, feature).mean()
    np.testing.assert_allclose(member_scores(Z + 50, Y, feature), member_scores(Z, Y, feature), rtol=1e-8, atol=1e-12)
    assert np.isnan(member_scores(np.full((1, 2, 3), np.nan), y, feature)).all()


def test_the_loss_orders_like_the_margin():
    margins = margins_from_logits(torch.tensor(Z), torch.tensor(Y)).numpy()
    np.testing.assert_array_equal(np.argsort(member_scores(Z, Y, "loss"), 1), np.argsort(margins, 1))


def scores(shift, members=8, forget=60, other=80):
    return rng.normal(shift, 1, (members, forget)), rng.normal(size=(members, other))


@pytest.mark.parametrize("statistic", ["auc", "balanced_accuracy", "tpr"])
def test_side_of_the_attack(statistic):
    oracle = scores(0.5, 20)
    kwargs = {"statistic": statistic, "fpr": 0.2}
    assert population_attack(*scores(2.0, 20), *oracle, **kwargs).side == "under-forgotten"
    if statistic != "balanced_accuracy":  # either side of 0.5 lowers an accuracy towards it first
        assert population_attack(*scores(-1.0, 20), *oracle, **kwargs).side == "over-forgotten"
    assert population_attack(*oracle, *oracle, **kwargs).side == "not told from the oracle"
    assert population_attack(*oracle, *oracle, **kwargs).distance == 0


def test_auc_of_the_reading_is_the_mean_of_members():
    f, o = scores(1.0)
    reading = population_attack(f, o, f, o)
    assert reading.value == pytest.approx(np.mean([float(auc(a, b)) for a, b in zip(f, o, strict=True)]))
    assert reading.value == pytest.approx(stats.norm.cdf(1 / np.sqrt(2)), abs=0.05)
    assert reading.low < reading.value < reading.high


def test_interval_of_a_rate_over_members_covers_other_examples():
    # Every member sees the same unseen examples, whose difficulty sets the threshold of all.
    draw, truth = np.random.default_rng(6), stats.norm.cdf(stats.norm.ppf(0.05) + 1.5)
    covered, members = [], []
    for _ in range(200):
        level, other_level = draw.normal(1.5, np.sqrt(0.5), 60), draw.normal(0, np.sqrt(0.5), 100)
        forget = level + np.sqrt(0.5) * draw.normal(size=(8, 60))
        other = other_level + np.sqrt(0.5) * draw.normal(size=(8, 100))
        reading = population_attack(forget, other, forget, other, statistic="tpr", fpr=0.05)
        assert (reading.low, reading.high) == (reading.floor_low, reading.floor_high)
        covered.append(reading.low <= truth <= reading.high)
        rates = np.array([tpr_at_fpr(a, b, 0.05).value for a, b in zip(forget, other, strict=True)])
        members.append(mean_interval(rates)[1] <= truth <= mean_interval(rates)[2])
    assert np.mean(covered) >= 0.95 - 0.03
    assert np.mean(members) < 0.85


def test_sides_are_about_evidence():
    f, o = scores(0.5, 40)
    more = scores(0.5, 40)
    assert population_attack(f[:1] + 3, o[:1], *more).side == "undecided"
    assert population_attack(f + 3, o, more[0][:1], more[1][:1]).side == "undecided"
    f[:2] = np.nan
    assert population_attack(f, o, f[2:], o[2:]).side == "not told from the oracle"
    f[:3] = np.nan
    reading = population_attack(f, o, *more)
    assert (reading.side, reading.failed) == ("failed", 3)


def test_a_threshold_found_on_the_same_scores_is_not_used():
    # No signal: an in-sample best threshold reads about 0.6 here, a cross-fitted one 0.5.
    forget, other = rng.normal(size=(300, 20)), rng.normal(size=(300, 20))
    value = population_attack(forget, other, forget, other, statistic="balanced_accuracy").value
    assert value == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("shift", [-2.0, 0.0, 2.0])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_failed_members_never_come_closer(shift, poison):
    (f, o), oracle = scores(shift), scores(0.3)
    honest = population_attack(f, o, *oracle).distance
    f[:3, 0] = poison
    broken = population_attack(f, o, *oracle)
    assert broken.distance >= honest
    assert broken.failed == 3
    f[:] = poison
    assert population_attack(f, o, *oracle).side == "failed"


def logits(confidence, n, y):
    return confidence * np.eye(3)[y][None] + rng.normal(size=(4, n, 3))


@pytest.mark.parametrize("feature", SVC_FEATURES)
def test_svc_attack_reads_forget_examples_as_what_they_resemble(feature):
    y = tuple(rng.integers(0, 3, n) for n in (60, 50, 40))
    remembered = (logits(8, 60, y[0]), logits(0.5, 50, y[1]), logits(8, 40, y[2]))
    forgotten = (logits(8, 60, y[0]), logits(0.5, 50, y[1]), logits(0.5, 40, y[2]))
    reading = svc_attack(remembered, forgotten, y, feature=feature)
    assert reading.value < 0.2
    assert reading.floor > 0.4
    assert reading.side == "under-forgotten"
    broken = tuple(part.copy() for part in remembered)
    broken[2][0] = np.nan
    assert svc_attack(broken, forgotten, y, feature=feature).distance >= reading.distance - 0.1


def test_errors():
    f, o = scores(0)
    with pytest.raises(InputError, match="same members"):
        population_attack(f, o[:-1], f, o)
    with pytest.raises(InputError, match="expected one of"):
        member_scores(Z, Y, "los")
    with pytest.raises(InputError, match="at least 4 of each"):
        population_attack(f[:, :3], o, f[:, :3], o, statistic="balanced_accuracy")


def test_a_classifier_of_one_feature_is_predicted_exactly_where_it_matters():
    draw = np.random.default_rng(7)
    for scale in (1.0, 5.0, 40.0):
        x, y = scale * draw.normal(size=(300, 1)), draw.integers(0, 2, 300)
        classifier = SVC(C=3, gamma="auto").fit(x, y)
        many = scale * draw.normal(size=(20_000, 1))
        np.testing.assert_array_equal(_predict(classifier, many), classifier.predict(many))
