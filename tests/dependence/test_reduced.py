"""The reduced model: exact at the start, exact for a linear model, and a first-order path for any other."""

from __future__ import annotations

import pytest
import torch

import expunge as ex
from expunge.core import InputError, Split
from expunge.dependence.linearised import Linearised
from expunge.dependence.reduced import reduce_model
from expunge.ensembles.batches import batches, epoch_order
from expunge.methods import FineTune, GradientAscent, GradientDescentAscent, Scrub
from expunge.methods.problem import Problem
from reference.problems import forget_set, small_task
from reference.unrolled_slow import linearised_ascent


def parts(task):
    return {"train": task.train, "validation": task.validation}


def test_the_start_is_the_pretrained_stack():
    task = small_task("cnn")
    ensemble = ex.train(task, members=3, seed=0)
    reduced = reduce_model(ensemble, task, forget_set(task), parts(task), dimensions=6)
    for name, split in parts(task).items():
        torch.testing.assert_close(reduced.margins(reduced.ensemble, name), ensemble.margins(split.x, split.y))
    x, y = reduced.task.train.x, reduced.task.train.y
    torch.testing.assert_close(reduced.ensemble.margins(x, y), ensemble.margins(task.train.x, task.train.y))


@pytest.mark.parametrize(
    "method",
    [
        GradientAscent(lr=0.2, epochs=3, batch_size=3, momentum=0.5),
        GradientDescentAscent(lr=0.1, epochs=3, ascent_epochs=2, batch_size=10, forget_batch_size=4, weight_decay=0.05),
        Scrub(lr=0.1, epochs=3, msteps=2, batch_size=10, forget_batch_size=4),
        FineTune(lr=0.2, epochs=2, batch_size=8),
    ],
)
def test_for_a_linear_model_with_all_its_dimensions_every_method_is_exact(method):
    """Logistic regression is its own linearisation, so the reduced run and the real one are the same run."""
    task = small_task("logistic")
    forget = forget_set(task)
    ensemble = ex.train(task, members=3, seed=0)
    size = sum(tensor[0].numel() for tensor in ensemble.params.values())
    # Directions beyond the Krylov space: the unit vectors, so that the basis is the whole weight space.
    linearised = Linearised(ensemble)
    units = [linearised.unflatten(torch.eye(size, dtype=torch.float64)[i].expand(3, size)) for i in range(size)]
    reduced = reduce_model(ensemble, task, forget, parts(task), directions=units, dimensions=max(size, size + 2))
    there = ex.unlearn(ensemble, task, forget, method, seed=3)
    here = ex.unlearn(reduced.ensemble, reduced.task, forget, method, seed=3)
    for name, split in parts(task).items():
        torch.testing.assert_close(reduced.margins(here, name), there.margins(split.x, split.y), rtol=1e-6, atol=1e-7)
    assert here.trace.cost == there.trace.cost


def test_it_equals_the_linearised_network_trained_in_plain_loops():
    task = small_task("mlp", n=20)
    forget = forget_set(task, 6)
    ensemble = ex.train(task, members=2, seed=0)
    size = sum(tensor[0].numel() for tensor in ensemble.params.values())
    linearised = Linearised(ensemble)
    units = [linearised.unflatten(torch.eye(size, dtype=torch.float64)[i].expand(2, size)) for i in range(size)]
    reduced = reduce_model(ensemble, task, forget, parts(task), directions=units, dimensions=size + 2)
    method = GradientAscent(lr=0.3, epochs=2, batch_size=4, momentum=0.5, weight_decay=0.1)
    here = ex.unlearn(reduced.ensemble, reduced.task, forget, method, seed=5)
    problem = Problem(ensemble, task, forget, 5, method.name)
    for member in range(2):
        order = []
        for epoch in (1, 2):
            own = [ex.core.seeds.derive(problem.seeds[member], f"forget-{epoch}")]
            index = epoch_order(torch.from_numpy(forget.indices).expand(1, -1), own, 0)
            order += [batch[0].tolist() for batch in batches(index, 4)]
        moved = linearised_ascent(ensemble.module(member).double(), task, order, 0.3, 0.1, 0.5)
        direction = linearised.unflatten(moved.expand(2, -1))
        at, by = linearised.margins(task.validation.x, task.validation.y, direction)
        logits, change = linearised.outputs(task.validation.x, direction)
        expected = ex.core.margins_from_logits(logits + change, task.validation.y)[member]
        assert at.shape == by.shape
        torch.testing.assert_close(reduced.margins(here, "validation")[member], expected, rtol=1e-6, atol=1e-8)


def test_small_steps_follow_the_real_path():
    """To first order: halving the rate quarters the error."""
    task = small_task("mlp")
    forget = forget_set(task)
    ensemble = ex.train(task, members=3, seed=0)
    reduced = reduce_model(ensemble, task, forget, parts(task), dimensions=40)
    errors = []
    for lr in (0.02, 0.01):
        method = GradientAscent(lr=lr, epochs=3)
        there = ex.unlearn(ensemble, task, forget, method, seed=1)
        here = ex.unlearn(reduced.ensemble, reduced.task, forget, method, seed=1)
        x, y = task.validation.x, task.validation.y
        errors.append(float((reduced.margins(here, "validation") - there.margins(x, y)).abs().max()))
    assert errors[1] < 0.4 * errors[0]


def test_without_room_retain_examples_borrow_rows_of_their_label():
    task = small_task("mlp", n=400)
    forget = forget_set(task)
    ensemble = ex.train(task, members=2, seed=0)
    room = (7 + 20 + 100) * 2 * 6 * 3
    reduced = reduce_model(ensemble, task, forget, {"validation": task.validation}, dimensions=6, table=room)
    assert reduced.sampled == 100
    logits = reduced.ensemble.logits(reduced.task.train.x)
    exact = ensemble.logits(task.train.x)
    same = (logits - exact).abs().amax((0, 2)) < 1e-9
    assert int(same[forget.retain].sum()) >= 100
    assert bool(same[forget.indices].all())
    rows = reduced.task.train.x
    for label in range(3):
        own = rows[
            (task.train.y == label).numpy() & ~torch.isin(torch.arange(400), torch.from_numpy(forget.indices)).numpy()
        ]
        others = rows[(task.train.y != label).numpy()]
        assert not set(own.tolist()) & set(others.tolist())


def test_no_room_at_all_is_an_error():
    task = small_task("mlp", n=100)
    ensemble = ex.train(task, members=2, seed=0)
    with pytest.raises(InputError, match=r"room for .* retain examples, expected at least 64"):
        reduce_model(ensemble, task, forget_set(task), parts(task), dimensions=6, table=2000)
    with pytest.raises(InputError, match="dimensions = 1"):
        reduce_model(ensemble, task, forget_set(task), parts(task), dimensions=1)


def test_splits_may_be_any_examples():
    task = small_task("mlp")
    ensemble = ex.train(task, members=2, seed=0)
    few = Split(task.validation.x[:3], task.validation.y[:3])
    reduced = reduce_model(ensemble, task, forget_set(task), {"few": few}, dimensions=4)
    torch.testing.assert_close(reduced.margins(reduced.ensemble, "few"), ensemble.margins(few.x, few.y))
