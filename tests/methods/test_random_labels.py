"""Random labels: the law of what is drawn, where labels drawn once and labels drawn again lead, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import expunge as ex
from expunge.core import InputError
from expunge.core.seeds import derive
from expunge.ensembles import train
from expunge.methods import RandomLabels, unlearn
from expunge.methods.random_labels import drawn_labels
from expunge.studies.run.grid import plan_runs
from reference.problems import forget_set, small_task

CLASSES = 4
TRUE = torch.arange(CLASSES).repeat(2500)


@pytest.mark.parametrize("include_true", [True, False])
def test_every_class_that_may_be_drawn_is_as_likely_as_any_other(include_true):
    drawn = drawn_labels(TRUE, CLASSES, [1, 2, 3], 0, include_true)
    assert drawn.shape == (3, len(TRUE))
    likely = 1 / CLASSES if include_true else 1 / (CLASSES - 1)
    for true in range(CLASSES):
        shares = torch.bincount(drawn[:, true == TRUE].flatten(), minlength=CLASSES) / (3 * 2500)
        for each in range(CLASSES):
            expected = likely if include_true or each != true else 0.0
            # Six standard deviations of a share of 7500: less than 1e-7 for the 16 shares together.
            assert abs(float(shares[each]) - expected) <= 6 * (expected * (1 - expected) / 7500) ** 0.5


def test_every_member_and_every_draw_has_labels_of_its_own_and_the_seed_decides_them():
    one, same, other = (drawn_labels(TRUE, CLASSES, [1, 2], turn, True) for turn in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])
    assert torch.equal(drawn_labels(TRUE, CLASSES, [2], 0, True)[0], one[1])


def test_of_two_classes_without_the_true_one_the_other_is_left():
    assert torch.equal(drawn_labels(TRUE % 2, 2, [7], 3, False)[0], 1 - TRUE % 2)


@pytest.fixture(scope="module")
def ends():
    """Probabilities (members, examples, classes) on F before, after labels drawn once and in every pass; the labels."""
    task = small_task("mlp")
    forget, pretrained = forget_set(task, 7), train(task, members=4, seed=1)
    x, y = task.train.x[forget.indices], task.train.y[forget.indices]
    options = {"lr": 0.05, "epochs": 60, "weight_decay": 0.0, "momentum": 0.5}
    once = unlearn(pretrained, task, forget, RandomLabels(redraw="fixed", include_true=False, **options), seed=5)
    again = unlearn(pretrained, task, forget, RandomLabels(redraw="every_pass", **options), seed=5)
    seeds = [derive(5, "unlearn", "random_labels", member) for member in range(4)]
    probabilities = [ensemble.logits(x).softmax(-1) for ensemble in (pretrained, once, again)]
    return probabilities, drawn_labels(y, 3, seeds, 0, include_true=False)


def of(probabilities, labels):
    return float(probabilities.gather(2, labels.unsqueeze(2)).log().mean())


def test_labels_drawn_once_are_learned(ends):
    (before, once, again), labels = ends
    assert of(once, labels) > of(before, labels) + 0.5
    assert of(once, labels) > of(again, labels) + 0.5


def test_labels_drawn_again_lead_towards_the_uniform_output(ends):
    (before, once, again), _ = ends
    entropies = [float(-(p * p.log()).sum(-1).mean()) for p in (before, once, again)]
    assert entropies[2] > entropies[0]
    assert entropies[2] > entropies[1]


@pytest.mark.parametrize("outcome", ["regression", "binary"])
def test_outcomes_that_are_not_classes_are_refused_and_left_out_of_all(outcome):
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    y = x[:, 0] if outcome == "regression" else (x[:, 0] > 0).long()
    task = ex.Task(
        name="line",
        model=lambda: nn.Linear(2, 1),
        train=(x, y),
        validation=(x + 1.0, y),
        recipe=ex.Recipe(epochs=1, lr=0.05, batch_size=8),
        outcome=outcome,
    )
    forget = ex.ForgetSet.of(task, range(4), name="some-4", how="drawn for a test")
    said = f"random_labels needs labels that are classes, and the outcome of line is '{outcome}'"
    with pytest.raises(InputError, match=said):
        unlearn(train(task, members=1), task, forget, RandomLabels())
    with pytest.raises(InputError, match=said):
        plan_runs(task, ["random_labels"])
    assert "random_labels" not in {run.name for run in plan_runs(task, ["all"])}


def test_options_that_are_none_are_refused():
    with pytest.raises(InputError, match="redraw"):
        RandomLabels(redraw="sometimes")
    with pytest.raises(InputError, match="include_true"):
        RandomLabels(include_true=1)


def test_a_grid_has_both_methods_of_that_name():
    grid = RandomLabels.grid(small_task().recipe)
    assert {run.redraw for run in grid} == {"fixed", "every_pass"}
    assert all(run.include_true for run in grid)
