import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from expunge.core import InputError
from expunge.metrics.arrays import slices
from expunge.metrics.distances import (
    DISTANCES,
    distance_floor,
    distance_score,
    energy,
    gaussian_kl,
    jensen_shannon,
    kolmogorov_smirnov,
    wasserstein,
)
from reference import distances_slow

rng = np.random.default_rng(1)
UNBOUNDED = ("wasserstein", "energy", "gaussian_kl")
values = st.integers(-3, 3).map(float)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(float, (5, 2), elements=values), hnp.arrays(float, (7, 2), elements=values))
def test_equal_to_the_definition_with_ties(u, o):
    for name in ("wasserstein", "energy", "kolmogorov_smirnov", "jensen_shannon"):
        fast = DISTANCES[name](u, o)
        for i in range(2):
            if name in UNBOUNDED and np.std(o[:, i]) == 0:
                assert fast[i] == (0 if (u[:, i] == o[0, i]).all() else np.inf)
            else:
                assert fast[i] == pytest.approx(getattr(distances_slow, name)(u[:, i], o[:, i]), abs=1e-12)


def test_equal_to_the_definition_on_continuous_margins():
    u, o = rng.normal(1, 2, (23, 4)), rng.standard_t(3, (31, 4))
    for name in ("wasserstein", "energy", "kolmogorov_smirnov", "jensen_shannon"):
        slow = [getattr(distances_slow, name)(u[:, i], o[:, i]) for i in range(4)]
        np.testing.assert_allclose(DISTANCES[name](u, o), slow)
    np.testing.assert_allclose(kolmogorov_smirnov(u, o), [stats.ks_2samp(u[:, i], o[:, i]).statistic for i in range(4)])
    root = [stats.energy_distance(u[:, i], o[:, i]) for i in range(4)]
    np.testing.assert_allclose(energy(u, o), np.array(root) ** 2 / o.std(0, ddof=1))


@pytest.mark.parametrize("d", [0.5, 1, 2, 4])
def test_closed_forms_of_a_gaussian_shift(d):
    grid = stats.norm.ppf((np.arange(20000) + 0.5) / 20000)[:, None]
    u, o = grid + d, grid
    assert wasserstein(u, o)[0] == pytest.approx(d, rel=1e-3)
    assert gaussian_kl(u, o)[0] == pytest.approx(d**2 / 2, rel=1e-3)
    assert kolmogorov_smirnov(u, o)[0] == pytest.approx(2 * stats.norm.cdf(d / 2) - 1, abs=1e-3)
    # 2 E|X-Y| - E|X-X'| - E|Y-Y'| with X - Y ~ N(d, 2).
    folded = np.sqrt(2) * np.sqrt(2 / np.pi) * np.exp(-(d**2) / 4) + d * (1 - 2 * stats.norm.cdf(-d / np.sqrt(2)))
    assert energy(u, o)[0] == pytest.approx(2 * folded - 4 / np.sqrt(np.pi), rel=2e-3)


def test_gaussian_kl_directions_against_the_formula():
    grid = stats.norm.ppf((np.arange(20000) + 0.5) / 20000)[:, None]
    u, o = 2 * grid + 1, grid
    assert gaussian_kl(u, o, direction="unlearned_oracle")[0] == pytest.approx(
        np.log(1 / 2) + (4 + 1) / 2 - 0.5, rel=1e-3
    )
    assert gaussian_kl(u, o, direction="oracle_unlearned")[0] == pytest.approx(np.log(2) + 2 / 8 - 0.5, rel=1e-3)
    assert gaussian_kl(u, o)[0] == pytest.approx((5 / 2 + 1 / 4 - 1) / 2, rel=1e-3)


@pytest.mark.parametrize("name", DISTANCES)
class TestEveryDistance:
    def test_order_of_members_and_examples_precision_and_chunks(self, name, monkeypatch):
        u, o = rng.normal(size=(12, 30)), rng.normal(size=(15, 30))
        base = DISTANCES[name](u, o)
        np.testing.assert_allclose(DISTANCES[name](u[::-1], rng.permutation(o)), base, rtol=1e-12)
        np.testing.assert_allclose(DISTANCES[name](u[:, ::-1], o[:, ::-1]), base[::-1], rtol=1e-12)
        np.testing.assert_array_equal(DISTANCES[name](torch.tensor(u), torch.tensor(o)), base)
        monkeypatch.setitem(slices.__globals__, "CHUNK", 100)
        np.testing.assert_allclose(DISTANCES[name](u, o), base, rtol=1e-12)

    def test_identical_samples_read_zero_and_disjoint_ones_the_most(self, name):
        o = rng.normal(size=(20, 3))
        np.testing.assert_array_equal(DISTANCES[name](o, o), 0)
        far = DISTANCES[name](o + 1e6, o)
        if name in UNBOUNDED:
            assert (far > 1e4).all()
        else:
            np.testing.assert_allclose(far, {"kolmogorov_smirnov": 1, "jensen_shannon": np.log(2)}[name], rtol=0.4)

    @pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0])
    def test_a_failed_member_never_lowers_it(self, name, poison, shift):
        u, o = rng.normal(shift, 1, (20, 40)), rng.normal(size=(20, 40))
        honest = DISTANCES[name](u, o)
        broken = u.copy()
        for rows in (1, 10, 20):
            broken[:rows] = poison
            assert (DISTANCES[name](broken, o) >= honest - 1e-12).all()
        if name == "jensen_shannon":
            assert DISTANCES[name](broken, o) == pytest.approx(np.log(2))

    def test_constant_members_do_not_hide(self, name):
        o = np.zeros((10, 3))
        for c in (-1.0, 1.0, 1e30):
            assert (DISTANCES[name](np.full((10, 3), c), o) >= 0.6).all()
        np.testing.assert_array_equal(DISTANCES[name](o, o), 0)

    def test_errors(self, name):
        with pytest.raises(InputError, match="same after the first axis"):
            DISTANCES[name](np.zeros((3, 4)), np.zeros((3, 5)))
        with pytest.raises(InputError, match="1 members, expected at least 2"):
            DISTANCES[name](np.zeros((3, 4)), np.zeros((1, 4)))
        with pytest.raises(InputError, match="non-finite"):
            DISTANCES[name](np.zeros((3, 4)), np.full((3, 4), np.nan))

    def test_floor_with_held_out_oracles_and_from_halves(self, name):
        # The bounds are four standard deviations of the noisiest of them, the Gaussian KL.
        o, h, u = (rng.normal(size=(60, 1200)) for _ in range(3))
        floor = distance_floor(DISTANCES[name], o, h).mean()
        assert DISTANCES[name](u, o).mean() == pytest.approx(floor, rel=0.15)
        assert distance_floor(DISTANCES[name], o).mean() == pytest.approx(floor, rel=0.2)
        few = distance_floor(DISTANCES[name], o, h, members=20).mean()
        assert distance_floor(DISTANCES[name], o, members=20).mean() == pytest.approx(few, rel=0.2)

    @pytest.mark.parametrize(("unlearned", "held_out"), [(100, 30), (30, 100), (20, 8), (60, None), (30, None)])
    def test_floor_is_for_the_number_of_unlearned_members(self, name, unlearned, held_out):
        draw, values, floors = np.random.default_rng(3), [], []
        for _ in range(6):
            u, o = draw.normal(size=(unlearned, 400)), draw.normal(size=(60, 400))
            h = None if held_out is None else draw.normal(size=(held_out, 400))
            values.append(DISTANCES[name](u, o).mean())
            floors.append(distance_floor(DISTANCES[name], o, h, members=unlearned).mean())
        noise = np.hypot(np.std(values, ddof=1), np.std(floors, ddof=1)) / np.sqrt(6)
        assert np.mean(floors) == pytest.approx(np.mean(values), abs=3 * noise + 0.03 * np.mean(values))

    def test_a_broken_held_out_oracle_is_refused(self, name):
        o, h, u = (rng.normal(size=(40, 60)) for _ in range(3))
        for poison in (np.nan, np.inf, 5.0, 1e9):
            broken = h.copy()
            broken[:4] = poison
            with pytest.raises(
                InputError, match=r"held_out has non-finite, collapsed .* in 4 of 40 members \(first 0\)"
            ):
                distance_floor(DISTANCES[name], o, broken)
            with pytest.raises(InputError, match="expected sound oracles, because they are the floor"):
                distance_score(name, u, o, broken)
        with pytest.raises(InputError, match="held_out has shape"):
            distance_floor(DISTANCES[name], o, h[:, 1:])


def test_few_held_out_oracles_do_not_hide_a_shift():
    o, h, u = (np.random.default_rng(s).normal(size=(100, 400)) for s in range(3))
    many = distance_score("wasserstein", u + 0.2, o, h, groups=2)
    few = distance_score("wasserstein", u + 0.2, o, h[:30], groups=2)
    assert few.excess == pytest.approx(many.excess, abs=0.02)
    assert many.excess > 0.06


def test_held_out_oracles_of_another_recipe_keep_their_floor():
    o, h = (np.random.default_rng(s).normal(size=(100, 400)) for s in range(2))
    # Noise goes with the number of members; a shift of the held-out oracles is no noise.
    floor = distance_floor(energy, o, h[:30] + 1.0, members=100).mean()
    assert floor == pytest.approx(distance_floor(energy, o, h + 1.0).mean(), rel=0.05)


def test_jensen_shannon_counts_a_failure_as_disjoint_mass():
    o = rng.normal(size=(50, 1))
    broken = np.concatenate([o[:25], np.full((25, 1), np.nan)])
    assert jensen_shannon(broken, o)[0] > jensen_shannon(o, o)[0] + 0.15


def test_jensen_shannon_is_bounded_below_by_the_failed_share():
    # Honest distance of a method that is at the oracle: every failed member moves it away, monotonically.
    o, u = rng.normal(size=(100, 50)), rng.normal(size=(100, 50))
    means = []
    for k in (0, 5, 20, 50, 100):
        broken = u.copy()
        broken[:k] = np.nan
        means.append(jensen_shannon(broken, o).mean())
    assert means == sorted(means)


@pytest.mark.parametrize("monotone", [np.exp, np.arctan, lambda x: x**3])
def test_rank_distances_ignore_monotone_maps(monotone):
    u, o = rng.normal(0.5, 1, (30, 10)), rng.normal(size=(40, 10))
    for metric in (kolmogorov_smirnov, jensen_shannon):
        np.testing.assert_allclose(metric(monotone(u), monotone(o)), metric(u, o), atol=1e-14)


def test_one_outlier_cannot_hide_a_shift():
    u, o = rng.normal(6, 1, (100, 50)), rng.normal(size=(100, 50))
    honest = {name: metric(u, o).mean() for name, metric in DISTANCES.items()}
    u[0], u[1] = 100, -100
    for name in ("jensen_shannon", "kolmogorov_smirnov", "wasserstein", "energy"):
        assert DISTANCES[name](u, o).mean() > 0.95 * honest[name]


@pytest.mark.parametrize("name", DISTANCES)
def test_distance_score_has_a_floor_and_an_interval_that_covers(name):
    # Jackknife standard error against the spread over repetitions, at a shift where the metric is smooth.
    scores = [distance_score(name, rng.normal(1, 1, (40, 30)), rng.normal(size=(40, 30))) for _ in range(60)]
    half = np.mean([score.high - score.value for score in scores])
    assert 0.6 < half / (1.96 * np.std([score.value for score in scores], ddof=1)) < 2.2
    o, h, u = rng.normal(size=(40, 400)), rng.normal(size=(40, 400)), rng.normal(size=(40, 400))
    score = distance_score(name, u, o, h)
    assert score.excess == pytest.approx(0, abs=0.3 * score.floor)
    u[3] = np.nan
    broken = distance_score(name, u, o, h)
    assert (broken.value == np.inf) == (name in UNBOUNDED)
    assert broken.failed == 1
