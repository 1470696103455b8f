"""DeltaGrad: exact where it must be, near retraining where it is not, and refused where it has no meaning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import expunge as ex
from expunge.core import InputError
from expunge.core.seeds import derive
from expunge.ensembles import train
from expunge.methods import DeltaGrad, Rewind, unlearn
from expunge.methods.deltagrad import product
from reference.one_by_one import member_seed
from reference.problems import forget_set, small_task

FULL = {"epochs": 30, "batch_size": 50, "lr": 0.1, "momentum": 0.0, "schedule": "cosine", "weight_decay": 1e-2}


def bfgs(pairs, size):
    """B by the textbook's recursion, one update after the other."""
    s, y = pairs[-1]
    matrix = (s @ y) / (s @ s) * torch.eye(size, dtype=s.dtype)
    for s, y in pairs:
        moved = matrix @ s
        matrix = matrix - torch.outer(moved, moved) / (s @ moved) + torch.outer(y, y) / (s @ y)
    return matrix


def twin(task, forget, method, member):
    """One member, plain autograd: trained on all rows first, and then replayed."""
    torch.manual_seed(derive(member_seed(4, np.arange(len(task.train)), member), "initialisation"))
    module, recipe = task.model().double(), task.recipe
    x, y, n, r = task.train.x, task.train.y, len(task.train), len(forget.indices)

    def gradient(weights, rows):
        nn.utils.vector_to_parameters(weights, module.parameters())
        module.zero_grad()
        F.cross_entropy(module(x[rows]), y[rows]).backward()
        return nn.utils.parameters_to_vector([p.grad for p in module.parameters()]) + recipe.weight_decay * weights

    path = [nn.utils.parameters_to_vector(module.parameters()).detach().clone()]
    for step in range(recipe.epochs):
        path.append(path[-1] - recipe.rate(step + 0.5) * gradient(path[-1], np.arange(n)))
    here, pairs = path[0], []
    for step in range(recipe.epochs):
        known, moved = gradient(path[step], np.arange(n)), here - path[step]
        if step <= method.start or (step - method.start) % method.period == 0:
            use = gradient(here, forget.retain)
            change = gradient(here, np.arange(n)) - known
            pairs = [*pairs, (moved, change)][-method.memory :] if moved @ change > 0 else pairs
        else:
            guess = known + (bfgs(pairs, len(moved)) @ moved if pairs else 0)
            use = (n * guess - r * gradient(here, forget.indices)) / (n - r)
        here = here - recipe.rate(step + 0.5) * use
    return here


class Noisy(nn.Module):
    """Dropout that no module tells of."""

    def forward(self, x):
        return F.dropout(x, 0.5, self.training)


def flat(ensemble, member):
    return nn.utils.parameters_to_vector(ensemble.module(member).parameters()).detach()


@pytest.mark.parametrize("model", ["logistic", "mlp"])
@pytest.mark.parametrize("options", [{}, {"period": 3, "start": 4, "memory": 1}])
def test_it_equals_its_slow_twin(model, options):
    task, method = small_task(model, **FULL), DeltaGrad(**options)
    forget, pretrained = forget_set(task), train(task, members=3, seed=4, keep=range(30))
    found = unlearn(pretrained, task, forget, method, chunk=2)
    for member in range(3):
        assert float((flat(found, member) - twin(task, forget, method, member)).abs().max()) < 1e-7
    assert found.trace.cost == pytest.approx(method.planned_cost(7, 43, 30))
    assert not [check for check in found.trace.failed_checks if check.name != "moved enough"]


def test_exact_steps_alone_are_retraining_from_the_same_weights():
    task = small_task("mlp", **FULL)
    forget, pretrained = forget_set(task), train(task, members=2, seed=4, keep=range(30))
    one = unlearn(pretrained, task, forget, DeltaGrad(period=1, start=0))
    other = unlearn(pretrained, task, forget, Rewind(share=0.0))
    assert max(float((one.params[key] - tensor).abs().max()) for key, tensor in other.params.items()) < 1e-10


def test_it_is_nearer_to_retraining_than_doing_nothing_is():
    task = small_task("logistic", **FULL)
    forget, pretrained = forget_set(task), train(task, members=2, seed=4, keep=range(30))
    found, exact = (unlearn(pretrained, task, forget, m) for m in (DeltaGrad(start=2), Rewind(share=0.0)))
    for member in range(2):
        left = float((flat(found, member) - flat(exact, member)).norm())
        assert left < 0.1 * float((flat(pretrained, member) - flat(exact, member)).norm())


def test_on_a_quadratic_loss_of_one_weight_it_is_exact():
    x = torch.linspace(-1, 2, 40, dtype=torch.float64).unsqueeze(1)
    recipe = ex.Recipe(
        epochs=20, batch_size=40, lr=0.2, momentum=0.0, weight_decay=0.1, schedule="constant", precision="float64"
    )
    task = ex.Task(
        name="line",
        train=(x, 2 * x[:, 0] + torch.sin(5 * x[:, 0])),
        validation=(x + 0.01, 2 * x[:, 0]),
        model=lambda: nn.Linear(1, 1, bias=False),
        recipe=recipe,
        outcome="regression",
    )
    forget, pretrained = forget_set(task, 5), train(task, members=3, keep=range(20))
    found, exact = (unlearn(pretrained, task, forget, m) for m in (DeltaGrad(start=1, period=50), Rewind(share=0.0)))
    assert float((found.params["weight"] - exact.params["weight"]).abs().max()) < 1e-9
    assert float((found.params["weight"] - pretrained.params["weight"]).abs().min()) > 1e-3


def test_the_compact_form_is_the_recursion_and_keeps_the_last_secant():
    own = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=own, dtype=torch.float64)
    hessian = root @ root.T + torch.eye(6, dtype=torch.float64)
    pairs = [(s, hessian @ s) for s in torch.randn(3, 6, generator=own, dtype=torch.float64)]
    vector = torch.randn(6, generator=own, dtype=torch.float64)
    assert torch.allclose(product(pairs, vector), bfgs(pairs, 6) @ vector, rtol=1e-9)
    assert torch.allclose(product(pairs, pairs[-1][0]), pairs[-1][1], rtol=1e-9)
    assert not product([], vector).any()


def test_what_it_has_no_meaning_for_is_refused():
    for options in ({"period": 0}, {"memory": 0}, {"start": -1}):
        with pytest.raises(InputError, match=f"{next(iter(options))} = "):
            DeltaGrad(**options)
    for other in ({"batch_size": 49}, {"momentum": 0.9}, {"optimizer": "adam"}, {"last_batch": "drop"}):
        task = small_task("mlp", **{**FULL, **other})
        pretrained = train(task, members=1, epochs=0)
        with pytest.raises(InputError, match="deltagrad needs gradient descent on all rows at once, without momentum"):
            unlearn(pretrained, task, forget_set(task), DeltaGrad())
    task = small_task("mlp", model=lambda: nn.Sequential(nn.Linear(6, 3), Noisy()), **FULL)
    pretrained = train(task, members=2, keep=range(30))
    with pytest.raises(InputError, match="another gradient at the initial weights of small-mlp than its training took"):
        unlearn(pretrained, task, forget_set(task), DeltaGrad())
    task = small_task("mlp_norm", **FULL)
    pretrained = train(task, members=1, keep=range(30))
    with pytest.raises(InputError, match="batch norm mixes the rows of a batch"):
        unlearn(pretrained, task, forget_set(task), DeltaGrad())
