import numpy as np
import pytest
import torch
import torch.nn.functional as F

from expunge.core import InputError
from expunge.metrics.arrays import slices
from expunge.metrics.outputs import (
    accuracy,
    accuracy_gap,
    activation_distance,
    activation_distance_reading,
    jensen_shannon_outputs,
    tug_of_war,
    tug_of_war_reading,
    zrf,
    zrf_reading,
)

rng = np.random.default_rng(0)
U, V = rng.normal(size=(5, 20, 4)), rng.normal(size=(6, 20, 4))
Y = rng.integers(0, 4, 20)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_accuracy_counts_by_hand():
    slow = [np.mean([row[i].argmax() == Y[i] for i in range(20)]) for row in U]
    np.testing.assert_allclose(accuracy(U, Y), slow)
    np.testing.assert_allclose(accuracy(torch.tensor(U, dtype=torch.float32), torch.tensor(Y)), slow)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_non_finite_logit_is_never_correct(poison):
    z = np.zeros((1, 3, 2))
    z[..., 1] = 1
    z[0, 0, 1] = poison
    assert accuracy(z, [1, 1, 1]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(Y[:-1], "19 entries for 20"), (Y + 1, "expected 0 to 3"), (Y + 0.5, "whole numbers"), (Y[None], "1 axes")],
)
def test_labels_are_checked(labels, message):
    with pytest.raises(InputError, match=message):
        accuracy(U, labels)


def test_accuracy_below_the_oracle_is_over_forgetting():
    right = np.eye(4)[Y][None] + 0.1 * rng.normal(size=(8, 20, 4))
    wrong = np.eye(4)[(Y + 1) % 4][None] + 0.1 * rng.normal(size=(8, 20, 4))
    assert accuracy_gap(wrong, right, Y).side == "over-forgotten"
    assert accuracy_gap(right, wrong, Y).side == "under-forgotten"
    assert accuracy_gap(right, right, Y).side == "not told from the oracle"
    assert accuracy_gap(right, right, Y).distance == 0


def test_a_failed_member_never_improves_the_accuracy_gap():
    over = np.eye(4)[(Y + 1) % 4][None].repeat(4, 0)
    oracle = np.where(rng.random((5, 20, 1)) < 0.5, np.eye(4)[Y], np.eye(4)[(Y + 1) % 4])
    honest = accuracy_gap(over, oracle, Y)
    broken = over.copy()
    broken[0] = np.nan
    assert accuracy_gap(broken, oracle, Y).distance >= honest.distance
    assert accuracy_gap(broken, oracle, Y).failed == 1


def test_activation_distance_equals_the_double_loop(monkeypatch):
    slow = [np.mean([np.linalg.norm(softmax(u) - softmax(o), axis=-1).mean() for o in V]) for u in U]
    np.testing.assert_allclose(activation_distance(U, V), slow, atol=1e-8)
    monkeypatch.setitem(slices.__globals__, "CHUNK", 64)
    np.testing.assert_allclose(activation_distance(U, V), slow, atol=1e-8)


def test_activation_distance_endpoints_and_floor():
    a = np.zeros((1, 3, 2))
    a[..., 0] = 1e4
    assert activation_distance(a, -a) == pytest.approx(np.sqrt(2))
    assert activation_distance(a, a) == pytest.approx(0, abs=1e-8)
    assert activation_distance(a * np.nan, a) == pytest.approx(np.sqrt(2))
    floor = activation_distance_reading(V, V).floor
    slow = np.mean(
        [np.linalg.norm(softmax(V[i]) - softmax(V[j]), axis=-1).mean() for i in range(6) for j in range(6) if i != j]
    )
    assert floor == pytest.approx(slow)


def test_js_golden_value_bounds_and_identity():
    onehot = np.array([1e5] + [0.0] * 9)
    assert jensen_shannon_outputs(onehot, np.zeros(10)) == pytest.approx(0.5255973, abs=1e-7)
    assert jensen_shannon_outputs(onehot, np.roll(onehot, 1)) == pytest.approx(np.log(2))
    np.testing.assert_allclose(jensen_shannon_outputs(U, U), 0, atol=1e-15)


def test_zrf_is_one_minus_js_and_published_is_the_defect_of_kl_div():
    teacher = rng.normal(size=(20, 4))
    slow = [1 - np.mean([float(jensen_shannon_outputs(u[i], teacher[i])) for i in range(20)]) for u in U]
    np.testing.assert_allclose(zrf(U, teacher), slow)
    assert zrf(teacher[None], teacher) == pytest.approx(1)
    p, q = torch.tensor(softmax(U[0])), torch.tensor(softmax(teacher))
    m = (p + q) / 2
    with pytest.warns(UserWarning, match="reduction"):  # torch itself warns about this very reduction
        defect = 1 - 0.5 * float(F.kl_div(p.log(), m, reduction="mean") + F.kl_div(q.log(), m, reduction="mean"))
    assert zrf(U[:1], teacher, variant="published")[0] == pytest.approx(defect)
    assert abs(defect - slow[0]) > 0.01


def test_zrf_above_the_oracle_is_over_forgetting_and_failures_do_not_help():
    teacher = np.zeros((20, 4))
    confident = 8 * np.eye(4)[Y][None] + rng.normal(size=(6, 20, 4))
    vague = rng.normal(size=(6, 20, 4))
    assert zrf_reading(vague, confident, teacher).side == "over-forgotten"
    assert zrf_reading(confident, vague, teacher).side == "under-forgotten"
    broken = vague.copy()
    broken[2] = np.inf
    assert zrf_reading(broken, confident, teacher).distance >= zrf_reading(vague, confident, teacher).distance
    assert np.isnan(zrf(broken, teacher)[2])


def test_tug_of_war_golden_symmetry_and_failures():
    a, b = {"F": 0.70, "R": 0.99, "T": 0.90}, {"F": 0.60, "R": 1.0, "T": 0.91}
    assert tug_of_war(a, b) == pytest.approx(0.88209)
    assert tug_of_war(b, a) == pytest.approx(0.88209)
    assert tug_of_war(a, a) == 1
    assert tug_of_war({**a, "F": np.nan}, b) == 0
    with pytest.raises(InputError, match="expected fractions"):
        tug_of_war({**a, "F": 70}, b)
    with pytest.raises(InputError, match="splits"):
        tug_of_war({"F": 0.5}, b)


def test_tug_of_war_floor_is_below_one_by_the_noise_of_seeds():
    accuracies = {"F": rng.uniform(0.5, 0.7, 400), "R": rng.uniform(0.9, 1, 400)}
    reading = tug_of_war_reading(accuracies, accuracies)
    assert reading.floor < 0.96
    assert reading.value == pytest.approx(reading.floor, abs=0.002)
    assert reading.side == "not told from the oracle"
