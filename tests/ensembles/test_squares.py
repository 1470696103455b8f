"""Squared gradients of single examples: autograd, an example at a time, in every layer that has a form of its own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from expunge.core import InputError
from expunge.core.outcomes import Classes
from expunge.ensembles import squares, train
from expunge.ensembles.squares import squared_gradients
from reference.problems import small_task
from reference.unlearn_one_by_one import importances


def images() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, stride=2),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 4, 2, bias=False, dilation=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.LazyLinear(5),
        nn.BatchNorm1d(5, affine=False),
        nn.Dropout(0.5),
        nn.ReLU(),
        nn.Linear(5, 3, bias=False),
    )


def made(model=None, name="mlp_norm"):
    task = small_task(name, model=model)
    return task, train(task, members=3, seed=3, epochs=2)


def built() -> nn.Module:
    model = images()
    model(torch.zeros(2, *small_task("cnn").train.x.shape[1:]))
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.reset_running_stats()
    return model


def pull(outputs, targets):
    with torch.enable_grad():
        leaf = outputs.detach().requires_grad_(True)
        return torch.autograd.grad(Classes().loss(leaf, targets).sum(), leaf)[0]


@pytest.mark.parametrize(("model", "name"), [(None, "mlp_norm"), (None, "logistic"), (built, "cnn"), (None, "resnet")])
@pytest.mark.parametrize("numbers", [1, 2**22])
def test_each_example_is_squared_alone(model, name, numbers, monkeypatch):
    monkeypatch.setattr(squares, "CHUNK", numbers)  # examples one by one, and all at once
    task, ensemble = made(model, name)
    assert (squares._nodes(ensemble) is None) == (name == "logistic")  # a module of its own
    x, y = task.train.x[:9], task.train.y[:9]
    found = squared_gradients(ensemble, x, y, pull)
    for member in range(3):
        for key, tensor in importances(ensemble.module(member), x, y).items():
            torch.testing.assert_close(found[key][member] / 9, tensor, rtol=1e-9, atol=1e-13)


def test_the_ensemble_is_not_changed_and_a_diverged_member_keeps_to_itself():
    task, ensemble = made()
    x, y = task.train.x[:9], task.train.y[:9]
    before = ensemble.clone()
    clean = squared_gradients(ensemble, x, y, pull)
    for mine, was in ((ensemble.params, before.params), (ensemble.buffers, before.buffers)):
        assert all(torch.equal(mine[key], tensor) for key, tensor in was.items())
    for tensor in ensemble.params.values():
        tensor[1] = float("nan")
    beside = squared_gradients(ensemble, x, y, pull)
    assert all(torch.equal(beside[key][[0, 2]], tensor[[0, 2]]) for key, tensor in clean.items())


def test_frozen_parameters_have_none_and_no_examples_are_refused():
    def frozen() -> nn.Module:
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        model[0].weight.requires_grad_(False)
        return model

    task, ensemble = made(frozen, "mlp")
    x, y = task.train.x[:9], task.train.y[:9]
    assert set(squared_gradients(ensemble, x, y, pull)) == {"0.bias", "2.weight", "2.bias"}
    with pytest.raises(InputError, match="no examples"):
        squared_gradients(ensemble, x[:0], y[:0], pull)
