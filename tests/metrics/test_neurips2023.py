import tracemalloc

import numpy as np
import pytest

from expunge.core import InputError
from expunge.metrics import neurips2023
from expunge.metrics.neurips2023 import calibration, challenge_epsilons, challenge_points, challenge_score
from reference import challenge_slow

rng = np.random.default_rng(11)


@pytest.mark.slow
@pytest.mark.parametrize(("d", "s"), [(1.0, 1.5), (-0.4, 0.3)])
def test_the_grid_equals_the_loops(d, s):
    u, o = rng.normal(d, s, (8, 1)), 0.5 * rng.normal(size=(9, 1))
    assert challenge_epsilons(u, o)[0] == pytest.approx(challenge_slow.epsilon(u[:, 0], o[:, 0]))


def test_points_are_halved_each_half_unit_and_stop_at_the_largest_epsilon():
    assert challenge_points([0, 0.49, 0.5, 1.2, 6.99, 7, 50], 512).tolist() == [1, 1, 0.5, 0.25, 2**-13, 0, 0]
    assert challenge_points([4.9, 5.0], 100).tolist() == [2**-9, 0]


@pytest.mark.parametrize("scan", ["grid", "exact"])
def test_the_ideal_is_far_below_one_and_falls_with_the_shift(scan):
    points = []
    for d in (0, 0.5, 1, 2):
        epsilons = challenge_epsilons(rng.normal(d, 1, (200, 40)), rng.normal(size=(200, 40)), scan=scan)
        points.append(challenge_points(epsilons, 200).mean())
    assert 0.1 < points[0] < 0.35
    assert points == sorted(points, reverse=True)
    assert points[3] < 0.006


def test_what_identical_laws_earn_depends_on_the_spread_of_margins():
    """Grid and buffer are in units of margin: at spread 1 the width of intervals is tied, at .3 every one is tried."""
    draws = np.random.default_rng(3).normal(size=(2, 100, 60))
    points = {
        spread: challenge_points(challenge_epsilons(*(spread * draws), scan="exact"), 100).mean()
        for spread in (1.0, 0.3)
    }
    assert points[1.0] == pytest.approx(0.19, abs=0.04)
    assert points[0.3] == pytest.approx(0.077, abs=0.015)


def test_calibration_is_what_independent_oracles_earn():
    # Oracles with other levels and spreads, as real margins have.
    level, spread = 5 * rng.normal(size=60), np.exp(0.3 * rng.normal(size=60))
    o, h = (level + spread * rng.normal(size=(60, 60)) for _ in range(2))
    result = challenge_score(h, o, calibration_examples=60)
    half = (result.high - result.low + result.calibration_high - result.calibration_low) / 2
    assert abs(result.forgetting - result.calibration) < half
    assert result.calibration == calibration(o, 60, examples=60)[0]


def test_the_exact_scan_with_one_threshold_ignores_monotone_maps_of_scale():
    u, o = rng.normal(6, 1, (20, 5)), rng.normal(size=(20, 5))
    for scan in ("grid", "exact"):
        np.testing.assert_array_equal(challenge_epsilons(u, o, scan=scan), 50)  # perfect separation


def test_score_multiplies_the_ratios_of_accuracies():
    u, o = rng.normal(size=(30, 10)), rng.normal(size=(30, 10))
    result = challenge_score(u, o, accuracies=(0.9, 1.0, 0.8, 0.8), calibration_examples=5)
    assert result.score == pytest.approx(result.forgetting * 0.9)
    assert np.isnan(challenge_score(u, o, calibration_examples=5).score)
    with pytest.raises(InputError, match="oracle accuracy is 0"):
        challenge_score(u, o, accuracies=(0.9, 0.0, 0.8, 0.8), calibration_examples=5)


def test_failed_and_constant_members_earn_nothing():
    u, o = rng.normal(size=(30, 10)), rng.normal(size=(30, 10))
    honest = challenge_score(u, o, calibration_examples=5).forgetting
    for value in (np.nan, np.inf):
        broken = u.copy()
        broken[2] = value
        result = challenge_score(broken, o, calibration_examples=5)
        assert (result.forgetting, result.failed) == (0, 1)
    assert honest > 0
    for constant in (-40.0, 0.0, 40.0):
        assert challenge_score(np.full((30, 10), constant), o, calibration_examples=5).forgetting == 0
    assert challenge_epsilons(np.ones((5, 1)), np.ones((5, 1)))[0] == 0


def test_a_large_grid_is_thinned_without_a_change(monkeypatch):
    draw = np.random.default_rng(0)
    for trial in range(20):
        members, scale = draw.integers(3, 30, 2), (0.3, 1.0, 3.0, 20.0)[trial % 4]
        u, o = (scale * (draw.normal(size=m) + shift) for m, shift in zip(members, (0, trial % 3), strict=True))
        if trial % 5 == 0:
            u, o = np.round(u), np.round(o)
        found = []
        for most in (10**9, 10):
            monkeypatch.setattr(neurips2023, "WHOLE", most)
            found.append(neurips2023._epsilon(np.sort(u), np.sort(o), "grid"))
        assert found[0] == found[1]


@pytest.mark.parametrize("scale", [1e4, 1e9, 1e100])
def test_margins_on_a_large_scale_take_no_more_memory(scale):
    u, o = np.random.default_rng(0).normal(size=(2, 24, 3))
    tracemalloc.start()
    assert 0 <= challenge_score(scale * u, scale * o, calibration_examples=2).forgetting <= 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**27


def test_memory_of_the_exact_scan_is_linear_in_the_members():
    """Pairs of thresholds go with the square of the members: they are tried in blocks."""
    u, o = 0.2 * np.random.default_rng(0).normal(size=(2, 1500, 1))
    tracemalloc.start()
    assert challenge_epsilons(u, o, scan="exact") > 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**27
