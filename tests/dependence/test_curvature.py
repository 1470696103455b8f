"""Conjugate gradients solve what dense algebra solves, member by member; the dense curvature is the obvious one."""

from __future__ import annotations

import pytest
import torch

from dependence.common import modules, random_direction, trained
from expunge.core import InputError
from expunge.dependence import Linearised, damped
from expunge.papers.ascent_fails_to_forget.dependence import conjugate_gradients, dense_curvature
from reference.influence_slow import gauss_newton

RIDGE = 0.5


@pytest.mark.parametrize("name", ["logistic", "mlp", "mlp_norm"])
def test_dense_curvature_equals_autograd(name):
    task, ensemble = trained(name)
    found = dense_curvature(Linearised(ensemble), task.train.x)
    for member, module in enumerate(modules(ensemble)):
        torch.testing.assert_close(found[member], gauss_newton(module, task.train.x), rtol=1e-9, atol=1e-10)
    assert bool((torch.linalg.eigvalsh(found) > -1e-9).all())


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
def test_conjugate_gradients_solve_the_dense_system(name):
    task, ensemble = trained(name)
    linearised = Linearised(ensemble)
    b = random_direction(linearised)
    found = conjugate_gradients(damped(linearised, task.train.x, 0.7), b, iterations=1000, tolerance=1e-10)
    rows = linearised.flatten(found.x)
    for member, module in enumerate(modules(ensemble)):
        matrix = gauss_newton(module, task.train.x)
        matrix.diagonal().add_(0.7)
        expected = torch.linalg.solve(matrix, linearised.flatten(b)[member])
        torch.testing.assert_close(rows[member], expected, rtol=1e-6, atol=1e-8)
    assert float(found.residual.max()) <= 1e-10


def alone_and_together(tolerance):
    """What conjugate gradients find for the whole stack, and for each member alone."""
    task, ensemble = trained("mlp")
    whole = Linearised(ensemble)
    b = random_direction(whole)
    found = conjugate_gradients(damped(whole, task.train.x, RIDGE), b, iterations=200, tolerance=tolerance)
    for member, row in enumerate(whole.flatten(found.x)):
        alone = Linearised(ensemble[member : member + 1])
        own = {name: t[member : member + 1] for name, t in b.items()}
        single = conjugate_gradients(damped(alone, task.train.x, RIDGE), own, iterations=200, tolerance=tolerance)
        size = float(alone.flatten(own).norm())
        yield row, alone.flatten(single.x)[0], size, float(found.residual[member]), float(single.residual[0])


def test_members_stop_on_their_own():
    # Conjugate gradients lose about a digit an iteration to rounding, here where few eigenvalues stand out. After ten
    # iterations six digits are left, so both runs stop at the same iteration and a member that went on would show.
    for together, alone, _, residual, own in alone_and_together(0.3):
        assert float((together - alone).norm()) <= 1e-6 * float(alone.norm())
        assert residual == pytest.approx(own, rel=1e-9)


def test_members_find_their_own_solution_beside_others():
    # Both residuals are at most tolerance |b| and no eigenvalue lies below the ridge: that bounds how far two runs that
    # stopped at different iterations can be apart. The 1 % is for rounding in the tracked residuals.
    tolerance = 1e-10
    for together, alone, size, residual, own in alone_and_together(tolerance):
        assert max(residual, own) <= tolerance
        assert float((together - alone).norm()) <= 1.01 * 2 * tolerance * size / RIDGE


def test_the_residual_is_the_true_one_when_stopped_early():
    task, ensemble = trained("mlp")
    linearised = Linearised(ensemble)
    b = random_direction(linearised)
    operator = damped(linearised, task.train.x, 0.5)
    found = conjugate_gradients(operator, b, iterations=5, tolerance=1e-12)
    rest = linearised.flatten(b) - linearised.flatten(operator(found.x))
    expected = rest.norm(dim=1) / linearised.flatten(b).norm(dim=1)
    assert found.iterations == 5
    torch.testing.assert_close(found.residual, expected, rtol=1e-8, atol=0)


def test_a_zero_right_hand_side_and_bad_options():
    task, ensemble = trained("mlp")
    linearised = Linearised(ensemble)
    found = conjugate_gradients(damped(linearised, task.train.x, 0.5), linearised.zeros())
    assert found.iterations == 0
    assert float(linearised.flatten(found.x).abs().max()) == 0
    with pytest.raises(InputError, match="iterations = 0"):
        conjugate_gradients(damped(linearised, task.train.x, 0.5), linearised.zeros(), iterations=0)
    with pytest.raises(InputError, match="ridge = -1"):
        damped(linearised, task.train.x, -1.0)
