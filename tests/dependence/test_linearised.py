"""Products of the stack equal dense Jacobians of single modules, finite differences, and do not mix members."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dependence.common import modules, random_direction, trained
from expunge.core import InputError
from expunge.core.seeds import generator
from expunge.dependence import Linearised
from expunge.dependence.linearised import combine, dot, margin_cotangent
from expunge.ensembles import build_network, train
from expunge.ensembles.example_gradients import example_gradients
from reference.influence_slow import gauss_newton, jacobian, loss_gradients, margin_gradients
from reference.modules import task_of
from reference.problems import small_task

STACKS = [("logistic", "vmap"), ("mlp", "layers"), ("mlp", "vmap"), ("cnn", "layers"), ("resnet", "layers")]
STACKS += [("resnet", "vmap"), ("mlp_norm", "layers")]


@pytest.mark.parametrize(("name", "kind"), STACKS)
def test_products_equal_dense_jacobians_of_single_modules(name, kind):
    task, ensemble = trained(name, kind)
    assert ensemble.network.kind == kind
    x, y = task.train.x[:11], task.train.y[:11]
    linearised = Linearised(ensemble)
    v = random_direction(linearised)
    rows = linearised.flatten(v)
    cotangent = torch.randn(3, 11, 3, generator=generator(0, "c"), dtype=torch.float64)
    weights = torch.rand(3, 11, generator=generator(0, "w"), dtype=torch.float64)
    logits, moved = linearised.outputs(x, v)
    margins, margins_moved = linearised.margins(x, y, v)
    pulled = linearised.flatten(linearised.pullback(x, cotangent))
    gradient = linearised.flatten(linearised.gradient(x, y))
    some = linearised.flatten(linearised.gradient(x, y, weights))
    curved = linearised.flatten(linearised.curvature(x, v))
    some_curved = linearised.flatten(linearised.curvature(x, v, weights[0]))
    makers = (margin_cotangent, linearised.loss.gradient)
    singles = [
        [
            torch.cat([f.left for f in example_gradients(ensemble, k, x, y, make, compress=False).values()], 1)
            for k in range(3)
        ]
        for make in makers
    ]
    for member, module in enumerate(modules(ensemble)):
        j = jacobian(module, x)
        g, m = loss_gradients(module, x, y), margin_gradients(module, x, y)
        own = rows[member]
        close = {"rtol": 1e-9, "atol": 1e-10}
        torch.testing.assert_close(logits[member], module(x).detach(), **close)
        torch.testing.assert_close(moved[member], j @ own, **close)
        torch.testing.assert_close(margins_moved[member], m @ own, **close)
        torch.testing.assert_close(pulled[member], torch.einsum("nk,nkp->p", cotangent[member], j), **close)
        torch.testing.assert_close(gradient[member], g.sum(0), **close)
        torch.testing.assert_close(some[member], weights[member] @ g, **close)
        torch.testing.assert_close(curved[member], gauss_newton(module, x) @ own, **close)
        dense = sum(w * gauss_newton(module, x[i : i + 1]) for i, w in enumerate(weights[0]))
        torch.testing.assert_close(some_curved[member], dense @ own, **close)
        torch.testing.assert_close(singles[0][member], m, **close)
        torch.testing.assert_close(singles[1][member], g, **close)
    assert margins.shape == (3, 11)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
def test_finite_differences(name):
    task, ensemble = trained(name)
    x, y = task.train.x, task.train.y
    linearised = Linearised(ensemble)
    v = random_direction(linearised, 3)
    h = 1e-6

    def at(step):
        params = {**ensemble.params, **combine(linearised.params, v, step)}
        return ensemble.with_state(params, ensemble.buffers)

    _, moved = linearised.margins(x, y, v)
    difference = (at(h).margins(x, y) - at(-h).margins(x, y)) / (2 * h)
    # A ReLU that switches within the step makes a difference of its own; such examples are rare.
    apart = (difference - moved).abs() > 1e-4 * (1 + moved.abs())
    assert float(apart.double().mean()) < 0.02
    loss = [torch.nn.functional.cross_entropy(z, y, reduction="sum") for z in at(h).logits(x)]
    less = [torch.nn.functional.cross_entropy(z, y, reduction="sum") for z in at(-h).logits(x)]
    slope = torch.stack([(a - b) / (2 * h) for a, b in zip(loss, less, strict=True)])
    torch.testing.assert_close(slope, dot(linearised.gradient(x, y), v), rtol=1e-3, atol=1e-3)


def test_a_member_does_not_depend_on_those_beside_it_nor_on_batches():
    task, ensemble = trained("resnet")
    x, y = task.train.x, task.train.y
    whole = Linearised(ensemble)
    v = random_direction(whole)
    expected = whole.flatten(whole.curvature(x, v)), whole.flatten(whole.gradient(x, y)), whole.margins(x, y, v)[1]
    tiny = Linearised(ensemble, budget=1)
    torch.testing.assert_close(tiny.flatten(tiny.curvature(x, v)), expected[0], rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(tiny.flatten(tiny.gradient(x, y)), expected[1], rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(tiny.margins(x, y, v)[1], expected[2], rtol=1e-10, atol=1e-11)
    for member in range(3):
        alone = Linearised(ensemble[member : member + 1])
        own = {name: t[member : member + 1] for name, t in v.items()}
        torch.testing.assert_close(alone.flatten(alone.curvature(x, own))[0], expected[0][member])
        torch.testing.assert_close(alone.margins(x, y, own)[1][0], expected[2][member])


def test_a_broken_neighbour_changes_nothing():
    task, ensemble = trained("mlp")
    broken = ensemble.clone()
    next(iter(broken.params.values()))[1] = float("nan")
    x, y = task.train.x, task.train.y
    a, b = Linearised(ensemble), Linearised(broken)
    rows, other = a.flatten(a.gradient(x, y)), b.flatten(b.gradient(x, y))
    assert torch.equal(rows[[0, 2]], other[[0, 2]])
    assert bool(other[1].isnan().any())


def test_an_example_does_not_depend_on_the_other_examples():
    # Batch norm is frozen here: with statistics of the batch this would fail.
    task, ensemble = trained("mlp_norm")
    x, y = task.train.x, task.train.y
    linearised = Linearised(ensemble)
    v = random_direction(linearised)
    torch.testing.assert_close(linearised.margins(x[:4], y[:4], v)[1], linearised.margins(x, y, v)[1][:, :4])


def test_parameters_that_are_not_trained_stay_fixed():
    def half() -> nn.Module:
        module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        module[0].requires_grad_(False)
        return module

    task = small_task("mlp", model=half)
    ensemble = train(task, members=2, seed=0)
    linearised = Linearised(ensemble)
    assert set(linearised.params) == {"2.weight", "2.bias"}
    assert linearised.parameters == 27
    g = linearised.flatten(linearised.gradient(task.train.x, task.train.y))
    expected = loss_gradients(ensemble.module(1), task.train.x, task.train.y).sum(0)
    torch.testing.assert_close(g[1], expected[-27:] if len(expected) > 27 else expected)


def test_statistics_of_the_batch_are_refused():
    def norm() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 3))

    task = small_task("mlp", model=norm)
    ensemble = train(task, members=2, seed=0, network=build_network(task, "vmap"))
    with pytest.raises(InputError, match=r"layer '1' is a BatchNorm1d without running statistics"):
        Linearised(ensemble)


def test_no_examples_are_refused():
    task, ensemble = trained("mlp")
    linearised = Linearised(ensemble)
    with pytest.raises(InputError, match="x has no examples"):
        linearised.gradient(task.train.x[:0], task.train.y[:0])
    with pytest.raises(InputError, match="x has no examples"):
        example_gradients(ensemble, 0, task.train.x[:0], task.train.y[:0], margin_cotangent)


@pytest.mark.parametrize("name", ["encoder", "lstm"])
def test_models_that_run_one_at_a_time_are_linearised(name):
    task = task_of(name)
    ensemble = train(task, members=2, seed=0)
    linearised = Linearised(ensemble)
    g = torch.Generator().manual_seed(0)
    direction = {k: torch.randn(t.shape, generator=g, dtype=t.dtype) for k, t in linearised.params.items()}
    x, step = task.validation.x, 1e-6
    there = ({k: t + sign * step * direction[k] for k, t in linearised.params.items()} for sign in (1, -1))
    with torch.no_grad():
        up, down = (linearised.forward(params, x) for params in there)
    _, moved = linearised.outputs(x, direction)
    torch.testing.assert_close(moved, (up - down) / (2 * step), rtol=1e-5, atol=1e-7)
    assert torch.backends.mha.get_fastpath_enabled()
