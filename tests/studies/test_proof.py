"""The proof's statistics: rank correlations with intervals, censoring, the trivial predictor, the honest choice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from expunge.core.proof import ForgetSetOutcome, MethodOutcome
from expunge.core.record import SPLITS
from expunge.studies.proof.judge import _interval, _spearman_rows, comparisons, correlations, spearman
from expunge.studies.proof.outcomes import Halves, choose, damage_at_target
from expunge.studies.proof.sets import dial_cases


def outcome(name, achieved, forecast, damage=0.1, half="judged", **predictors):
    return ForgetSetOutcome(
        task="t",
        name=str(name),
        family="random",
        half=half,
        size=5,
        how="drawn",
        predictors={"size": 5.0, "mean_loss": 0.1, "class_skew": 0.0, **predictors},
        nothing=1.0,
        predicted_nothing=1.0,
        removal_correlation=dict.fromkeys(SPLITS, 0.9),
        removal_slope=dict.fromkeys(SPLITS, 1.0),
        methods=[
            MethodOutcome(
                method="gradient_ascent",
                label="Gradient ascent",
                achievable=achieved,
                achievable_mean=achieved,
                achieved=dict.fromkeys(SPLITS, achieved),
                setting="a@1",
                damage=damage,
                transferred=None,
                illusion_gap=None,
                forecast_setting="a@1",
                at_forecast=achieved,
                forecast={"achievable": forecast, "damage": forecast, "achievable_mean": forecast},
                within=0.5,
            )
        ],
        forecast_seconds=0.0,
        seconds=0.0,
    )


def find(rows, **wanted):
    return next(r for r in rows if all(getattr(r, key) == value for key, value in wanted.items()))


@pytest.mark.parametrize("seed", range(5))
def test_spearman_equals_scipy_with_ties(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 6, 30).astype(float), rng.normal(size=30)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b)[0])


def test_spearman_of_a_constant_is_not_a_number():
    assert np.isnan(spearman(np.ones(5), np.arange(5.0)))


def test_a_perfect_forecast_correlates_perfectly_and_beats_the_trivial_one():
    rng = np.random.default_rng(0)
    rows = [
        outcome(i, v, v**2, half=("development", "judged")[i % 2], size=float(rng.normal()))
        for i, v in enumerate(rng.uniform(0, 2, 40))
    ]
    found = find(correlations(rows), half="judged", outcome="achievable", predictor="forecast")
    assert (found.spearman, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))
    compared = find(comparisons(rows, "t"), half="judged", outcome="achievable")
    assert compared.low > 0
    assert compared.sets == 20


def test_a_target_never_reached_ranks_as_the_worst():
    rows = [outcome(i, 0.1 * i, 0.1 * i, damage=0.1 * i if i < 8 else None) for i in range(10)]
    found = find(correlations(rows), half="judged", outcome="damage", predictor="forecast")
    assert found.spearman == pytest.approx(spearman(np.arange(10.0), np.array([0, 1, 2, 3, 4, 5, 6, 7, 9, 9.0])))


def test_the_trivial_predictor_is_chosen_on_the_development_half_with_its_sign():
    values = np.linspace(0, 1, 24)
    rows = [
        outcome(
            i, v, 0.0, half="development" if i % 2 else "judged", mean_loss=-v if i % 2 else v, size=np.sin(37.0 * i)
        )
        for i, v in enumerate(values)
    ]
    compared = find(comparisons(rows, "t"), half="judged", outcome="achievable")
    # Loss predicts with a minus sign there; on the judged half the sign is wrong, and that is what is reported.
    assert compared.trivial == "-mean_loss"
    assert compared.trivial_spearman == pytest.approx(-1.0)


def test_intervals_cover_the_true_rank_correlation():
    """Gaussian pairs with a known Spearman correlation; percentile bootstrap over 40 sets, nominal 95 %."""
    rho = 0.8
    truth = 6 / np.pi * np.arcsin(rho / 2)
    rng = np.random.default_rng(1)
    covered = 0
    for run in range(200):
        a = rng.normal(size=40)
        b = rho * a + np.sqrt(1 - rho**2) * rng.normal(size=40)
        low, high = _interval(lambda pick, a=a, b=b: _spearman_rows(a[pick], b[pick]), 40, seed=run)
        covered += low <= truth <= high
    assert stats.binom.ppf(0.001, 200, 0.93) <= covered


def measured(margins):
    return {f"margins/{split}": torch.as_tensor(margins) for split in SPLITS}


class TestHalves:
    choosing, reporting, third = (measured(np.random.default_rng(i).normal(size=(40, 30))) for i in range(3))
    shifted = measured(np.random.default_rng(3).normal(size=(40, 30)) + 2.0)

    def test_another_set_of_oracles_is_near_the_floor_and_a_shift_is_not(self):
        halves = Halves(self.choosing, self.reporting)
        same = halves.measure("a", "m", 1, 0.1, self.third)
        far = halves.measure("b", "m", 1, 0.1, self.shifted)
        assert max(abs(v) for v in same.reported.excess.values()) < 0.15
        assert min(far.reported.excess.values()) > 0.5
        assert far.reported.shifts["forget"] == pytest.approx(2.0, abs=0.4)
        assert choose([far, same]).setting == "a@1"

    def test_a_member_that_failed_on_one_split_counts_on_all(self):
        halves = Halves(self.choosing, self.reporting)
        broken = {key: value.clone() for key, value in self.third.items()}
        broken["margins/retain"][:20] = float("nan")
        found = halves.measure("c", "m", 1, 0.1, broken)
        honest = halves.measure("a", "m", 1, 0.1, self.third)
        for split in SPLITS:
            assert found.reported.excess[split] > honest.reported.excess[split] + 0.2

    def test_damage_is_the_least_over_runs(self):
        halves = Halves(self.choosing, self.reporting)
        nothing = halves.measure("do_nothing", "m", 0, 0.0, self.shifted)
        below = {**self.third, "margins/forget": self.third["margins/forget"] - 3.0}
        worse = {**below, "margins/validation": below["margins/validation"] + 1.5}
        runs = [halves.measure("gentle", "m", 1, 0.1, below), halves.measure("rough", "m", 1, 0.1, worse)]
        both, rough = damage_at_target(nothing.reported, runs), damage_at_target(nothing.reported, runs[1:])
        assert both < rough
        assert damage_at_target(nothing.reported, [halves.measure("weak", "m", 1, 0.1, self.shifted)]) is None


def test_the_dial_turns_one_thing_only():
    found = dial_cases(seed=1)
    assert [case.dial for case in found] == sorted({case.dial for case in found})
    assert len({len(case.forget) for case in found}) == 1
    assert len({case.forget.name for case in found}) == len(found)
