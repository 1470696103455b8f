"""Recall inputs: no retain row is read, what is recalled, its endpoints, and that it holds what ascent destroys."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import expunge as ex
from expunge.core import InputError
from expunge.ensembles import train
from expunge.methods import METHODS, GradientAscent, RecallInputs, unlearn
from expunge.methods.distillation import divergence
from expunge.methods.method import lacking
from expunge.methods.problem import Problem
from expunge.methods.recall_inputs import outputs, uniform
from reference.problems import forget_set, small_task
from reference.unlearn_one_by_one import recall_inputs

SHORT = {"lr": 0.05, "epochs": 2, "batch_size": 6, "forget_batch_size": 3, "input_steps": 3}


def problem_of(task, forget, pretrained):
    return Problem(pretrained, task, forget, 11, "gradient_ascent")


@pytest.mark.parametrize("name", ["mlp", "resnet"])
@pytest.mark.parametrize(
    "options", [{}, {"forget": "uniform", "momentum": 0.5, "disagreement": 3.0, "prior": 0.0, "retain_weight": 2.0}]
)
def test_it_equals_its_slow_twin(name, options):
    task = small_task(name)
    forget, pretrained = forget_set(task), train(task, members=2, seed=4)
    method = RecallInputs(**SHORT, **options)
    found = unlearn(pretrained, task, forget, method, seed=11, chunk=1)
    for member in range(2):
        slow = recall_inputs(pretrained.module(member), task, forget, method, 11, member)
        for key, tensor in slow.named_parameters():
            torch.testing.assert_close(found.params[key][member], tensor.detach(), rtol=1e-8, atol=1e-9)
    assert bool((found.trace.stops[-1].facts["moved"] > 1e-3).all())


def test_no_retain_row_is_read():
    task = small_task("mlp")
    forget, pretrained = forget_set(task), train(task, members=2)
    ends = []
    for spoiled in (False, True):
        problem = problem_of(task, forget, pretrained)
        if spoiled:
            problem.x = problem.x.clone()
            problem.x[problem.retain] = float("nan")
            problem.y = problem.y.clone()
            problem.y[problem.retain] = -7  # no class
        *_, last = RecallInputs(**SHORT).stops(problem)
        ends.append(last.ensemble)
    assert bool(ends[1].finite().all())
    assert all(torch.equal(ends[0].params[key], ends[1].params[key]) for key in ends[0].params)
    assert "retain" not in RecallInputs.needs


def test_without_its_hold_it_is_ascent_batch_for_batch():
    task = small_task("resnet")
    forget, pretrained = forget_set(task), train(task, members=2)
    one = unlearn(pretrained, task, forget, GradientAscent(lr=0.05, epochs=2, batch_size=3))
    other = unlearn(pretrained, task, forget, RecallInputs(**SHORT, retain_weight=0.0))
    assert max(float((one.params[k] - other.params[k]).abs().max()) for k in one.params) < 1e-12
    assert one.trace.cost == other.trace.cost


def test_what_is_recalled_is_what_the_pretrained_model_is_sure_of_and_where_the_model_of_now_differs():
    task = small_task("mlp", epochs=20)
    forget, pretrained = forget_set(task), train(task, members=3)
    problem = problem_of(task, forget, pretrained)
    moved = RecallInputs().descent(problem)
    for x, y, _ in problem.forget_batches(1, 4):
        moved.step(x, y, 0.3, ascend=True)

    def recalled(**options):
        method = RecallInputs(**{"input_steps": 30, "input_lr": 0.3, "batch_size": 200, **options})
        x = method.recalled(problem, moved, 0)
        sure = outputs(pretrained.network, pretrained.params, pretrained.buffers, x)
        now = {name: tensor.detach() for name, tensor in moved.params.items()}
        apart = divergence(outputs(pretrained.network, now, moved.buffers, x), sure, 1.0)
        return sure.softmax(-1).amax(-1).mean(1), apart, sure.argmax(-1)

    few, many = recalled(input_steps=1), recalled()
    assert bool((many[0] > few[0]).all())
    # To first order in the rate, what a step gains in divergence is the weight times the squared slope.
    one = {"input_steps": 1, "input_lr": 1e-3}
    assert bool((recalled(**one, disagreement=5.0)[1] > recalled(**one, disagreement=0.0)[1]).all())
    # Every class is recalled, since every class is asked for.
    assert all(len(row.unique()) == 3 for row in many[2])


def test_it_holds_what_ascent_destroys():
    """At the same rise of the forget loss, the outputs on the retain set move less than under ascent."""
    task = small_task("mlp", n=120, epochs=20)
    forget, pretrained = forget_set(task, 10), train(task, members=6)
    kept = torch.from_numpy(forget.retain)
    rows, start = task.train[kept].x, pretrained.logits(task.train[kept].x)
    at = task.train[torch.from_numpy(forget.indices)]
    wanted = task.outcome.loss(pretrained.logits(at.x), at.y).mean() + 0.4
    moved, ended = [], []
    for weight in (0.0, 3.0):
        path = []

        def see(ensemble, path=path):
            rise = task.outcome.loss(ensemble.logits(at.x), at.y).mean()
            path.append((float(rise), float(divergence(ensemble.logits(rows), start, 1.0).mean())))
            return {}

        method = RecallInputs(lr=0.1, epochs=30, forget_batch_size=10, batch_size=32, retain_weight=weight)
        unlearn(pretrained, task, forget, method, evaluate=see, chunk=6)
        moved.append(next(apart for rise, apart in path if rise >= wanted))
        ended.append(path[-1][1])
    assert moved[1] < 0.8 * moved[0]
    assert ended[1] < 0.2 < 10 < ended[0]  # and it does not run away


def test_uniform_outputs_are_the_minimum_of_that_term():
    assert float(uniform(torch.full((1, 3, 5), 2.0), torch.zeros(1, 3)).abs()) < 1e-6
    logits = torch.tensor([[[2.0, 0.0, 0.0]]])
    expected = (torch.log(torch.tensor(1 / 3)) - torch.log_softmax(logits, -1)).mean()
    torch.testing.assert_close(uniform(logits, torch.zeros(1, 1)), expected.reshape(1))


def test_token_ids_are_refused_by_name():
    x = torch.randint(0, 50, (80, 9), generator=torch.Generator().manual_seed(0))
    y = torch.arange(80) % 2
    task = ex.Task(
        name="tokens",
        train=(x[:40], y[:40]),
        validation=(x[40:], y[40:]),
        model=lambda: nn.Sequential(nn.Embedding(50, 4), nn.Flatten(), nn.Linear(36, 2)),
        recipe=ex.Recipe(epochs=1, lr=0.1),
    )
    assert "real_inputs" in lacking(task)
    with pytest.raises(InputError, match=r"recall_inputs needs inputs of real numbers, .* tokens are int64"):
        unlearn(train(task, members=2), task, forget_set(task), METHODS["recall_inputs"]())


@pytest.mark.parametrize(
    "options",
    [{"retain_weight": -1.0}, {"input_steps": 0}, {"input_lr": 0.0}, {"forget": "both"}, {"statistics": "updated"}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        RecallInputs(**options)
