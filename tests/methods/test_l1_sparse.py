"""l1-sparse: its schedule, one step by hand, what is left out of the penalty, and what it does to weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from expunge.core import InputError
from expunge.ensembles import build_network, train
from expunge.methods import FineTune, L1Sparse, unlearn
from expunge.methods.l1_sparse import normalisation_weights
from reference.problems import forget_set, small_task

OPTIONS = {"lr": 0.05, "epochs": 2, "batch_size": 16}


def test_golden_schedules():
    for schedule, expected in (
        ("fading", [1.0, 0.75, 0.5, 0.25]),
        ("constant", [1.0] * 4),
        ("rising", [0.25, 0.5, 0.75, 1]),
    ):
        method = L1Sparse(penalty=1, epochs=4, schedule=schedule)
        assert [method.at(epoch) for epoch in (1, 2, 3, 4)] == expected


@pytest.mark.parametrize("name", ["mlp", "resnet"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_without_a_penalty_it_is_fine_tuning_bit_by_bit(name, precision):
    task = small_task(name, precision=precision)
    forget, pretrained = forget_set(task), train(task, members=2)
    one = unlearn(pretrained, task, forget, L1Sparse(penalty=0, **OPTIONS), seed=3)
    other = unlearn(pretrained, task, forget, FineTune(**OPTIONS), seed=3)
    assert all(torch.equal(one.params[key], tensor) for key, tensor in other.params.items())


@pytest.mark.parametrize("form", ["layers", "vmap", "one"])
def test_one_step_moves_by_the_sign_and_leaves_norm_layers_alone(form):
    """The published defect: scales of batch norm are penalised like weights, and channels are switched off."""
    task = small_task("mlp_norm")
    forget, pretrained = forget_set(task), train(task, members=2, network=build_network(task, form))
    whole = {"lr": 0.1, "epochs": 1, "batch_size": 50, "momentum": 0.0, "weight_decay": 0.0}
    one = unlearn(pretrained, task, forget, L1Sparse(penalty=0.3, **whole))
    other = unlearn(pretrained, task, forget, FineTune(**whole))
    for key, tensor in pretrained.params.items():
        pulled = 0.0 if key.startswith("1.") else 0.1 * 0.3 * tensor.sign()
        torch.testing.assert_close(one.params[key], other.params[key] - pulled, rtol=1e-9, atol=1e-12)


class OwnNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x):
        return x * self.scale


class RMSLike(OwnNorm):
    pass


def test_norm_layers_are_known_by_type_and_by_name():
    def model():
        return nn.Sequential(nn.LayerNorm(6), OwnNorm(), RMSLike(), nn.Sequential(nn.Linear(6, 3), nn.GroupNorm(1, 3)))

    task = small_task("mlp", model=model)
    assert normalisation_weights(task.network) == {"0.weight", "0.bias", "1.scale", "3.1.weight", "3.1.bias"}


def test_a_penalty_makes_weights_small_that_the_retain_set_does_not_need():
    task = small_task("mlp")
    forget, pretrained = forget_set(task), train(task, members=3)
    options = {"lr": 0.05, "epochs": 60, "batch_size": 16, "weight_decay": 0.0}
    sizes = []
    for penalty in (0.0, 0.03):
        found = unlearn(pretrained, task, forget, L1Sparse(penalty=penalty, **options))
        weights = torch.cat([tensor.flatten(1) for tensor in found.params.values()], 1).abs()
        sizes.append((float(weights.sum(1).mean()), float((weights < 0.01).double().mean())))
    assert sizes[1][0] < 0.7 * sizes[0][0]
    assert sizes[1][1] > sizes[0][1] + 0.05


def test_options_that_are_none_are_refused():
    for options in ({"penalty": -1.0}, {"penalty": float("nan")}, {"schedule": "decaying"}):
        with pytest.raises(InputError, match=f"{next(iter(options))} = "):
            L1Sparse(**options)
