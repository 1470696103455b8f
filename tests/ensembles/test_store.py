"""Nothing is lost, nothing foreign is read: members on disk, killed runs, damaged files."""

from __future__ import annotations

import hashlib
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from expunge.core import DamagedFileError, InputError, Task
from expunge.core.digest import own_digest
from expunge.ensembles import build_network, train
from expunge.ensembles.processes import run_each
from expunge.ensembles.store import Shelf
from reference.problems import forget_set, small_task

TESTS = Path(__file__).parents[1]
trainer = importlib.import_module("expunge.ensembles.train")  # the module, not the function of the same name


def state_of(ensemble):
    return {**ensemble.params, **ensemble.buffers}


def equal(one, other):
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def shelf_of(store):
    (folder,) = [path for path in store.iterdir() if path.is_dir()]
    return folder


def manifest_of(store):
    return json.loads((shelf_of(store) / "manifest.json").read_text())


@pytest.fixture
def epochs_run(monkeypatch):
    """Counts the epochs that are really trained."""
    count, real = [], trainer.train_epoch
    monkeypatch.setattr(trainer, "train_epoch", lambda *args: (count.append(len(args[3])), real(*args))[1])
    return count


def test_members_are_found_again_without_training(tmp_path, epochs_run):
    task = small_task("resnet", precision="float32")
    first = train(task, members=5, chunk=2, store=tmp_path)
    assert len(epochs_run) == 3 * 3
    assert not first.provenance["reused"]
    epochs_run.clear()
    again = train(task, members=5, store=tmp_path)
    assert not epochs_run
    assert again.provenance["reused"]
    assert again.provenance["chunk"] == 2
    assert equal(state_of(first), state_of(again))
    assert equal(state_of(first), state_of(train(task, members=5, chunk=2)))
    assert not list(tmp_path.rglob("*.part")) + list(tmp_path.rglob("partial-*"))


def test_more_members_are_added_and_those_there_stay_as_they_are(tmp_path, epochs_run):
    task = small_task("mlp", precision="float32")
    first = train(task, members=5, chunk=2, store=tmp_path)
    before = {path.name: path.read_bytes() for path in shelf_of(tmp_path).glob("members-*")}
    epochs_run.clear()
    more = train(task, members=8, chunk=5, store=tmp_path)
    assert sum(epochs_run) == 3 * 3  # three members, three epochs
    assert equal({n: t[:5] for n, t in state_of(more).items()}, state_of(first))
    assert all((shelf_of(tmp_path) / name).read_bytes() == content for name, content in before.items())
    few = train(task, members=2, first=3, store=tmp_path)
    assert few.provenance["reused"]
    assert equal({n: t[3:5] for n, t in state_of(first).items()}, state_of(few))


def test_masks_are_kept_and_found(tmp_path, epochs_run):
    task, mask = small_task("mlp"), np.random.default_rng(0).random((4, 50)) < 0.5
    first = train(task, members=4, examples=mask, store=tmp_path)
    epochs_run.clear()
    assert equal(first.params, train(task, members=4, examples=mask, store=tmp_path).params)
    assert not epochs_run
    mask[2, :3] = ~mask[2, :3]
    train(task, members=4, examples=mask, store=tmp_path)
    assert epochs_run


def different_requests():
    task = small_task("mlp")
    yield task, {}
    yield task, {"seed": 1}
    yield task, {"without": forget_set(task, seed=0)}
    yield task, {"without": forget_set(task, seed=1)}
    yield task, {"epochs": 2}
    yield small_task("mlp", lr=0.11), {}
    yield small_task("mlp", last_batch="drop"), {}
    yield small_task("mlp", n=51), {}
    yield small_task("mlp", model=lambda: torch.nn.Sequential(torch.nn.Linear(6, 3))), {}
    relabelled = task.with_labels(np.array([0]), (task.train.y[0] + 1) % 3, task.name)
    yield relabelled, {}
    x = task.train.x.clone()
    x[0, 0] += 1e-12
    moved = small_task("mlp")
    moved.train = type(task.train)(x, task.train.y)
    yield moved, {}


def test_two_specifications_never_share(tmp_path, epochs_run):
    members = []
    for number, (task, options) in enumerate(different_requests(), start=1):
        epochs_run.clear()
        members.append(train(task, members=1, store=tmp_path, **options))
        assert epochs_run, number
        assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == number
    for number, (task, options) in enumerate(different_requests()):
        epochs_run.clear()
        assert equal(members[number].params, train(task, members=1, store=tmp_path, **options).params)
        assert not epochs_run


SCRIPT = """
import importlib, os, signal, sys
trainer = importlib.import_module("expunge.ensembles.train")
from reference.problems import small_task
trainer.PARTIAL_SECONDS = -1.0
name, optimiser, store, stop = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
def progress(done, total):
    if done >= stop:
        os.kill(os.getpid(), signal.SIGKILL)
task = small_task(name, precision="float32", epochs=4, optimizer=optimiser)
trainer.train(task, members=6, chunk=2, workers=int(sys.argv[5]), store=store, progress=progress)
print("finished")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "optimiser", "stop", "workers", "shards", "partials"),
    [
        ("resnet", "sgd", 12, 1, 1, 1),  # in the second chunk: one shard, and a partial of the second
        ("resnet", "sgd", 12, 2, None, None),  # wherever two workers happen to be
    ],
)
def test_a_killed_run_resumes_and_ends_with_identical_numbers(
    tmp_path, epochs_run, name, optimiser, stop, workers, shards, partials
):
    command = [sys.executable, "-c", SCRIPT, name, optimiser, str(tmp_path), str(stop), str(workers)]
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert "finished" not in result.stdout
    if shards is not None:
        assert len(manifest_of(tmp_path)["shards"]) == shards
        assert len(list(shelf_of(tmp_path).glob("partial-*"))) == partials
    task = small_task(name, precision="float32", epochs=4, optimizer=optimiser)
    resumed = train(task, members=6, store=tmp_path)  # the chunk size is the one it began with
    saved = 6 * 4 - sum(epochs_run)
    if shards is not None:
        assert saved == stop - 2  # the epoch after which it was killed had not been written yet
    else:
        assert 0 < saved < 6 * 4
    uninterrupted = train(task, members=6, chunk=2)
    assert equal(state_of(resumed), state_of(uninterrupted))
    assert not list(shelf_of(tmp_path).glob("partial-*"))


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_interrupting_after_any_epoch_makes_no_difference(tmp_path, monkeypatch, optimiser):
    monkeypatch.setattr(trainer, "PARTIAL_SECONDS", -1.0)
    task = small_task("mlp_norm", precision="float32", epochs=4, optimizer=optimiser)
    expected = train(task, members=3, chunk=3)

    class PowerCutError(Exception):
        pass

    for stop in (3, 6, 9):
        store = tmp_path / f"{stop}"

        def cut(done, total, stop=stop):
            if done >= stop + 3:
                raise PowerCutError

        with pytest.raises(PowerCutError):
            train(task, members=3, chunk=3, store=store, progress=cut)
        assert equal(state_of(expected), state_of(train(task, members=3, store=store)))


def shifted(batch, generator):
    return batch + 0.3 * torch.randn(batch.shape, generator=generator)


def noisy_task():
    """Dropout and augmentation, which draw within an epoch; four steps an epoch, three epochs."""
    plain = small_task("mlp", precision="float32")
    return Task(
        name="noisy",
        train=(plain.train.x, plain.train.y),
        validation=(plain.validation.x, plain.validation.y),
        model=lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)),
        recipe=plain.recipe,
        augment=shifted,
    )


@pytest.fixture
def at_step(monkeypatch):
    """Does something at each step of a training, told how many came before."""
    steps, real = [], Task.augmented

    def augmented(self, x, generators):
        if actions and x.shape[1] > 1:
            actions[0](len(steps))
            steps.append(len(generators))
        return real(self, x, generators)

    actions = []
    monkeypatch.setattr(Task, "augmented", augmented)

    def act(action):
        actions[:] = [] if action is None else [action]
        steps.clear()
        return steps

    return act


@pytest.mark.parametrize("stop", [1, 5, 8, 11])
def test_a_run_that_ends_within_an_epoch_goes_on_there(tmp_path, monkeypatch, at_step, stop):
    task = noisy_task()
    expected = train(task, members=3, chunk=3)
    monkeypatch.setattr(trainer, "PARTIAL_SECONDS", -1.0)

    class PowerCutError(Exception):
        pass

    def cut(step):
        if step == stop:
            raise PowerCutError

    at_step(cut)
    with pytest.raises(PowerCutError):
        train(task, members=3, chunk=3, store=tmp_path)
    steps = at_step(lambda step: None)
    assert equal(state_of(expected), state_of(train(task, members=3, store=tmp_path)))
    assert len(steps) == 12 - stop


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("kind", ["layers", "one"])  # in threads, in processes
def test_ctrl_c_keeps_what_is_done_and_ends_between_two_steps(tmp_path, at_step, kind):
    task, main = noisy_task(), os.getpid()
    network = build_network(task, kind)
    expected = train(task, members=4, chunk=2, network=network)
    first = multiprocessing.get_context("fork").Semaphore(1)  # a second signal would reach whatever comes after

    def interrupt(step):
        if step >= 5 and first.acquire(block=False):
            os.kill(main, signal.SIGINT)
        time.sleep(0.03 if step < 5 else 0.2)

    at_step(interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(task, members=4, chunk=2, workers=2, network=network, store=tmp_path)
    assert list(shelf_of(tmp_path).glob("partial-*"))
    assert not manifest_of(tmp_path)["shards"]
    assert not list(shelf_of(tmp_path).glob("claim-*"))
    steps = at_step(lambda step: None)
    assert equal(state_of(expected), state_of(train(task, members=4, workers=1, network=network, store=tmp_path)))
    assert len(steps) <= (24 if kind == "layers" else 48) - 5


@pytest.fixture
def kept(tmp_path):
    task = small_task("mlp")
    train(task, members=4, chunk=2, store=tmp_path)
    return task, tmp_path


def spoil_truncate(folder):
    file = folder / "members-00002-00003.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    return file.name


def spoil_bit(folder):
    file = folder / "members-00000-00001.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    return file.name


def spoil_missing(folder):
    (folder / "members-00000-00001.safetensors").unlink()
    return "members-00000-00001.safetensors"


def spoil_swap(folder):
    one, other = folder / "members-00000-00001.safetensors", folder / "members-00002-00003.safetensors"
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    return "members-0000"


def edit(change, seal=own_digest):
    """Change a manifest; `seal` is the checksum that it gets, None for that of an earlier version, which had none."""

    def spoil(folder):
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        change(manifest, folder)
        del manifest["sha256"]
        if seal is not None:
            manifest["sha256"] = seal(manifest)
        path.write_text(json.dumps(manifest))
        return ""

    return spoil


def rename_shard(name):
    def change(manifest, folder):
        outside = folder.parent / "outside.safetensors"
        outside.write_bytes((folder / manifest["shards"][0]["file"]).read_bytes())
        (folder / "sub").mkdir(exist_ok=True)
        (folder / "sub" / "s.safetensors").write_bytes(outside.read_bytes())
        manifest["shards"][0]["file"] = name.format(root=folder.parent)

    return edit(change)


def link_shard(folder):
    file = folder / "members-00000-00001.safetensors"
    file.symlink_to(file.rename(folder.parent / "elsewhere.safetensors"))
    return file.name


def with_content(content, ids=None):
    """A file that fits its checksum and is still not what it should be."""

    def change(manifest, folder):
        shard = manifest["shards"][0]
        (folder / shard["file"]).write_bytes(content)
        shard["sha256"] = hashlib.sha256(content).hexdigest()
        shard["ids"] = ids or shard["ids"]

    return edit(change)


SPOILED = {
    "truncated shard": (spoil_truncate, r"{name} is damaged"),
    "altered bit": (spoil_bit, r"{name} is damaged"),
    "missing shard": (spoil_missing, r"{name} is missing"),
    "swapped shards": (spoil_swap, r"members-0000.* is damaged"),
    "shard outside": (rename_shard("../outside.safetensors"), "outside its own folder"),
    "shard at an absolute path": (rename_shard("{root}/outside.safetensors"), "outside its own folder"),
    "shard in a folder below": (rename_shard("sub/s.safetensors"), "outside its own folder"),
    "not a shard": (with_content(b"\x80\x04K\x01."), "is not a shard"),
    "too few rows": (with_content(save({"params/0.weight": torch.zeros(1, 8, 6)})), "holds .1. members"),
    "no rows": (with_content(save({"params/0.weight": torch.tensor(1.0)})), "holds .0. members"),
    "other format": (edit(lambda m, _: m.update(format=99)), "another format"),
    "other specification": (edit(lambda m, _: m["specification"].update(seed=9)), "another specification"),
    "no checksum": (edit(lambda m, _: m["shards"][0].pop("sha256")), "another format"),
    "ids are words": (edit(lambda m, _: m["shards"][0].update(ids="01")), "another format"),
    "ids are fractions": (edit(lambda m, _: m["shards"][0].update(ids=[0.5])), "another format"),
    "chunk is a word": (edit(lambda m, _: m.update(chunk="many")), "is damaged"),
    "chunk below 0": (edit(lambda m, _: m.update(chunk=-5)), "is damaged .chunk -5"),
    "chunk is a float": (edit(lambda m, _: m.update(chunk=1e30)), "is damaged .chunk 1e.30"),
    "chunk is infinite": (edit(lambda m, _: m.update(chunk=float("inf"))), "is damaged .chunk inf"),
    "ids reversed": (edit(lambda m, _: m["shards"][0]["ids"].reverse(), lambda m: "0" * 64), "was changed"),
    "ids reversed, no checksum": (edit(lambda m, _: m["shards"][0]["ids"].reverse(), None), "expected them in order"),
    "an id twice": (edit(lambda m, _: m["shards"][0].update(ids=[0, 0])), "expected them in order"),
    "another shape": (with_content(save({"params/0.weight": torch.zeros(2, 8, 6)})), "is not of this model"),
    "a link to elsewhere": (link_shard, "outside its own folder"),
    "shards are a number": (edit(lambda m, _: m.update(shards=3)), "is damaged"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_damaged_or_foreign_file_is_named_and_refused(kept, name):
    task, store = kept
    spoil, message = SPOILED[name]
    file = spoil(shelf_of(store))
    with pytest.raises(DamagedFileError, match=message.replace("{name}", file)) as error:
        train(task, members=4, store=store)
    assert str(shelf_of(store)) in str(error.value)
    assert "delete" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"3", b'{"shards": []}'])
def test_an_unreadable_manifest_is_named_and_refused(kept, content):
    task, store = kept
    (shelf_of(store) / "manifest.json").write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"manifest\.json"):
        train(task, members=4, store=store)


def test_a_shard_of_another_shelf_is_refused(kept, tmp_path_factory):
    task, store = kept
    other = tmp_path_factory.mktemp("other")
    train(task, members=4, chunk=2, seed=1, store=other)
    for file in shelf_of(other).glob("members-*"):
        (shelf_of(store) / file.name).write_bytes(file.read_bytes())
    with pytest.raises(DamagedFileError, match="is damaged"):
        train(task, members=4, store=store)


def test_damaged_or_foreign_training_in_progress_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "PARTIAL_SECONDS", -1.0)
    task = small_task("mlp")

    def cut(done, total):
        if done >= 4:
            raise KeyboardInterrupt

    def interrupted(store, seed):
        with pytest.raises(KeyboardInterrupt):
            train(task, members=2, chunk=2, seed=seed, store=store, progress=cut)
        (file,) = shelf_of(store).glob("partial-*")
        return file

    mine, foreign = interrupted(tmp_path / "a", 0), interrupted(tmp_path / "b", 1)
    content = mine.read_bytes()
    for bad in (content[:-1], content[:10], b"", bytes([content[0] ^ 1]) + content[1:]):
        mine.write_bytes(bad)
        with pytest.raises(DamagedFileError, match="partial-00000-00001"):
            train(task, members=2, store=tmp_path / "a")
    mine.write_bytes(foreign.read_bytes())
    with pytest.raises(DamagedFileError, match="belongs to another specification"):
        train(task, members=2, store=tmp_path / "a")
    mine.write_bytes(content)
    assert equal(train(task, members=2, store=tmp_path / "a").params, train(task, members=2, chunk=2).params)


def test_shelves_take_saves_from_many_threads(tmp_path):
    shelf = Shelf(tmp_path, {"what": "a test"})
    shelf.begin(2)
    errors = []

    def work(number):
        try:
            ids = [2 * number, 2 * number + 1]
            value = torch.tensor(ids, dtype=torch.float32).reshape(2, 1)
            shelf.save_partial(ids, 1, {"params/w": value})
            shelf.save(ids, {"w": value}, {"b": value + 0.5})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    again = Shelf(tmp_path, {"what": "a test"})
    assert again.members() == set(range(48))
    assert again.chunk == 2
    wanted = [47, 0, 13]
    params, buffers = again.load(wanted)
    assert params["w"].flatten().tolist() == wanted
    assert buffers["b"].flatten().tolist() == [47.5, 0.5, 13.5]
    left = sorted(path.name for path in again.folder.iterdir() if path.suffix != ".safetensors")
    assert left == ["lock", "manifest.json"]


def test_two_processes_on_one_shelf_lose_nothing(tmp_path):
    shelf, other = (Shelf(tmp_path, {"what": "two"}) for _ in range(2))
    assert shelf.begin(1) == 1
    assert other.begin(5) == 1  # the shelf keeps the chunk that it began with
    parts = [[0, 2], [0, 1, 2], *([number] for number in range(3, 40))]
    child = os.fork()
    done = False
    try:
        for ids in parts[1::2] if child else parts[::2]:
            value = torch.tensor(ids, dtype=torch.float32).reshape(-1, 1)
            (shelf if child else other).save(ids, {"w": value}, {})
        done = True
    finally:
        if not child:
            os._exit(0 if done else 1)
    assert os.waitpid(child, 0)[1] == 0
    again = Shelf(tmp_path, {"what": "two"})
    assert again.members() == set(range(40))
    assert again.load(list(range(40)))[0]["w"].flatten().tolist() == list(range(40))


def test_a_manifest_of_an_earlier_version_has_no_checksum_and_is_read(kept, epochs_run):
    task, store = kept
    expected = train(task, members=4, store=store)
    edit(lambda m, _: None, None)(shelf_of(store))
    assert equal(train(task, members=4, store=store).params, expected.params)
    assert not epochs_run
    train(task, members=6, store=store)
    assert len(manifest_of(store)["sha256"]) == 64


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_four_processes_at_one_store_train_each_member_once(tmp_path, epochs_run):
    task = small_task("mlp_norm", precision="float32")
    made = {}

    def one(number):  # each with a chunk size and a number of members of its own
        ensemble = train(task, members=12 + number, chunk=2 + number, workers=1, store=tmp_path)
        return sum(epochs_run), ensemble.provenance["chunk"], ensemble.params["0.weight"][:12].tolist()

    run_each(one, range(4), 4, made.__setitem__)
    trained, chunks, weights = zip(*made.values(), strict=True)
    assert sum(trained) == 15 * task.recipe.epochs
    assert len(set(chunks)) == 1
    assert all(own == weights[0] for own in weights)
    assert {member for shard in manifest_of(tmp_path)["shards"] for member in shard["ids"]} == set(range(15))
    assert not list(shelf_of(tmp_path).glob("claim-*"))


def test_members_of_a_process_that_was_killed_are_taken_over(tmp_path):
    shelf = Shelf(tmp_path, {"what": "claims"})
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            with shelf.claim([3, 4, 5]) as mine:
                os.write(theirs, bytes(mine))
                signal.pause()
        finally:
            os._exit(1)
    assert os.read(ours, 3) == bytes([3, 4, 5])
    with shelf.claim([5, 6]) as mine:
        assert mine == []
    with shelf.claim([6, 7]) as mine, shelf.claim([7]) as again:
        assert mine == [6, 7]
        assert again == []  # by this very process
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert shelf.left([3, 4, 5, 6]) == {3, 4, 5, 6}
    with shelf.claim([5, 6]) as mine:
        assert mine == [5, 6]
        shelf.save(mine, {"w": torch.zeros(2)}, {})
    with shelf.claim([3, 4, 5, 6]) as mine:
        assert mine == [3, 4]
    assert sorted(path.name for path in shelf.folder.glob("*-*")) == ["members-00005-00006.safetensors"]


def test_mapped_weights_are_those_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("expunge.ensembles.store.LEAST_MAPPED", 1)
    shelf = Shelf(tmp_path, {"what": "mapped"})
    for ids in ([0, 1], [2], [3, 4]):
        shelf.save(ids, {"w": torch.randn(len(ids), 3), "none": torch.zeros(len(ids), 0)}, {"n": torch.tensor(ids)})
    wanted = [4, 0, 2]
    plain, mapped = shelf.load(wanted), shelf.load(wanted, mapped=True)
    assert all(equal(one, other) for one, other in zip(plain, mapped, strict=True))
    assert not list(shelf.folder.glob("mapped-*"))
    mapped[0]["w"].add_(1)  # belongs to whoever asked; the store does not change
    assert equal(shelf.load(wanted)[0], plain[0])


def test_two_runs_with_the_same_store_at_once_agree(tmp_path):
    task = small_task("mlp", precision="float32")
    network = build_network(task)  # torch.fx must not trace in several threads at once
    results, errors = [], []

    def work():
        try:
            results.append(train(task, members=6, chunk=2, store=tmp_path, network=network))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert all(equal(results[0].params, other.params) for other in results)
    assert equal(results[0].params, train(task, members=6, store=tmp_path).params)


def test_tensors_come_back_with_their_types(tmp_path):
    shelf = Shelf(tmp_path, {"types": True})
    params = {"a": torch.randn(2, 3, dtype=torch.float64), "b": torch.randn(2, 1).bfloat16(), "c": torch.zeros(2, 0)}
    buffers = {"n": torch.tensor([3, 4]), "flag": torch.tensor([True, False])}
    shelf.save([4, 9], params, buffers)
    loaded, others = Shelf(tmp_path, {"types": True}).load([9, 4])
    for state, back in ((params, loaded), (buffers, others)):
        for name, tensor in state.items():
            assert back[name].dtype == tensor.dtype
            assert torch.equal(back[name], tensor[[1, 0]])


def test_training_in_progress_is_only_for_exactly_these_members(tmp_path):
    shelf = Shelf(tmp_path, {"x": 1})
    shelf.begin(3)
    shelf.save_partial([0, 1, 2], 4, {"params/w": torch.arange(3.0)})
    assert shelf.load_partial([0, 2]) is None
    (shelf.folder / "partial-00000-00002.safetensors").rename(shelf.folder / "partial-00005-00006.safetensors")
    assert shelf.load_partial([5, 6]) is None
    assert shelf.load_partial([0, 1, 2]) is None


def test_a_file_where_the_store_should_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"store = '.*file/store', but .*file is a file"):
        train(small_task(), members=2, store=tmp_path / "file" / "store")
