"""Primal-dual unlearning: a program with a known multiplier, complementary slackness, and what a level prevents."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import expunge as ex
from expunge.core import InputError
from expunge.core.outcomes import Classes, Regression
from expunge.ensembles import train
from expunge.methods import GradientAscent, PrimalDual, unlearn
from expunge.methods.primal_dual import alike_rows
from reference.problems import forget_set, small_task


def line():
    """A line through the origin, whose losses over F and R are parabolas in one weight; F pulls down, R up."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(40, 1, generator=draw, dtype=torch.float64)
    x[:4] = 0.5 * torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    y = 0.5 * x + 0.1 * torch.randn(40, 1, generator=draw, dtype=torch.float64)
    y[:4] = -2.0 * x[:4]
    recipe = ex.Recipe(epochs=20, lr=0.3, batch_size=40, precision="float64")
    task = ex.Task(
        name="line",
        model=lambda: nn.Linear(1, 1, bias=False),
        train=(x, y),
        validation=(x[4:] + 1.0, y[4:]),
        recipe=recipe,
        outcome="regression",
    )
    return task, ex.ForgetSet.of(task, range(4), name="some-4", how="drawn for a test")


def moments(x, y):
    """The loss a w^2 - 2 b w + c."""
    return float((x * x).mean()), float((x * y).mean()), float((y * y).mean())


def program(**options):
    task, forget = line()
    pretrained = train(task, members=2)
    found = unlearn(pretrained, task, forget, PrimalDual(**{"lr": 0.1, "dual_lr": 5.0, "epochs": 100, **options}))
    x, y = task.train.x[:, 0], task.train.y.flatten()
    start, end = (next(iter(e.params.values())).flatten() for e in (pretrained, found))
    return moments(x[4:], y[4:]), moments(x[:4], y[:4]), start, end, found.trace.stops[-1]


def loss(parabola, weight):
    a, b, c = parabola
    return a * weight**2 - 2 * b * weight + c


def test_a_quadratic_program_ends_at_its_solution_with_its_multiplier():
    """The bound is met at w = w_R + sqrt(rise / a_R), away from F; there lambda is the ratio of the two slopes."""
    retain, forget, start, end, stop = program(tolerance=0.05, target=1e3)
    (a, b, _), (af, bf, _) = retain, forget

    def solved(tolerance):
        return b / a + ((start - b / a) ** 2 + tolerance / a).sqrt()

    multiplier = (af * solved(0.05) - bf) / (a * solved(0.05) - b)
    assert bool((multiplier > af / a).all())  # the Lagrangian is convex there, so that steps end there
    torch.testing.assert_close(end, solved(0.05), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(stop.facts["multiplier"], multiplier, rtol=1e-5, atol=1e-6)
    # Complementary slackness, and what the price means: forget loss bought by one more unit of retain loss.
    assert float((stop.facts["multiplier"] * (stop.facts["retain-rise"] - 0.05)).abs().max()) < 1e-6
    bought = (loss(forget, solved(0.0501)) - loss(forget, solved(0.0499))) / 0.0002
    torch.testing.assert_close(stop.facts["multiplier"], bought, rtol=1e-4, atol=1e-5)
    check = next(check for check in stop.checks if check.name == "retain loss within its bound")
    assert f"median multiplier {float(multiplier.median()):.3g} " in check.detail


def plane():
    """Two weights: F pulls both down, R holds both, the validation rows only the second."""
    draw = torch.Generator().manual_seed(0)
    axis = torch.eye(2, dtype=torch.float64)
    x = torch.cat([axis.repeat_interleave(2, 0), axis[[0] * 28 + [1] * 8]])
    y = 1.0 + 0.1 * torch.randn(40, 1, generator=draw, dtype=torch.float64)
    y[:4] = -1.0
    held_out = axis[[1] * 12]
    task = ex.Task(
        name="plane",
        model=lambda: nn.Linear(2, 1, bias=False),
        train=(x, y),
        validation=(held_out, torch.full((12, 1), 1.1, dtype=torch.float64)),
        recipe=ex.Recipe(epochs=20, lr=0.3, batch_size=40, precision="float64"),
        outcome="regression",
    )
    return task, ex.ForgetSet.of(task, range(4), name="some-4", how="drawn for a test")


def slope(x, y, w):
    """The gradient of the mean squared error of a plane through the origin."""
    return 2 * x.T @ (x @ w - y) / len(x)


@pytest.mark.parametrize("second", [0.02, 50.0])
def test_two_bounds_end_where_both_prices_explain_the_pull_of_the_forget_set(second):
    task, forget = plane()
    pretrained = train(task, members=2)
    method = PrimalDual(
        lr=0.1, dual_lr=0.5, epochs=350, target=1e3, tolerance=0.3, validation_tolerance=second, batch_size=40
    )
    found = unlearn(pretrained, task, forget, method)
    stop, facts = found.trace.stops[-1], found.trace.stops[-1].facts
    x, y = task.train.x, task.train.y
    for place in range(2):
        w = found.params["weight"][place].T
        pull = slope(x[:4], y[:4], w)
        held = slope(task.validation.x, task.validation.y, w)
        prices = facts["multiplier"][place] * slope(x[4:], y[4:], w) + facts["validation-multiplier"][place] * held
        torch.testing.assert_close(prices, pull, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(facts["retain-rise"], torch.full((2,), 0.3).double(), rtol=1e-4, atol=1e-6)
    assert bool((facts["validation-multiplier"] > 0.1).all()) == (second == 0.02)
    slack = facts["validation-multiplier"] * (facts["validation-rise"] - second)
    assert float(slack.abs().max()) < 1e-5  # complementary slackness
    check = next(check for check in stop.checks if check.name == "retain loss within its bound")
    assert "of the validation rows, which it trained on, in " in check.detail


def test_what_the_second_bound_costs_is_counted():
    task, forget = plane()
    pretrained = train(task, members=2)
    options = {"lr": 0.1, "epochs": 2, "batch_size": 40, "forget_batch_size": 4}
    one, two = (
        unlearn(pretrained, task, forget, PrimalDual(**options, validation_tolerance=bound)).trace.cost
        for bound in (None, 0.1)
    )
    assert (two - one) * 36 * 20 == pytest.approx(2 * 12 + 12 / 3)


def test_a_bound_that_is_not_active_has_multiplier_0_and_the_level_is_reached():
    _, forget, _, end, stop = program(tolerance=50.0, target=3.0)
    assert stop.facts["multiplier"].tolist() == [0.0, 0.0]
    # Steps of a fixed length end within one of the level: lr times the slope squared.
    step = 0.1 * (2 * (forget[0] * end - forget[1])) ** 2
    assert bool(((loss(forget, end) - 3.0).abs() <= 1.2 * step).all())
    assert all(check.passed for check in stop.checks if check.name != "moved enough")


def test_a_forget_loss_above_the_level_comes_down():
    _, forget, start, end, _ = program(tolerance=50.0, target=0.1, epochs=20)
    assert bool((loss(forget, start) > 0.2).all())
    assert bool((loss(forget, end) < loss(forget, start)).all())


def test_without_dual_steps_the_retain_set_is_not_protected():
    stops = [program(tolerance=0.0, target=1e3, epochs=30, dual_lr=rate)[-1] for rate in (0.0, 5.0)]
    assert stops[0].facts["multiplier"].tolist() == [0.0, 0.0]
    assert not next(check for check in stops[0].checks if check.name == "retain loss within its bound").passed
    assert bool((stops[1].facts["multiplier"] > 0).all())
    assert bool((stops[1].facts["retain-rise"] < stops[0].facts["retain-rise"]).all())


def test_it_does_not_run_away_where_ascent_does():
    task = small_task("mlp", n=80)
    forget, pretrained = forget_set(task, 10), train(task, members=3)
    x, y = task.train.x[forget.indices], task.train.y[forget.indices]
    up = unlearn(pretrained, task, forget, GradientAscent(lr=0.2, epochs=60))
    held = unlearn(pretrained, task, forget, PrimalDual(lr=0.2, epochs=60, tolerance=10.0))
    losses = [task.outcome.loss(e.logits(x), y).mean(1) for e in (up, held)]
    weights = alike_rows(task.outcome, y, task.validation.y)
    level = task.outcome.loss(pretrained.logits(task.validation.x), task.validation.y) @ weights
    assert bool((losses[0] > 10 * level).all())
    assert bool((losses[1] < 3 * level).all())


def test_held_out_rows_get_the_classes_of_the_forget_set():
    outcome = Classes(classes=3)
    found = alike_rows(outcome, torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 1, 2, 0]))
    assert found.tolist() == [0.375, 0.125, 0.125, 0.0, 0.375]
    assert alike_rows(outcome, torch.tensor([0, 2]), torch.tensor([0, 0])).tolist() == [0.5, 0.5]
    assert alike_rows(Regression(), torch.zeros(2, 1), torch.zeros(4, 1)).tolist() == [0.25] * 4
    with pytest.raises(InputError, match=r"no held-out row .* expected target="):
        alike_rows(outcome, torch.tensor([1]), torch.tensor([0, 2]))


@pytest.mark.parametrize(
    "options",
    [{"tolerance": -0.1}, {"validation_tolerance": -0.1}, {"dual_lr": -1.0}, {"target": math.nan}, {"target": "low"}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        PrimalDual(**options)
