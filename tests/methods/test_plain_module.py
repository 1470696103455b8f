"""A plain module in, a plain module out: the same numbers as an ensemble of one."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.reference.problems import forget_set, small_task
from torch import nn

import expunge as ex
from expunge.core import Ensemble, InputError
from expunge.methods import FineTune, GradientAscent, Method, Retrain, from_function

TASK = small_task("mlp_norm", precision="float32")
FORGET = forget_set(TASK)


def head_to_zero(model, retain_loader, forget_loader, validation_loader):  # type: ignore[no-untyped-def]
    model[3].weight.data.zero_()


@pytest.mark.parametrize(
    "method",
    [Retrain(), GradientAscent(lr=0.1, epochs=2), FineTune(statistics="updated"), from_function(head_to_zero)],
    ids=lambda method: method.name,
)
def test_it_is_an_ensemble_of_one(method: Method) -> None:
    module = ex.train(TASK, members=1, seed=3).module(0).train()
    before = copy.deepcopy(module.state_dict())
    done = ex.unlearn(module, TASK, FORGET, method, seed=2)
    one = ex.unlearn(Ensemble.from_modules([module], TASK), TASK, FORGET, method, seed=2)
    assert type(done) is nn.Sequential
    assert done.training
    with torch.no_grad():
        torch.testing.assert_close(done.eval()(TASK.validation.x), one.logits(TASK.validation.x)[0])
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert module.training
    assert any(not torch.equal(before[name], value) for name, value in done.state_dict().items())


def test_a_check_that_fails_is_warned_of() -> None:
    module = ex.train(TASK, members=1).module(0)
    with pytest.warns(UserWarning, match=r"the check 'weights moved' failed \(0 of 1 members moved"):
        ex.unlearn(module, TASK, FORGET, from_function(lambda *a: None, "nothing"))


def test_other_things_than_models_are_refused() -> None:
    with pytest.raises(InputError, match=r"pretrained is a dict, expected an expunge.Ensemble, .* or a trained torch"):
        ex.unlearn({}, TASK, FORGET, Retrain())  # type: ignore[type-var]
    with pytest.raises(InputError, match="does not fit the model of task"):
        ex.unlearn(nn.Linear(6, 3), TASK, FORGET, Retrain())
