"""Bad teaching: what its teachers are, where it rests, where it ends, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from expunge.core import InputError
from expunge.core.seeds import derive
from expunge.ensembles import train
from expunge.methods import BadTeacher, bad_teacher, unlearn
from expunge.methods.problem import Problem
from reference.problems import forget_set, small_task


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
def test_the_bad_teacher_is_of_the_students_own_architecture_and_each_members_own(name):
    """The published defect: a benchmark's random teacher is one ResNet-18 whatever the student is."""
    task = small_task(name)
    forget, pretrained = forget_set(task), train(task, members=3, seed=2)
    found = bad_teacher.teacher_outputs(Problem(pretrained, task, forget, 5, "bad_teacher"))
    x = task.train.x
    for member in range(3):
        good = pretrained.module(member)
        bad = task.build(derive(derive(5, "unlearn", "bad_teacher", member), "teacher")).double().eval()
        assert {k: v.shape for k, v in bad.state_dict().items()} == {k: v.shape for k, v in good.state_dict().items()}
        with torch.no_grad():
            torch.testing.assert_close(found[member][forget.retain], good(x[forget.retain]), rtol=1e-9, atol=1e-11)
            torch.testing.assert_close(found[member][forget.indices], bad(x[forget.indices]), rtol=1e-9, atol=1e-11)
    on_forget = found[:, torch.from_numpy(forget.indices)]
    assert float((on_forget[0] - on_forget[1]).abs().max()) > 0.01


@pytest.mark.parametrize("loss", ["kl", "continuous_categorical"])
def test_with_the_pretrained_model_for_both_teachers_nothing_moves(loss, monkeypatch):
    task = small_task("resnet")
    forget, pretrained = forget_set(task), train(task, members=2)
    monkeypatch.setattr(bad_teacher, "initialise", lambda *_: (pretrained.params, pretrained.buffers))
    method = BadTeacher(lr=0.1, epochs=2, batch_size=16, optimizer="sgd", loss=loss)
    found = unlearn(pretrained, task, forget, method, chunk=2)
    for key, tensor in pretrained.params.items():
        assert float((found.params[key] - tensor).abs().max()) < 1e-12


@pytest.mark.parametrize("loss", ["kl", "continuous_categorical"])
def test_it_ends_at_the_bad_teachers_outputs_on_the_forget_set_which_no_retrained_model_has(loss):
    task = small_task("mlp")
    forget, pretrained = forget_set(task), train(task, members=2)
    teachers = bad_teacher.teacher_outputs(Problem(pretrained, task, forget, 0, "bad_teacher"))
    method = BadTeacher(lr=0.02, epochs=60, batch_size=16, loss=loss)
    found = unlearn(pretrained, task, forget, method)
    x, own = task.train.x[forget.indices], teachers[:, torch.from_numpy(forget.indices)].softmax(-1)
    before, after = ((e.logits(x).softmax(-1) - own).abs().mean() for e in (pretrained, found))
    assert float(after) < 0.5 * float(before)


def test_every_epoch_takes_its_share_of_the_retain_set_with_all_of_the_forget_set():
    task = small_task("mlp")
    forget = forget_set(task, 10)
    problem = Problem(train(task, members=2, epochs=0), task, forget, 0, "bad_teacher")
    seen = [problem.joint_order(epoch, 0.3) for epoch in (1, 2)]
    for index in seen:
        for row in index.tolist():
            assert len(set(row)) == 22
            assert set(forget.indices) <= set(row)
        mixed = problem.place(index[:, :9]) >= 0
        assert bool((mixed.any(1) & ~mixed.all(1)).all())  # a batch has some of both
    assert set(seen[0][0].tolist()) != set(seen[1][0].tolist())


def test_what_cannot_be_is_refused():
    fixed = nn.Linear(6, 3)

    def same() -> nn.Module:
        model = nn.Linear(6, 3)
        model.load_state_dict(fixed.state_dict())
        return model

    task = small_task("logistic", model=same)
    with pytest.raises(InputError, match="has the same weights whatever the seed"):
        unlearn(train(task, members=1), task, forget_set(task), BadTeacher())
    task = small_task("mlp_norm")
    with pytest.raises(InputError, match="leave a batch of 1"):  # 8 and 13 of 42
        unlearn(train(task, members=1), task, forget_set(task, 8), BadTeacher(statistics="updated", batch_size=10))
    for options in ({"retain_share": 0.0}, {"retain_share": 1.1}, {"temperature": 0.0}, {"lr": -1.0}):
        with pytest.raises(InputError, match=f"{next(iter(options))} = "):
            BadTeacher(**options)
