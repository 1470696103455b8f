"""Task, ForgetSet, Recipe, Ensemble: what they accept, what they refuse, and what follows from them."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from expunge.core import ForgetSet, InputError, Recipe, Task, has_statistics
from expunge.ensembles import train
from reference.problems import SmallResNet, blobs, cnn, forget_set, mlp, small_task


def task_with(**changes):
    x, y = blobs((6,), 20, 0)
    base = {"name": "t", "train": (x, y), "validation": (x + 1, y), "model": mlp, "recipe": Recipe(), "classes": 3}
    return Task(**{**base, **changes})


X, Y = blobs((6,), 20, 0)


def spoiled(value):
    x = X.clone()
    x[3, 1] = value
    return x, Y


def sparse_model():
    made = mlp()
    made[0].weight = nn.Parameter(made[0].weight.detach().to_sparse())
    return made


def with_meta_buffer():
    made = mlp()
    made.register_buffer("shift", torch.zeros(3, device="meta"))
    return made


def with_meta_attribute():
    made = mlp()
    made.directions = torch.zeros(3, device="meta")
    return made


def of_inference():
    with torch.inference_mode():
        return mlp()


def partly_scripted():
    made = mlp()
    made[0] = torch.jit.script(made[0])
    return made


class WritesIntoItsInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = mlp()

    def forward(self, x):
        x /= 255
        return self.body(x)


def with_complex_buffer():
    made = mlp()
    made.register_buffer("turns", torch.ones(3, dtype=torch.complex64))
    return made


BAD = [
    ({"name": ""}, "name is empty"),
    ({"recipe": {"lr": 0.1}}, "recipe is a dict"),
    ({"model": mlp()}, "expected a function"),
    ({"model": "mlp"}, "model is a str"),
    ({"model": lambda: "no module"}, "returned a str"),
    ({"model": nn.ReLU}, "no parameters"),
    ({"model": lambda: mlp().to("meta")}, "'0.weight' of the model is a meta tensor, without numbers.*on the CPU"),
    ({"model": with_meta_buffer}, "'shift' of the model is a meta tensor"),
    ({"model": with_meta_attribute}, "'directions' of the model is a meta tensor"),
    ({"model": sparse_model}, "'0.weight' of the model is a sparse tensor.*to_dense"),
    ({"model": of_inference}, "'0.weight' of the model was made in torch.inference_mode"),
    (
        {"model": lambda: torch.jit.script(mlp())},
        "the model is a module compiled by TorchScript.*plain torch.nn.Module",
    ),
    ({"model": lambda: torch.jit.trace(mlp(), X[:2])}, "the model is a module compiled by TorchScript"),
    ({"model": partly_scripted}, "'0' of the model is a module compiled by TorchScript"),
    ({"model": lambda: torch.compile(mlp())}, "the model is a module compiled by torch.compile"),
    ({"model": WritesIntoItsInputs}, r"changes x in place.*Write x = x / 255"),
    ({"model": lambda: nn.Sequential(nn.ReLU(inplace=True), mlp())}, "changes x in place.*inplace=False"),
    ({"model": with_complex_buffer}, "'turns' of the model is torch.complex64, expected real numbers"),
    ({"model": lambda: nn.Linear(6, 3, dtype=torch.complex64)}, "'weight' of the model is torch.complex64"),
    ({"model": lambda: nn.Linear(6, 4)}, r"returned \(2, 4\), expected logits of shape \(2, 3\)"),
    ({"train": (X, Y[:-1])}, "20 inputs but 19 labels"),
    ({"train": (X[:0], Y[:0])}, "train is empty"),
    ({"train": X}, "expected a pair"),
    ({"train": ("a", "b")}, "train: x is the text 'a', expected a tensor"),
    ({"train": (X, torch.nn.functional.one_hot(Y))}, "not one-hot"),
    ({"train": (X, Y + 0.5)}, "fractional"),
    ({"train": (X, Y - 1)}, "labels run from -1"),
    ({"classes": 2}, r"labels run from 0 to 2, expected 0 to 1"),
    ({"train": (X, Y * 0), "validation": (X, Y * 0), "classes": None}, "one class only"),
    ({"validation": (X[:, :5], Y)}, "expected the same"),
    ({"model": lambda: nn.Linear(7, 3)}, r"failed for 2 examples, x of shape \(2, 6\).*mat1 and mat2.*shape \(6,\)"),
    ({"train": ((X * 9).long(), Y)}, "type torch.int64"),
    ({"classes": "3"}, "classes = '3', expected a whole number"),
    ({"name": 3}, "expected a text"),
    ({"train": spoiled(float("nan"))}, r"train.x has 1 non-finite values in 1 rows \(first row 3\)"),
    ({"validation": spoiled(float("inf"))}, "validation.x has 1 non-finite"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_a_task_that_cannot_work_is_refused_at_construction(changes, message):
    with pytest.raises(InputError, match=message):
        task_with(**changes)


def test_arrays_lists_of_columns_and_integers_are_accepted():
    task = task_with(train=(X.numpy().astype("float64"), Y.numpy().astype("int32")[:, None]))
    assert task.train.x.dtype == torch.float32
    assert task.train.y.dtype == torch.int64
    assert task.train.y.shape == (20,)
    float_labels = task_with(train=(X, Y.double()))
    assert torch.equal(float_labels.train.y, Y)
    assert task_with(recipe=Recipe(precision="float64")).train.x.dtype == torch.float64
    assert len(task.train[:5]) == 5


def test_building_depends_on_the_seed_alone_and_leaves_the_global_generator_alone():
    task = task_with()
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    one, two, other = task.build(7), task.build(7), task.build(8)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one[0].weight, two[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)


def test_the_fingerprint_sees_every_change_that_matters_and_nothing_else():
    prints = [
        task_with().fingerprint,
        task_with(train=spoiled(0.125)).fingerprint,
        task_with(train=(X, (Y + 1) % 3)).fingerprint,
        task_with(validation=(X + 2, Y)).fingerprint,
        task_with(recipe=Recipe(lr=0.3)).fingerprint,
        task_with(classes=3, model=lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))).fingerprint,
        task_with(model=lambda: nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3))).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert task_with().fingerprint == prints[0]
    assert task_with(name="another name").fingerprint == prints[0]


def test_the_fingerprint_sees_another_initialisation():
    def zeroed():
        module = mlp()
        nn.init.zeros_(module[0].weight)
        return module

    assert task_with(model=zeroed).fingerprint != task_with().fingerprint


def test_describe_and_statistics():
    assert not has_statistics(mlp())
    assert has_statistics(SmallResNet())
    facts = small_task("resnet").describe()
    assert facts["has_statistics"]
    assert facts["parameters"] == sum(p.numel() for p in SmallResNet().parameters())
    assert facts["input_shape"] == [1, 8, 8]


def test_with_labels_changes_only_those_labels():
    task = task_with()
    other = task.with_labels(np.array([2, 5]), (task.train.y[[2, 5]] + 1) % 3, "planted")
    changed = torch.nonzero(task.train.y != other.train.y).flatten().tolist()
    assert changed == [2, 5]
    assert torch.equal(task.train.x, other.train.x)


BAD_SETS = [
    ([], "is empty"),
    ([1, 1], "names position 1 2 times"),
    ([20], "outside the training data"),
    ([-1], "outside the training data"),
    ([0.5], "not whole numbers"),
    ([float("nan")], "not whole numbers"),
    (["a"], "expected a tensor or an array of numbers"),
    ([[1, 2]], "expected one list"),
    (np.zeros(20, dtype=bool), "is a mask"),
    (range(20), "whole training set"),
    ([[1, 2], [3]], "is a list, expected a tensor or an array"),
]


@pytest.mark.parametrize(("indices", "message"), BAD_SETS, ids=[m for _, m in BAD_SETS])
def test_a_forget_set_that_makes_no_sense_is_refused(indices, message):
    with pytest.raises(InputError, match=message):
        ForgetSet.of(task_with(), indices, name="f", how="a test")


def test_rows_that_are_gone_are_in_neither_set():
    later = ForgetSet.of(task_with(), [3, 1], name="f", how="a test", gone=[5, 0])
    assert later.retain.tolist() == [row for row in range(20) if row not in (0, 1, 3, 5)]
    with pytest.raises(InputError, match=r"1 positions that are gone \(first: 3\)"):
        ForgetSet.of(task_with(), [3, 1], name="f", how="a test", gone=[3])
    with pytest.raises(InputError, match="nothing is left"):
        ForgetSet.of(task_with(), range(10), name="f", how="a test", gone=range(10, 20))


def test_a_forget_set_of_something_that_is_no_task_is_refused():
    with pytest.raises(InputError, match=r"task is the text 'digits', expected an expunge\.Task"):
        ForgetSet.of("digits", [1], name="f", how="a test")


@given(st.sets(st.integers(0, 19), min_size=1, max_size=19), st.randoms())
def test_forget_and_retain_sets_part_the_training_data(chosen, random):
    given_order = list(chosen)
    random.shuffle(given_order)
    forget = ForgetSet.of(TASK, given_order, name="f", how="a test")
    assert sorted([*forget.indices, *forget.retain]) == list(range(20))
    assert forget.indices.tolist() == sorted(chosen)
    assert len(forget) == len(chosen)
    as_tensor = ForgetSet.of(TASK, torch.tensor(given_order), name="f", how="a test")
    assert np.array_equal(as_tensor.indices, forget.indices)


TASK = task_with()


BAD_RECIPES = [
    {"epochs": 0},
    {"batch_size": 0},
    {"batch_size": True},
    {"lr": 0},
    {"lr": float("inf")},
    {"momentum": 1.0},
    {"momentum": -0.1},
    {"weight_decay": -1},
    {"optimizer": "rmsprop"},
    {"schedule": "step"},
    {"precision": "float16"},
    {"last_batch": "pad"},
    {"epochs": 3, "peak_epoch": 5.0},
    {"lr": "fast"},
    {"momentum": None},
]


@pytest.mark.parametrize("options", BAD_RECIPES, ids=str)
def test_a_recipe_out_of_range_is_refused(options):
    with pytest.raises(InputError, match=f"{list(options)[-1]} = "):
        Recipe(**options)


def test_the_papers_triangular_rate():
    recipe = Recipe(epochs=24, lr=0.4, peak_epoch=5.0)
    assert [recipe.rate(e) for e in (0, 2.5, 5, 14.5, 24)] == pytest.approx([0, 0.2, 0.4, 0.2, 0])
    xs = np.linspace(0, 24, 500)
    assert [recipe.rate(e) for e in xs] == pytest.approx(np.interp(xs, [0, 5, 24], [0, 0.4, 0]))
    assert Recipe(epochs=4, lr=1.0, peak_epoch=0.0).rate(0) == 1.0
    assert Recipe(epochs=4, lr=1.0, peak_epoch=4.0).rate(4) == 1.0


@pytest.mark.parametrize("epochs", [5, 6, 24, 100])
def test_the_peak_is_in_epoch_5_unless_the_recipe_says_otherwise(epochs):
    assert Recipe(epochs=epochs).to_dict()["peak_epoch"] == 5.0
    assert Recipe(epochs=epochs) == Recipe(epochs=epochs, peak_epoch=5.0)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_other_schedules_keep_peak_5_in_their_description_at_any_length(schedule):
    assert Recipe(epochs=1, schedule=schedule).to_dict()["peak_epoch"] == 5.0


@pytest.mark.parametrize("epochs", [1, 2, 4])
def test_a_short_triangular_recipe_peaks_at_the_papers_share_and_says_so(epochs):
    recipe = Recipe(epochs=epochs, lr=0.4)
    assert recipe.to_dict()["peak_epoch"] == pytest.approx(epochs * 5 / 24)
    shares = np.linspace(0, 1, 50)
    paper = Recipe(epochs=24, lr=0.4)
    assert [recipe.rate(epochs * s) for s in shares] == pytest.approx([paper.rate(24 * s) for s in shares])


def test_a_peak_beyond_the_end_names_the_way_out():
    with pytest.raises(
        InputError, match=r"peak_epoch = 5\.0, expected a number from 0\.0 to 2 .*leave it out, or give None"
    ):
        Recipe(epochs=2, peak_epoch=5.0)
    with pytest.raises(InputError, match="peak_epoch = 'early', expected a number"):
        Recipe(peak_epoch="early")


@given(st.sampled_from(["constant", "triangular", "cosine", "linear"]), st.floats(0, 1), st.integers(1, 50))
def test_rates_lie_between_0_and_the_peak_and_survive_compression(schedule, share, epochs):
    recipe = Recipe(epochs=50, lr=0.3, schedule=schedule, peak_epoch=10.0)
    assert 0 <= recipe.rate(50 * share) <= 0.3 + 1e-12
    assert recipe.compressed(epochs).rate(epochs * share) == pytest.approx(recipe.rate(50 * share), abs=1e-9)


def test_ends_of_the_other_schedules():
    for schedule, ends in {"constant": (0.3, 0.3), "cosine": (0.3, 0.0), "linear": (0.3, 0.0)}.items():
        recipe = Recipe(epochs=10, lr=0.3, schedule=schedule)
        assert (recipe.rate(0), recipe.rate(10)) == pytest.approx(ends)
    assert Recipe(epochs=10, lr=0.3, schedule="cosine").rate(10 / 3) == pytest.approx(0.3 * 0.75)


@given(st.integers(1, 300), st.integers(1, 64))
def test_steps_an_epoch(examples, batch):
    keep, drop = (Recipe(batch_size=batch, last_batch=last).steps_per_epoch(examples) for last in ("keep", "drop"))
    assert keep == math.ceil(examples / batch)
    assert drop == examples // batch


@pytest.fixture(scope="module")
def resnets():
    task = small_task("resnet")
    return task, train(task, members=4)


def test_logits_margins_and_accuracy_of_members_are_those_of_the_modules(resnets):
    task, ensemble = resnets
    x, y = task.validation.x, task.validation.y
    logits, margins = ensemble.logits(x), ensemble.margins(x, y)
    assert logits.shape == (4, 20, 3)
    for member in range(4):
        alone = ensemble.module(member)(x).detach()
        torch.testing.assert_close(logits[member], alone, rtol=1e-10, atol=1e-10)
        p = alone.softmax(1)[torch.arange(20), y]
        torch.testing.assert_close(margins[member], (p / (1 - p)).log(), rtol=1e-8, atol=1e-8)
    right = (logits.argmax(-1) == y).double().mean(1)
    torch.testing.assert_close(ensemble.accuracy(x, y), right)
    torch.testing.assert_close(ensemble.logits(x, budget=1), logits, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ensemble.margins(x, y, budget=3000), margins, rtol=1e-12, atol=1e-12)


def test_slices_clones_and_devices(resnets):
    task, ensemble = resnets
    part = ensemble[1:3]
    assert (len(part), part.ids) == (2, (1, 2))
    torch.testing.assert_close(part.logits(task.validation.x), ensemble.logits(task.validation.x)[1:3])
    copy = ensemble.clone().to("cpu")
    copy.params["head.weight"].zero_()
    assert bool(ensemble.params["head.weight"].any())
    module = ensemble.module(0)
    module.head.weight.data.zero_()
    assert bool(ensemble.params["head.weight"][0].any())


def test_a_broken_member_is_never_right_and_never_hides(resnets):
    task, ensemble = resnets
    broken = ensemble.clone()
    broken.params["head.weight"][2] = float("nan")
    broken.params["head.bias"][3] = float("inf")
    assert broken.finite().tolist() == [True, True, False, False]
    x, y = task.validation.x, task.validation.y
    accuracy = broken.accuracy(x, y)
    assert accuracy[2:].tolist() == [0.0, 0.0]
    torch.testing.assert_close(accuracy[:2], ensemble.accuracy(x, y)[:2])
    assert bool(torch.isnan(broken.margins(x, y)[2:]).all())
    spoiled_statistics = ensemble.clone()
    spoiled_statistics.buffers["norm.running_var"][1] = float("inf")
    assert spoiled_statistics.finite().tolist() == [True, False, True, True]


def test_questions_to_an_ensemble_that_make_no_sense(resnets):
    task, ensemble = resnets
    with pytest.raises(InputError, match="no examples"):
        ensemble.logits(task.train.x[:0])
    with pytest.raises(InputError, match="20 examples but y has 3"):
        ensemble.margins(task.validation.x, task.validation.y[:3])
    with pytest.raises(InputError, match="20 examples but y has 3"):
        ensemble.accuracy(task.validation.x, task.validation.y[:3])


def test_inputs_and_labels_that_the_models_cannot_take_are_named(resnets):
    task, ensemble = resnets
    x, y = task.validation.x, task.validation.y
    with pytest.raises(InputError, match=r"x of shape \(20, 2, 8, 8\) .*does not fit the models"):
        ensemble.margins(x.repeat(1, 2, 1, 1), y)
    with pytest.raises(InputError, match=r"x of shape \(20, 1\)"):
        ensemble.logits(x[:, :, 0, 0])
    with pytest.raises(InputError, match="x is a Split, expected a tensor"):
        ensemble.margins(task.validation, y)
    for ask in (ensemble.margins, ensemble.accuracy):
        with pytest.raises(InputError, match="labels run from 1 to 3, expected 0 to 2"):
            ask(x, y + 1)
        with pytest.raises(InputError, match="labels run from -1"):
            ask(x, y - 1)
        with pytest.raises(InputError, match=r"y labels have shape \(20, 2\)"):
            ask(x, y[:, None].repeat(1, 2))
        with pytest.raises(InputError, match="y labels are fractional"):
            ask(x, y + 0.5)


def test_an_error_that_inputs_are_not_to_blame_for_stays_what_it_is(resnets):
    task, ensemble = resnets

    def network(*args, **kwargs):
        raise RuntimeError("out of memory")

    network.template, network.widest = ensemble.network.template, 1
    network.interface, network.outcome, network.kind = task.interface, task.outcome, "layers"
    with pytest.raises(RuntimeError, match="out of memory"):
        dataclasses.replace(ensemble, network=network).logits(task.validation.x)


def test_a_forget_set_is_checked_against_the_task():
    with pytest.raises(InputError, match="made for 50 training examples"):
        forget_set(small_task("mlp")).check(small_task("mlp", n=30))
    assert isinstance(cnn(), nn.Module)


def test_a_copy_shares_how_models_are_computed_and_a_pickled_one_finds_it_again():
    """Finding it takes trainings, which tasks with other data (the smaller ones of forecasts) must not repeat."""
    task = small_task("mlp")
    network = task.network
    assert copy.copy(task).network is network
    assert task.with_data(task.train[:30], task.validation).network is network
    other = pickle.loads(pickle.dumps(task))
    assert "network" not in vars(other)
    assert other.network.kind == network.kind
    assert other.fingerprint == task.fingerprint
