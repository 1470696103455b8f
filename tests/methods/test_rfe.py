"""RFE's projection: its golden numbers, its slow twin, and that neighbours are held to first order."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from expunge.core import InputError
from expunge.ensembles import train
from expunge.methods import RFE, GradientAscent, unlearn
from expunge.methods.problem import Problem
from expunge.methods.replay import cross_influence, most
from expunge.methods.rfe import without_conflict
from reference.one_by_one import stack
from reference.problems import forget_set, small_task
from reference.unlearn_one_by_one import rfe

SHORT = RFE(lr=0.05, epochs=3, batch_size=5, forget_batch_size=4)


def two(*rows):
    """Gradients of members with two numbers each, as two parameters."""
    values = torch.tensor(rows, dtype=torch.float64)
    return {"a": values[:, :1], "b": values[:, 1:]}


def rows(state):
    return torch.cat([state["a"], state["b"]], 1).tolist()


def test_golden_numbers_of_the_projection():
    step = two([1.0, -1.0], [1.0, 1.0], [0.0, -2.0], [1.0, -1.0])
    against = two([0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0])
    # Conflict; none; opposite, of which nothing is left; and no gradient to be in conflict with.
    assert rows(without_conflict(step, against)) == [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, -1.0]]


def test_a_projected_step_is_orthogonal_and_stays_as_it_is_when_projected_again():
    draw = torch.Generator().manual_seed(0)
    step, against = (
        {"w": torch.randn(50, 3, 4, generator=draw, dtype=torch.float64), "v": torch.randn(50, 5, generator=draw)}
        for _ in range(2)
    )
    once = without_conflict(step, against)

    def inner(one, other):
        return sum((one[key].double() * other[key].double()).flatten(1).sum(1) for key in one)

    conflict = inner(step, against) < 0
    assert 10 < int(conflict.sum()) < 40
    assert bool((inner(once, against)[conflict].abs() < 1e-5).all())
    assert all(torch.equal(once[key][~conflict], step[key][~conflict]) for key in step)
    again = without_conflict(once, against)
    for key in once:
        torch.testing.assert_close(again[key], once[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "statistics"), [("mlp", "frozen"), ("resnet", "frozen"), ("resnet", "updated")])
def test_it_equals_its_slow_twin(name, statistics):
    task = small_task(name)
    forget, pretrained = forget_set(task, 8), train(task, members=3, seed=4)
    method = dataclasses.replace(SHORT, statistics=statistics, neighbours=1.5, momentum=0.5, weight_decay=0.01)
    found = unlearn(pretrained, task, forget, method, seed=11, chunk=2)
    expected = stack([rfe(pretrained.module(m), task, forget, method, 11, m) for m in range(3)])
    state = {**found.params, **found.buffers}
    assert max(float((state[key] - expected[key]).abs().max()) for key in expected) < 1e-10
    plain = dataclasses.replace(method, prediction_weight=0.0)
    other = unlearn(pretrained, task, forget, plain, seed=11)
    assert max(float((other.params[k] - found.params[k]).abs().max()) for k in found.params) > 1e-6


def test_small_steps_do_not_raise_the_loss_of_the_neighbours_as_ascent_does():
    task = small_task("mlp", n=80, epochs=6)
    forget, pretrained = forget_set(task, 8), train(task, members=4)
    problem = Problem(pretrained, task, forget, 0, "rfe")
    near = most(cross_influence(problem), 8, problem)
    x, y = task.train.x, task.train.y

    def on_neighbours(ensemble):
        each = task.outcome.loss(ensemble.logits(x), y)
        return each.gather(1, near).mean(1)

    start = on_neighbours(pretrained)
    options = {"lr": 1e-3, "epochs": 5, "forget_batch_size": 8}
    up = unlearn(pretrained, task, forget, GradientAscent(lr=1e-3, epochs=5, batch_size=8))
    held = unlearn(pretrained, task, forget, RFE(**options, prediction_weight=0.0))
    raised, kept = on_neighbours(up) - start, on_neighbours(held) - start
    assert bool((raised > 1e-5).all())
    assert bool((kept < 0.05 * raised).all())  # what is left is of second order
    assert held.trace.failed_checks == [check for check in held.trace.failed_checks if check.name == "moved enough"]


def test_there_are_as_many_neighbours_as_asked_for_and_no_more_than_r():
    method = RFE(neighbours=2.0)
    assert (method.near(10, 100), method.near(80, 100)) == (20, 100)
    assert RFE(neighbours=0.01).near(10, 100) == 1
    for options in ({"neighbours": 0.0}, {"prediction_weight": -1.0}):
        with pytest.raises(InputError, match=next(iter(options))):
            RFE(**options)
