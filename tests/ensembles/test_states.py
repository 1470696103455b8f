"""Kept states of training: going on from one ends where training ended, wherever it was kept."""

from __future__ import annotations

import sys

import pytest
import torch

from expunge.core import DamagedFileError, Ensemble, InputError, Split
from expunge.ensembles import build_network, train
from expunge.ensembles.epoch import train_epoch
from expunge.ensembles.own_loop import member_seeds
from expunge.ensembles.states import resumed, snapshot
from reference.problems import forget_set, small_task

OPTIMISERS = [("mlp", "sgd"), ("mlp_norm", "adamw"), ("cnn", "adam"), ("resnet", "sgd")]


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def same_states(one, other):
    return one.states.keys() == other.states.keys() and all(equal(one.states[e], other.states[e]) for e in one.states)


def go_on(task, ensemble, epoch, members=slice(None)):
    """Train the members from a kept state to the end."""
    some = ensemble[members]
    rows = torch.arange(len(task.train))
    seeds = member_seeds(some.seed, [rows] * len(some), some.ids)
    descent = resumed(some.network, some.states[epoch], task.recipe, torch.device("cpu"))
    for number in range(epoch, task.recipe.epochs):
        train_epoch(
            descent, Split(task.train.x, task.train.y), rows.expand(len(some), -1), seeds, number, task.recipe, task
        )
    return descent


@pytest.mark.parametrize(("model", "optimizer"), OPTIMISERS)
def test_going_on_from_any_state_ends_where_training_ended(model, optimizer):
    task = small_task(model, optimizer=optimizer, lr=0.1 if optimizer == "sgd" else 0.01)
    plain = train(task, members=3, seed=5, chunk=3)
    ensemble = train(task, members=3, seed=5, chunk=3, keep=[0, 1, 2, 3])
    assert equal(plain.params, ensemble.params)  # keeping changes nothing
    assert sorted(ensemble.states) == [0, 1, 2, 3]
    for epoch, state in ensemble.states.items():
        params, buffers = go_on(task, ensemble, epoch).state()
        assert equal(params, ensemble.params)
        assert equal(buffers, ensemble.buffers)
        assert {len(tensor) for tensor in state.values()} == {3}
    # One member of the three, alone.
    params, _ = go_on(task, ensemble, 1, slice(1, 2)).state()
    assert max(float((params[key] - ensemble.params[key][1:2]).abs().max()) for key in params) < 1e-10


def test_a_snapshot_is_a_copy_that_comes_back():
    task = small_task("mlp", optimizer="adam")
    ensemble = train(task, members=2, keep=[2])
    descent = resumed(ensemble.network, ensemble.states[2], task.recipe, torch.device("cpu"))
    assert equal(snapshot(descent), ensemble.states[2])
    before = {key: tensor.clone() for key, tensor in ensemble.states[2].items()}
    for tensor in descent.params.values():
        tensor.detach().zero_()
    assert equal(before, ensemble.states[2])


def test_a_store_holds_them_and_adds_those_that_it_lacks(tmp_path):
    task = small_task("mlp_norm")
    arguments = {"members": 4, "seed": 2, "store": tmp_path, "chunk": 2}
    without = train(task, **arguments)
    manifest = next(tmp_path.rglob("manifest.json"))
    kept = manifest.read_bytes()
    ensemble = train(task, **arguments, keep=[1, 2])
    assert ensemble.provenance["reused"]
    assert manifest.read_bytes() == kept  # the members that were there are those that are there
    assert equal(ensemble.params, without.params)
    fresh = train(task, members=4, seed=2, chunk=2, keep=[1, 2])
    assert same_states(ensemble, fresh)
    files = sorted(path for path in tmp_path.rglob("*.safetensors"))
    times = [path.stat().st_mtime_ns for path in files]
    again = train(task, **arguments, keep=[2])
    assert sorted(again.states) == [2]
    assert equal(again.states[2], fresh.states[2])
    assert [path.stat().st_mtime_ns for path in files] == times  # read, not made
    # More members join; those there are stay.
    more = train(task, **{**arguments, "members": 6}, keep=[2])
    assert equal({k: t[:4] for k, t in more.states[2].items()}, fresh.states[2])
    assert len(next(iter(more.states[2].values()))) == 6


def test_a_run_that_was_killed_ends_with_the_same_states(tmp_path, monkeypatch):
    task = small_task("mlp", epochs=4)
    whole = train(task, members=2, keep=[1, 3], chunk=2)
    module = sys.modules["expunge.ensembles.train"]
    real = module.train_epoch

    def killed(descent, data, examples, seeds, epoch, *rest):
        if epoch == 2:
            raise KeyboardInterrupt
        real(descent, data, examples, seeds, epoch, *rest)

    monkeypatch.setattr(module, "train_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        train(task, members=2, keep=[1, 3], chunk=2, store=tmp_path, workers=1)
    monkeypatch.undo()
    found = train(task, members=2, keep=[1, 3], chunk=2, store=tmp_path)
    assert equal(found.params, whole.params)
    assert same_states(found, whole)


def test_a_damaged_state_is_named_and_refused(tmp_path):
    task = small_task("mlp")
    train(task, members=2, keep=[1], store=tmp_path)
    place = next(path for path in tmp_path.rglob("manifest.json") if '"kept"' in path.read_text()).parent
    file = next(place.glob("members-*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedFileError, match=str(file.name)):
        train(task, members=2, keep=[1], store=tmp_path)


def test_members_with_other_numbers_of_rows_and_models_one_at_a_time_have_them_too(tmp_path):
    task = small_task("mlp")
    mask = torch.ones(3, 50, dtype=torch.bool)
    mask[1, :5] = False
    ensemble = train(task, members=3, examples=mask, keep=[1])
    alone = train(task, members=1, first=1, examples=mask[1:2], keep=[1])
    assert equal({key: tensor[1:2] for key, tensor in ensemble.states[1].items()}, alone.states[1])
    network = build_network(task, "one")
    single = train(task, members=3, keep=[1], network=network, workers=2)
    stacked = train(task, members=3, keep=[1])
    assert max(float((single.states[1][k] - t).abs().max()) for k, t in stacked.states[1].items()) < 1e-10


def test_states_travel_with_their_members_and_not_with_other_weights(tmp_path):
    task = small_task("mlp")
    ensemble = train(task, members=3, keep=[1])
    assert equal(ensemble[1:2].states[1], {key: tensor[1:2] for key, tensor in ensemble.states[1].items()})
    assert same_states(ensemble.clone(), ensemble)
    assert ensemble.clone().states[1]["params/0.weight"].data_ptr() != ensemble.states[1]["params/0.weight"].data_ptr()
    assert same_states(ensemble.to("cpu"), ensemble)
    assert ensemble.with_state(ensemble.params, ensemble.buffers).states == {}
    ensemble.save(tmp_path / "saved")
    assert Ensemble.load(tmp_path / "saved", task).states == {}


@pytest.mark.parametrize("keep", [[4], [-1], [0.5], "1", ["a"], 2, [True], [1, None]])
def test_epochs_that_are_none_are_refused(keep):
    with pytest.raises(InputError, match="expected whole numbers of epochs from 0 to 3"):
        train(small_task("mlp"), members=1, keep=keep)


def test_a_fit_of_ones_own_has_no_states():
    task = small_task("mlp").with_fit(lambda model, data, seed: None)
    with pytest.raises(InputError, match="trains by its own fit, whose states are not seen"):
        train(task, members=1, keep=[1])


def test_oracles_have_states_of_their_own_rows():
    task = small_task("mlp")
    ensemble = train(task, members=2, without=forget_set(task), keep=[3])
    assert equal({key[7:]: t for key, t in ensemble.states[3].items() if key.startswith("params/")}, ensemble.params)
