"""Replay: what is chosen, that members choose for themselves, and that all of R is descent-ascent."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import expunge as ex
from expunge.core import InputError
from expunge.ensembles import train
from expunge.methods import GradientDescentAscent, Replay, unlearn
from expunge.methods.problem import Problem
from expunge.methods.replay import cross_influence
from reference.one_by_one import stack
from reference.problems import forget_set, small_task
from reference.unlearn_one_by_one import influences, replay, replayed_rows

CHOICES = ["uniform", "disagreement", "cross_influence"]
SHORT = Replay(lr=0.05, epochs=2, ascent_epochs=1, batch_size=5, forget_batch_size=4, budget=0.3)


def problem_of(task, forget, pretrained):
    return Problem(pretrained, task, forget, 11, "gradient_descent_ascent")


@pytest.mark.parametrize(("name", "statistics"), [("mlp", "frozen"), ("resnet", "frozen"), ("resnet", "updated")])
@pytest.mark.parametrize("choice", CHOICES)
def test_it_equals_its_slow_twin(choice, name, statistics):
    task = small_task(name)
    forget, pretrained = forget_set(task, 8), train(task, members=3, seed=4)
    method = dataclasses.replace(SHORT, choice=choice, statistics=statistics, momentum=0.5)
    chosen = method.chosen_rows(problem_of(task, forget, pretrained))
    for member in range(3):
        expected = replayed_rows(pretrained.module(member), task, forget, method, 11, member)
        assert chosen[member].tolist() == expected.tolist()
    found = unlearn(pretrained, task, forget, method, seed=11, chunk=2)
    expected = stack([replay(pretrained.module(m), task, forget, method, 11, m) for m in range(3)])
    state = {**found.params, **found.buffers}
    assert max(float((state[key] - expected[key]).abs().max()) for key in expected) < 1e-10
    assert bool((found.trace.stops[-1].facts["moved"] > 1e-3).all())


def test_with_all_of_r_every_choice_is_descent_ascent():
    task = small_task("mlp")
    forget, pretrained = forget_set(task), train(task, members=2)
    options = {"lr": 0.05, "epochs": 2, "ascent_epochs": 1, "batch_size": 6, "forget_batch_size": 4}
    plain = unlearn(pretrained, task, forget, GradientDescentAscent(**options))
    for choice in CHOICES:
        method = Replay(**options, budget=1.0, choice=choice)
        rows = method.chosen_rows(problem_of(task, forget, pretrained))
        assert rows.tolist() == [forget.retain.tolist()] * 2
        found = unlearn(pretrained, task, forget, method)
        assert max(float((plain.params[k] - found.params[k]).abs().max()) for k in plain.params) < 1e-12
        assert (found.trace.cost > plain.trace.cost) == (choice != "uniform")


@pytest.mark.parametrize("choice", CHOICES)
def test_members_choose_for_themselves_from_the_retain_set(choice):
    task = small_task("mlp")
    forget, pretrained = forget_set(task), train(task, members=4)
    method = dataclasses.replace(SHORT, choice=choice)
    rows = method.chosen_rows(problem_of(task, forget, pretrained))
    assert rows.shape == (4, method.replayed(43)) == (4, 13)
    assert all(len(set(row) & set(forget.retain.tolist())) == 13 for row in rows.tolist())
    assert len({tuple(row) for row in rows.tolist()}) > 1
    for member in range(4):
        alone = method.chosen_rows(problem_of(task, forget, pretrained[member : member + 1]))
        assert alone.tolist() == rows[member : member + 1].tolist()


def test_cross_influence_is_the_rate_at_which_a_step_up_on_f_raises_a_loss():
    task = small_task("mlp")
    forget, pretrained = forget_set(task), train(task, members=2)
    problem = problem_of(task, forget, pretrained)
    found, rate = cross_influence(problem), 1e-5
    torch.testing.assert_close(found[1], influences(pretrained.module(1), task, forget), rtol=1e-8, atol=1e-10)
    kept = torch.from_numpy(forget.retain)
    ends = []
    for sign in (1, -1):
        moved = SHORT.descent(problem)
        moved.step(
            task.train.x[forget.indices].expand(2, -1, -1),
            task.train.y[forget.indices].expand(2, -1),
            rate,
            ascend=sign > 0,
        )
        ends.append(task.outcome.loss(problem.logits(moved, kept), task.train.y[kept]).double())
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * rate), found, rtol=1e-4, atol=1e-6)


def test_a_copy_of_the_forget_set_comes_first():
    """Retain rows that repeat a forget row are the ones that forgetting it moves most; far rows it does not move."""
    draw = torch.Generator().manual_seed(0)
    x = torch.zeros(40, 40, dtype=torch.float64)
    x[torch.arange(40), torch.arange(40)] = 1.0  # every row has a feature of its own
    x[4:6] = x[0:2]  # and two repeat those of forgotten ones
    y = torch.arange(40) % 2
    held_out = torch.randn(10, 40, generator=draw, dtype=torch.float64)
    task = ex.Task(
        name="own-features",
        train=(x, y),
        validation=(held_out, torch.arange(10) % 2),
        model=lambda: nn.Linear(40, 2, bias=False),
        recipe=ex.Recipe(epochs=3, lr=0.5, batch_size=8, precision="float64"),
    )
    forget = ex.ForgetSet.of(task, range(4), name="some-4", how="drawn for a test")
    problem = problem_of(task, forget, train(task, members=2))
    for choice in ("disagreement", "cross_influence"):
        rows = Replay(lr=0.1, budget=2 / 36, choice=choice).chosen_rows(problem)
        assert rows.tolist() == [[4, 5]] * 2


def test_options_out_of_range_and_batches_of_one_are_refused():
    for options in ({"budget": 0.0}, {"budget": 1.5}, {"choice": "best"}):
        with pytest.raises(InputError, match=next(iter(options))):
            Replay(**options)
    task = small_task("mlp_norm")
    method = dataclasses.replace(SHORT, statistics="updated", budget=11 / 42, forget_batch_size=8)
    with pytest.raises(InputError, match="leave a batch of 1"):
        unlearn(train(task, members=1), task, forget_set(task, 8), method)
