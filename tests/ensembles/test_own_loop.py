"""A member trained by the user's own loop is itself: the same alone, in processes, after a kill; what fails is told."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from expunge.core import DivergedError, InputError
from expunge.core.examples import Examples
from expunge.core.seeds import derive
from expunge.core.task import seeded
from expunge.ensembles import processes, train
from expunge.ensembles.own_loop import member_seeds
from expunge.tasks import random_forget_set
from reference.own_loops import careful_loop, loop, net, own_task


def equal(one, other):
    a, b = ({**e.params, **e.buffers} for e in (one, other))
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("fit", [loop, careful_loop])
def test_each_member_is_what_the_loop_makes_alone(fit):
    task = own_task(fit, model=lambda: net(0.2))
    ensemble = train(task, members=3, seed=4, workers=2)
    rows = torch.arange(len(task.train))
    for member, seed in enumerate(member_seeds(4, [rows] * 3, range(3))):
        module, own = task.build(derive(seed, "initialisation")), derive(seed, "fit") % 2**31
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        with seeded(own):
            fit(module, Examples(task.train, task.interface), own)
        torch.set_num_threads(threads)
        for name, tensor in module.state_dict().items():
            assert torch.equal(ensemble.params[name][member], tensor)
    assert ensemble.provenance["network"] in ("layers", "vmap", "one")
    assert not torch.equal(ensemble.params["0.weight"][0], ensemble.params["0.weight"][1])


def test_neither_processes_nor_other_members_nor_the_store_change_a_member(tmp_path):
    task = own_task()
    here = train(task, members=4, workers=1)
    assert equal(here, train(task, members=4, workers=2))
    part = train(task, members=2, first=1, workers=2, store=tmp_path)
    assert equal(here[1:3], part)
    calls = []
    assert equal(here, train(task, members=4, store=tmp_path / "b", progress=lambda n, total: calls.append((n, total))))
    assert sorted(calls) == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert train(task, members=4, store=tmp_path / "b").provenance["reused"]


def test_rows_left_out_are_not_seen_and_oracles_are_draws_of_their_own():
    seen = []

    def fit(model, dataset, seed):
        seen.append((dataset.rows.tolist(), dataset.x.shape, dataset.y.shape))
        loop(model, dataset, seed)

    task = own_task(fit)
    forget = random_forget_set(task, size=10, seed=0)
    train(task, members=1, without=forget)
    assert seen == [(forget.retain.tolist(), (86, 6), (86,))]
    masks = np.random.default_rng(0).random((2, 96)) < 0.5
    train(task, members=2, examples=masks, workers=1)
    assert [rows for rows, _, _ in seen[1:]] == [np.flatnonzero(mask).tolist() for mask in masks]


def test_all_generators_are_seeded_and_restored():
    drawn = []

    def fit(model, dataset, seed):
        drawn.append((random.random(), float(np.random.rand()), float(torch.rand(()))))  # noqa: NPY002

    task = own_task(fit)
    before = random.getstate()
    for _ in range(2):
        train(task, members=2, workers=1)
    assert random.getstate() == before
    assert drawn[:2] == drawn[2:]
    assert len(set(drawn)) == 2


def test_a_data_set_of_named_inputs_and_of_images_gives_what_the_model_takes():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 3)

        def forward(self, words, weights):
            return (self.table(words) * weights.unsqueeze(-1)).sum(1)

    def fit(model, dataset, seed):
        x, y = dataset[0]
        assert x["words"].dtype == torch.int64
        assert x["words"].shape == (4,)
        assert y.ndim == 0
        for inputs, labels in DataLoader(dataset, batch_size=8):
            nn.functional.cross_entropy(model(**inputs), labels).backward()

    inputs = {"words": torch.randint(5, (20, 4)), "weights": torch.rand(20, 4)}
    pair = (inputs, torch.arange(20) % 3)
    from expunge.core import Task

    train(Task(name="named", train=pair, validation=(inputs, (pair[1] + 1) % 3), model=Two, fit=fit), members=1)
    images = (torch.randint(256, (12, 1, 4, 4), dtype=torch.uint8), torch.arange(12) % 3)
    task = Task(
        name="images",
        train=images,
        validation=(images[0], (images[1] + 1) % 3),
        normalise=(0.5, 0.5),
        fit=lambda *_: None,
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)),
    )
    data = Examples(task.train[[3, 5, 7]], task.interface)
    assert torch.equal(data[1][0], (images[0][5].float() / 255 - 0.5) / 0.5)
    assert torch.equal(data[1:][1], images[1][[5, 7]])
    assert len(list(data)) == 3


def raises(model, dataset, seed):
    raise KeyError("learning_rate")


def returns_other(model, dataset, seed):
    return nn.Linear(6, 3)


def returns_number(model, dataset, seed):
    return 0.3


def exits(model, dataset, seed):
    sys.exit(3)


def dies(model, dataset, seed):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("fit", "said"),
    [
        (raises, r"fit failed for member [01].*KeyError: 'learning_rate' \(test_own_loop.py, line \d+: raise KeyError"),
        (returns_other, r"what fit returned for member [01] does not fit the model.*lacks '0.weight'"),
        (returns_number, r"fit returned a float for member [01], expected the trained torch.nn.Module, its state_dict"),
        (exits, r"fit failed for member [01].*SystemExit: 3"),
        (dies, r"the process that computed member [01] was ended by signal 9 \(SIGKILL\).*memory"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_goes_wrong_names_the_member_and_the_line(fit, said):
    task = own_task(fit)
    with pytest.raises(InputError, match=said):
        train(task, members=2, workers=2)
    if fit is not dies:
        with pytest.raises(InputError, match=said):
            train(task, members=2, workers=1)


def test_a_member_that_is_not_finite_counts_as_failed_and_all_of_them_are_an_error():
    def fit(model, dataset, seed, only=None):
        loop(model, dataset, seed)
        if only is None or seed % 2 == only:
            model[0].weight.data[0] = torch.nan

    seeds = [derive(s, "fit") % 2 for s in member_seeds(0, [torch.arange(96)] * 6, range(6))]
    ensemble = train(own_task(lambda m, d, s: fit(m, d, s, only=1)), members=6, workers=2)
    assert ensemble.finite().tolist() == [seed == 0 for seed in seeds]
    with pytest.raises(DivergedError, match=r"all 2 members of task 'clouds' became non-finite"):
        train(own_task(fit), members=2)


def test_options_of_the_fast_path_are_refused():
    with pytest.raises(InputError, match=r"epochs = 2 was given.*own fit, which reads no recipe"):
        train(own_task(), members=2, epochs=2)
    untrained = train(own_task(), members=2, epochs=0)
    assert len(untrained) == 2


def slow_loop(model, dataset, seed):
    loop(model, dataset, seed)
    time.sleep(float(os.environ.get("PAUSE", "0")))


def started(work):
    """Do something in a fork of this process, and return the fork's number."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    return child


def alive(pids):
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_run_that_is_ended_leaves_no_process_and_goes_on_where_it_was(tmp_path, monkeypatch):
    task = own_task(slow_loop)
    monkeypatch.setenv("PAUSE", "0.5")
    done = 0
    for how in (signal.SIGINT, signal.SIGKILL):
        child = started(lambda: train(task, members=6, workers=2, store=tmp_path))
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("*/members-*"))) <= done and time.monotonic() < deadline:
            time.sleep(0.02)
        others = Path(f"/proc/{child}/task/{child}/children").read_text().split()
        assert len(others) == 2
        os.kill(child, how)
        os.waitpid(child, 0)
        begin = time.monotonic()
        while alive(others) and time.monotonic() - begin < 10:
            time.sleep(0.02)
        assert not alive(others)
        done = len(list(tmp_path.glob("*/members-*")))
        assert done < 6
    monkeypatch.setenv("PAUSE", "0")
    assert equal(train(task, members=6, workers=2, store=tmp_path), train(task, members=6, workers=1))


def in_memory():
    """Return the bytes of this process that no file holds."""
    (line,) = [row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("RssAnon")]
    return 1024 * int(line.split()[1])


def test_memory_does_not_grow_with_members():
    def wide():
        return nn.Sequential(nn.Linear(6, 300_000), nn.Linear(300_000, 3))

    task = own_task(lambda model, dataset, seed: None, model=wide)
    each = 4 * sum(p.numel() for p in task.build(0).parameters())
    train(task, members=2, workers=1)
    before = in_memory()
    ensemble = train(task, members=12, workers=1)
    assert in_memory() - before < 3 * each  # of 12
    assert len(ensemble.params["0.weight"]) == 12


def test_where_forking_is_not_safe_members_are_trained_here(monkeypatch):
    task, pids = own_task(lambda m, d, s: pids.append(os.getpid())), []
    monkeypatch.setattr(processes, "may_fork", lambda: False)
    train(task, members=3, workers=2)
    assert pids == [os.getpid()] * 3
