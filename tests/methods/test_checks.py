"""The runtime checks: each is seen to pass and seen to fail, and the public mistakes are caught."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from expunge.core import ForgetSet, Recipe
from expunge.core.tree import clone
from expunge.ensembles import recalibrate, train
from expunge.methods import Checkpoint, FineTune, GradientAscent, Method, Problem, Scrub, StatisticsAlone, unlearn
from expunge.methods.checks import movement, run_checks
from expunge.methods.distillation import divergence
from reference.problems import forget_set, small_task


@pytest.fixture(scope="module")
def normed():
    task = small_task("mlp_norm")
    return task, forget_set(task, 10), train(task, members=4, seed=1)


@dataclass(frozen=True, kw_only=True)
class Wrong(Method):
    """Base of methods that contain a mistake."""

    lr: float = 0.05
    statistics: str = "frozen"
    name: ClassVar[str] = "wrong"
    label: ClassVar[str] = "Wrong"
    checks: ClassVar[tuple[str, ...]] = ("moved", "statistics", "finite", "visited", "ascended")
    raises: ClassVar[str] = "forget loss"

    @classmethod
    def grid(cls, recipe: Recipe):
        return [cls()]


class Descends(Wrong):
    """Ascent that does not ascend: the sign of the loss is forgotten."""

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        descent = problem.descent(statistics="frozen")
        before = problem.forget_loss(descent)
        for x, y, _ in problem.forget_batches(1, 4):
            descent.step(x, y, self.lr)
        problem.raised(before, problem.forget_loss(descent))
        yield problem.checkpoint(1, descent, "frozen")


class NeverAscends(Wrong):
    """Drops incomplete batches, so a forget set smaller than a batch is never seen."""

    batch_size: ClassVar[int] = 64

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        descent = problem.descent(statistics="frozen")
        if len(problem.forget) >= self.batch_size:
            for x, y, _ in problem.forget_batches(1, self.batch_size):
                descent.step(x, y, self.lr, ascend=True)
        yield problem.checkpoint(1, descent, "frozen")


class MovesStatistics(Wrong):
    """Declares frozen statistics and normalises in training mode, as public code does."""

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        descent = problem.descent(statistics="updated")
        before = problem.forget_loss(descent)
        for x, y, _ in problem.forget_batches(1, 5):
            descent.step(x, y, self.lr, ascend=True)
        problem.raised(before, problem.forget_loss(descent))
        yield problem.checkpoint(1, descent, "frozen")


class OnlyRecalibrates(Wrong):
    """Has a rate and declares new statistics, and changes nothing else."""

    checks: ClassVar[tuple[str, ...]] = ("moved", "statistics", "finite")

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        yield problem.stop(1, problem.start, "recalibrated")


class MovesTheTeacher(Wrong):
    """The optimiser holds a second copy of the weights (a teacher); the student that is returned is never stepped."""

    raises: ClassVar[str] = "forget divergence"

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        student = problem.descent(statistics="frozen")
        teacher = problem.descent(statistics="frozen")
        on_forget = problem.logits(student, problem.forget)
        before = divergence(problem.logits(student, problem.forget), on_forget, 4.0)
        for x, y, _ in problem.forget_batches(1, 5):
            teacher.step(x, y, self.lr, ascend=True)
        problem.raised(before, divergence(problem.logits(student, problem.forget), on_forget, 4.0))
        yield problem.checkpoint(1, student, "frozen")


class MovesAll(Wrong):
    """Declares that it moves no weight, and moves them."""

    checks: ClassVar[tuple[str, ...]] = ("still", "statistics", "finite", "visited")

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        descent = problem.descent(statistics="frozen")
        for x, y, _ in problem.forget_batches(1, 5):
            descent.step(x, y, 0.01)
        yield problem.checkpoint(1, descent, "frozen")


def failed(normed, method):
    task, forget, pretrained = normed
    return {check.name: check.detail for check in unlearn(pretrained, task, forget, method).trace.failed_checks}


def test_an_honest_method_fails_no_check(normed):
    for method in (GradientAscent(lr=0.05, epochs=2), FineTune(epochs=1), Scrub(lr=0.05, epochs=3, batch_size=8)):
        assert failed(normed, method) == {}


def test_ascent_that_descends_is_flagged(normed):
    found = failed(normed, Descends())
    assert set(found) == {"forget loss rose"}
    assert found["forget loss rose"].startswith("in 0% of the")


def test_zero_updates_because_the_forget_set_is_smaller_than_a_batch_are_flagged(normed):
    found = failed(normed, NeverAscends())
    assert set(found) == {"weights moved", "every forget example visited", "forget loss rose"}
    assert found["every forget example visited"].startswith("40 of 40")
    assert found["forget loss rose"] == "no ascent pass was made"


def test_the_real_ascent_is_not_stopped_by_a_small_forget_set(normed):
    task, _, pretrained = normed
    one = ForgetSet.of(task, [3], name="one", how="a single example")
    found = unlearn(pretrained, task, one, GradientAscent(lr=0.05, epochs=1, batch_size=64))
    assert found.trace.failed_checks == []


def test_statistics_that_move_though_declared_frozen_are_flagged(normed):
    assert "normalisation statistics of 4 members moved" in failed(normed, MovesStatistics())["statistics frozen"]


def test_statistics_that_drift_at_rate_0_are_flagged(normed):
    found = failed(normed, GradientAscent(lr=0.0, epochs=1, statistics="updated"))
    assert {"weights moved", "not only statistics moved"} <= set(found)
    task, forget, pretrained = normed
    drifted = unlearn(pretrained, task, forget, StatisticsAlone(epochs=1))
    x = task.validation.x
    assert float((drifted.logits(x) - pretrained.logits(x)).abs().max()) > 1e-3  # it is not harmless


def test_a_method_that_only_recalibrates_is_flagged(normed):
    found = failed(normed, OnlyRecalibrates(statistics="recalibrated"))
    assert set(found) == {"weights moved", "not only statistics moved"}


def test_an_optimiser_on_the_teacher_is_flagged(normed):
    found = failed(normed, MovesTheTeacher())
    assert "weights moved" in found
    assert found["weights moved"].startswith("0 of 4 members moved")


def test_in_scrub_the_student_moves_and_the_teacher_does_not(normed):
    task, forget, pretrained = normed
    kept = clone(pretrained.params)
    found = unlearn(pretrained, task, forget, Scrub(lr=0.05, epochs=3, batch_size=8))
    assert bool((found.trace.stops[-1].facts["moved"] > 0).all())
    assert all(torch.equal(kept[key], pretrained.params[key]) for key in kept)
    # The student ends where its divergence from that teacher has grown on F.
    x = task.train.x[forget.indices]
    assert bool((divergence(found.logits(x), pretrained.logits(x), 4.0) > 1e-6).all())


def test_weights_that_move_though_declared_still_are_flagged(normed):
    assert set(failed(normed, MovesAll())) == {"weights unchanged"}


def test_diverged_members_are_counted(normed):
    task, forget, pretrained = normed
    found = unlearn(pretrained, task, forget, GradientAscent(lr=3e38, epochs=3))
    by_name = {check.name: check for check in found.trace.stops[-1].checks}
    assert not by_name["weights finite"].passed
    assert by_name["weights finite"].detail == "4 of 4 members have non-finite weights"
    assert found.finite().tolist() == [False] * 4


def facts(**changes):
    base = {
        "moved": torch.ones(10),
        "statistics_moved": torch.zeros(10),
        "finite": torch.ones(10, dtype=torch.bool),
        "visits": torch.ones(10, 3),
        "forget-margins-start": torch.arange(10.0).unsqueeze(1),
        "forget-margins": torch.arange(10.0).unsqueeze(1) + 1,
        "ascent-0-before": torch.zeros(10),
        "ascent-0-after": torch.ones(10),
    }
    return {**base, **changes}


def names_of_failed(method, **changes):
    return [check.name for check in run_checks(method, facts(**changes)) if not check.passed]


@pytest.mark.parametrize(("rising", "passes"), [(10, True), (9, True), (8, False), (0, False)])
def test_nine_tenths_of_the_members_must_rise(rising, passes):
    after = torch.cat([torch.ones(rising), -torch.ones(10 - rising)])
    found = names_of_failed(GradientAscent(), **{"ascent-0-after": after})
    assert found == ([] if passes else ["forget loss rose"])


def test_members_that_became_nan_did_not_rise():
    nan = torch.full((10,), float("nan"))
    assert names_of_failed(GradientAscent(), **{"ascent-0-after": nan}) == ["forget loss rose"]
    assert names_of_failed(GradientAscent(), moved=nan) == []  # it moved; finiteness is a check of its own
    assert names_of_failed(GradientAscent(), finite=torch.arange(10) < 9) == ["weights finite"]


def test_forget_margins_must_move_by_a_tenth_of_the_spread_between_members():
    start = torch.tensor([[0.0, 5.0, 1.0], [2.0, 5.0, 3.0]])  # deviations of sqrt(2), none, and sqrt(2)
    for moved, passes in ((0.15, True), (0.13, False)):
        margins = {"forget-margins-start": start, "forget-margins": start + torch.tensor([moved, 9.0, -moved])}
        assert (names_of_failed(GradientAscent(), **margins) == []) == passes
        assert movement(margins["forget-margins"], start) == pytest.approx(moved / 2**0.5)
    broken = {"forget-margins-start": start, "forget-margins": start * float("nan")}
    assert names_of_failed(GradientAscent(), **broken) == []  # finiteness is a check of its own
    alone = {"forget-margins-start": start[:1], "forget-margins": start[:1]}
    assert names_of_failed(GradientAscent(), **alone) == []  # one member has no spread


def test_one_missed_example_of_one_member_is_enough():
    visits = torch.ones(10, 3)
    visits[4, 2] = 0
    assert names_of_failed(GradientAscent(), visits=visits) == ["every forget example visited"]
    assert names_of_failed(FineTune(), visits=visits) == []


def test_one_member_that_stays_is_enough():
    moved = torch.ones(10)
    moved[9] = 0
    assert names_of_failed(FineTune(), moved=moved) == ["weights moved"]


def test_a_divergence_pass_that_starts_at_its_minimum_is_not_counted_and_a_loss_pass_is():
    still = {"ascent-0-before": torch.zeros(10), "ascent-0-after": torch.zeros(10)}
    assert names_of_failed(Scrub(), **still) == []
    assert names_of_failed(GradientAscent(), **still) == ["forget loss rose"]
    falling = {"ascent-1-before": torch.full((10,), 2.0), "ascent-1-after": torch.ones(10)}
    assert names_of_failed(Scrub(), **still, **falling) == ["forget divergence rose"]


def test_recalibration_alone_changes_what_the_model_says(normed):
    task, _, pretrained = normed
    new = recalibrate(pretrained, task.train.x)
    assert float((new.logits(task.validation.x) - pretrained.logits(task.validation.x)).abs().max()) > 1e-3


def test_a_pass_that_sees_a_row_twice_counts_it_twice():
    task = small_task("mlp")
    forget = forget_set(task, 10)
    problem = Problem(train(task, members=2, epochs=0), task, forget, 0, "any")
    problem.visit(torch.from_numpy(forget.indices[[0, 3, 3, 3]]))
    problem.visit(torch.from_numpy(forget.retain[:5].copy()))
    assert problem.ledger.visits.tolist() == [[1.0, 0.0, 0.0, 3.0] + [0.0] * 6] * 2
    assert problem.ledger.examples == 9
