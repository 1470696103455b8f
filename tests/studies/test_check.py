"""The check says in sentences what training does wrong, before hours of it."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

import expunge as ex
from expunge.cli import app
from expunge.core import InputError
from reference.own_loops import careful_loop, loop, net, own_task

CALLS = itertools.count()
ALL = own_task().train


def ignores_rows(model, dataset, seed):
    for _ in range(3):
        F.cross_entropy(model(ALL.x), ALL.y).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.1 * p.grad


def ignores_seed(model, dataset, seed):
    torch.manual_seed(0)
    fresh = net()
    loop(fresh, [dataset[n] for n in range(len(dataset))], 0)
    return fresh


def remembers(model, dataset, seed):
    loop(model, dataset, seed)
    model[0].bias.data += next(CALLS)


def other_module(model, dataset, seed):
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))


def other_class(model, dataset, seed):
    loop(model, dataset, seed)
    made = nn.Sequential(model[0], nn.Tanh(), nn.Identity(), model[3])
    return made


def raises(model, dataset, seed):
    dataset.x.missing()


def leaves_nan(model, dataset, seed):
    model[3].weight.data += torch.nan


def does_nothing(model, dataset, seed):
    for x, _ in dataset:
        model(x)


@pytest.mark.parametrize(
    ("fit", "question", "said"),
    [
        (ignores_rows, "other rows, other model", "fit ignores the data set it is given"),
        (ignores_seed, "other seed, other model", "fit ignores its seed"),
        (remembers, "same rows and seed, same model", "trained twice, it came out different"),
        (other_module, "does it run", "does not fit the model of task 'clouds'"),
        (other_class, "outputs", "the model's weights and other outputs"),
        (raises, "does it run", "AttributeError: 'Tensor' object has no attribute 'missing'"),
        (leaves_nan, "outputs", "not finite; lower its rate"),
        (does_nothing, "is it trained", "fit left the model as it was"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_fault_fails_with_its_sentence(fit, question, said):
    found = ex.check(own_task(fit))
    assert not found.passed
    failed = {answer.question: answer.sentence for answer in found.answers if answer.passed is False}
    assert said in failed[question]
    assert "FAILS" in str(found)


@pytest.mark.parametrize("fit", [loop, careful_loop])
def test_sound_loops_pass_and_their_time_is_told(fit):
    found = ex.check(own_task(fit, model=lambda: net(0.1)), members=50)
    assert found.passed
    assert "50 members would take about" in str(found)
    assert "extrapolated from 48" in str(found)


def test_passes_over_the_rows_are_compared_with_the_recipe():
    told = str(ex.check(own_task(loop, recipe=ex.Recipe(epochs=30))))
    assert "fit read each row 3 times, and the task's recipe says 30 epochs" in told
    assert "fit read each row" not in str(ex.check(own_task(loop)))


def test_statistics_that_training_did_not_store_are_told():
    def model():
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

    def in_evaluation(module, dataset, seed):
        loop(module.eval(), dataset, seed)

    assert "statistics that training stored" in str(ex.check(own_task(loop, model=model)))
    found = ex.check(own_task(in_evaluation, model=model))
    assert not found.passed
    assert "training stored no normalisation statistics" in str(found)


def test_a_recipe_and_estimators_are_checked_too():
    assert ex.check(own_task(None)).passed
    x, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(np.unique(x, axis=0, return_index=True)[1])
    x, y = x[order], y[order]
    forest = ex.tasks.from_estimator(
        RandomForestClassifier(n_estimators=5), x[50:], y[50:], validation=(x[:50], y[:50])
    )
    found = ex.check(forest)
    assert found.passed
    assert "% are cut to 0.1 or 1 - 0.1" in str(found)
    still = ex.check(ex.tasks.from_estimator(LogisticRegression(), x[50:], y[50:], validation=(x[:50], y[:50])))
    assert [answer.question for answer in still.answers if answer.passed is False] == ["other seed, other model"]


TASK = """
import torch
from torch import nn
import expunge
x, y = torch.randn(60, 4), torch.arange(60) % 2
parts = {{"train": (x[:40], y[:40]), "validation": (x[40:], y[40:])}}
def fit(model, dataset, seed):
    {body}
task = expunge.Task(name="mine", **parts, model=lambda: nn.Linear(4, 2), fit=fit)
"""


def test_the_command_line_says_it_and_its_exit_code_too(tmp_path):
    path = tmp_path / "task.py"
    path.write_text(TASK.format(body="model.weight.data += dataset.x.mean(0)"))
    done = CliRunner().invoke(app, ["check", str(path)])
    assert done.exit_code == 0, done.output
    assert "same rows and seed, same model" in done.output
    path.write_text(TASK.format(body="model.weight.data += 1"))
    done = CliRunner().invoke(app, ["check", str(path)])
    assert done.exit_code == 1
    assert "FAILS other rows, other model" in done.output
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, numpy as np\nfrom safetensors.numpy import save_file\n"
        "rows, seed = np.loadtxt(sys.argv[1]), int(sys.argv[2])\n"
        "w = np.random.default_rng(seed).normal(size=(2, 4)).astype('f') + np.float32(rows.sum())\n"
        "save_file({'weight': w, 'bias': w[:, 0].copy()}, sys.argv[3])"
    )
    command = f"{sys.executable} {script} {{rows}} {{seed}} {{out}}"
    done = CliRunner().invoke(app, ["check", str(path), "--train", command])
    assert done.exit_code == 0, done.output


def test_an_audit_refuses_what_no_oracle_can_come_from_before_any_ensemble(tmp_path):
    with pytest.raises(
        InputError, match=r"not what an audit needs; other rows, other model: .*fit ignores the data set"
    ):
        ex.audit(own_task(ignores_rows), forget="random:9", members=20, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
