"""Influence is exact where the answer is known: ridge and logistic regression; elsewhere it equals dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dependence.common import LinearRegression, LogisticRegression, modules, of_weights, trained
from expunge.core import DivergedError, ForgetSet, InputError, Recipe
from expunge.dependence.kernel import Kernel
from expunge.dependence.losses import SquaredError
from expunge.dependence.ridge import training_ridge
from expunge.ensembles import train
from expunge.papers.ascent_fails_to_forget.dependence import removal
from expunge.papers.ascent_fails_to_forget.theory.logistic import logistic_problem
from expunge.papers.ascent_fails_to_forget.theory.ridge import Ridge, ridge_problem
from reference.influence_slow import gauss_newton, margin_curvature, margin_gradients, removal_slow
from reference.problems import forget_set, small_task

FORGET = np.array([3, 7, 20, 21, 40])


def ridge_ensemble():
    problem = ridge_problem(seed=1)
    data = torch.as_tensor(problem.x), torch.as_tensor(problem.y)
    return problem, of_weights(LinearRegression(8), problem.solve()[None]), data


@pytest.mark.parametrize("solver", ["dense", "cg"])
def test_ridge_is_exact(solver):
    problem, ensemble, data = ridge_ensemble()
    options = {
        "damping": problem.ridge,
        "solver": solver,
        "iterations": 200,
        "tolerance": 1e-13,
        "loss": SquaredError(),
    }
    newton = removal(ensemble, data, FORGET, order="newton", **options)
    first = removal(ensemble, data, FORGET, order="first", **options)
    w = problem.solve()
    np.testing.assert_allclose(newton.direction["linear.weight"][0, 0], problem.oracle(FORGET) - w, rtol=1e-8)
    np.testing.assert_allclose(first.direction["linear.weight"][0, 0], problem.influence(FORGET) - w, rtol=1e-8)
    np.testing.assert_allclose(
        newton.outputs(data[0])[0, :, 0], problem.x @ (problem.oracle(FORGET) - w), rtol=1e-7, atol=1e-12
    )
    assert float(newton.residual.max()) < 1e-12


def test_the_kernel_is_exact_on_ridge_regression():
    problem, ensemble, data = ridge_ensemble()
    kernel = Kernel(ensemble, data, damping=problem.ridge, loss=SquaredError())
    w = problem.solve()
    for order, target in (("newton", problem.oracle(FORGET)), ("first", problem.influence(FORGET))):
        np.testing.assert_allclose(kernel.removal(FORGET, order=order)[0], problem.x @ (target - w), rtol=1e-8)
        np.testing.assert_allclose(
            kernel.direction(FORGET, order=order)["linear.weight"][0, 0], target - w, rtol=1e-8, atol=1e-12
        )


def test_first_order_entries_are_the_derivatives_of_leaving_one_out():
    problem, ensemble, data = ridge_ensemble()
    h = 1e-5
    for j in (0, 5, 33):
        weights = np.ones(len(problem.x))
        weights[j] = 1 - h
        less = problem.solve(weights)
        weights[j] = 1 + h
        derivative = (less - problem.solve(weights)) / (2 * h)
        found = removal(ensemble, data, [j], order="first", damping=problem.ridge, loss=SquaredError())
        np.testing.assert_allclose(found.direction["linear.weight"][0, 0], derivative, rtol=1e-6)


def test_the_mean_objective_gives_the_oracle_of_a_recipe_with_weight_decay():
    # Mean loss plus decay / 2 |w|^2 on R is the sum with ridge decay |R|: the ridge shrinks with the examples.
    decay = 0.05
    base = ridge_problem(seed=2)
    problem = Ridge(base.x, base.y, decay * len(base.x))
    data = torch.as_tensor(base.x), torch.as_tensor(base.y)
    ensemble = of_weights(LinearRegression(8), problem.solve()[None])
    found = removal(ensemble, data, FORGET, objective="mean", decay=decay, loss=SquaredError())
    rest = np.setdiff1d(np.arange(len(base.x)), FORGET)
    oracle = Ridge(base.x[rest], base.y[rest], decay * len(rest)).solve()
    np.testing.assert_allclose(found.direction["linear.weight"][0, 0], oracle - problem.solve(), rtol=1e-9)


@pytest.mark.parametrize("order", ["first", "newton"])
def test_logistic_regression_equals_the_closed_forms(order):
    problem = logistic_problem(seed=3)
    w = problem.solve()
    y = torch.as_tensor((problem.y + 1) / 2).long()
    data = torch.as_tensor(problem.x), y
    ensemble = of_weights(LogisticRegression(6), w[None])
    target = problem.influence(FORGET) if order == "first" else problem.newton(FORGET)
    found = removal(ensemble, data, FORGET, order=order, damping=problem.ridge)
    np.testing.assert_allclose(found.direction["linear.weight"][0, 0], target - w, rtol=1e-8, atol=1e-12)
    kernel = Kernel(ensemble, data, damping=problem.ridge)
    np.testing.assert_allclose(
        kernel.removal(FORGET, order=order)[0], (problem.x @ (target - w)) * problem.y, atol=1e-9
    )
    # And the Newton step is close to retraining itself, closer than the first order.
    oracle = problem.oracle(FORGET)
    if order == "newton":
        assert np.abs(target - oracle).max() < 0.8 * np.abs(problem.influence(FORGET) - oracle).max()


@pytest.mark.parametrize("order", ["first", "newton"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
def test_networks_equal_dense_algebra(name, order):
    task, ensemble = trained(name)
    x, y, index = task.train.x, task.train.y, torch.tensor([1, 4, 9, 30])
    ridge = 50 * task.recipe.weight_decay + 0.3
    found = removal(ensemble, task, index, order=order, damping=0.3, solver="cg", iterations=2000, tolerance=1e-11)
    kernel = Kernel(ensemble, task, damping=0.3)
    seen = kernel.removal(index, order=order)
    weights = kernel.linearised.flatten(kernel.direction(index, order=order))
    both = torch.cat([x, task.validation.x]), torch.cat([y, task.validation.y])
    for member, module in enumerate(modules(ensemble)):
        whole, own = gauss_newton(module, x), gauss_newton(module, x[index])
        expected = removal_slow(module, x, y, index, ridge, order, whole, own)
        rows = found.linearised.flatten(found.direction)[member]
        torch.testing.assert_close(rows, expected, rtol=1e-6, atol=1e-8)
        g = margin_gradients(module, *both)
        torch.testing.assert_close(found.margins(*both)[member], g @ expected, rtol=1e-6, atol=1e-7)
        # The kernel has the curvature through the margin.
        whole, own = margin_curvature(module, x, y), margin_curvature(module, x[index], y[index])
        expected = removal_slow(module, x, y, index, ridge, order, whole, own)
        torch.testing.assert_close(seen[member], g @ expected, rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(weights[member], expected, rtol=1e-7, atol=1e-8)


def test_members_do_not_mix_and_a_broken_one_reads_nan():
    task, ensemble = trained("mlp")
    broken = ensemble.clone()
    next(iter(broken.params.values()))[1] = float("nan")
    x, y = task.validation.x, task.validation.y
    sound, other = removal(ensemble, task, [1, 2]), removal(broken, task, [1, 2])
    assert other.good.tolist() == [True, False, True]
    torch.testing.assert_close(other.margins(x, y)[[0, 2]], sound.margins(x, y)[[0, 2]], rtol=1e-10, atol=1e-12)
    for values in (other.margins(x, y), other.nonlinear_margins(x, y), other.length, Kernel(broken, task).removal([1])):
        assert bool(values[1].isnan().all())
        assert not bool(values[[0, 2]].isnan().any())
    one = removal(ensemble, task, [1, 2], members=1)
    torch.testing.assert_close(one.margins(x, y)[0], sound.margins(x, y)[0])


def test_the_order_of_examples_does_not_matter():
    task, ensemble = trained("mlp")
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    x, y = task.train.x, task.train.y
    place = torch.argsort(order)
    a = Kernel(ensemble, (x, y), damping=1.0).removal([3, 8])
    b = Kernel(ensemble, (x[order], y[order]), damping=1.0).removal(place[torch.tensor([3, 8])])
    torch.testing.assert_close(b, a[:, order])


def test_moving_the_weights_agrees_with_the_linear_prediction_for_small_moves():
    task, ensemble = trained("mlp")
    found = removal(ensemble, task, [5], order="first", damping=1000.0)
    x, y = task.train.x, task.train.y
    torch.testing.assert_close(found.nonlinear_margins(x, y), found.margins(x, y), rtol=2e-2, atol=1e-6)
    assert float(found.length.min()) > 0


def test_predicted_margins_follow_retraining():
    # Trained networks: the predicted change of the margin of each removed example against that of retraining.
    task = small_task("mlp", n=50, epochs=40, lr=0.1)
    pretrained = train(task, members=30, seed=0)
    kernel = Kernel(pretrained, task, damping=training_ridge(task.recipe, 50))
    predicted, true = [], []
    for seed in range(8):
        forget = forget_set(task, size=6, seed=seed)
        x, y = task.train.x[forget.indices], task.train.y[forget.indices]
        oracles = train(task, without=forget, members=30, seed=1)
        true += (oracles.margins(x, y).mean(0) - pretrained.margins(x, y).mean(0)).tolist()
        predicted += kernel.removal(forget)[:, forget.indices].mean(0).tolist()
    assert np.corrcoef(predicted, true)[0, 1] > 0.8
    assert 0.5 < np.mean(predicted) / np.mean(true) < 2


def test_training_ridge():
    recipe = Recipe(epochs=4, batch_size=10, lr=0.5, momentum=0.0, schedule="constant")
    assert training_ridge(recipe, 100) == pytest.approx(100 / (4 * 10 * 0.5))
    with pytest.raises(InputError, match="optimizer = 'adam'"):
        training_ridge(Recipe(optimizer="adam"), 100)


def test_bad_input_is_refused_with_what_to_change():
    task, ensemble = trained("mlp")
    x, y = task.train.x, task.train.y
    with pytest.raises(InputError, match="at least one position"):
        removal(ensemble, task, [])
    with pytest.raises(InputError, match="positions 0 to 49"):
        removal(ensemble, task, [50])
    with pytest.raises(InputError, match="names a position twice"):
        removal(ensemble, task, [1, 1])
    with pytest.raises(InputError, match="nothing would be left"):
        removal(ensemble, task, np.arange(50))
    with pytest.raises(InputError, match="weight decay and damping are both 0"):
        removal(ensemble, (x, y), [1])
    with pytest.raises(InputError, match="expected a Task or a pair"):
        removal(ensemble, x, [1])
    with pytest.raises(InputError, match="expected the same number"):
        removal(ensemble, (x, y[:3]), [1])
    with pytest.raises(InputError, match="made for 9 training examples"):
        removal(ensemble, task, ForgetSet("other", np.array([1]), 9, "elsewhere"))
    with pytest.raises(InputError, match="order = 'second'"):
        removal(ensemble, task, [1], order="second")


def test_untrained_and_diverged_ensembles_are_refused():
    task, _ = trained("mlp")
    with pytest.raises(InputError, match="no member is better than guessing"):
        removal(train(task, members=2, seed=0, epochs=0), task, [1])
    broken = trained("mlp")[1].clone()
    for tensor in broken.params.values():
        tensor.fill_(float("inf"))
    with pytest.raises(DivergedError, match="all 3 members"):
        Kernel(broken, task)


def test_too_large_for_dense_algebra_is_refused(monkeypatch):
    def wide() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 2000), nn.ReLU(), nn.Linear(2000, 3))

    task = small_task("mlp", model=wide, epochs=10, lr=0.01)
    ensemble = train(task, members=1, seed=0)
    with pytest.raises(InputError, match=r"20003 parameters takes 3\.0 GiB.*solver='cg'"):
        removal(ensemble, task, [1], solver="dense")
    monkeypatch.setattr("expunge.dependence.kernel.KEEP_BYTES", 1000)
    with pytest.raises(InputError, match="use fewer members, or Projection"):
        Kernel(ensemble, task)
