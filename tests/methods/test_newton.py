"""Newton's step: exact where the loss is quadratic, solved as far as it says, and never ascent in disguise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import expunge as ex
from expunge.core import InputError
from expunge.ensembles import build_network, train
from expunge.ensembles.flat import FlatStack
from expunge.methods import Newton, unlearn
from expunge.methods.newton import conjugate_gradients
from reference.problems import forget_set, small_task

DECAY = 0.03


def ridge(x, y, model, seed):
    """The optimum of mean (w.x - y)^2 + decay/2 |w|^2, in closed form."""
    n, d = x.shape
    return torch.linalg.solve(2 * x.T @ x / n + DECAY * torch.eye(d, dtype=x.dtype), 2 * x.T @ y / n)


def solved(model, dataset, seed):
    with torch.no_grad():
        model.weight.copy_(ridge(dataset.x, dataset.y, model, seed).T)
        model.untouched.copy_(torch.randn(1, generator=torch.Generator().manual_seed(seed)))


class Line(nn.Linear):
    """Linear regression; a number that no output depends on tells members apart."""

    def __init__(self):
        super().__init__(5, 1, bias=False)
        self.register_buffer("untouched", torch.zeros(1))


def line_task(fit=solved):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(70, 5))
    y = x @ rng.normal(size=5) + rng.normal(size=70)
    recipe = ex.Recipe(epochs=4, precision="float64", weight_decay=DECAY)
    data = {"train": (x[:50], y[:50]), "validation": (x[50:], y[50:])}
    return ex.Task(name="line", **data, model=Line, outcome="regression", recipe=recipe, fit=fit)


@pytest.mark.parametrize("curvature", ["ggn", "hessian"])
@pytest.mark.parametrize("gradient", ["forget", "retain"])
def test_ridge_regression_is_unlearned_exactly(curvature, gradient):
    task = line_task()
    forget, pretrained = forget_set(task, 12), train(task, members=2, seed=1)
    method = Newton(damping=0.0, tolerance=1e-12, curvature=curvature, gradient=gradient)
    done = unlearn(pretrained, task, forget, method)
    rows = torch.from_numpy(forget.retain)
    closed = ridge(task.train.x[rows], task.train.y[rows], None, 0).T
    assert float((done.params["weight"] - closed).abs().max()) < 1e-10
    assert float((pretrained.params["weight"] - closed).abs().max()) > 1e-2
    assert not done.trace.failed_checks


def test_one_row_leaves_by_sherman_and_morrison():
    task = line_task()
    one = ex.ForgetSet.of(task, [7], name="one", how="the eighth")
    pretrained = train(task, members=1)
    w = pretrained.params["weight"][0, 0]
    x, y = task.train.x, task.train.y[:, 0]
    # Sums without a regulariser's share of the row: with a decay per row, A = 2 X^T X + decay n I loses decay I too.
    a = 2 * x.T @ x + DECAY * len(x) * torch.eye(5, dtype=x.dtype)
    left = a - DECAY * torch.eye(5, dtype=x.dtype)
    inverse = torch.linalg.inv(left)
    h = 2 * x[7] @ inverse @ x[7]
    pull = 2 * (w @ x[7] - y[7]) * x[7] + DECAY * w
    closed = w + inverse @ pull + 2 * (inverse @ x[7]) * (x[7] @ inverse @ pull) / (1 - h)
    done = unlearn(pretrained, task, one, Newton(damping=0.0, tolerance=1e-12))
    assert float((done.params["weight"][0, 0] - closed).abs().max()) < 1e-10


def test_from_a_start_that_is_no_optimum_the_whole_gradient_is_right_and_that_of_f_is_not():
    task = line_task()
    forget, pretrained = forget_set(task, 12), train(task, members=1, seed=1)
    moved = pretrained.with_state({"weight": pretrained.params["weight"] + 0.5}, pretrained.buffers)
    rows = torch.from_numpy(forget.retain)
    closed = ridge(task.train.x[rows], task.train.y[rows], None, 0).T
    options = {"damping": 0.0, "tolerance": 1e-12}
    whole, part = (unlearn(moved, task, forget, Newton(gradient=g, **options)) for g in ("retain", "forget"))
    assert float((whole.params["weight"] - closed).abs().max()) < 1e-10
    assert float((part.params["weight"] - closed).abs().max()) > 0.1


def test_the_error_falls_as_the_square_of_the_share_that_leaves():
    task = ex.tasks.logistic(noise=1e-9, l2=0.02)
    pretrained = train(task, members=1, seed=1)
    errors = []
    for size in (6, 12, 24, 48):
        forget = forget_set(task, size)
        rows = torch.from_numpy(forget.retain)
        start = pretrained.params["weight"][0]
        optimum = task.fit.solve(start, task.train.x[rows], task.train.y[rows], torch.zeros_like(start))
        done = unlearn(pretrained, task, forget, Newton(damping=0.0, steps=300, tolerance=1e-9))
        assert not done.trace.failed_checks
        errors.append(float((done.params["weight"][0] - optimum).norm() / (start - optimum).norm() ** 2))
    assert max(errors) < 6 * min(errors)  # the error is of the order of the step squared; it spans two decades itself


@pytest.mark.parametrize("kind", ["layers", "vmap", "one"])
@pytest.mark.parametrize("curvature", ["ggn", "hessian"])
def test_products_are_those_of_the_matrices_that_autograd_forms(kind, curvature):
    task = small_task("mlp", n=20)
    ensemble = train(task, members=2, seed=1, network=build_network(task, kind))
    stack, x, y = FlatStack(ensemble), task.train.x, task.train.y
    v = torch.randn(stack.flat.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, risen = stack.product(x, y, v, curvature), stack.risen(x, y, v)
    for member in range(2):
        module = ensemble.module(member)
        names = [name for name, _ in module.named_parameters()]
        sizes = [p.numel() for p in module.parameters()]

        def outputs(flat, module=module, names=names, sizes=sizes):
            parts = torch.split(flat, sizes)
            own = {n: part.view_as(module.get_parameter(n)) for n, part in zip(names, parts, strict=True)}
            return torch.func.functional_call(module, own, (x,))

        flat = torch.cat([p.detach().flatten() for p in module.parameters()])
        if curvature == "hessian":
            matrix = torch.autograd.functional.hessian(
                lambda w: nn.functional.cross_entropy(outputs(w), y, reduction="sum"), flat
            )
        else:
            jacobian = torch.autograd.functional.jacobian(outputs, flat)
            p = outputs(flat).softmax(-1).detach()
            inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
            matrix = torch.einsum("nkp,nkl,nlq->pq", jacobian, inner, jacobian)
        assert torch.allclose(found[member], matrix @ v[member], atol=1e-9)
        slopes = torch.autograd.functional.jacobian(
            lambda w: nn.functional.cross_entropy(outputs(w), y, reduction="none"), flat
        )
        assert torch.allclose(stack.gradient(x, y)[member], slopes.sum(0), atol=1e-9)
        assert torch.allclose(risen[member], slopes @ v[member], atol=1e-9)


def test_indefinite_curvature_is_refused_and_not_replaced_by_ascent():
    g = torch.Generator().manual_seed(0)
    a = torch.randn(6, 6, generator=g, dtype=torch.float64)
    matrix, b = a + a.T, torch.randn(2, 6, generator=g, dtype=torch.float64)
    with pytest.raises(InputError, match=r"raise damping by more than .*, or write curvature='ggn'"):
        conjugate_gradients(lambda v: v @ matrix, b, 6, 1e-8)
    lowest = float(torch.linalg.eigvalsh(matrix)[0])
    shifted = matrix + (0.1 - lowest) * torch.eye(6, dtype=torch.float64)
    x, left = conjugate_gradients(lambda v: v @ shifted, b, 200, 1e-10)
    assert torch.allclose(x, torch.linalg.solve(shifted, b.T).T, atol=1e-6)
    assert float(left.max()) < 1e-10
    task = small_task("mlp", epochs=0 + 1)
    pretrained = train(task, members=2, seed=1)
    with pytest.raises(InputError, match="no minimum; raise damping"):
        unlearn(pretrained, task, forget_set(task, 10), Newton(curvature="hessian", damping=0.0, steps=200))


def test_an_equation_that_is_not_solved_fails_its_check_with_the_residual():
    task = small_task("mlp")
    pretrained = train(task, members=2, seed=1)
    done = unlearn(pretrained, task, forget_set(task, 10), Newton(damping=1e-4, steps=2, tolerance=1e-8))
    (failed,) = [check for check in done.trace.failed_checks if check.name == "equation solved"]
    assert "relative residual at most 1e-08 in 0 of 2 members" in failed.detail
    # One step of ascent would be a multiple of the gradient of F: this is not.
    enough = unlearn(pretrained, task, forget_set(task, 10), Newton(damping=0.5, steps=50))
    assert not [check for check in enough.trace.failed_checks if check.name == "equation solved"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damping": -1.0}, "damping = -1"),
        ({"steps": 0}, "steps = 0"),
        ({"tolerance": 0.0}, "tolerance = 0"),
        ({"curvature": "fisher"}, "curvature = 'fisher'"),
        ({"gradient": "both"}, "gradient = 'both'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Newton(**options)
