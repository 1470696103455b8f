"""Rates on scale: kept where they move margins, else placed by what a probing epoch moves."""

from __future__ import annotations

import dataclasses

import pytest

from expunge.ensembles import train
from expunge.methods import METHODS, GradientAscent, Trained, unlearn
from expunge.methods.checks import movement
from expunge.methods.scale import LEAST, OVERSHOOT, TOP, on_scale, placed
from expunge.tasks import digits, random_forget_set

GRID = [GradientAscent(lr=lr) for lr in (0.001, 0.1, 1.0)]


@pytest.mark.parametrize("slope", [1e-9, 1e-4, OVERSHOOT / 10 * 0.9, OVERSHOOT / 10 * 1.1, 1.0, 900 * LEAST, 1e5])
def test_a_grid_is_kept_or_its_largest_rate_moves_by_three_deviations(slope):
    asked = []

    def probe(run):
        asked.append(run.lr)
        return slope * run.lr / (1 + slope * run.lr / 100)  # proportional while small

    factor = placed(GRID, probe)
    least, most = 0.001 * slope, 10 * slope
    if most >= OVERSHOOT and least <= LEAST:
        assert factor == 1
    else:
        assert TOP <= factor * slope < TOP * 10**0.5 * 1.01
    assert len(asked) < 13


def test_what_cannot_be_measured_is_left_alone():
    assert placed(GRID, lambda run: 0.0) == 1
    assert placed(GRID, lambda run: float("nan")) == 1
    assert placed([GradientAscent(lr=0.0)], lambda run: 1.0) == 1


@pytest.fixture(scope="module", params=["sgd", "adamw"])
def subject(request):
    options = {"optimizer": "adamw", "lr": 3e-3, "weight_decay": 0.01} if request.param == "adamw" else {}
    task = digits(epochs=15, **options)
    return task, random_forget_set(task, size=70, seed=0), train(task, members=6, seed=0)


def test_multiples_of_the_rate_that_trained_the_models_are_on_scale(subject):
    """With its optimiser; so published grids are what they were."""
    task, forget, pretrained = subject
    for method in METHODS.values():
        if issubclass(method, Trained):
            grid = method.grid(task.recipe)
            assert on_scale(grid, pretrained, task, forget, 0) == list(grid)


def test_a_grid_that_hardly_moves_is_placed_and_then_moves(subject):
    task, forget, pretrained = subject
    low = [run.scaled(1e-4) for run in GradientAscent.grid(task.recipe)]
    high = on_scale(low, pretrained, task, forget, 0)
    assert [run.lr / high[0].lr for run in high] == pytest.approx([run.lr / low[0].lr for run in low], rel=1e-3)
    x, y = task.train.x[forget.indices], task.train.y[forget.indices]
    start = pretrained.margins(x, y)
    for run, inert in ((low[-1], True), (high[-1], False)):
        found = unlearn(pretrained, task, forget, dataclasses.replace(run, epochs=1))
        assert (movement(found.margins(x, y), start) < 0.1) == inert
        assert any(check.name == "moved enough" for check in found.trace.failed_checks) == inert


def test_with_adamw_ascent_passes_the_oracles(subject):
    """Multiples of an AdamW rate moved nothing while steps were SGD's, and an audit found that no method works."""
    task, forget, pretrained = subject
    if task.recipe.optimizer == "sgd":
        return
    x, y = task.train.x[forget.indices], task.train.y[forget.indices]
    oracle = train(task, members=6, seed=1, without=forget).margins(x, y).mean()
    assert oracle < pretrained.margins(x, y).mean()
    ends = {}
    for optimizer in ("recipe", "sgd"):
        for run in GradientAscent.grid(task.recipe):
            found = unlearn(pretrained, task, forget, dataclasses.replace(run, optimizer=optimizer))
            ends[optimizer, run.lr] = float(found.margins(x, y).nan_to_num(-100.0).mean())
    assert min(end for (optimizer, _), end in ends.items() if optimizer == "recipe") < oracle
    assert min(end for (optimizer, _), end in ends.items() if optimizer == "sgd") > oracle
