"""The proof's statistics: rank correlations with intervals, censoring, the trivial predictor, the honest choice."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats

from expunge.core import ForgetSet, InputError, Task
from expunge.core.ranks import spearman, spearman_rows
from expunge.core.record import SPLITS
from expunge.dependence import MEASURES
from expunge.methods import GradientAscent
from expunge.papers.ascent_fails_to_forget import forecast_proof as proof
from expunge.papers.ascent_fails_to_forget.forecast_proof import pooled, prove, sets
from expunge.papers.ascent_fails_to_forget.forecast_proof.judge import (
    _interval,
    comparisons,
    correlations,
)
from expunge.papers.ascent_fails_to_forget.forecast_proof.outcomes import Halves, choose, damage_at_target
from expunge.papers.ascent_fails_to_forget.forecast_proof.pooled import pooled_comparisons
from expunge.papers.ascent_fails_to_forget.forecast_proof.sets import Case, dial_cases
from expunge.papers.ascent_fails_to_forget.proof import ForgetSetOutcome, MethodOutcome, ProofRecord
from expunge.papers.ascent_fails_to_forget.report.proof import draw
from expunge.tasks import load_task
from reference.problems import forget_set, small_task


def outcome(name, achieved, forecast, damage=0.1, half="judged", task="t", dial=None, **predictors):
    return ForgetSetOutcome(
        task=task,
        dial=dial,
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
        low, high = _interval(lambda pick, a=a, b=b: spearman_rows(a[pick], b[pick]), 40, seed=run)
        covered += low <= truth <= high
    assert stats.binom.ppf(0.001, 200, 0.93) <= covered


def test_damage_of_methods_with_repair_is_forecast_by_the_straight_step():
    row = outcome("a", 0.5, 0.4, ascent_excess=1.7)
    row.methods.append(row.methods[0].model_copy(update={"method": "scrub"}, deep=True))
    proof._forecast_repaired_damage([row])
    assert [m.forecast["damage"] for m in row.methods] == [0.4, 1.7]
    assert [m.damage_by_path for m in row.methods] == [0.4, 0.4]
    assert proof.STRAIGHT_STEP in MEASURES


def three_tasks(rng, sets=40, forecast_noise=0.3, loss_noise=0.3):
    rows = []
    for task in ("t", "u", "v"):
        for i in range(sets):
            achieved = rng.normal()
            rows.append(
                outcome(
                    f"{task}{i}",
                    achieved,
                    achieved + forecast_noise * rng.normal(),
                    damage=achieved,
                    half=("development", "judged")[i % 2],
                    task=task,
                    mean_loss=achieved + loss_noise * rng.normal(),
                )
            )
    return rows


def test_pooled_comparison_is_the_mean_of_the_comparisons_of_the_tasks():
    rows = three_tasks(np.random.default_rng(0))
    dial = [outcome(f"d{i}", float(i), -float(i), task="dial", dial=0.1 * i, mean_loss=float(i)) for i in range(8)]
    over_all, of_each = pooled_comparisons([*rows, *dial], "t"), comparisons(rows, "t")
    for half in ("development", "judged", "all"):
        found = find(over_all, half=half, outcome="achievable")
        single = [c for c in of_each if c.half == half and c.outcome == "achievable"]
        assert (found.task, len(single)) == ("all", 3)
        assert found.difference == pytest.approx(np.mean([c.difference for c in single]))
        assert found.forecast == pytest.approx(np.mean([c.forecast for c in single]))
        assert found.sets == sum(c.sets for c in single)
        assert found.high - found.low < 0.9 * np.mean([c.high - c.low for c in single])
    assert pooled_comparisons(rows[:40], "t") == []


@pytest.fixture
def one_of_nine(monkeypatch):
    """Of the halves and outcomes, each of which is compared in the same way, only those that a test reads."""
    monkeypatch.setattr(pooled, "HALVES", ("all",))
    monkeypatch.setattr(pooled, "OUTCOMES", ("achievable",))


def test_pooled_methods_share_the_resampled_forget_sets(one_of_nine):
    """A method that is there twice tells nothing new: the interval must not shrink."""
    rows = three_tasks(np.random.default_rng(1))
    for row in rows:
        row.methods.append(row.methods[0].model_copy(update={"method": "twin"}))
    found = [c for c in pooled_comparisons(rows, "t") if c.half == "all" and c.outcome == "achievable"]
    assert [c.method for c in found] == ["gradient_ascent", "twin", "all"]
    assert [c.low for c in found] == pytest.approx([found[0].low] * 3)
    assert [c.high for c in found] == pytest.approx([found[0].high] * 3)


def test_pooled_intervals_cover_the_true_difference(one_of_nine):
    rng = np.random.default_rng(2)
    truth = 6 / np.pi * (np.arcsin(1 / np.sqrt(1 + 0.3**2) / 2) - np.arcsin(1 / np.sqrt(1 + 0.6**2) / 2))
    covered = 0
    for run in range(40):
        rows = three_tasks(rng, sets=24, loss_noise=0.6)
        found = find(pooled_comparisons(rows, "t", seed=run), half="all", outcome="achievable")
        covered += found.low <= truth <= found.high
    assert stats.binom.ppf(0.001, 40, 0.93) <= covered


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


class Short(GradientAscent):
    """Ascent with a grid of two short runs."""

    @classmethod
    def grid(cls, recipe):
        return [cls(lr=share * recipe.lr, epochs=2) for share in (0.1, 1.0)]


@pytest.fixture(scope="module")
def small_proof(tmp_path_factory):
    """A proof over a handful of forget sets of a small task."""
    task = small_task("mlp", n=60, precision="float32")
    found = []
    for i, half in enumerate(("development", "judged") * 3 + ("development",)):
        drawn = forget_set(task, 5, seed=i).indices
        found.append(Case(task, ForgetSet.of(task, drawn, name=f"set-{i}", how="drawn"), "random", half))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof, "load_task", lambda name: task)
        patch.setattr(proof, "cases", lambda *arguments: found)
        patch.setattr(proof, "METHODS", (Short,))
        patch.setattr(proof, "check_size", lambda task: None)
        yield patch, tmp_path_factory.mktemp("proof") / "run"


@pytest.mark.slow
def test_a_proof_from_end_to_end(small_proof):
    """Predicted first, measured then, kept as it goes; another forecast is made without measuring again."""
    _, out = small_proof
    folder, first = prove(["small"], members=20, out=out, seed=1)
    assert first.status == "complete"
    assert ProofRecord.load(folder).outcomes == first.outcomes
    assert len(first.outcomes) == 7
    for one in first.outcomes:
        (method,) = one.methods
        assert set(one.predictors) == set(MEASURES)
        assert np.isfinite([method.achievable, method.forecast["achievable"], method.at_forecast]).all()
        # The gap is to the best of the grid on the oracles that report, which nothing can undercut.
        assert method.illusion_gap >= 0
        assert method.transferred - method.illusion_gap <= method.achievable + 1e-12
    assert {c.half for c in first.correlations} == {"all"}  # a half has 4 or 3 sets, fewer than are correlated

    def forbidden(*arguments, **options):
        raise AssertionError("measured again")

    with pytest.MonkeyPatch.context() as again:
        again.setattr(proof, "unlearn", forbidden)
        assert prove(["small"], members=20, out=out, seed=1, resume=True)[1].outcomes == first.outcomes
        again.setattr(proof, "FORECAST_VERSION", -1)
        anew = prove(["small"], members=20, out=out, seed=1, resume=True)[1]
    for one, other in zip(first.outcomes, anew.outcomes, strict=True):
        assert one.model_dump(exclude={"forecast_seconds"}) == other.model_dump(exclude={"forecast_seconds"})

    with pytest.raises(InputError, match="add --resume"):
        prove(["small"], members=20, out=out, seed=1)
    with pytest.raises(InputError, match="another proof"):
        prove(["small"], members=20, out=out, seed=2, resume=True)

    text = draw(folder).read_text()
    assert "set-3" in text
    assert f"{first.outcomes[3].nothing:.2f} ({first.outcomes[3].predicted_nothing:.2f})" in text
    assert all(name in text for name in ("leverage κ of F", "mmd_normalised"))
    assert (folder / "figures" / "forecast-small.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["digits", "tabular"])
def test_forget_sets_of_the_proof(name, tmp_path, monkeypatch):
    """At least thirty, each once, every family in both halves; duplicates have their twins in R."""
    monkeypatch.setattr(sets, "SUBSETS", 24)
    task = load_task(name)
    quick = Task(
        name=task.name,
        train=(task.train.x, task.train.y),
        validation=(task.validation.x, task.validation.y),
        model=task.model,
        recipe=dataclasses.replace(task.recipe, epochs=1, peak_epoch=0.5),
        classes=task.classes,
    )
    found = sets.cases(quick, tmp_path)
    assert len(found) >= 30
    for family in {case.family for case in found}:
        assert {case.half for case in found if case.family == family} == {"development", "judged"}
    for case in found:
        assert len(case.forget) < len(case.task.train) / 4
    twins = next(case for case in found if case.family == "duplicates")
    kept = twins.task.train.x[twins.forget.retain]
    assert all(bool((kept == x).all(-1).any()) for x in twins.task.train.x[twins.forget.indices])
