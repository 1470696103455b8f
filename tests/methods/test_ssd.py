"""SSD: a plain loop, golden numbers, the ends of its options, and what batches of public code do to it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from expunge.core import InputError
from expunge.ensembles import build_network, train
from expunge.methods import SSD, unlearn
from expunge.methods.ssd import percentile, squares
from reference.one_by_one import stack
from reference.problems import forget_set, small_task
from reference.unlearn_one_by_one import importances, ssd


def row(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_golden_numbers():
    assert SSD().factors(row(20, 5), row(1, 1)).tolist() == [0.05, 1.0]
    assert SSD(dampening=2).factors(row(20, 10, 10.1), row(1, 1, 1)).tolist() == pytest.approx([0.1, 1.0, 2 / 10.1])
    # A factor above 1 would raise the weight: it stays. Nothing is known of a weight without a gradient: so does that.
    assert SSD(alpha=1, dampening=30).factors(row(20, 0), row(1, 0)).tolist() == [1.0, 1.0]
    assert SSD(alpha=1, dampening=0).factors(row(20, 0.5), row(1, 1)).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("name", "size"), [("logistic", 7), ("mlp", 3), ("mlp_norm", 7), ("resnet", 7)])
@pytest.mark.parametrize(
    "method",
    [
        SSD(alpha=1.5),
        SSD(alpha=3, dampening=0.5),
        SSD(threshold="automatic", dampening=0.5),
        SSD(importance="output_norm", alpha=1.2),
    ],
)
def test_it_equals_its_slow_twin(method, name, size):
    task = small_task(name)
    forget, pretrained = forget_set(task, size), train(task, members=3, seed=4)
    found = unlearn(pretrained, task, forget, method, chunk=2)
    expected = stack([ssd(pretrained.module(m), task, forget, method) for m in range(3)])
    for key, tensor in {**found.params, **found.buffers}.items():
        assert float((tensor - expected[key]).abs().max()) < 1e-10
    moved = sum(float((found.params[key] != pretrained.params[key]).double().sum()) for key in found.params)
    assert 0 < moved < sum(tensor.numel() for tensor in found.params.values())
    assert not [check for check in found.trace.failed_checks if check.name != "moved enough"]


@pytest.mark.parametrize("form", ["layers", "vmap", "one"])
def test_squares_are_the_same_in_every_form_of_the_network(form):
    task = small_task("cnn")
    ensemble = train(task, members=2, network=build_network(task, form), seed=3)
    found = squares(ensemble, task.train.x[:9], task.train.y[:9])
    for member in range(2):
        expected = importances(ensemble.module(member), task.train.x[:9], task.train.y[:9])
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key][member] / 9, tensor, rtol=1e-9, atol=1e-13)


def test_shuffling_changes_nothing_while_squared_means_of_batches_change():
    """The published defect: the importance, and with it which weights are dampened, is left to the loader's order."""
    task = small_task("mlp")
    ensemble, x, y = train(task, members=1, seed=2), task.train.x, task.train.y
    ours, theirs = [], []
    for seed in range(2):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        ours.append(squares(ensemble, x[order], y[order])["0.weight"][0])
        theirs.append(importances(ensemble.module(0), x[order], y[order], 16)["0.weight"])
    torch.testing.assert_close(*ours, rtol=1e-9, atol=1e-13)
    assert float(((theirs[0] - theirs[1]).abs() / theirs[0]).max()) > 0.1


def test_a_threshold_that_cannot_be_reached_changes_nothing_and_is_flagged():
    """F is part of D: with 10 of 50 examples no weight can matter more than five times as much for F."""
    task = small_task("mlp")
    forget, pretrained = forget_set(task, 10), train(task, members=2)
    for alpha in (5.001, 1e15):
        found = unlearn(pretrained, task, forget, SSD(alpha=alpha))
        assert all(torch.equal(found.params[key], tensor) for key, tensor in pretrained.params.items())
        assert "weights moved" in {check.name for check in found.trace.failed_checks}


def test_the_automatic_threshold_is_a_percentile_of_each_members_own_ratios():
    rows = torch.stack([torch.arange(1001.0), 10 * torch.arange(1001.0)])
    # A tenth is forgotten: ln(1 + 10) = 2.398 in a hundred, 24 of 1001, are above it.
    found = percentile(rows, 100 - math.log(11))
    assert found.tolist() == [976.0, 9760.0]
    assert (rows > found[:, None]).sum(1).tolist() == [24, 24]
    assert percentile(torch.ones(1, 5), 50).tolist() == [1.0]
    task = small_task("cnn")
    forget, pretrained = forget_set(task, 5), train(task, members=2)
    found = unlearn(pretrained, task, forget, SSD(threshold="automatic", dampening=0.0))
    for member in range(2):
        zero = sum(int((found.params[key][member] == 0).sum()) for key in found.params)
        count = sum(tensor[member].numel() for tensor in found.params.values())
        assert zero == count - 1 - math.floor((count - 1) * (1 - math.log(11) / 100))
    same = unlearn(pretrained, task, forget, SSD(threshold="automatic", dampening=0.0, alpha=1e9))
    assert all(torch.equal(same.params[key], tensor) for key, tensor in found.params.items())


def test_importance_of_outputs_reads_no_label():
    task = small_task("mlp")
    ensemble = train(task, members=1)
    x, y = task.train.x, task.train.y
    one, other = (squares(ensemble, x, labels, "output_norm") for labels in (y, (y + 1) % 3))
    assert all(torch.equal(one[key], tensor) for key, tensor in other.items())
    assert not torch.equal(squares(ensemble, x, y)["2.weight"], one["2.weight"])


def test_the_scale_of_the_loss_does_not_matter():
    of_forget, of_all = torch.rand(2, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    method = SSD(alpha=1.5)
    torch.testing.assert_close(method.factors(64 * of_forget, 64 * of_all), method.factors(of_forget, of_all))


def test_a_model_whose_examples_have_no_gradients_of_their_own_is_refused():
    def mixing() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.ReLU(), nn.Linear(8, 3))

    task = small_task(model=mixing)
    pretrained = train(task, members=1, epochs=0)
    with pytest.raises(InputError, match="an example has no gradient of its own"):
        unlearn(pretrained, task, forget_set(task), SSD())
    for options in (
        {"threshold": "median"},
        {"importance": "margin"},
        {"alpha": -1.0},
        {"alpha": float("nan")},
        {"dampening": -1.0},
    ):
        with pytest.raises(InputError, match=f"{next(iter(options))} = "):
            SSD(**options)
