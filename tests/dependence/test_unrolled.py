"""Krylov spaces and unrolled influence, against dense matrices and against retraining."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import expunge as ex
from expunge.core import InputError, Recipe
from expunge.dependence.curvature import damped
from expunge.dependence.krylov import krylov_basis, matrix_function
from expunge.dependence.linearised import Linearised
from expunge.dependence.unrolled import Segment, segment_plan, unrolled_removal
from expunge.papers.ascent_fails_to_forget.dependence import removal
from reference.problems import forget_set, small_task
from reference.unrolled_slow import sums, unrolled


@pytest.fixture(scope="module")
def task():
    return small_task("logistic", weight_decay=0.05)


@pytest.fixture(scope="module")
def ensemble(task):
    return ex.train(task, members=3, seed=0)


def dense(ensemble, task, positions, ridge):
    for member in range(len(ensemble)):
        _, matrix = sums(ensemble.module(member), task, positions)
        yield matrix + ridge * torch.eye(len(matrix), dtype=matrix.dtype)


@pytest.mark.parametrize(
    "function", [lambda h: 1 / h, lambda h: torch.exp(-0.3 * h), lambda h: h**0, lambda h: h.sqrt()]
)
def test_functions_of_a_matrix_equal_its_eigendecomposition(task, ensemble, function):
    linearised = Linearised(ensemble)
    positions = list(range(20))
    b = linearised.gradient(task.train.x[20:30], task.train.y[20:30])
    operator = damped(linearised, task.train.x[positions], 0.5)
    found = linearised.flatten(matrix_function(linearised, operator, b, function, steps=linearised.parameters))
    for row, start, matrix in zip(found, linearised.flatten(b), dense(ensemble, task, positions, 0.5), strict=True):
        values, vectors = torch.linalg.eigh(matrix)
        torch.testing.assert_close(row, vectors @ (function(values) * (vectors.T @ start)), rtol=1e-8, atol=1e-8)


def test_few_steps_are_exact_where_few_eigenvalues_matter(task, ensemble):
    """A start in the span of two eigenvectors needs two steps."""
    linearised = Linearised(ensemble)
    operator = damped(linearised, task.train.x[:20], 0.5)
    matrices = list(dense(ensemble, task, range(20), 0.5))
    pairs = [torch.linalg.eigh(matrix) for matrix in matrices]
    start = torch.stack([vectors[:, -1] + 2 * vectors[:, -4] for _, vectors in pairs])
    found = linearised.flatten(
        matrix_function(linearised, operator, linearised.unflatten(start), lambda h: 1 / h, steps=2)
    )
    expected = torch.stack([torch.linalg.solve(m, s) for m, s in zip(matrices, start, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_a_basis_is_orthonormal_and_holds_its_starts(task, ensemble):
    linearised = Linearised(ensemble)
    starts = [linearised.gradient(task.train.x[i : i + 5], task.train.y[i : i + 5]) for i in (0, 5)]
    operator = damped(linearised, task.train.x[10:40], 0.5)
    basis = krylov_basis(linearised, operator, starts, 8)
    assert basis.shape == (3, 8, linearised.parameters)
    torch.testing.assert_close(basis @ basis.transpose(1, 2), torch.eye(8, dtype=torch.float64).expand(3, 8, 8))
    products = [linearised.flatten(operator(start)) for start in starts]
    for vector in [*map(linearised.flatten, starts), *products]:
        inside = torch.einsum("mkp,mp->mk", basis, vector)
        torch.testing.assert_close(torch.einsum("mkp,mk->mp", basis, inside), vector, rtol=1e-7, atol=1e-8)


def test_a_repeated_start_adds_no_direction(task, ensemble):
    linearised = Linearised(ensemble)
    start = linearised.gradient(task.train.x[:5], task.train.y[:5])
    operator = damped(linearised, task.train.x[10:40], 0.5)
    basis = krylov_basis(linearised, operator, [start, start], 4)
    assert float(basis[:, 1].abs().max()) == 0
    assert bool((basis[:, 2].norm(dim=1) > 0.99).all())


@pytest.mark.parametrize("name", ["logistic", "mlp", "cnn"])
def test_unrolled_removal_equals_the_dense_recursion(name):
    task = small_task(name, n=30, weight_decay=0.02)
    forget = forget_set(task, 4)
    early, late = (ex.train(task, members=2, seed=0, epochs=epochs) for epochs in (1, 3))
    segments = [Segment(early, 0.7), Segment(late, 2.5)]
    found = Linearised(late).flatten(unrolled_removal(segments, task, forget, steps=400))
    for member in range(2):
        modules = [state.module(member).double() for state in (early, late)]
        torch.testing.assert_close(found[member], unrolled(modules, [0.7, 2.5], task, forget), rtol=1e-6, atol=1e-8)


def test_time_splits_anywhere_while_the_state_stays(task, ensemble):
    forget = forget_set(task)
    one = unrolled_removal([Segment(ensemble, 3.0)], task, forget, steps=30)
    two = unrolled_removal([Segment(ensemble, 1.2), Segment(ensemble, 1.8)], task, forget, steps=30)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-8, atol=1e-10)


def test_infinite_time_is_the_newton_step_on_the_retain_objective(task, ensemble):
    forget = forget_set(task)
    endless = unrolled_removal([Segment(ensemble, math.inf)], task, forget, steps=30)
    newton = removal(ensemble, task, forget, objective="mean", solver="dense").direction
    for name in endless:
        torch.testing.assert_close(endless[name], newton[name], rtol=1e-6, atol=1e-8)


def test_a_member_does_not_depend_on_its_neighbours(task, ensemble):
    forget = forget_set(task)
    together = unrolled_removal([Segment(ensemble, 2.0)], task, forget)
    alone = unrolled_removal([Segment(ensemble[1:2], 2.0)], task, forget)
    for name in together:
        torch.testing.assert_close(together[name][1:2], alone[name], rtol=1e-9, atol=1e-12)


def test_the_plan_covers_the_time_of_the_recipe():
    recipe = Recipe(epochs=12, lr=0.3, batch_size=10, momentum=0.8)
    plan = segment_plan(recipe, 95)
    rates = [recipe.rate((step + 0.5) / 10) for step in range(120)]
    assert sum(time for _, time in plan) == pytest.approx(sum(rates) / 0.2)
    assert [epoch for epoch, _ in plan] == sorted({epoch for epoch, _ in plan})
    assert plan[-1][0] == 12


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_short_recipes_have_a_plan(epochs):
    recipe = Recipe(epochs=epochs, peak_epoch=min(0.5, epochs))
    plan = segment_plan(recipe, 100)
    assert plan[-1][0] == epochs
    assert all(1 <= epoch <= epochs and time > 0 for epoch, time in plan)


def test_other_optimisers_are_refused():
    with pytest.raises(InputError, match="optimizer = 'adam', expected 'sgd'"):
        segment_plan(Recipe(optimizer="adam"), 100)


def test_segments_must_fit(task, ensemble):
    forget = forget_set(task)
    with pytest.raises(InputError, match="segments is empty"):
        unrolled_removal([], task, forget)
    with pytest.raises(InputError, match="different members"):
        unrolled_removal([Segment(ensemble[0:2], 1.0), Segment(ensemble[1:3], 1.0)], task, forget)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["random", "cluster"])
def test_it_predicts_what_retraining_does_to_margins(kind):
    """On real data, without a fitted constant: mean change of each forget example's margin, 30 members a side."""
    task = ex.tasks.digits(epochs=15)
    forget = ex.tasks.random_forget_set(task, 70) if kind == "random" else ex.tasks.cluster(task, 70, seed=0)
    pretrained, oracles = ex.train(task, members=30, seed=0), ex.train(task, without=forget, members=30, seed=1)
    plan = segment_plan(task.recipe, len(task.train))
    segments = [Segment(ex.train(task, members=6, seed=0, epochs=epoch), time) for epoch, time in plan]
    x, y = task.train.x[forget.indices], task.train.y[forget.indices]
    moved = unrolled_removal(segments, task, forget)
    predicted = Linearised(segments[-1].ensemble).margins(x, y, moved)[1].mean(0).numpy()
    true = (oracles.margins(x, y).mean(0) - pretrained.margins(x, y).mean(0)).numpy()
    assert np.corrcoef(predicted, true)[0, 1] > 0.8
    assert 0.6 < np.polyfit(predicted, true, 1)[0] < 1.5
