"""Outcomes: closed forms, slow twins, both layouts of targets, failed members, what each refuses, and the registry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from expunge.core import OUTCOMES, InputError, Outcome, Recipe, Task
from expunge.core.outcomes import Binary, Classes, Labels, Regression, Sequences
from expunge.core.outcomes.outcome import numbers, shared
from expunge.ensembles import train
from reference import outcomes_slow as slow

MEMBERS, EXAMPLES = 3, 5
G = torch.Generator().manual_seed(0)


def random(*shape):
    return torch.randn(*shape, generator=G, dtype=torch.float64)


TOKENS = torch.randint(0, 4, (EXAMPLES, 3), generator=G)
TOKENS[0, 0] = TOKENS[2, 1] = TOKENS[2, 2] = -100
CASES = {
    "classes": (Classes(classes=4), random(MEMBERS, EXAMPLES, 4), torch.tensor([0, 3, 1, 2, 3])),
    "binary": (Binary(), random(MEMBERS, EXAMPLES, 1), torch.tensor([0, 1, 1, 0, 1])),
    "labels": (Labels(), random(MEMBERS, EXAMPLES, 2), torch.tensor([[0, 1], [1, 1], [0, 0], [1, 0], [0, 1]])),
    "regression": (Regression(scale=2.0), random(MEMBERS, EXAMPLES, 2), random(EXAMPLES, 2)),
    "sequences": (Sequences(), random(MEMBERS, EXAMPLES, 3, 4), TOKENS),
}


def one(name, z, y, outcome):
    extra = (outcome.scale,) if name == "regression" else ()
    return getattr(slow, name)(z.tolist(), y.tolist(), *extra)


def test_there_is_a_case_for_every_outcome():
    assert set(CASES) == set(OUTCOMES)


@pytest.mark.parametrize("name", CASES)
def test_loss_and_statistic_equal_their_slow_twins_in_both_layouts_of_targets(name):
    outcome, z, y = CASES[name]
    own = torch.stack([y.roll(member, 0) for member in range(MEMBERS)])  # each member has other targets
    for targets, of in ((y, lambda m, e: y[e]), (own, lambda m, e: own[m, e])):
        expected = [[one(name, z[m, e], of(m, e), outcome) for e in range(EXAMPLES)] for m in range(MEMBERS)]
        for values, part in ((outcome.loss(z, targets), 0), (outcome.statistic(z, targets), 1)):
            assert values.dtype == torch.float64
            torch.testing.assert_close(
                values, torch.tensor([[row[part] for row in rows] for rows in expected]).double()
            )


@pytest.mark.parametrize("name", CASES)
def test_utility_equals_its_slow_twin(name):
    outcome, z, y = CASES[name]
    found = outcome.utility(z, y)
    for m in range(MEMBERS):
        if name == "regression":
            expected = slow.r_squared(z[m].tolist(), y.tolist())
        else:
            seen = [one(name, z[m, e], y[e], outcome)[2] for e in range(EXAMPLES)]
            if name == "sequences":
                expected = sum(right for right, _ in seen) / sum(counted for _, counted in seen)
            else:
                expected = sum(seen) / EXAMPLES
        assert float(found[m]) == pytest.approx(expected, rel=1e-12)
    assert found.shape == (MEMBERS,)
    assert found.dtype == torch.float64


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_failed_member_is_marked_and_leaves_the_others_alone(name, broken):
    outcome, z, y = CASES[name]
    spoiled = z.clone()
    spoiled[1] = broken
    statistic, utility = outcome.statistic(spoiled, y), outcome.utility(spoiled, y)
    assert not torch.isfinite(statistic[1]).any()
    assert not (float(utility[1]) > 0)
    keep = [0, 2]
    torch.testing.assert_close(statistic[keep], outcome.statistic(z, y)[keep], rtol=0, atol=0)
    torch.testing.assert_close(utility[keep], outcome.utility(z, y)[keep], rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_the_statistic_is_larger_where_the_loss_is_smaller_and_the_loss_has_the_gradient_of_plain_pytorch(name):
    outcome, z, y = CASES[name]
    leaf = z.clone().requires_grad_(True)
    outcome.loss(leaf, y).mean(1).sum().backward()
    better = z - 1e-3 * leaf.grad
    assert (outcome.statistic(better, y).sum(1) > outcome.statistic(z, y).sum(1)).all()
    # float32 outputs, as models give them, lose nothing but their own rounding
    assert outcome.statistic(z.float(), y).dtype == torch.float64
    torch.testing.assert_close(outcome.statistic(z.float(), y), outcome.statistic(z, y), rtol=1e-5, atol=1e-5)


def test_closed_forms():
    zero = torch.zeros(1, 1, 5)
    assert float(Classes().loss(zero, torch.tensor([2]))) == pytest.approx(math.log(5))
    assert float(Classes().statistic(zero.double(), torch.tensor([2]))) == pytest.approx(-math.log(4))
    assert float(Binary().loss(zero[..., :1], torch.tensor([1]))) == pytest.approx(math.log(2))
    assert float(Sequences().statistic(torch.zeros(1, 1, 2, 7), torch.tensor([[3, -100]]))) == pytest.approx(
        -math.log(7)
    )
    # A margin between two classes is the difference of their logits: binary is classes with two.
    z = random(2, 4, 1)
    y = torch.tensor([0, 1, 1, 0])
    two = torch.cat([torch.zeros_like(z), z], -1)
    torch.testing.assert_close(Binary().loss(z, y), Classes().loss(two, y))
    torch.testing.assert_close(Binary().statistic(z, y), Classes().statistic(two, y))
    # Perfect predictions: R squared 1, distance 0; predicting the mean: R squared 0.
    y = torch.tensor([[1.0], [2.0], [6.0]])
    outcome = Regression().fitted(y, y)
    assert outcome.scale == pytest.approx(float(y.double().std(correction=0)))
    both = torch.stack([y, torch.full_like(y, 3.0)])
    torch.testing.assert_close(outcome.utility(both, y), torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert outcome.statistic(both, y)[0].abs().max() == 0
    assert bool(outcome.utility(both[:, :1], y[:1]).isnan().all())  # one target has no variance
    assert Regression().fitted(y * 0, y).scale == 1.0


def test_outputs_with_and_without_a_last_axis_of_one_are_the_same():
    z, y = random(2, 4), torch.tensor([0, 1, 1, 0])
    for outcome, targets in ((Binary(), y), (Regression(), y.double()[:, None])):
        for part in ("loss", "statistic", "utility"):
            function = getattr(outcome, part)
            torch.testing.assert_close(function(z, targets), function(z[..., None], targets), rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_agreement_counts_equal_decisions_one_by_one(name):
    outcome, z, y = CASES[name]
    others = random(*z.shape)
    found = outcome.agreement(z, others, y)
    assert found.dtype == torch.float64
    if name == "regression":
        assert found.isnan().all()
        return
    for member in range(MEMBERS):
        same = []
        for e in range(EXAMPLES):
            for place in range(y.shape[1] if name in ("labels", "sequences") else 1):
                ours, theirs = (each[member, e] for each in (z, others))
                if name == "sequences" and int(y[e, place]) == -100:
                    continue
                if name in ("labels", "binary"):
                    same.append(bool(ours[place] > 0) == bool(theirs[place] > 0))
                else:
                    a, b = (each[place] if name == "sequences" else each for each in (ours, theirs))
                    same.append(int(a.argmax()) == int(b.argmax()))
        assert float(found[member]) == pytest.approx(sum(same) / len(same))
    assert (outcome.agreement(z, z, y) == 1).all()


def test_groups_are_classes_where_there_are_any():
    for name, (outcome, _, y) in CASES.items():
        groups = outcome.groups(y)
        assert outcome.has_groups == (name in ("classes", "binary"))
        assert torch.equal(groups, y if outcome.has_groups else torch.zeros(EXAMPLES, dtype=torch.int64))


READ = [
    (Classes(), [0, 1, 2.0], torch.tensor([0, 1, 2])),
    (Classes(), np.array([[1], [0]], dtype=np.uint16), torch.tensor([1, 0])),
    (Classes(), [True, False], torch.tensor([1, 0])),
    (Classes(), ["b", "a", "b"], torch.tensor([1, 0, 1])),
    (Classes(labels=("a", "b", "c")), np.array(["c", "a"], dtype=object), torch.tensor([2, 0])),
    (Binary(), [[1.0], [0.0]], torch.tensor([1, 0])),
    (Labels(), [[True, False]], torch.tensor([[1, 0]])),
    (Regression(), [1, 2], torch.tensor([[1.0], [2.0]], dtype=torch.float64)),
    (Regression(), np.float32([[1, 2]]), torch.tensor([[1.0, 2.0]])),
    (Sequences(), [[1, -100]], torch.tensor([[1, -100]])),
]


@pytest.mark.parametrize(("outcome", "given", "expected"), READ)
def test_targets_are_read(outcome, given, expected):
    assert torch.equal(outcome.read(given, "train"), expected)
    assert outcome.read(given, "train").dtype == expected.dtype


REFUSED = [
    (Classes(), [[0, 1], [1, 0]], "not one-hot"),
    (Classes(), [0.5], "fractional.*regression"),
    (Classes(labels=("a",)), ["z"], "the label 'z', expected one of the training labels"),
    (Classes(), np.array([["a", "b"]]), r"words of shape \(1, 2\)"),
    (
        Classes(),
        np.array(["a", None, float("nan")], dtype=object),
        r"2 labels are no words among words \(first: None in",
    ),
    (Classes(), [], "train is empty"),
    (Classes(), [1j], "complex"),
    (Classes(), np.ma.MaskedArray([0, 1, 1], mask=[0, 1, 1]), "2 masked values"),
    (Binary(), [0, 2], "0 and 1"),
    (Labels(), [0, 1], r"\(examples, labels\)"),
    (Labels(), [[0.5]], "0 and 1"),
    (Regression(), [[[1.0]]], "expected"),
    (Regression(), [float("nan")], "1 non-finite"),
    (Sequences(), [[0.5]], "token numbers"),
    (Sequences(), [[1], [-100]], r"1 sequences without a token that counts \(first: 1\)"),
]


@pytest.mark.parametrize(("outcome", "given", "message"), REFUSED)
def test_targets_that_are_none_are_refused(outcome, given, message):
    with pytest.raises(InputError, match=message):
        outcome.read(given, "train")


CHECKS = [
    (Classes(), (2, 3), [1, 2, 3], "labels run from 1 to 3, expected 0 to 2; subtract 1"),
    (Classes(), (2, 3), [-1, 2], "labels run from -1"),
    (Classes(classes=3), (2, 4), [0, 2], r"expected logits of shape \(2, 3\)"),
    (Classes(), (2,), [0, 1], "outcome='binary'"),
    (Binary(), (2, 2), [0, 1], "one logit an example"),
    (Labels(), (2, 3), [[0, 1]], r"one logit a label: \(2, 2\)"),
    (Regression(), (2, 1, 1), [[1.0]], r"one number a target: \(2, 1\)"),
    (Sequences(), (2, 3), [[0, 1]], "a logit for every token"),
    (Sequences(), (2, 2, 3), [[0, 3]], "targets run from 0 to 3, expected 0 to 2"),
]


@pytest.mark.parametrize(("outcome", "shape", "targets", "message"), CHECKS)
def test_outputs_that_do_not_fit_are_refused_with_what_to_change(outcome, shape, targets, message):
    y = torch.tensor(targets)
    with pytest.raises(InputError, match=message):
        outcome.fitted(y, torch.zeros(shape)).check(torch.zeros(shape), y)


def test_models_may_know_more_classes_than_the_labels_show():
    fitted = Classes().fitted(torch.tensor([0, 998]), torch.zeros(2, 1000))
    assert fitted.classes == 1000
    fitted.check(torch.zeros(2, 1000), torch.tensor([0, 998]))


def test_helpers():
    assert shared(torch.tensor([1, 2]), torch.zeros(3, 2, 4), 1).shape == (3, 2)
    assert shared(torch.zeros(3, 2), torch.zeros(3, 2, 4), 1).shape == (3, 2)
    with pytest.raises(InputError, match="train is empty"):
        numbers(np.float64(3.0), "train")


@dataclass(frozen=True, kw_only=True)
class Median(Regression):
    """A toy: the absolute error."""

    name: ClassVar[str] = "median"
    statistic_name: ClassVar[str] = "closeness"

    def loss(self, outputs, targets):
        return self._error(outputs, targets).abs().mean(-1)


def test_an_outcome_is_a_file_and_a_line_in_the_registry(monkeypatch):
    monkeypatch.setitem(OUTCOMES, Median.name, Median)
    x = random(30, 2)
    task = Task(
        name="toy",
        train=(x, x.sum(1)),
        validation=(x + 0.5, x.sum(1) + 1),
        model=lambda: torch.nn.Linear(2, 1),
        outcome="median",
        recipe=Recipe(epochs=3, batch_size=10, lr=0.1),
    )
    assert isinstance(task.outcome, Outcome)
    assert task.describe()["outcome"] == "median"
    before, after = (train(task, members=2, epochs=epochs) for epochs in (0, 3))
    loss = [task.outcome.loss(e.logits(task.train.x), task.train.y).mean() for e in (before, after)]
    assert loss[1] < loss[0]


@pytest.mark.parametrize("odd", ["none", "tie", "nan", "inf", "-inf", "huge"])
def test_accuracy_is_that_of_the_first_largest_logit_whatever_the_logits(odd):
    outputs = torch.randn(3, 40, 5, generator=torch.Generator().manual_seed(0))
    y = torch.arange(40) % 5
    if odd == "tie":
        outputs[1] = 0.0
    elif odd != "none":
        outputs[1, ::3, 2] = 3e38 if odd == "huge" else float(odd)
    expected = []
    for member in outputs.double().numpy():
        right = [
            np.isfinite(row).all() and list(row).index(max(row)) == int(own) for row, own in zip(member, y, strict=True)
        ]
        expected.append(sum(right) / 40)
    assert Classes().utility(outputs, y).tolist() == pytest.approx(expected)
    assert Classes().utility(outputs, y.expand(3, -1)).tolist() == pytest.approx(expected)


def test_what_several_models_predict_together_is_the_mean_of_their_probabilities():
    p = torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]], dtype=torch.float64)  # of two models, one example, two classes
    torch.testing.assert_close(Classes().mean_prediction(p.log() + 3.0).exp(), torch.tensor([[0.7, 0.3]]).double())
    torch.testing.assert_close(
        Sequences().mean_prediction(p[:, None].log()).exp()[0], torch.tensor([[0.7, 0.3]]).double()
    )
    odds = (p[..., 0] / p[..., 1]).log()
    for outcome in (Binary(), Labels()):
        torch.testing.assert_close(outcome.mean_prediction(odds), torch.tensor([7 / 3]).double().log())
    assert Regression().mean_prediction(torch.tensor([[1.0], [4.0]])).tolist() == [2.5]
    sure = torch.tensor([[[60.0, 0.0]], [[60.0, 0.0]]])  # float32: a margin that probabilities could not hold
    z = Classes().mean_prediction(sure)
    assert float(Classes(classes=2).statistic(z[None], torch.tensor([0]))[0, 0]) == pytest.approx(60.0)


@pytest.mark.parametrize("name", CASES)
def test_models_that_are_one_predict_together_what_each_does(name):
    outcome, z, y = CASES[name]
    together = outcome.mean_prediction(torch.stack([z, z, z]))
    assert together.shape == z.shape
    torch.testing.assert_close(outcome.statistic(together, y), outcome.statistic(z, y))
