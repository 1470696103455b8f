"""Every method equals its slow twin, and the closed forms and endpoints of each hold."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from expunge.core.seeds import derive
from expunge.ensembles import recalibrate, train
from expunge.methods import (
    BadTeacher,
    EarlyStoppedRetrain,
    FineTune,
    GradientAscent,
    GradientDescentAscent,
    L1Sparse,
    MarginMatching,
    NegGradPlus,
    PrimalDual,
    RandomLabels,
    Retrain,
    SalUn,
    Scrub,
    unlearn,
)
from expunge.methods.distillation import divergence
from reference.one_by_one import stack, train_with_seed
from reference.problems import forget_set, small_task
from reference.unlearn_one_by_one import TWINS, distillation, predicted_margins


def state_of(ensemble):
    return {**ensemble.params, **ensemble.buffers}


def largest_difference(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in other)


SETTINGS = [
    GradientAscent(lr=0.05, epochs=2, batch_size=3),
    GradientAscent(lr=0.02, epochs=2, batch_size=4, momentum=0.9, weight_decay=0.1),
    GradientAscent(lr=0.01, epochs=2, batch_size=4, optimizer="adamw", momentum=0.5, weight_decay=0.1),
    FineTune(lr=0.01, epochs=1, batch_size=16, optimizer="adam"),
    FineTune(lr=0.05, epochs=2, batch_size=16),
    FineTune(lr=0.05, epochs=1, batch_size=9, momentum=0.0, weight_decay=0.0),
    GradientDescentAscent(lr=0.05, epochs=3, ascent_epochs=2, batch_size=16, forget_batch_size=3),
    GradientDescentAscent(lr=0.02, epochs=2, ascent_epochs=0, batch_size=16),
    GradientDescentAscent(lr=0.02, epochs=2, ascent_epochs=2, batch_size=50, momentum=0.5, weight_decay=0.01),
    Scrub(lr=0.05, epochs=3, msteps=2, batch_size=16, forget_batch_size=3, alpha=0.3),
    Scrub(
        lr=0.05, epochs=4, msteps=4, batch_size=16, forget_batch_size=7, temperature=2.0, decay=0.5, decay_epochs=(2, 4)
    ),
    Scrub(lr=0.02, epochs=2, msteps=0, gamma=0.5, alpha=1.0, momentum=0.0, weight_decay=0.0, batch_size=16),
    MarginMatching(lr=0.05, epochs=2, batch_size=16, forget_batch_size=3),
    MarginMatching(
        lr=0.05, epochs=2, batch_size=9, forget_batch_size=8, retain_share=0.4, retain_weight=0.3, delta=0.2
    ),
    MarginMatching(lr=0.01, epochs=2, batch_size=16, optimizer="adam", weight_decay=0.01, delta=100.0),
    NegGradPlus(lr=0.05, epochs=2, batch_size=16, forget_batch_size=3),
    NegGradPlus(lr=0.02, epochs=3, batch_size=50, forget_batch_size=3, retain_weight=0.7, weight_decay=0.01),
    RandomLabels(lr=0.05, epochs=2, batch_size=16, forget_batch_size=3),
    RandomLabels(lr=0.05, epochs=2, batch_size=16, forget_batch_size=3, redraw="fixed", include_true=False),
    Scrub(lr=0.02, epochs=2, msteps=2, batch_size=16, forget_batch_size=3, alpha=0.3, loss="continuous_categorical"),
    BadTeacher(lr=0.05, epochs=2, batch_size=9, optimizer="sgd"),
    BadTeacher(lr=0.01, epochs=2, batch_size=20, retain_share=1, temperature=2.0, weight_decay=0.01),
    BadTeacher(lr=0.05, epochs=2, batch_size=9, optimizer="sgd", loss="continuous_categorical"),
    L1Sparse(lr=0.05, epochs=3, batch_size=16, penalty=0.02),
    L1Sparse(lr=0.01, epochs=2, batch_size=16, penalty=0.02, schedule="rising", optimizer="adam"),
    L1Sparse(lr=0.05, epochs=2, batch_size=16, penalty=0.02, schedule="constant", momentum=0.0),
    SalUn(lr=0.05, epochs=2, batch_size=16, forget_batch_size=3, weight_decay=0.1),
    SalUn(lr=0.01, epochs=2, batch_size=16, forget_batch_size=3, share=0.1, optimizer="adamw", weight_decay=0.1),
    PrimalDual(lr=0.05, epochs=2, batch_size=16, forget_batch_size=4, tolerance=0.0, dual_lr=5.0),
    PrimalDual(lr=0.05, epochs=2, batch_size=16, forget_batch_size=4, dual_lr=5.0, validation_tolerance=0.0),
    PrimalDual(lr=0.05, epochs=3, batch_size=50, forget_batch_size=8, target=0.3, momentum=0.5, weight_decay=0.01),
]


@pytest.mark.parametrize("method", SETTINGS, ids=lambda m: f"{m.name}-{SETTINGS.index(m)}")
@pytest.mark.parametrize(
    ("name", "statistics"), [("mlp", "frozen"), ("resnet", "frozen"), ("resnet", "updated"), ("mlp_norm", "updated")]
)
def test_a_method_equals_its_slow_twin(method, name, statistics):
    method = dataclasses.replace(method, statistics=statistics)
    # 8 or 9 forget examples, so that no batch has one example, which batch norm would refuse.
    size = 8 if method.batch_sizes.get("forget", 2) != 7 else 9
    task = small_task(name)
    forget = forget_set(task, size)
    pretrained = train(task, members=3, seed=4)
    targets = torch.stack([predicted_margins(pretrained.module(m), task, forget) for m in range(3)])
    found = unlearn(pretrained, task, forget, method, seed=11, chunk=2, targets=targets)
    modules = [TWINS[method.name](pretrained.module(m), task, forget, method, 11, m) for m in range(3)]
    expected = stack(modules)
    assert largest_difference(state_of(found), expected) < 1e-10
    assert largest_difference(found.params, {n: expected[n] for n in pretrained.params}) < 1e-10
    moved = largest_difference(found.params, pretrained.params)
    assert moved > 1e-4, "the twin test would not see a method that does nothing"


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_recalibrated_is_frozen_and_then_new_statistics(name):
    task = small_task(name)
    forget, pretrained = forget_set(task), train(task, members=2)
    frozen = unlearn(pretrained, task, forget, GradientAscent(lr=0.05, epochs=2))
    found = unlearn(pretrained, task, forget, GradientAscent(lr=0.05, epochs=2, statistics="recalibrated"))
    expected = recalibrate(frozen, task.train.x[torch.from_numpy(forget.retain)])
    assert largest_difference(state_of(found), state_of(expected)) < 1e-10  # the same sums, in stacks of other sizes


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
def test_one_step_of_ascent_is_minus_a_step_of_descent(name):
    task = small_task(name)
    forget, pretrained = forget_set(task, 6), train(task, members=2)
    up = unlearn(pretrained, task, forget, GradientAscent(lr=0.1, epochs=1, batch_size=6))
    x, y = task.train.x[forget.indices], task.train.y[forget.indices]
    for member in range(2):
        module = pretrained.module(member)
        F.cross_entropy(module(x), y).backward()
        for key, parameter in module.named_parameters():
            climbed = up.params[key][member] - parameter.detach()
            torch.testing.assert_close(climbed, 0.1 * parameter.grad, rtol=1e-9, atol=1e-12)
    assert up.trace.failed_checks == []


def test_descent_ascent_without_ascent_is_fine_tuning_up_to_the_order():
    task = small_task("mlp")
    forget, pretrained = forget_set(task), train(task, members=2)
    whole = {
        "lr": 0.05,
        "epochs": 2,
        "batch_size": 50,
        "momentum": 0.0,
        "weight_decay": 0.0,
    }  # one batch: order is nothing
    one = unlearn(pretrained, task, forget, FineTune(**whole))
    other = unlearn(pretrained, task, forget, GradientDescentAscent(ascent_epochs=0, **whole))
    assert largest_difference(one.params, other.params) < 1e-12


def test_scrub_without_its_pull_and_push_is_fine_tuning_up_to_the_order():
    task = small_task("mlp")
    forget, pretrained = forget_set(task), train(task, members=2)
    whole = {"lr": 0.05, "epochs": 2, "batch_size": 50}
    one = unlearn(pretrained, task, forget, FineTune(**whole))
    other = unlearn(pretrained, task, forget, Scrub(msteps=0, gamma=1.0, alpha=0.0, **whole))
    assert largest_difference(one.params, other.params) < 1e-12


def test_retraining_is_training_on_the_retain_set_with_seeds_of_its_own():
    task = small_task("resnet")
    forget, pretrained = forget_set(task), train(task, members=3, seed=0)
    found = unlearn(pretrained, task, forget, Retrain(), seed=7, chunk=2)
    seeds = [derive(7, "unlearn", "retrain", member) for member in range(3)]
    reference = stack([train_with_seed(task, forget.retain, seed, task.recipe, 3) for seed in seeds])
    assert largest_difference(state_of(found), reference) < 1e-10


def test_retraining_is_independent_of_pretrained_models_and_of_oracles():
    task = small_task("mlp")
    forget = forget_set(task)
    one = unlearn(train(task, members=3, seed=0), task, forget, Retrain(), seed=0)
    other = unlearn(train(task, members=3, seed=5), task, forget, Retrain(), seed=0)
    assert all(torch.equal(one.params[key], other.params[key]) for key in one.params)
    oracles = train(task, members=3, without=forget, seed=0)
    early = unlearn(train(task, members=3, seed=0), task, forget, EarlyStoppedRetrain(cost=1.0), seed=0)
    for ensemble in (oracles, early):
        for key, tensor in one.params.items():
            assert not (tensor == ensemble.params[key]).flatten(1).any()


@pytest.mark.parametrize("schedule", ["compressed", "truncated"])
@pytest.mark.parametrize(("cost", "epochs"), [(0.01, 1), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_early_stopped_retraining_follows_its_schedule_and_costs_what_it_says(schedule, cost, epochs):
    task = small_task("mlp", epochs=8, peak_epoch=2.0)
    forget, pretrained = forget_set(task), train(task, members=2, epochs=1)
    found = unlearn(pretrained, task, forget, EarlyStoppedRetrain(cost=cost, schedule=schedule), seed=3)
    assert found.trace.cost == pytest.approx(epochs / 8)
    recipe = task.recipe.compressed(epochs) if schedule == "compressed" else task.recipe
    seeds = [derive(3, "unlearn", "early_stopped_retrain", member) for member in range(2)]
    reference = stack([train_with_seed(task, forget.retain, seed, recipe, epochs) for seed in seeds])
    assert largest_difference(found.params, reference) < 1e-10


def test_early_stopped_retraining_costs_less_when_the_last_batch_is_dropped():
    task = small_task("mlp", epochs=4, batch_size=16, last_batch="drop")
    forget, pretrained = forget_set(task, 7), train(task, members=1, epochs=1)
    found = unlearn(pretrained, task, forget, EarlyStoppedRetrain(cost=0.5))
    assert found.trace.cost == pytest.approx(2 * 32 / (4 * 43))


# Golden values by hand: p = softmax(t / T), q = softmax(s / T), T^2 sum p log(p / q).
GOLDEN = [
    ([0.0, 0.0], [0.0, 0.0], 4.0, 0.0),
    ([0.0, 0.0], [np.log(3.0), 0.0], 1.0, 0.75 * np.log(1.5) + 0.25 * np.log(0.5)),
    ([np.log(3.0), 0.0], [0.0, 0.0], 1.0, 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)),
    ([0.0, 0.0], [4 * np.log(3.0), 0.0], 4.0, 16 * (0.75 * np.log(1.5) + 0.25 * np.log(0.5))),
]


@pytest.mark.parametrize(("student", "teacher", "temperature", "expected"), GOLDEN)
def test_divergence_golden_values(student, teacher, temperature, expected):
    def as_stack(row):
        return torch.tensor(row, dtype=torch.float64).reshape(1, 1, -1)

    assert float(divergence(as_stack(student), as_stack(teacher), temperature)) == pytest.approx(expected, abs=1e-12)


def test_divergence_equals_the_official_form_and_stays_finite_at_extreme_logits():
    g = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(4, 9, 5, generator=g, dtype=torch.float64) for _ in range(2))
    found = divergence(student, teacher, 4.0)
    for member in range(4):
        torch.testing.assert_close(found[member], distillation(student[member], teacher[member], 4.0))
    huge = torch.tensor([[[1e4, -1e4, 0.0]]])
    assert torch.isfinite(divergence(huge, -huge, 1.0)).all()
    assert float(divergence(huge, huge, 1.0)) == 0.0


def test_the_first_max_step_of_scrub_has_no_gradient():
    task = small_task("mlp")
    forget, pretrained = forget_set(task, 6), train(task, members=2)
    # One max step and nothing else can move the student: gamma = alpha = 0 makes the min pass empty.
    still = Scrub(
        lr=10.0, epochs=1, msteps=1, forget_batch_size=6, gamma=0.0, alpha=0.0, momentum=0.0, weight_decay=0.0
    )
    found = unlearn(pretrained, task, forget, still)
    assert largest_difference(found.params, pretrained.params) < 1e-13
    (ascended,) = [check for check in found.trace.stops[-1].checks if "rose" in check.name]
    assert ascended.passed
    assert "gradient is zero" in ascended.detail


def test_fine_tuning_a_convex_model_long_enough_reaches_the_oracle():
    task = small_task(
        "logistic", epochs=400, lr=0.5, momentum=0.9, batch_size=100, schedule="linear", weight_decay=0.05
    )
    forget = forget_set(task, 10)
    pretrained, oracle = train(task, members=2, seed=0), train(task, members=2, without=forget, seed=1)
    start = largest_difference(oracle.params, pretrained.params)
    # The regularised loss has one minimum; with whole-set batches every run ends there.
    tuned = unlearn(
        pretrained, task, forget, FineTune(lr=0.5, epochs=400, batch_size=100, momentum=0.9, weight_decay=0.05)
    )
    assert start > 1e-2
    assert largest_difference(oracle.params, tuned.params) < 1e-6
