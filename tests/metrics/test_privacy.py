import numpy as np
import pytest
from scipy import stats

from expunge.core import InputError
from expunge.metrics.privacy import (
    Bonferroni,
    Fixed,
    Split,
    audit,
    epsilon_from_errors,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
    one_run_epsilon,
)

rng = np.random.default_rng(13)


@pytest.mark.parametrize(
    ("x", "n0", "y", "n1", "bound"),
    [
        (0, 500, 0, 500, 4.9056),
        (0, 1000, 0, 1000, 5.6006),
        (5, 500, 250, 500, 2.9776),
        (25, 500, 100, 500, 2.3468),
        (0, 100, 0, 100, 3.2813),
        (0, 512, 0, 512, 4.9294),
    ],
)
def test_two_sample_golden_values(x, n0, y, n1, bound):
    assert epsilon_from_errors(x, n0, y, n1) == pytest.approx(bound, abs=5e-5)
    assert epsilon_from_errors(y, n1, x, n0) == pytest.approx(bound, abs=5e-5)  # both directions are tried
    assert epsilon_from_errors(x, n0, y, n1, delta=0.01) < bound


def test_two_sample_bound_by_hand_and_at_chance():
    fpr, fnr = stats.beta.ppf(0.975, 6, 495), stats.beta.ppf(0.975, 251, 250)
    assert epsilon_from_errors(5, 500, 250, 500) == pytest.approx(np.log((1 - fnr) / fpr))
    assert epsilon_from_errors(50, 100, 50, 100) == 0
    assert epsilon_from_errors(100, 100, 100, 100) == 0


@pytest.mark.parametrize(("mu", "epsilon"), [(0.5, 1.9931), (1, 4.3772), (np.sqrt(2), 6.5730), (2, 9.9973)])
def test_gaussian_golden_values_and_inversion(mu, epsilon):
    assert gaussian_epsilon(mu, 1e-5) == pytest.approx(epsilon, abs=5e-5)
    assert gaussian_delta(epsilon, mu) == pytest.approx(1e-5, rel=1e-2)
    direct = stats.norm.cdf(-epsilon / mu + mu / 2) - np.exp(epsilon) * stats.norm.cdf(-epsilon / mu - mu / 2)
    assert gaussian_delta(epsilon, mu) == pytest.approx(direct, rel=1e-6)


def test_gaussian_endpoints():
    assert gaussian_epsilon(0, 1e-5) == 0
    assert gaussian_epsilon(0.1, 0.5) == 0
    assert gaussian_delta(0, 1) == pytest.approx(2 * stats.norm.cdf(0.5) - 1)  # total variation
    assert gaussian_delta(800, 30) < 1e-15
    assert np.isfinite(gaussian_epsilon(60, 1e-5))
    with pytest.raises(InputError, match="no finite epsilon"):
        gaussian_epsilon(1, 0)


@pytest.mark.parametrize(
    ("m", "r", "v", "delta", "bound"),
    [
        (100, 100, 100, 0, 3.4930),
        (100, 100, 60, 0, 0.0519),
        (1000, 1000, 600, 0, 0.2975),
        (1000, 1000, 600, 1e-5, 0.2972),
        (1000, 200, 190, 0, 2.3979),
        (1000, 200, 190, 1e-5, 2.3936),
        (1000, 100, 100, 1e-5, 3.4654),
    ],
)
def test_one_run_golden_values(m, r, v, delta, bound):
    found = one_run_epsilon(m, r, v, delta=delta)
    assert float(found) == found.epsilon == pytest.approx(bound, abs=5e-5)
    assert found.largest == one_run_epsilon(m, r, r, delta=delta).epsilon >= found.epsilon


def test_one_run_by_direct_summation_and_endpoints():
    epsilon = float(one_run_epsilon(50, 40, 35, delta=1e-3))
    q = np.exp(epsilon) / (1 + np.exp(epsilon))
    p = [stats.binom.pmf(k, 40, q) for k in range(41)]
    beta = sum(p[35:])
    alpha = max(sum(p[35 - i : 35]) / i for i in range(1, 36))
    assert beta + 2 * 50 * 1e-3 * alpha == pytest.approx(0.05)
    assert one_run_epsilon(10, 10, 0).epsilon == 0
    assert one_run_epsilon(10, 10, 5).epsilon == 0
    with pytest.raises(InputError, match="correct <= guesses <= canaries"):
        one_run_epsilon(10, 20, 5)


def test_every_bound_names_its_floor_ideal_and_direction():
    two = audit(rng.normal(3, 1, 200), rng.normal(size=200), Fixed(1.5))
    one = one_run_epsilon(1000, 200, 190)
    for found in (two, one):
        assert found.floor == 0
        assert found.ideal.startswith("0")
        assert "closer to the oracles" in found.direction
        assert 0 < float(found) == found.epsilon < found.largest
    assert (one.canaries, one.guesses, one.correct, one.route) == (1000, 200, 190, "one-run")


def exceedances(bound, repetitions):
    return sum(bound() for _ in range(repetitions))


@pytest.mark.parametrize("true", [0.0, 1.0])
def test_one_run_bound_exceeds_the_truth_at_most_five_times_in_a_hundred(true):
    # Randomised response on 200 coins is exactly true-DP in each coin.
    q = np.exp(true) / (1 + np.exp(true))
    found = exceedances(lambda: one_run_epsilon(200, 200, int(rng.binomial(200, q))).epsilon > true, 300)
    assert stats.binom.sf(found - 1, 300, 0.05) > 1e-3


@pytest.mark.parametrize("rule", ["fixed", "split", "bonferroni"])
@pytest.mark.parametrize("route", ["clopper-pearson", "gaussian-dp"])
def test_bound_exceeds_the_truth_at_most_five_times_in_a_hundred(rule, route):
    # N(1, 1) against N(0, 1): mu = 1; at delta = 1e-5 the exact epsilon is 4.3772. At delta = 0.1 it is smaller.
    delta = 0.1
    true = gaussian_epsilon(1.0, delta)
    chosen = {"fixed": Fixed(0.5), "split": Split(), "bonferroni": Bonferroni([0.0, 0.5, 1.0])}[rule]

    def once():
        u, o = rng.normal(1, 1, 100), rng.normal(size=100)
        return audit(u, o, chosen, delta=delta, route=route).epsilon > true

    repetitions = 40 if rule == "split" else 300
    found = exceedances(once, repetitions)
    assert stats.binom.sf(found - 1, repetitions, 0.05) > 1e-3


def test_the_uncorrected_maximum_over_numbers_of_guesses_is_not_a_bound():
    # The defect of public code, shown: scores without information (epsilon 0), best of 20 numbers of guesses.
    naive = corrected = 0
    for _ in range(200):
        right = np.cumsum(rng.random(100) < 0.5)
        tried = [(r, int(right[r - 1])) for r in range(5, 101, 5)]
        naive += max(one_run_epsilon(100, r, v).epsilon for r, v in tried) > 0
        corrected += max(one_run_epsilon(100, r, v, significance=0.05 / 20).epsilon for r, v in tried) > 0
    assert naive / 200 > 0.1
    assert stats.binom.sf(corrected - 1, 200, 0.05) > 1e-3


def test_bounds_are_usable_and_say_what_was_possible():
    u, o = rng.normal(4, 1, 500), rng.normal(size=500)
    bound = audit(u, o, Fixed(2.0))
    assert 2 < bound.epsilon < bound.largest == pytest.approx(4.9056, abs=1e-4)
    assert audit(-u, o, Split()).epsilon > 1.5
    assert not audit(-u, o, Split()).higher_is_unlearned
    assert gaussian_mu(0, 500, 0, 500) > 4
    assert audit(rng.normal(3, 1, 500), o, Fixed(1.5), delta=1e-5, route="gaussian-dp").epsilon > 5


def test_a_failed_member_is_recognised_and_never_lowers_the_bound():
    u, o = rng.normal(size=200), rng.normal(size=200)
    for value in (np.nan, -np.inf, np.inf):
        for rule in (Fixed(1.0), Bonferroni([0.0, 1.0])):
            broken = u.copy()
            broken[:100] = value
            assert audit(broken, o, rule).epsilon >= audit(u, o, rule).epsilon
    assert audit(np.full(200, np.nan), o, Fixed(1.0)).false_negatives == 0


def test_refusals():
    u, o = rng.normal(size=20), rng.normal(size=20)
    with pytest.raises(InputError, match="chosen on the scores that are counted"):
        audit(u, o, 0.5)
    with pytest.raises(InputError, match="expected at least one"):
        audit(u, o, Bonferroni([]))
    with pytest.raises(InputError, match="non-finite scores"):
        audit(u, np.full(20, np.nan), Fixed(0.0))
    with pytest.raises(InputError, match="in both parts"):
        audit(u[:1], o, Split())
    with pytest.raises(InputError, match="route"):
        audit(u, o, Fixed(0.0), route="normal")
