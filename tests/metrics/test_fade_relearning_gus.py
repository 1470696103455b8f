import numpy as np
import pytest
from scipy import stats

from expunge.core import InputError
from expunge.metrics.arrays import slices
from expunge.metrics.fade import fade, fade_from_samples, fade_reading
from expunge.metrics.gus import gus
from expunge.metrics.relearning import relearning, relearning_times

rng = np.random.default_rng(17)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_fade_equals_the_sum_and_is_symmetric(monkeypatch):
    u, o = rng.normal(size=(3, 12, 4)), rng.normal(size=(5, 12, 4))
    slow = np.array(
        [[((softmax(a) - softmax(b)) * (np.log(softmax(a)) - np.log(softmax(b)))).sum(-1).mean() for b in o] for a in u]
    )
    np.testing.assert_allclose(fade(u, o), slow, atol=1e-10)
    np.testing.assert_allclose(fade(o, u), slow.T, atol=1e-10)
    monkeypatch.setitem(slices.__globals__, "CHUNK", 50)
    np.testing.assert_allclose(fade(u, o), slow, atol=1e-10)
    np.testing.assert_allclose(np.diag(fade(u, u)), 0, atol=1e-12)


def test_fade_floor_and_failures():
    honest = [fade_reading(rng.normal(size=(8, 30, 3)), rng.normal(size=(8, 30, 3))).side for _ in range(40)]
    assert honest.count("off the oracle") <= 8  # 40 intervals at 95 %; 7 % off in 150 draws
    o, h, far = rng.normal(size=(8, 30, 3)), rng.normal(size=(8, 30, 3)), 5 * rng.normal(size=(8, 30, 3))
    assert fade_reading(far, o).side == "off the oracle"
    assert fade_reading(h, o).floor == pytest.approx(fade_reading(h, o).value, rel=0.25)
    broken = h.copy()
    broken[0, 0, 0] = np.nan
    assert fade(broken, o)[0, 0] == np.inf
    assert fade_reading(broken, o).distance == np.inf


def test_monte_carlo_converges_to_the_exact_value_at_root_rate():
    p, q = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.3, 0.5])
    exact = float(((p - q) * np.log(p / q)).sum())
    errors = []
    for samples in (100, 10000):
        u, o = rng.choice(3, (200, samples), p=p), rng.choice(3, (200, samples), p=q)
        result = fade_from_samples(np.log(p)[u], np.log(q)[u], np.log(q)[o], np.log(p)[o])
        errors.append(np.std(result.per_prompt))
        assert result.low - 0.01 < exact < result.high + 0.01
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.25)


def test_monte_carlo_gaussian_closed_form_is_the_squared_shift():
    d, n = 1.5, 4000
    x, y = rng.normal(size=(20, n)), rng.normal(d, 1, (20, n))
    shift = -0.5 * np.log(2 * np.pi) - 10  # any common constant cancels; keeps log-densities at most 0
    f, g = (lambda t: shift - t**2 / 2), (lambda t: shift - (t - d) ** 2 / 2)
    assert fade_from_samples(f(x), g(x), g(y), f(y)).value == pytest.approx(d**2, abs=0.05)


def test_fade_from_samples_failures_and_errors():
    logs = np.log(rng.random((4, 5)))
    nan = logs.copy()
    nan[0, 0] = np.nan
    assert fade_from_samples(nan, logs, logs, logs).value == np.inf
    assert fade_from_samples(logs, logs, logs, logs).value == 0
    with pytest.raises(InputError, match="reference must not have failed"):
        fade_from_samples(logs, nan, logs, logs)
    with pytest.raises(InputError, match="log-probabilities \\(at most 0\\)"):
        fade_from_samples(-logs, logs, logs, logs)
    with pytest.raises(InputError, match="shapes"):
        fade_from_samples(logs, logs[:, 1:], logs, logs)


# relearning --------------------------------------------------------------------------------------------------------


def test_a_curve_that_never_arrives_is_censored_and_not_the_fastest():
    curves = np.array([[3.0, 2, 1, 1], [3, 3, 3, 3], [0.5, 0.5, 0.5, 0.5]])
    times, censored = relearning_times(curves, 1.0)
    assert times.tolist() == [2, 3, 0]
    assert censored.tolist() == [False, True, False]
    assert np.argmax(curves < 1.5, 1).tolist()[1] == 0  # what public code would report for the slowest


@pytest.mark.parametrize(("eigenvalue", "rate"), [(0.5, 0.3), (1.0, 0.1)])
def test_steps_of_gradient_descent_on_a_quadratic(eigenvalue, rate):
    steps = np.arange(200)
    losses = 0.5 * eigenvalue * (1 - rate * eigenvalue) ** (2 * steps) * 4.0
    closed = np.ceil(np.log(0.01 / (2 * eigenvalue)) / (2 * np.log(1 - rate * eigenvalue)))
    assert relearning_times(losses[None], 0.01)[0][0] == closed


def curve(start, rate, members, steps=30):
    noise = np.exp(0.1 * rng.normal(size=(members, 1)))
    return start * noise * np.exp(-rate * np.arange(steps + 1))[None]


def test_sides_of_relearning():
    oracle = curve(2.0, 0.2, 20)
    assert relearning(curve(2.0, 0.6, 20), oracle, 0.1).side == "under-forgotten"
    assert relearning(curve(9.0, 0.2, 20), oracle, 0.1).side == "over-forgotten"
    same = relearning(oracle, oracle, 0.1)
    assert (same.difference, same.ratio, same.side) == (0, 1, "not told from the oracle")
    np.testing.assert_array_equal(same.curve_gap, 0)
    original = relearning(curve(0.05, 0.1, 20), oracle, 0.1)
    assert original.time == 0  # the pretrained model stops at once
    assert relearning(curve(2.0, 0.0, 20), oracle, 0.1).censored == 20


def test_failed_members_never_come_closer_in_relearning():
    oracle = curve(2.0, 0.2, 20)
    for rate in (0.1, 0.2, 0.6):
        honest = curve(2.0, rate, 10)
        broken = honest.copy()
        broken[:2, 5] = np.nan
        assert relearning(broken, oracle, 0.1).distance >= relearning(honest, oracle, 0.1).distance
    assert relearning(np.full((3, 31), np.nan), oracle, 0.1).side == "failed"


def test_sides_of_relearning_are_about_evidence():
    oracle, fast = curve(2.0, 0.2, 20), curve(2.0, 0.6, 20)
    assert relearning(fast[:1], oracle, 0.1).side == "undecided"
    assert relearning(fast, oracle[:1], 0.1).side == "undecided"
    fast[:1] = np.nan
    assert relearning(fast, oracle, 0.1).side == "under-forgotten"
    fast[:2] = np.nan
    assert relearning(fast, oracle, 0.1).side == "failed"


def test_relearning_interval_covers_for_oracles_as_unlearned():
    covered = []
    for _ in range(800):
        a, b = (curve(2.0, 0.05, 30, 60) for _ in range(2))
        result = relearning(a, b, 0.5, replicates=200)
        covered.append(result.low <= 0 <= result.high)
    assert 0.9 <= np.mean(covered) <= 0.99


def test_relearning_errors():
    with pytest.raises(InputError, match="expected the same attack"):
        relearning(curve(1, 1, 3, 5), curve(1, 1, 3, 6), 0.1)
    with pytest.raises(InputError, match="lower the rate"):
        relearning(curve(1, 1, 3), curve(1, 1, 3) * np.nan, 0.1)


# GUS ---------------------------------------------------------------------------------------------------------------


def test_independent_noise_is_standard_normal():
    slopes, noise = rng.normal(size=(4000, 20)), 0.05 * rng.normal(size=(4000, 20))
    result = gus(slopes, noise, 0.05)
    assert stats.kstest(result.per_example, "norm").pvalue > 1e-3
    assert result.p_value > 1e-3
    assert result.tpr.low < 0.01 < result.tpr.high


def test_an_interpolator_reads_root_two_over_pi_with_the_sign_turned():
    # Interpolating linear regression: the residual at the clean input is -w.xi, so the loss gradient is -(w.xi) w.
    w, noise = rng.normal(size=20), 0.3 * rng.normal(size=(5000, 20))
    slopes = -(noise @ w)[:, None] * w
    result = gus(slopes, noise, 0.3)
    assert result.mean == pytest.approx(np.sqrt(2 / np.pi), abs=0.03)
    assert result.conclusion == "remembered"
    raw = (slopes * noise).sum(1) / (0.3 * np.linalg.norm(slopes, axis=1))
    assert raw.mean() == pytest.approx(-0.798, abs=0.03)
    assert gus(-slopes, noise, 0.3).conclusion == "reversed"


def test_null_p_values_are_uniform():
    p = [gus(rng.normal(size=(30, 8)), rng.normal(size=(30, 8)), 1.0).p_value for _ in range(400)]
    assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_points_without_gradient_are_excluded_and_counted():
    slopes, noise = rng.normal(size=(100, 5)), rng.normal(size=(100, 5))
    slopes[:80] = 0
    result = gus(slopes, noise, 1.0)
    assert (result.used, result.excluded) == (20, 80)
    assert np.isfinite(result.mean)
    assert gus(np.zeros((10, 5)), rng.normal(size=(10, 5)), 1.0).conclusion == "undecided"


def test_a_failed_model_is_never_without_trace():
    slopes, noise = rng.normal(size=(50, 5)), rng.normal(size=(50, 5))
    slopes[0, 0] = np.nan
    assert gus(slopes, noise, 1.0).conclusion == "failed"
    assert gus(slopes, noise, 1.0).p_value == 0


def test_gus_errors():
    slopes, noise = rng.normal(size=(50, 5)), rng.normal(size=(50, 5))
    with pytest.raises(InputError, match="standard deviation"):
        gus(slopes, noise, 0.05)
    with pytest.raises(InputError, match="expected the same"):
        gus(slopes, noise[1:], 1.0)
