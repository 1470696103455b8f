"""Cross-influence, leverage, canonical correlations: against dense matrices, closed forms and known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dependence.common import LinearRegression, modules, of_weights, trained
from expunge.core import InputError
from expunge.dependence.cross_influence import blocks, largest_singular_value
from expunge.dependence.inputs import complement
from expunge.dependence.kernel import Kernel
from expunge.dependence.leverage import canonical_correlations, canonical_from_blocks, leverage
from expunge.dependence.linearised import Linearised
from expunge.dependence.losses import SquaredError
from expunge.papers.ascent_fails_to_forget.dependence import CrossInfluence
from expunge.papers.ascent_fails_to_forget.theory.ridge import Ridge, ridge_problem
from reference.influence_slow import (
    gauss_newton,
    loss_gradients,
    margin_curvature,
    margin_gradients,
)

INDEX = torch.tensor([2, 5, 11, 30, 31])
REST = complement(INDEX, 50)


def kernel_of(x, y, ridge):
    """The kernel of a ridge problem at its solution."""
    problem = Ridge(x, y, ridge)
    ensemble = of_weights(LinearRegression(x.shape[1]), problem.solve()[None])
    return Kernel(ensemble, (torch.as_tensor(x), torch.as_tensor(y)), damping=ridge, loss=SquaredError())


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
def test_blocks_equal_dense_matrices(name):
    task, ensemble = trained(name)
    x, y = task.train.x, task.train.y
    kernel = Kernel(ensemble, task, damping=0.2)
    for member, module in zip(kernel, modules(ensemble), strict=True):
        matrix = margin_curvature(module, x, y)
        matrix.diagonal().add_(kernel.ridge)
        m, g = margin_gradients(module, x, y), loss_gradients(module, x[INDEX], y[INDEX])
        v = margin_gradients(module, task.validation.x, task.validation.y)
        solved = torch.linalg.solve(matrix, g.T)
        found = blocks(member, INDEX)
        close = {"rtol": 1e-7, "atol": 1e-8}
        torch.testing.assert_close(found.retain, m[REST] @ solved, **close)
        torch.testing.assert_close(found.forget, m[INDEX] @ solved, **close)
        torch.testing.assert_close(found.others, v @ solved, **close)
        norm = float(torch.linalg.matrix_norm(m[REST] @ solved, ord=2))
        assert largest_singular_value(found.retain) == pytest.approx(norm, rel=1e-7)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
def test_the_matrix_free_norm_equals_that_of_the_explicit_block(name):
    task, ensemble = trained(name)
    x, y = task.train.x, task.train.y
    operator = CrossInfluence(
        Linearised(ensemble), x, 5.0, (x[REST], y[REST]), (x[INDEX], y[INDEX]), iterations=2000, tolerance=1e-7
    )
    found = operator.spectral_norm(steps=10, change=1e-8)
    effect, _ = operator.times(torch.ones(3, 5, dtype=torch.float64))
    few = operator.spectral_norm(steps=1)
    for member, module in enumerate(modules(ensemble)):
        matrix = gauss_newton(module, x)
        matrix.diagonal().add_(5.0)
        g = loss_gradients(module, x[INDEX], y[INDEX])
        block = margin_gradients(module, x[REST], y[REST]) @ torch.linalg.solve(matrix, g.T)
        norm = float(torch.linalg.matrix_norm(block, ord=2))
        assert float(found.norm[member]) == pytest.approx(norm, rel=1e-5)
        torch.testing.assert_close(effect[member], block.sum(1), rtol=1e-5, atol=1e-7)
        # A lower bound at every step.
        assert float(few.norm[member]) <= norm * (1 + 1e-9)
    assert found.steps <= 5
    assert float(found.residual.max()) <= 1e-7


def test_the_transpose_is_the_transpose():
    task, ensemble = trained("mlp")
    x, y = task.train.x, task.train.y
    linearised = Linearised(ensemble)
    operator = CrossInfluence(
        linearised, x, 0.7, (x[REST], y[REST]), (x[INDEX], y[INDEX]), iterations=500, tolerance=1e-12
    )
    g = torch.Generator().manual_seed(0)
    v = torch.randn(3, 5, generator=g, dtype=torch.float64)
    u = torch.randn(3, 45, generator=g, dtype=torch.float64)
    left, right = (operator.times(v)[0] * u).sum(1), (operator.transposed(u)[0] * v).sum(1)
    torch.testing.assert_close(left, right, rtol=1e-8, atol=1e-10)


def test_ridge_entries_are_the_derivatives_of_leaving_one_out():
    problem = ridge_problem(seed=4)
    member = kernel_of(problem.x, problem.y, problem.ridge).members[0]
    found = blocks(member, torch.tensor([5, 9]))
    rest = np.setdiff1d(np.arange(60), [5, 9])
    h = 1e-5
    for column, j in enumerate((5, 9)):
        up, down = np.ones(60), np.ones(60)
        up[j], down[j] = 1 + h, 1 - h
        derivative = problem.x @ (problem.solve(down) - problem.solve(up)) / (2 * h)
        np.testing.assert_allclose(found.retain[:, column], derivative[rest], rtol=1e-5, atol=1e-9)


def test_independent_forget_and_retain_sets_do_not_influence_one_another():
    rng = np.random.default_rng(0)
    x = np.zeros((20, 6))
    x[:6, :2], x[6:, 2:] = rng.normal(size=(6, 2)), rng.normal(size=(14, 4))
    member = kernel_of(x, rng.normal(size=20), 0.5).members[0]
    index = torch.arange(6)
    assert float(blocks(member, index).retain.abs().max()) < 1e-12
    assert float(blocks(member, index).forget.abs().max()) > 0.01
    # Numbers of size 1e-8 are what the square root leaves of rounding.
    assert float(canonical_correlations(member, index).max()) < 1e-6


def test_duplicates_in_the_retain_set_have_canonical_correlation_near_one():
    # More parameters than examples: without twins the directions of F are partly their own.
    rng = np.random.default_rng(0)
    own = rng.normal(size=(5, 40))
    other = rng.normal(size=(12, 40))
    y = rng.normal(size=22)
    alone = kernel_of(np.vstack([own, other]), y[:17], 1.0).members[0]
    twins = kernel_of(np.vstack([own, other, own]), y, 1.0).members[0]
    index = torch.arange(5)
    for epsilon, floor in ((1e-2, 0.95), (1e-4, 0.9995)):
        assert float(canonical_correlations(twins, index, epsilon).min()) > floor
    assert float((canonical_correlations(alone, index, 1e-2) ** 2).mean()) < 0.5
    # The ridge decides what counts as spanned: a large one hides even twins.
    assert float(canonical_correlations(twins, index, 100.0).max()) < 0.05


def test_without_a_ridge_the_canonical_correlation_is_one_whatever_the_data():
    # More retained examples than parameters: why epsilon has a default and is not 0.
    problem = ridge_problem(seed=1)
    member = kernel_of(problem.x, problem.y, problem.ridge).members[0]
    assert float(canonical_correlations(member, torch.arange(4), 1e-9).min()) > 0.9999


def test_canonical_correlations_equal_the_dense_definition():
    task, ensemble = trained("mlp")
    for member in Kernel(ensemble, task, damping=0.2):
        root = member.weight[:50].sqrt()
        h = root[:, None] * member.columns(torch.arange(50))[:50] * root
        assert float(torch.linalg.eigvalsh(h)[-1]) < 1
        for epsilon in (0.01, 0.3):
            full = h + epsilon * torch.eye(50, dtype=h.dtype)

            def power(matrix):
                values, vectors = torch.linalg.eigh(matrix)
                return vectors @ torch.diag(values**-0.5) @ vectors.T

            whitened = power(full[REST][:, REST]) @ full[REST][:, INDEX] @ power(full[INDEX][:, INDEX])
            expected = torch.linalg.svdvals(whitened)
            torch.testing.assert_close(canonical_correlations(member, INDEX, epsilon), expected, rtol=1e-6, atol=1e-8)
            inverse = torch.linalg.inv(full)[INDEX][:, INDEX]
            own = h[INDEX][:, INDEX]
            torch.testing.assert_close(canonical_from_blocks(own, inverse, epsilon), expected, rtol=1e-6, atol=1e-8)
            torch.testing.assert_close(member.inverse_hat(INDEX, epsilon), inverse, rtol=1e-8, atol=1e-9)


def test_leverage_equals_dense_algebra_and_bounds_the_newton_step():
    task, ensemble = trained("mlp")
    x, y = task.train.x, task.train.y
    for member, module in zip(Kernel(ensemble, task, damping=0.2), modules(ensemble), strict=True):
        matrix, own = margin_curvature(module, x, y), margin_curvature(module, x[INDEX], y[INDEX])
        matrix.diagonal().add_(member.ridge)
        found = leverage(member, INDEX)
        values = torch.linalg.eigvals(torch.linalg.solve(matrix, own)).real
        assert found.total == pytest.approx(float(values.sum()), rel=1e-8)
        assert found.kappa == pytest.approx(float(values.max()), rel=1e-8)
        assert 0 <= found.kappa < 1
        assert found.amplification == pytest.approx(1 / (1 - found.kappa))
        # In the metric of H the Newton step is at most 1 / (1 - kappa) times the first-order step.
        g = loss_gradients(module, x[INDEX], y[INDEX]).sum(0)
        first, newton = torch.linalg.solve(matrix, g), torch.linalg.solve(matrix - own, g)
        assert float(newton @ matrix @ newton) <= found.amplification**2 * float(first @ matrix @ first) * (1 + 1e-9)


def test_all_examples_together_have_the_effective_number_of_parameters():
    problem = ridge_problem(seed=1)
    member = kernel_of(problem.x, problem.y, problem.ridge).members[0]
    values = np.linalg.eigvalsh(problem.x.T @ problem.x)
    assert leverage(member, torch.arange(60)).total == pytest.approx((values / (values + 1)).sum())


def test_blocks_follow_a_permutation_of_the_examples():
    task, ensemble = trained("mlp")
    x, y = task.train.x, task.train.y
    order = torch.randperm(50, generator=torch.Generator().manual_seed(3))
    place = torch.argsort(order)
    one = Kernel(ensemble, (x, y), damping=0.5).members[1]
    other = Kernel(ensemble, (x[order], y[order]), damping=0.5).members[1]
    torch.testing.assert_close(other.columns(place[INDEX])[place], one.columns(INDEX))
    torch.testing.assert_close(canonical_correlations(other, place[INDEX]), canonical_correlations(one, INDEX))
    assert leverage(other, place[INDEX]).kappa == pytest.approx(leverage(one, INDEX).kappa)


def test_products_with_the_metric():
    task, ensemble = trained("mlp")
    member = Kernel(ensemble, task, damping=0.5).members[0]
    v = torch.randn(70, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(member.product(v), member.columns(torch.arange(70)) @ v)


def test_bad_input_is_refused():
    task, ensemble = trained("mlp")
    x, y = task.train.x, task.train.y
    with pytest.raises(InputError, match="columns have 0 inputs"):
        CrossInfluence(Linearised(ensemble), x, 0.7, (x, y), (x[:0], y[:0]))
    operator = CrossInfluence(Linearised(ensemble), x, 0.7, (x, y), (x, y))
    with pytest.raises(InputError, match="steps = 0"):
        operator.spectral_norm(steps=0)
    with pytest.raises(InputError, match="at least one row"):
        largest_singular_value(torch.zeros(0, 3))
    with pytest.raises(InputError, match="epsilon = 0"):
        canonical_correlations(Kernel(ensemble, task).members[0], INDEX, 0.0)
