"""What a forecast reads off its paths: where the target is met, what to expect of a method, what it tells people."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import expunge as ex
from expunge.core.forecast import MethodForecast, PathPoint
from expunge.core.objective import objective, outlook
from expunge.core.record import SPLITS
from expunge.methods import METHODS, FineTune, GradientAscent, GradientDescentAscent, MarginMatching
from expunge.studies.run.advice import advise
from expunge.studies.run.prediction import Scale, Subject, _notes, _summary, crossing, forecast
from reference.problems import forget_set, small_task


def point(epoch=0, excess=(0.0, 0.0, 0.0), mean=0.0, shift=0.0, run="gradient_ascent/lr=0.1", cost=0.1):
    values = dict(zip(SPLITS, excess, strict=True))
    means = dict.fromkeys(SPLITS, mean)
    return PathPoint(run=run, epoch=epoch, cost=cost, excess=values, means=means, shifts=dict.fromkeys(SPLITS, shift))


def method(outlook="breaks first", best=None, at=None, damage=None, control=False, label="Gradient ascent"):
    best = best or point(3, (0.6, 0.2, 0.1))
    return MethodForecast(
        method="gradient_ascent",
        label=label,
        control=control,
        outlook=outlook,
        best=best,
        objective=objective(best.excess),
        at_target=at,
        damage=damage,
        path=[best],
    )


class TestCrossing:
    def test_damage_is_interpolated_where_the_forget_margins_cross(self):
        path = [point(0, shift=2.0, mean=0.0), point(1, shift=1.0, mean=0.1), point(2, shift=-1.0, mean=0.5)]
        damage, at = crossing(path)
        assert damage == pytest.approx(0.3)
        assert at.epoch == 2

    def test_a_path_that_starts_at_the_target_has_the_damage_of_its_start(self):
        damage, at = crossing([point(0, shift=0.0, mean=0.02), point(1, shift=-1.0, mean=0.9)])
        assert (damage, at.epoch) == (0.02, 0)

    @pytest.mark.parametrize("last", [0.5, math.nan])
    def test_a_path_that_never_arrives_or_breaks_has_none(self, last):
        assert crossing([point(0, shift=1.0), point(1, shift=last)]) is None


class TestSaturation:
    """Far from the predicted oracles KLoM stands still, and displacements tell more."""

    @pytest.fixture
    def before(self):
        return {split: np.random.default_rng(0).normal(size=(60, 70)) for split in SPLITS}

    def moved(self, before, way):
        """A point of members moved by a part of the way to oracles that lie so many standard deviations below."""
        oracle = {split: margins - (way if split == "forget" else 0) for split, margins in before.items()}
        scale = Scale(before, oracle)
        return lambda epoch, by: scale.point(
            "gradient_ascent", epoch, 0.1 * epoch, {s: np.full((60, 70), -by if s == "forget" else 0.0) for s in SPLITS}
        )

    def test_forget_sets_that_both_saturate_are_ordered_by_how_far_they_are(self, before):
        found = {}
        for way in (8.0, 11.0):
            at = self.moved(before, way)
            run = GradientAscent(lr=0.1, epochs=1)
            found[way] = _summary([(run, [at(1, 1.0)])], at(0, 0.0), tolerance=0.125)
        near, far = found[8.0], found[11.0]
        assert near.objective == far.objective > 1.8
        assert near.rank < far.rank
        assert near.best.displacement == pytest.approx(np.percentile(7 / before["forget"].std(0, ddof=1), 95))
        assert near.best.displacements["retain"] == 0

    def test_of_settings_that_read_the_same_the_nearer_is_the_best_and_not_the_cheaper(self, before):
        at = self.moved(before, 10.0)
        nothing, short, long = at(0, 0.0), at(1, 1.0), at(2, 3.0)
        assert nothing.excess == short.excess == long.excess
        runs = [(GradientAscent(lr=0.1, epochs=2), [short, long])]
        assert _summary(runs, nothing, tolerance=0.125).best == long

    def test_a_setting_at_which_all_fail_is_infinitely_far(self, before):
        assert self.moved(before, 8.0)(1, math.inf).displacement == math.inf

    def test_records_of_earlier_versions_have_none(self):
        old = method(best=point(3, (0.6, 0.2, 0.1)))
        assert math.isnan(old.best.displacement)
        assert old.rank == (0.6, 0.0)


@pytest.mark.parametrize(
    ("nothing", "best", "reaches", "expected"),
    [
        (0.1, 0.0, True, "nothing to unlearn"),
        (2.0, 0.12, True, "can work"),
        (2.0, 0.9, True, "partly"),
        (2.0, 1.5, True, "breaks first"),
        (2.0, 1.5, False, "cannot forget"),
    ],
)
def test_outlooks(nothing, best, reaches, expected):
    assert outlook(nothing, best, reaches, 0.125) == expected


REPAIRING = {name for name, kind in METHODS.items() if kind().repairs}


class TestAdvice:
    def advice(self, nothing, methods):
        removal = dict(zip(SPLITS, (-1.5, 0.0, -0.1), strict=True))
        deviations = dict(zip(SPLITS, (-3.0, 0.0, -0.2), strict=True))
        return advise(forget_set(small_task()), nothing, methods, REPAIRING, removal, deviations, 0.125)

    def test_nothing_to_unlearn_comes_first_and_alone(self):
        sentences = self.advice(point(run="do_nothing", excess=(0.1, 0.1, 0.1)), [method()])
        assert sentences[0].startswith("Nothing to unlearn")
        assert len(sentences) == 2

    def test_a_method_that_works_is_named_with_its_setting_and_price(self):
        working = method("can work", point(4, (0.1, 0.05, 0.02), run="gradient_ascent/lr=0.3", cost=0.02))
        first = self.advice(point(run="do_nothing", excess=(2.0, 0.1, 0.1)), [method(), working])[0]
        assert "rate 0.3, stopped after epoch 4" in first
        assert "2% of its cost" in first

    def test_a_method_that_works_at_the_price_of_retraining_is_no_reason_not_to_retrain(self):
        working = method("can work", point(4, (0.1, 0.05, 0.02), run="margin_matching/lr=0.006", cost=1.11))
        first = self.advice(point(run="do_nothing", excess=(2.0, 0.1, 0.1)), [method(), working])[0]
        assert first.startswith("Retrain: ")
        assert "111% of its cost" in first

    def test_otherwise_it_says_retrain_and_how_far_the_best_is(self):
        sentences = self.advice(
            point(run="do_nothing", excess=(2.0, 0.1, 0.1)),
            [method(at=point(5), damage=0.44), method(label="Fine-tune on R", control=True)],
        )
        assert sentences[0].startswith("Retrain")
        assert "0.60" in sentences[0]
        assert "2.00" in sentences[0]
        assert any("validation is 0.44 nats off" in sentence for sentence in sentences)

    @pytest.mark.parametrize(("name", "undone"), [("gradient_ascent", False), ("scrub", True)])
    def test_a_target_that_is_never_reached_is_said(self, name, undone):
        never = method("cannot forget").model_copy(update={"method": name})
        sentences = self.advice(point(run="do_nothing", excess=(2.0, 0.1, 0.1)), [never])
        said = next(sentence for sentence in sentences if "no setting brings the forget margins down" in sentence)
        assert ("real runs may get there" in said) == undone


@pytest.fixture(scope="module")
def made():
    task = small_task("mlp", n=60, precision="float32")
    return task, forget_set(task), ex.train(task, members=8, seed=0)


class TestForecast:
    runs = (GradientAscent(lr=0.3, epochs=3), GradientDescentAscent(lr=0.1, epochs=2, ascent_epochs=1), FineTune())

    def test_every_setting_and_stopping_time_is_predicted(self, made):
        task, forget, pretrained = made
        found = forecast(Subject.of(task, pretrained, followed=4), forget, self.runs, tolerance=0.125, dimensions=8)
        ascent = next(m for m in found.record.methods if m.method == "gradient_ascent")
        assert [p.epoch for p in ascent.path] == [1, 2, 3]
        assert found.record.nothing.shifts["forget"] == pytest.approx(
            float(
                np.mean(
                    (found.pretrained["forget"] - found.oracle["forget"]).mean(0)
                    / found.oracle["forget"].std(0, ddof=1)
                )
            )
        )
        assert found.targets.shape == (0,)  # no run aims at them

    def test_targets_are_made_where_a_run_aims_at_them(self, made):
        task, forget, pretrained = made
        runs = [MarginMatching(epochs=1)]
        found = forecast(Subject.of(task, pretrained, followed=4), forget, runs, tolerance=0.125, dimensions=8)
        assert found.targets.shape == (8, 60)
        assert torch.isfinite(found.targets).all()

    def test_rate_zero_goes_nowhere(self, made):
        task, forget, pretrained = made
        still = GradientAscent(lr=1e-12, epochs=2)
        found = forecast(Subject.of(task, pretrained, followed=4), forget, [still], tolerance=0.125, dimensions=8)
        (only,) = found.record.methods
        assert only.path[-1].excess == pytest.approx(found.record.nothing.excess)
        assert only.best.run == "do_nothing"

    def test_two_runs_are_identical(self, made):
        task, forget, pretrained = made
        one, two = (
            forecast(
                Subject.of(task, pretrained, followed=4), forget, self.runs, tolerance=0.125, dimensions=8, workers=w
            )
            for w in (1, 2)
        )
        assert one.record.model_dump(exclude={"seconds"}) == two.record.model_dump(exclude={"seconds"})

    def test_members_without_a_history_are_seen_from_their_end_and_it_is_said(self, made):
        task, forget, pretrained = made
        foreign = pretrained.with_state(pretrained.params, pretrained.buffers, provenance={})
        subject = Subject.of(task, foreign, followed=4)
        assert len(subject.segments) == 1
        found = forecast(subject, forget, self.runs[:1], tolerance=0.125, dimensions=8)
        assert "could not be retraced (the ensemble does not say" in found.record.notes[0]
        assert found.record.segments == [(3, subject.segments[0].time)]


@pytest.mark.parametrize(("moved", "noted"), [(-4.5, False), (-9.6, True), (9.6, True)])
def test_a_change_larger_than_any_that_was_predicted_well_is_noted(moved, noted):
    whole = SimpleNamespace(sampled=10)
    forget = SimpleNamespace(retain=range(10))
    notes = _notes(whole, forget, {"forget": moved, "retain": 0.0, "validation": 0.0})
    assert [note for note in notes if "predicted badly" in note] == notes
    assert bool(notes) == noted
