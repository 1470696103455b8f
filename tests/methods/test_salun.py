"""SalUn: its mask in closed form, what stays to the last bit, and that all weights together are random labels."""

from __future__ import annotations

import pytest
import torch

from expunge.core import InputError
from expunge.ensembles import build_network, train
from expunge.methods import RandomLabels, SalUn, unlearn
from expunge.methods.problem import Problem
from expunge.methods.salun import forget_gradients, masks
from reference.problems import forget_set, small_task
from reference.unlearn_one_by_one import saliency

OPTIONS = {"lr": 0.05, "epochs": 2, "batch_size": 16, "forget_batch_size": 3}


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def test_golden_masks():
    gradients = {"a": row(3.0, -4.0), "b": row(1.0, -2.0)}
    assert [m.tolist() for m in masks(gradients, 0.5).values()] == [[[True, True]], [[False, False]]]
    assert [m.tolist() for m in masks(gradients, 0.75).values()] == [[[True, True]], [[False, True]]]
    # One weight at least; those that tie with the last are in, those without a gradient are not.
    assert [m.tolist() for m in masks(gradients, 0.01).values()] == [[[False, True]], [[False, False]]]
    assert masks({"a": row(2.0, -2.0, 2.0, 1.0)}, 0.25)["a"].tolist() == [[True, True, True, False]]
    assert masks({"a": row(0.0, 0.0, 0.0, 1.0)}, 0.75)["a"].tolist() == [[False, False, False, True]]


def test_a_member_has_a_mask_of_its_own():
    both = masks({"a": torch.cat([row(1.0, 2.0), row(200.0, 100.0)])}, 0.5)["a"]
    assert both.tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("form", ["layers", "vmap", "one"])
def test_gradients_are_summed_over_all_of_the_forget_set_in_every_form_of_the_network(form, monkeypatch):
    monkeypatch.setattr("expunge.methods.salun.BATCH", 4)
    task = small_task("cnn")
    forget, pretrained = forget_set(task, 7), train(task, members=2, network=build_network(task, form), seed=3)
    found = forget_gradients(Problem(pretrained, task, forget, 0, "salun"))
    for member in range(2):
        for key, tensor in saliency(pretrained.module(member), task, forget).items():
            torch.testing.assert_close(found[key][member].abs(), tensor, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["mlp", "resnet"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_weights_outside_the_mask_stay_to_the_last_bit_under_momentum_and_decay(name, optimizer):
    """The published defect: with gradients masked and decay left to the optimiser, every weight moves."""
    task = small_task(name)
    forget, pretrained = forget_set(task), train(task, members=3, seed=4)
    method = SalUn(share=0.3, optimizer=optimizer, momentum=0.9, weight_decay=0.5, **OPTIONS)
    found = unlearn(pretrained, task, forget, method, chunk=2)
    for member in range(3):
        own = saliency(pretrained.module(member), task, forget)
        inside = masks({key: tensor.unsqueeze(0) for key, tensor in own.items()}, 0.3)
        for key, mask in inside.items():
            same = found.params[key][member] == pretrained.params[key][member]
            assert bool(same[~mask[0]].all())
            assert not bool(same[mask[0]].any())
    # What public code does: the same weights, pulled to 0 by decay.
    module = pretrained.module(0)
    stepper = torch.optim.SGD(module.parameters(), lr=0.05, weight_decay=0.5)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    stepper.step()
    weight = next(iter(dict(module.named_parameters())))
    assert not torch.equal(dict(module.named_parameters())[weight], pretrained.params[weight][0])


@pytest.mark.parametrize("name", ["mlp", "resnet"])
@pytest.mark.parametrize("redraw", ["fixed", "every_pass"])
def test_all_weights_together_are_random_labels_bit_by_bit(name, redraw):
    task = small_task(name, precision="float32")
    forget, pretrained = forget_set(task), train(task, members=3)
    one = unlearn(pretrained, task, forget, SalUn(share=1, redraw=redraw, **OPTIONS), seed=7)
    other = unlearn(pretrained, task, forget, RandomLabels(redraw=redraw, **OPTIONS), seed=7)
    assert all(torch.equal(one.params[key], tensor) for key, tensor in other.params.items())
    assert one.trace.cost == other.trace.cost


@pytest.mark.parametrize("share", [0.0, 1.01, -0.5, float("nan")])
def test_shares_that_are_none_are_refused(share):
    with pytest.raises(InputError, match="share = "):
        SalUn(share=share)
