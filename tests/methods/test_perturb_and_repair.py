"""Perturb and repair: every preset equals a plain loop, and what public code of the winners leaves out is there."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import expunge as ex
from expunge.core import InputError
from expunge.core.seeds import derive
from expunge.ensembles import train
from expunge.methods import FineTune, PerturbAndRepair, Problem, check_fits, unlearn
from expunge.methods.entropy_kept import EntropyKept
from expunge.methods.perturb_and_repair import PRESETS, smallest, smallest_together
from reference.one_by_one import stack, train_with_seed
from reference.problems import forget_set, small_task
from reference.unlearn_one_by_one import perturb_and_repair

PLAIN = {"schedule": "constant", "kept": 1.0, "last_noise": 0.0}
ALL = {"mlp": "0 2", "mlp_norm": "0 1 3", "cnn": "0 2 6", "resnet": "stem norm first second shortcut head"}
ENDS = {"mlp": "0 2", "cnn": "0 6", "mlp_norm": "0 1 3", "resnet": "stem norm head"}
LAST = {"mlp": "2", "cnn": "6", "mlp_norm": "3", "resnet": "head"}


def state_of(ensemble):
    return {**ensemble.params, **ensemble.buffers}


def changed(found, start):
    return {name for name, tensor in found.params.items() if not torch.equal(tensor, start.params[name])}


@pytest.mark.parametrize("model", ["mlp", "mlp_norm", "cnn", "resnet"])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_equals_its_slow_twin(preset, model):
    task = small_task(model)
    forget, pretrained = forget_set(task, 10), train(task, members=3, seed=4)
    optimizer = "adam" if (preset, model) == ("msg", "cnn") else "sgd"
    options = {"epochs": 3, "batch_size": 16, "weight_decay": 0.1, "optimizer": optimizer}
    if preset == "rni_full":
        options |= {"tensors": 3, "shaken": 2, "whole_epochs": 1}  # of four at least, and three epochs
    method = PerturbAndRepair(preset=preset, lr=0.02, **options)
    if preset == "ct" and model.startswith("mlp"):
        with pytest.raises(InputError, match=r"how = 'transpose' changes square kernels .* the model of small-mlp"):
            unlearn(pretrained, task, forget, method)
        return
    found = unlearn(pretrained, task, forget, method, seed=11, chunk=2)
    names = {"kde": ENDS, "rni": LAST, "rni_full": LAST}.get(preset, ALL)[model]
    twins = [perturb_and_repair(pretrained.module(m), task, forget, method, 11, m, names) for m in range(3)]
    expected = stack(twins)
    assert max(float((tensor - expected[key]).abs().max()) for key, tensor in state_of(found).items()) < 1e-8
    assert found.trace.failed_checks == []
    drawing = {"msg": 2 * 10, "prmq_full": 40 / 3}.get(preset, 0)
    assert found.trace.cost == pytest.approx((drawing + 3 * 40) / (40 * 3))
    assert method.planned_cost(10, 40, 3) == pytest.approx(found.trace.cost)


@pytest.mark.parametrize(
    "nothing",
    [
        {"how": "gradients", "share": 0.0},
        {"how": "prune", "share": 0.0},
        {"how": "noise", "noise": 0.0},
    ],
)
def test_nothing_perturbed_is_fine_tuning(nothing):
    task = small_task("mlp_norm")
    forget, pretrained = forget_set(task), train(task, members=2)
    options = {"lr": 0.05, "epochs": 2, "batch_size": 16, "statistics": "updated"}
    one = unlearn(pretrained, task, forget, PerturbAndRepair(**{**options, **PLAIN, **nothing}))
    other = unlearn(pretrained, task, forget, FineTune(**options))
    for key, tensor in state_of(other).items():
        assert torch.equal(state_of(one)[key], tensor)


def test_everything_drawn_anew_is_training_from_scratch():
    task = small_task("cnn", schedule="constant", batch_size=64, momentum=0.9)  # one batch: order is nothing
    forget, pretrained = forget_set(task), train(task, members=3)
    recipe = task.recipe
    options = {"lr": recipe.lr, "epochs": 3, "batch_size": 64, "weight_decay": recipe.weight_decay, **PLAIN}
    found = unlearn(pretrained, task, forget, PerturbAndRepair(how="reset", **options), seed=7, chunk=2)
    seeds = [derive(7, "unlearn", "fine_tune", member) for member in range(3)]
    reference = stack([train_with_seed(task, forget.retain, seed, recipe, 3) for seed in seeds])
    assert max(float((found.params[key] - tensor).abs().max()) for key, tensor in reference.items()) < 1e-10


def test_shares_are_of_each_tensor_for_msg_and_of_all_together_for_prmq():
    task = small_task("mlp", model=lambda: scaled(nn.Linear(6, 8), nn.Linear(8, 3)))
    forget, pretrained = forget_set(task, 10), train(task, members=2, epochs=0)
    still = {"lr": 0.0, "epochs": 1, "momentum": 0.0, "weight_decay": 0.0}
    found = {
        preset: unlearn(pretrained, task, forget, PerturbAndRepair(preset=preset, share=0.4, **still))
        for preset in ("msg", "prmq")
    }
    moved = {
        preset: [
            int((ensemble.params[name][0] != pretrained.params[name][0]).sum()) for name in ("0.weight", "2.weight")
        ]
        for preset, ensemble in found.items()
    }
    assert moved["msg"] == [round(0.4 * 48), round(0.4 * 24)]
    assert moved["prmq"] == [round(0.4 * 72), 0]  # all of them in the layer whose weights are small
    for ensemble in found.values():
        assert changed(ensemble, pretrained) <= {"0.weight", "2.weight"}  # never a bias


def scaled(first, last):
    with torch.no_grad():
        first.weight.mul_(0.01)
        last.weight.mul_(100.0)
    return nn.Sequential(first, nn.ReLU(), last)


def test_masks_break_ties_by_place_and_count_over_all_tensors():
    assert smallest(torch.zeros(1, 5), 0.4).tolist() == [[True, True, False, False, False]]
    assert not smallest(torch.ones(2, 3), 0.0).any()
    assert smallest(torch.ones(2, 3), 1.0).all()
    masks = smallest_together({"a": torch.tensor([[1.0, 9.0]]), "b": torch.tensor([[[2.0], [3.0]]])}, 0.5)
    assert {name: mask.tolist() for name, mask in masks.items()} == {"a": [[True, False]], "b": [[[True], [False]]]}


class Nested(nn.Module):
    """Convolutions inside blocks, under names without "conv"."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU()), nn.Conv2d(3, 3, 1))
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.block(x).mean((2, 3)))


def test_noise_reaches_what_is_nested_and_transposing_leaves_what_has_one_pixel():
    task = small_task("cnn", model=Nested)
    forget, pretrained = forget_set(task), train(task, members=2)
    still = {"lr": 0.0, "epochs": 1, "momentum": 0.0, "weight_decay": 0.0}
    noisy = unlearn(pretrained, task, forget, PerturbAndRepair(preset="cfw", **still))
    assert changed(noisy, pretrained) == {"block.0.0.weight", "block.1.weight", "head.weight"}
    turned = unlearn(pretrained, task, forget, PerturbAndRepair(preset="ct", **still))
    assert changed(turned, pretrained) == {"block.0.0.weight"}
    expected = pretrained.params["block.0.0.weight"].transpose(3, 4)
    assert torch.equal(turned.params["block.0.0.weight"], expected)
    back = unlearn(turned, task, forget, PerturbAndRepair(preset="ct", **still))
    assert changed(back, pretrained) == set()


def test_noise_has_its_size_and_is_each_members_own():
    task = small_task("mlp", model=lambda: nn.Sequential(nn.Linear(6, 900), nn.ReLU(), nn.Linear(900, 3)))
    forget, pretrained = forget_set(task), train(task, members=2, epochs=0)
    method = PerturbAndRepair(preset="cfw", noise=0.3, last_noise=0.0, lr=0.0, epochs=1, layers=(0,))
    found = unlearn(pretrained, task, forget, method)
    added = (found.params["0.weight"] - pretrained.params["0.weight"]).flatten(1)
    # 5,400 normal numbers: their standard deviation is within 6 % of .3 but for a chance below 1e-9.
    assert torch.allclose(added.std(1), torch.full((2,), 0.3, dtype=added.dtype), rtol=0.06)
    assert abs(float((added[0] * added[1]).mean())) < 0.3**2 * 7 / 5400**0.5
    alone = unlearn(pretrained[1:2], task, forget, method)
    assert torch.equal(alone.params["0.weight"][0], found.params["0.weight"][1])


def test_options_that_are_left_out_are_those_of_the_preset():
    assert PerturbAndRepair() == PerturbAndRepair(preset="msg", how="gradients", share=0.3, kept=0.1, epochs=5)
    assert PerturbAndRepair(preset="kde").layers == (0, -1)
    assert PerturbAndRepair(preset="kde", layers=()).layers == ()
    assert PerturbAndRepair(preset="rni", layers=[0]).layers == (0,)
    for preset in PRESETS:
        method = PerturbAndRepair(preset=preset)
        assert method.defaults() == method.options()
        assert PerturbAndRepair(**method.options()) == method


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "fcs"}, "preset = 'fcs'"),
        ({"how": "melt"}, "how = 'melt'"),
        ({"share": 1.5}, "share = 1.5"),
        ({"kept": -0.1}, "kept = -0.1"),
        ({"noise": -1.0}, "noise = -1.0"),
        ({"layers": (0, 0)}, r"layers = \(0, 0\), expected a tuple of different whole numbers"),
        ({"layers": "head"}, "layers = 'head'"),
        ({"schedule": "step"}, "schedule = 'step'"),
        ({"epochs": 0}, "epochs = 0"),
        ({"entropy": -1.0}, "entropy = -1"),
        ({"shake": -1.0}, "shake = -1"),
        ({"tensors": 1.5}, "tensors = 1.5"),
        ({"tensors": 2}, "kept = 0.1 and tensors = 2, expected one of them"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        PerturbAndRepair(**options)


def test_an_epoch_of_rni_moves_its_tensors_and_normalisation_alone():
    task = small_task("resnet")
    forget, pretrained = forget_set(task, 10), train(task, members=2)
    method = PerturbAndRepair(
        preset="rni_full", tensors=2, shaken=1, whole_epochs=1, epochs=3, layers=(), how="noise", lr=0.05
    )
    seen = []
    unlearn(pretrained, task, forget, method, evaluate=lambda e: seen.append(e.clone()) or {}, chunk=2)
    norms = {name for name in pretrained.params if "norm" in name}
    for member in range(2):
        before, moved = pretrained.params, []
        for stage in seen:
            moved.append({n for n, t in stage.params.items() if not torch.equal(t[member], before[n][member])})
            before = stage.params
        assert [len(each - norms) for each in moved] == [2, 2, 6]
        assert all(norms <= each for each in moved)


def test_classes_alike_and_no_penalty_are_plain_cross_entropy():
    task = small_task("mlp", model=None)
    forget, pretrained = forget_set(task, 10), train(task, members=2)
    problem = Problem(pretrained, task, forget, 0, "fine_tune")
    plain = EntropyKept.of(problem, 0.0, 0.0)
    index = torch.arange(8).expand(2, -1)
    loss, y = plain.of_batch(index, task.train.y[index], index)
    z = pretrained.logits(task.train.x[:8])
    torch.testing.assert_close(loss(z, y), task.outcome.loss(z, y).mean(1))
    kept = EntropyKept.of(problem, 3.0, 0.5)
    loss, _ = kept.of_batch(index, y, index)
    weights = torch.bincount(task.train.y[forget.retain]).double() ** -0.5
    expected = [torch.nn.functional.cross_entropy(z[m], y[m], weight=weights) for m in range(2)]
    torch.testing.assert_close(loss(z, y), torch.stack(expected))  # entropies are those of the start
    assert bool(
        (
            loss(2 * z, y)
            > torch.stack([torch.nn.functional.cross_entropy(2 * z[m], y[m], weight=weights) for m in range(2)])
        ).all()
    )
    lines = small_task("mlp")
    with pytest.raises(InputError, match="are of classes, and the outcome of line is 'regression'"):
        check_fits(PerturbAndRepair(preset="prmq_full"), *regression(lines))


def regression(task):
    made = ex.Task(
        name="line",
        train=(task.train.x, task.train.y.double()),
        validation=(task.validation.x, task.validation.y.double()),
        model=lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1)),
        recipe=task.recipe,
        outcome="regression",
    )
    return made.network, made, forget_set(made)


def test_what_the_model_cannot_have_is_refused_before_any_work():
    task = small_task("mlp_norm")
    forget, pretrained = forget_set(task), train(task, members=1, epochs=0)
    with pytest.raises(InputError, match=r"layers = \(2,\), and the model of small-mlp_norm has 2 layers"):
        unlearn(pretrained, task, forget, PerturbAndRepair(layers=(2,)))
    method = PerturbAndRepair(preset="kde", statistics="frozen")
    with pytest.raises(InputError, match=r"followed by a BatchNorm1d, whose stored statistics .* expected 'updated'"):
        unlearn(pretrained, task, forget, method)
    unlearn(pretrained, task, forget, dataclasses.replace(method, layers=(-1,)))
