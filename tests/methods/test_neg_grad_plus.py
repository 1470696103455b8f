"""NegGrad+: its closed forms, which data its steps see, and the published ways to see less."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import expunge as ex
from expunge.core import InputError
from expunge.ensembles import train
from expunge.methods import FineTune, NegGradPlus, unlearn
from reference.problems import forget_set, small_task

WHOLE = NegGradPlus(lr=0.8, epochs=30, momentum=0.0, retain_weight=0.8)


def line(spread):
    """Pairs (x, y) for a line through the origin; the first four are to be forgotten, their x spread as said."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(40, 1, generator=draw, dtype=torch.float64)
    x[:4] = spread * torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    y = 0.5 * x + 0.1 * torch.randn(40, 1, generator=draw, dtype=torch.float64)
    y[:4] = -x[:4]
    recipe = ex.Recipe(epochs=1, lr=0.05, batch_size=8, precision="float64")
    task = ex.Task(
        name="line",
        model=lambda: nn.Linear(1, 1, bias=False),
        train=(x, y),
        validation=(x[4:] + 1.0, y[4:]),
        recipe=recipe,
        outcome="regression",
    )
    return task, ex.ForgetSet.of(task, range(4), name="some-4", how="drawn for a test")


@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_on_squared_loss_it_ends_where_the_weighted_moments_say(spread):
    """w = (a mean_R xy - (1 - a) mean_F xy) / (a mean_R xx - (1 - a) mean_F xx): beyond retraining, away from F."""
    task, forget = line(spread)
    found = unlearn(train(task, members=2), task, forget, WHOLE)
    x, y = task.train.x[:, 0], task.train.y.flatten()
    top, below = (0.8 * (x * z)[4:].mean() - 0.2 * (x * z)[:4].mean() for z in (y, x))
    assert float(below) > 0
    ends = next(iter(found.params.values())).flatten()
    torch.testing.assert_close(ends, (top / below).expand(2), rtol=1e-6, atol=1e-9)


def test_where_the_weighted_curvature_is_negative_it_has_no_end():
    task, forget = line(5.0)
    x = task.train.x[:, 0]
    assert float(0.8 * x[4:].square().mean() - 0.2 * x[:4].square().mean()) < 0
    pretrained = train(task, members=2)
    far = [
        unlearn(pretrained, task, forget, dataclasses.replace(WHOLE, epochs=epochs)).trace.stops[-1].facts["moved"]
        for epochs in (3, 6)
    ]
    assert bool((far[1] > 3 * far[0]).all())


def test_weight_1_is_fine_tuning_up_to_the_order_and_says_that_nothing_climbed():
    task = small_task("mlp")
    forget, pretrained = forget_set(task), train(task, members=2)
    whole = {"lr": 0.05, "epochs": 2, "batch_size": 50, "momentum": 0.9, "weight_decay": 0.01}
    one = unlearn(pretrained, task, forget, FineTune(**whole))
    other = unlearn(pretrained, task, forget, NegGradPlus(retain_weight=1.0, **whole))
    assert max(float((one.params[k] - other.params[k]).abs().max()) for k in one.params) < 1e-12
    assert [check.detail for check in other.trace.failed_checks if "rose" in check.name] == ["no ascent pass was made"]


def test_weight_0_is_ascent_and_is_seen_to_rise():
    task = small_task("mlp")
    forget, pretrained = forget_set(task), train(task, members=3)
    found = unlearn(pretrained, task, forget, NegGradPlus(lr=0.1, epochs=3, retain_weight=0.0))
    assert found.trace.failed_checks == []
    x, y = task.train.x[forget.indices], task.train.y[forget.indices]
    assert bool((found.margins(x, y).mean(1) < pretrained.margins(x, y).mean(1)).all())


@pytest.mark.parametrize(("size", "batch", "forget_batch"), [(2, 8, 64), (10, 8, 64), (10, 20, 1), (40, 64, 4)])
def test_neither_set_ends_the_epoch_of_the_other(size, batch, forget_batch):
    """Published code zips the two loaders: the shorter ends the epoch, and one that drops its last batch is empty."""
    task = small_task("mlp")
    forget, pretrained = forget_set(task, size), train(task, members=2)
    method = NegGradPlus(lr=0.01, epochs=10, batch_size=batch, forget_batch_size=forget_batch)
    found = unlearn(pretrained, task, forget, method)
    retain, steps = 50 - size, 10 * -(-(50 - size) // batch)
    visits = found.trace.stops[-1].facts["visits"]
    each = -(-size // forget_batch)  # steps that a pass over F takes; passes go on from one epoch to the next
    assert int(visits.min()) == steps // each
    assert int(visits.max()) == -(-steps // each)
    assert int(visits.min()) >= 1
    assert found.trace.cost * retain * task.recipe.epochs == pytest.approx(10 * retain + float(visits[0].sum()))
    assert found.trace.cost == pytest.approx(method.planned_cost(size, retain, task.recipe.epochs))


def test_weights_outside_0_to_1_are_refused():
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="retain_weight"):
            NegGradPlus(retain_weight=weight)


def test_its_defaults_are_those_of_the_source():
    method = NegGradPlus()
    assert (method.retain_weight, method.lr, method.momentum, method.weight_decay) == (0.95, 0.01, 0.9, 0.0)
    assert (method.epochs, method.optimizer, method.statistics) == (10, "recipe", "frozen")
