"""CF-k and EU-k: the last layers move as a plain loop moves them, and the others not by a bit."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from expunge.core import InputError
from expunge.core.seeds import derive
from expunge.ensembles import build_network, train
from expunge.methods import CFk, EUk, FineTune, unlearn
from expunge.methods.last_layers import layers_of
from expunge.methods.scale import on_scale
from reference.one_by_one import stack, train_with_seed
from reference.problems import MODELS, forget_set, small_task
from reference.unlearn_one_by_one import last_layers

WHAT_MOVES = [
    ("mlp", 1, "2"),
    ("mlp", 2, "0 2"),
    ("cnn", 2, "2 6"),
    ("mlp_norm", 1, "3"),
    ("resnet", 1, "head"),
    ("resnet", 3, "second second_norm shortcut head"),
]


class Backwards(nn.Module):
    """Registered in another order than used, with a weight of its own, and one that is read without a call."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)
        self.norm = nn.LayerNorm(5)
        self.read = nn.ModuleDict({"weights": nn.Linear(5, 5, bias=False)})
        self.body = nn.Linear(6, 5)
        self.shift = nn.Parameter(torch.zeros(6))
        self.fixed = nn.Linear(5, 5).requires_grad_(False)

    def forward(self, x):
        x = torch.tanh(self.norm(self.body(x + self.shift)))
        return self.head(self.fixed(x) @ self.read["weights"].weight)


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5)

    def forward(self, x):
        return x @ self.inner.weight + self.inner.bias


class Called(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.holder, self.body = nn.Linear(5, 3), Holder(), nn.Linear(6, 5)

    def forward(self, x):
        return self.head(torch.tanh(self.holder(torch.tanh(self.body(x)))))


def names(task):
    return [layer.weights for layer in layers_of(task)]


def test_layers_come_in_the_order_of_use_with_the_normalisation_that_follows():
    assert [len(names(small_task(name))) for name in MODELS] == [1, 2, 2, 3, 5]
    assert names(small_task("mlp_norm")) == [["0.weight", "1.weight", "1.bias"], ["3.weight", "3.bias"]]
    assert names(small_task("resnet"))[2:] == [
        ["second.weight", "second_norm.weight", "second_norm.bias"],
        ["shortcut.weight"],
        ["head.weight", "head.bias"],
    ]


def test_registration_does_not_decide_and_weights_without_a_call_stand_where_their_holder_does():
    assert names(small_task(model=Backwards)) == [
        ["shift"],
        ["read.weights.weight"],  # the model itself reads them, so they are used where it begins
        ["body.weight", "body.bias", "norm.weight", "norm.bias"],
        ["head.weight", "head.bias"],
    ]
    assert [own[0] for own in names(small_task(model=Called))] == ["body.weight", "holder.inner.weight", "head.weight"]


@pytest.mark.parametrize(("name", "k", "moving"), WHAT_MOVES)
@pytest.mark.parametrize("kind", [CFk, EUk])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_it_equals_its_slow_twin_and_the_rest_stays_bit_by_bit(kind, name, k, moving, optimizer):
    """Momentum and decay, which move weights without a gradient in public code, are on."""
    task, method = small_task(name), kind(k=k, lr=0.05, epochs=2, batch_size=16, weight_decay=0.1, optimizer=optimizer)
    forget, pretrained = forget_set(task), train(task, members=3, seed=4)
    if kind is EUk and "norm" in moving:
        with pytest.raises(InputError, match="are followed by a BatchNorm2d, whose stored statistics"):
            unlearn(pretrained, task, forget, method)
        return
    found = unlearn(pretrained, task, forget, method, seed=11, chunk=2)
    modules = [last_layers(pretrained.module(m), task, forget, method, 11, m, moving) for m in range(3)]
    expected = stack(modules)
    for key, tensor in {**found.params, **found.buffers}.items():
        if key.rpartition(".")[0] in moving.split() and key in found.params:
            assert float((tensor - expected[key]).abs().max()) < 1e-10
            assert not torch.equal(tensor, pretrained.params[key])
        else:
            assert torch.equal(tensor, {**pretrained.params, **pretrained.buffers}[key])
    assert not [check for check in found.trace.failed_checks if check.name != "moved enough"]


@pytest.mark.parametrize("form", ["layers", "vmap", "one"])
def test_frozen_layers_stay_in_every_form_of_the_network(form):
    task = small_task("cnn")
    forget, pretrained = forget_set(task), train(task, members=2, network=build_network(task, form))
    for kind in (CFk, EUk):
        found = unlearn(pretrained, task, forget, kind(lr=0.05, epochs=1, batch_size=16))
        changed = {key for key, tensor in found.params.items() if not torch.equal(tensor, pretrained.params[key])}
        assert changed == {"6.weight", "6.bias"}


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_tuning_all_layers_is_fine_tuning_and_rate_0_nothing(name):
    task = small_task(name)
    forget, pretrained = forget_set(task), train(task, members=2)
    options = {"lr": 0.05, "epochs": 2, "batch_size": 16}
    one = unlearn(pretrained, task, forget, CFk(k=len(layers_of(task)), **options))
    other = unlearn(pretrained, task, forget, FineTune(**options))
    still = unlearn(pretrained, task, forget, CFk(lr=0.0, epochs=2))
    for key, tensor in other.params.items():
        assert torch.equal(one.params[key], tensor)
        assert torch.equal(still.params[key], pretrained.params[key])


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_new_weights_in_all_layers_are_training_from_scratch(name):
    task = small_task(name, schedule="constant", batch_size=64, momentum=0.9)  # one batch: order is nothing
    forget, pretrained = forget_set(task), train(task, members=3)
    recipe, depth = task.recipe, len(layers_of(task))
    method = EUk(k=depth, lr=recipe.lr, epochs=3, batch_size=64, weight_decay=recipe.weight_decay)
    found = unlearn(pretrained, task, forget, method, seed=7, chunk=2)
    seeds = [derive(7, "unlearn", "eu_k", member) for member in range(3)]
    reference = stack([train_with_seed(task, forget.retain, seed, recipe, 3) for seed in seeds])
    assert max(float((found.params[key] - tensor).abs().max()) for key, tensor in reference.items()) < 1e-10


def test_new_weights_differ_between_members_and_runs_and_not_with_what_is_beside_them():
    task = small_task("mlp")
    forget, pretrained = forget_set(task), train(task, members=3)
    method = EUk(lr=0.0, epochs=1)
    found, other = (unlearn(pretrained, task, forget, method, seed=seed).params["2.weight"] for seed in (0, 1))
    assert len({float(own[0, 0]) for own in (*found, *other, *pretrained.params["2.weight"])}) == 9
    assert torch.equal(unlearn(pretrained[1:2], task, forget, method).params["2.weight"][0], found[1])


@pytest.mark.parametrize("kind", [CFk, EUk])
def test_what_cannot_be_is_refused(kind):
    task = small_task("mlp")
    forget, pretrained = forget_set(task), train(task, members=1, epochs=0)
    with pytest.raises(InputError, match=r"k = 3, and the model of small-mlp has 2 layers .* expected k from 1 to 2"):
        unlearn(pretrained, task, forget, kind(k=3))
    for options in ({"k": 0}, {"k": 1.5}, {"statistics": "updated"}, {"weight_decay": -1.0}):
        with pytest.raises(InputError, match=f"{next(iter(options))} = "):
            kind(**options)


def test_rates_of_new_weights_are_not_placed_by_what_they_move():
    task = small_task("mlp")
    forget, pretrained = forget_set(task), train(task, members=3)
    for kind, kept in ((EUk, True), (CFk, False)):
        low = [dataclasses.replace(run, lr=1e-6 * run.lr) for run in kind.grid(task.recipe)]
        assert (on_scale(low, pretrained, task, forget, 0) == low) == kept
