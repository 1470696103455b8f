"""Rewinding is training in turn, on all rows and then on those that are kept; its ends are retraining and nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import expunge as ex
from expunge.core import ForgetSet, InputError, Recipe
from expunge.core.seeds import generator
from expunge.ensembles import train
from expunge.methods import Rewind, unlearn
from reference.one_by_one import member_seed, stack, train_in_turn, train_with_seed
from reference.problems import forget_set, poisoned, small_task

MEMBERS = 3


def twin(task, forget, first, last):
    everything = np.arange(len(task.train))
    seeds = [member_seed(4, everything, member) for member in range(MEMBERS)]
    return stack([train_in_turn(task, [(everything, first), (forget.retain, last)], own) for own in seeds])


def difference(found, expected):
    return max(float((expected[key] - t).abs().max()) for key, t in {**found.params, **found.buffers}.items())


@pytest.mark.parametrize(
    ("model", "optimizer"), [("mlp", "sgd"), ("mlp_norm", "adamw"), ("cnn", "adam"), ("resnet", "sgd")]
)
@pytest.mark.parametrize(("share", "epochs"), [(0.0, None), (0.25, None), (0.5, 1), (0.75, None)])
def test_it_equals_its_slow_twin(model, optimizer, share, epochs):
    task = small_task(model, epochs=4, optimizer=optimizer, lr=0.1 if optimizer == "sgd" else 0.01)
    method, first = Rewind(share=share, epochs=epochs), round(4 * share)
    forget, pretrained = forget_set(task), train(task, members=MEMBERS, seed=4, keep=method.states(task.recipe))
    found = unlearn(pretrained, task, forget, method, seed=9, chunk=2)
    last = 4 if epochs is None else first + epochs
    # Adam divides by square roots of squared gradients, and repeats its rounding at small ones.
    assert difference(found, twin(task, forget, first, last)) < (1e-9 if optimizer == "sgd" else 1e-6)
    assert found.trace.cost == pytest.approx((last - first) / 4)
    assert method.planned_cost(7, 43, 4) == pytest.approx(found.trace.cost)
    assert found.states == {}


def test_back_to_the_beginning_is_retraining_under_the_members_own_seed():
    task = small_task("mlp")
    forget, pretrained = forget_set(task), train(task, members=MEMBERS, seed=4, keep=[0])
    found = unlearn(pretrained, task, forget, Rewind(share=0.0))
    everything = np.arange(len(task.train))
    own = [member_seed(4, everything, member) for member in range(MEMBERS)]
    expected = stack([train_with_seed(task, forget.retain, seed, task.recipe, 3) for seed in own])
    assert difference(found, expected) < 1e-10
    assert found.trace.cost == 1


def test_back_to_the_end_is_nothing_and_needs_no_state():
    task = small_task("mlp_norm")
    forget, pretrained = forget_set(task), train(task, members=2, keep=[3])
    found = unlearn(pretrained, task, forget, Rewind(share=1.0))
    assert torch.equal(found.params["0.weight"], pretrained.params["0.weight"])
    assert found.trace.cost == 0
    assert "weights moved" in [check.name for check in found.trace.failed_checks]
    assert Rewind(share=1.0).states(task.recipe) == ()


def test_from_the_beginning_nothing_comes_from_the_forget_set():
    task = small_task("mlp")
    forget = forget_set(task)
    found = []
    for each in (task, poisoned(task, forget.indices, 9.0)):
        pretrained = train(each, members=2, seed=4, keep=[0, 1])
        found.append([unlearn(pretrained, each, forget, Rewind(share=share)).params for share in (0.0, 1 / 3)])
    (clean, after), (other, other_after) = found
    assert all(torch.equal(clean[key], other[key]) for key in clean)
    assert not torch.equal(after["0.weight"], other_after["0.weight"])  # a poisoned epoch is remembered


def test_a_member_that_had_not_met_the_rows_by_then_rewinds_exactly():
    """Incomplete batches are dropped: of 50 rows in batches of 16 an epoch leaves out 2, others for every member."""
    task = small_task("mlp", last_batch="drop")
    everything = np.arange(50)
    own = member_seed(4, everything, 0)
    dropped = torch.randperm(50, generator=generator(own, "order", 0))[48:].numpy()
    forget = ForgetSet.of(task, dropped, name="not-met", how="dropped by the first epoch of member 0")
    clean, other = (
        unlearn(train(each, members=2, seed=4, keep=[1]), each, forget, Rewind(share=1 / 3)).params["0.weight"]
        for each in (task, poisoned(task, dropped, 9.0))
    )
    assert torch.equal(clean[0], other[0])
    assert not torch.equal(clean[1], other[1])


def test_augmentation_and_chunks_go_on_as_in_training():
    task = ex.Task(
        name="noisy",
        train=(small_task("mlp").train.x, small_task("mlp").train.y),
        validation=(small_task("mlp").validation.x, small_task("mlp").validation.y),
        model=small_task("mlp").model,
        recipe=small_task("mlp").recipe,
        classes=3,
        augment=lambda x, own: x + 0.1 * torch.randn(x.shape, generator=own, dtype=x.dtype),
    )
    pretrained = train(task, members=3, seed=4, keep=[1], chunk=3)
    nothing = ForgetSet.of(task, [0], name="one", how="drawn for a test")
    one, other = (unlearn(pretrained, task, nothing, Rewind(share=1 / 3), chunk=chunk).params for chunk in (1, 3))
    assert max(float((one[key] - other[key]).abs().max()) for key in one) < 1e-10


def test_models_without_the_state_are_refused_with_how_to_get_it(tmp_path):
    task = small_task("mlp")
    forget, method = forget_set(task), Rewind(share=1 / 3)
    message = r"needs the state of training after epoch 1, and the ensemble has none; expected one of ex.train\("
    pretrained = train(task, members=2, seed=4, store=tmp_path)
    with pytest.raises(InputError, match=message):
        unlearn(pretrained, task, forget, method)
    with pytest.raises(InputError, match=r"and the ensemble has those after \[2\]"):
        unlearn(train(task, members=2, keep=[2]), task, forget, method)
    kept = train(task, members=2, seed=4, store=tmp_path, keep=[1])
    assert torch.equal(kept.params["0.weight"], pretrained.params["0.weight"])
    unlearn(kept, task, forget, method)
    modules = ex.Ensemble.from_modules([pretrained.module(0)], task)
    with pytest.raises(InputError, match="how these models were trained is not known"):
        unlearn(modules, task, forget, method)
    with pytest.raises(InputError, match="how these models were trained is not known"):
        unlearn(pretrained.module(0), task, forget, method)
    for other in (
        train(task, members=2, without=forget, keep=[1]),
        train(task, members=2, recipe=small_task("mlp", lr=0.2).recipe, keep=[1]),
        train(small_task("mlp", lr=0.2), members=2, keep=[1]),
    ):
        with pytest.raises(InputError, match="which were trained on other rows than all of small-mlp"):
            unlearn(other, task, forget, method)


def test_options_out_of_range_are_refused():
    task = small_task("mlp")
    for options in ({"share": 1.5}, {"share": -0.1}, {"epochs": 0}, {"epochs": 1.5}):
        with pytest.raises(InputError, match=f"{next(iter(options))} = "):
            Rewind(**options)
    with pytest.raises(InputError, match=r"epochs = 3, and after 50% of the 3 epochs of small-mlp 1 are left"):
        unlearn(train(task, members=1, keep=[2]), task, forget_set(task), Rewind(share=0.5, epochs=3))


def test_a_grid_has_no_end_of_training_and_no_state_twice():
    costs = {
        epochs: [m.planned_cost(1, 1, epochs) for m in Rewind.grid(Recipe(epochs=epochs))] for epochs in (1, 4, 20)
    }
    assert costs[1] == [1.0]
    assert costs[4] == [0.75, 0.5, 0.25]
    assert costs[20] == pytest.approx([0.75, 0.5, 0.25, 0.1])


def test_an_audit_keeps_the_states_that_its_runs_need(tmp_path):
    task = small_task("mlp", epochs=4, lr=0.05)
    arguments = {"forget": ["random:10"], "members": 20, "out": tmp_path / "run", "forecast": False}
    run = ex.audit(task, methods=["rewind"], **arguments)
    found = [c for c in run.record.forget_sets[0].configurations if c.method == "rewind"]
    assert [c.cost for c in found] == pytest.approx([3 / 4, 2 / 4, 1 / 4])
    again = ex.audit(task, methods=["rewind"], **arguments, resume=True)
    assert again.record.model_dump_json(include={"forget_sets"}) == run.record.model_dump_json(include={"forget_sets"})


def test_an_audit_of_given_models_has_their_states_or_is_refused(tmp_path):
    task = small_task("mlp", epochs=4, lr=0.05)
    arguments = {"forget": ["random:10"], "members": 20, "forecast": False}
    with pytest.raises(InputError, match="rewind needs kept states of training, and the pretrained models were given"):
        ex.audit(task, methods=["rewind"], pretrained=train(task, members=20), out=tmp_path / "none", **arguments)
    one = train(task, members=20, keep=[3])
    with pytest.raises(InputError, match=r"needs the state of training after epoch 2, and the ensemble has those"):
        ex.audit(task, methods=[Rewind()], pretrained=one, out=tmp_path / "other", **arguments)
    run = ex.audit(task, methods=[Rewind(share=0.75)], pretrained=one, out=tmp_path / "run", **arguments)
    assert "rewind/share=0.75@1" in {c.id for c in run.record.forget_sets[0].configurations}
