from __future__ import annotations

import pytest
import torch
from torch import nn

from expunge.core import InputError
from expunge.ensembles import build_network, recalibrate, train
from reference.problems import SmallResNet, small_task


def by_hand(ensemble, member, x, batch):
    """Every batch norm's inputs are caught, batch by batch, while normalising with the batch's own statistics."""
    module = ensemble.module(member)
    layers = {n: m for n, m in module.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)}
    caught = {name: [] for name in layers}
    for name, layer in layers.items():
        layer.train()
        layer.register_forward_pre_hook(lambda _, args, name=name: caught[name].append(args[0].detach()))
    with torch.no_grad():
        for start in range(0, len(x), batch):
            if len(x[start : start + batch]) > 1:
                module(x[start : start + batch])
    out = {}
    for name, inputs in caught.items():
        rows = [i.transpose(0, 1).flatten(1) for i in inputs]
        out[f"{name}.running_mean"] = torch.stack([row.mean(1) for row in rows]).mean(0)
        out[f"{name}.running_var"] = torch.stack([row.var(1) for row in rows]).mean(0)
    return out


@pytest.mark.parametrize("kind", ["layers", "vmap"])
@pytest.mark.parametrize("name", ["mlp_norm", "resnet"])
@pytest.mark.parametrize("batch", [7, 16, 49, 256])
def test_recalibrated_statistics_are_those_computed_by_hand(name, batch, kind):
    task = small_task(name)
    ensemble = train(task, members=3, network=build_network(task, kind))
    new = recalibrate(ensemble, task.train.x, batch_size=batch)
    for member in range(3):
        for key, value in by_hand(ensemble, member, task.train.x, batch).items():
            torch.testing.assert_close(new.buffers[key][member], value, rtol=1e-10, atol=1e-12)
    for key, tensor in ensemble.params.items():
        assert torch.equal(tensor, new.params[key])
    assert all(torch.equal(t, new.buffers[n]) for n, t in ensemble.buffers.items() if "num_batches" in n)


def test_the_old_statistics_have_no_part_in_the_new_ones():
    task = small_task("resnet", precision="float32")
    ensemble = train(task, members=2)
    spoiled = {n: t * 1e9 if t.is_floating_point() else t for n, t in ensemble.buffers.items()}
    spoiled["norm.running_mean"] = torch.full_like(spoiled["norm.running_mean"], float("nan"))
    wanted = recalibrate(ensemble, task.train.x)
    found = recalibrate(ensemble.with_state(ensemble.params, spoiled), task.train.x)
    for key, tensor in wanted.buffers.items():
        assert torch.equal(tensor, found.buffers[key]), key


def test_recalibration_is_idempotent_and_leaves_the_ensemble_given_alone():
    task = small_task("resnet")
    ensemble = train(task, members=2)
    kept = {name: tensor.clone() for name, tensor in ensemble.buffers.items()}
    once = recalibrate(ensemble, task.train.x)
    assert all(torch.equal(kept[name], tensor) for name, tensor in ensemble.buffers.items())
    twice = recalibrate(once, task.train.x)
    assert all(torch.equal(tensor, twice.buffers[name]) for name, tensor in once.buffers.items())
    assert any(not torch.equal(tensor, kept[name]) for name, tensor in once.buffers.items())


def test_a_cumulative_average_layer_is_recalibrated_too():
    def model():
        return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, momentum=None), nn.Linear(5, 3))

    task = small_task("mlp", model=model)
    ensemble = train(task, members=2)
    new = recalibrate(ensemble, task.train.x, batch_size=16)
    for key, value in by_hand(ensemble, 1, task.train.x, 16).items():
        torch.testing.assert_close(new.buffers[key][1], value)


def test_an_ensemble_without_statistics_is_returned_as_it_is():
    task = small_task("mlp")
    ensemble = train(task, members=2)
    assert recalibrate(ensemble, task.train.x) is ensemble


def test_one_example_is_not_enough():
    task = small_task("resnet")
    with pytest.raises(InputError, match="expected batches of at least 2"):
        recalibrate(train(task, members=1), task.train.x[:1])
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in SmallResNet().modules())
