"""Retraining in small batches: its twin, the time that it keeps, its endpoint, and that it never reads F."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from expunge.core import InputError, Recipe
from expunge.core.seeds import derive
from expunge.ensembles import train
from expunge.methods import SmallBatchRetrain, unlearn
from reference.one_by_one import stack, train_with_seed
from reference.problems import forget_set, small_task


def test_it_equals_members_trained_one_at_a_time_with_the_recipe_written_out():
    task = small_task("mlp", epochs=8, batch_size=16, peak_epoch=2.0, lr=0.2)
    forget = forget_set(task)
    found = unlearn(train(task, members=2, epochs=1), task, forget, SmallBatchRetrain(cost=0.5, time=0.8), seed=3)
    steps, small_steps = 8 * -(-len(forget.retain) // 16), 4 * -(-len(forget.retain) // 8)
    written = dataclasses.replace(
        task.recipe, epochs=4, batch_size=8, peak_epoch=1.0, lr=0.2 * 0.8 * steps / small_steps
    )
    seeds = [derive(3, "unlearn", "small_batch_retrain", member) for member in range(2)]
    reference = stack([train_with_seed(task, forget.retain, seed, written, 4) for seed in seeds])
    for name, tensor in reference.items():
        torch.testing.assert_close(found.params[name], tensor, rtol=0, atol=1e-10)
    assert found.trace.cost == pytest.approx(0.5)


@pytest.mark.parametrize("schedule", ["triangular", "constant", "cosine", "linear"])
@pytest.mark.parametrize("cost", [0.1, 0.25, 0.5, 0.77])
@pytest.mark.parametrize("time", [0.8, 1.0])
def test_the_training_time_is_the_share_that_was_asked_for(schedule, cost, time):
    recipe = Recipe(epochs=30, batch_size=64, lr=0.2, schedule=schedule)
    small = SmallBatchRetrain(cost=cost, time=time).small_recipe(recipe, 1365)
    # Rates are those of the middle of each step, so the sums of two step sizes differ by the corner of the triangle.
    assert small.training_time(1365) == pytest.approx(time * recipe.training_time(1365), rel=1e-3)
    assert small.batch_size * small.epochs < recipe.batch_size * recipe.epochs


def test_all_of_the_cost_and_time_is_the_recipe():
    recipe = Recipe(epochs=30, batch_size=64, lr=0.2, peak_epoch=5.0)
    assert SmallBatchRetrain(cost=1.0, time=1.0).small_recipe(recipe, 1365) == recipe


def test_the_rows_of_the_forget_set_are_never_read():
    task = small_task("mlp")
    forget = forget_set(task, 5)
    x, y = task.train.x.clone(), task.train.y.clone()
    x[forget.indices], y[forget.indices] = 100.0, (y[forget.indices] + 1) % task.classes
    other = small_task("mlp")
    other.train = type(task.train)(x, y)
    once, again = (
        unlearn(train(each, members=2, epochs=1), each, forget_set(each, 5), SmallBatchRetrain(), seed=0)
        for each in (task, other)
    )
    assert all(torch.equal(once.params[name], again.params[name]) for name in once.params)


def test_small_batches_that_cannot_be_are_refused_before_any_work():
    task = small_task("mlp_norm", batch_size=16)  # 33 retain examples in batches of 8
    with pytest.raises(InputError, match="leave a batch of 1"):
        unlearn(train(task, members=1, epochs=0), task, forget_set(task, 17), SmallBatchRetrain())
    task = small_task("mlp", last_batch="drop", batch_size=48)
    with pytest.raises(InputError, match="no step is ever taken"):
        unlearn(train(small_task("mlp"), members=1, epochs=0), task, forget_set(task, 3), SmallBatchRetrain())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"cost": 0.0}, "cost = 0"),
        ({"cost": 1.1}, r"cost = 1\.1"),
        ({"time": 0}, "time = 0"),
        ({"time": 3.0}, "time = 3"),
    ],
)
def test_options_out_of_range_are_refused(options, told):
    with pytest.raises(InputError, match=told):
        SmallBatchRetrain(**options)
