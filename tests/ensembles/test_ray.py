"""Shards on a Ray cluster of this machine: the same numbers, whatever dies; what cannot work is named at once."""

from __future__ import annotations

import importlib
import os
import socket
import sys
import sysconfig
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import expunge as ex
from expunge.core import InputError
from expunge.core.stopping import stop_asked
from expunge.ensembles import RayRunner, on_ray
from expunge.ensembles.plan import Plan
from expunge.ensembles.runners import read_runner
from expunge.ensembles.train import _Elsewhere
from expunge.studies.run.elsewhere import UnlearningRun, _join
from expunge.studies.run.parts import PartStore
from reference.problems import small_task

ray = pytest.importorskip("ray")

# What Ray itself warns of, and leaves open, is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=2, object_store_memory=2**27, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def same(one: ex.Ensemble, other: ex.Ensemble) -> bool:
    return all(torch.equal(one.params[name], other.params[name]) for name in one.params)


def test_members_trained_on_the_cluster_are_those_trained_here(tmp_path):
    task = small_task()
    seen: list[tuple[int, int]] = []
    asked = {"members": 7, "seed": 3, "chunk": 2, "keep": [1]}
    here = ex.train(task, **asked)
    there = ex.train(task, **asked, store=tmp_path, runner="ray", progress=lambda *both: seen.append(both))
    assert same(here, there)
    assert all(torch.equal(here.states[1][name], there.states[1][name]) for name in here.states[1])
    assert seen[-1] == (7 * task.recipe.epochs, 7 * task.recipe.epochs)
    assert ex.train(task, **asked, store=tmp_path).provenance["reused"]
    assert not list(tmp_path.glob("seen-*"))


def test_rows_of_each_member_and_more_members_afterwards(tmp_path):
    task = small_task()
    masks = np.random.default_rng(0).random((5, len(task.train))) < 0.5
    here = ex.train(task, members=5, examples=masks, seed=1)
    assert same(here, ex.train(task, members=5, examples=masks, seed=1, store=tmp_path, runner="ray"))
    ex.train(task, members=3, seed=1, chunk=2, store=tmp_path, runner="ray")
    more = ex.train(task, members=6, seed=1, chunk=2, store=tmp_path, runner="ray")
    assert same(more, ex.train(task, members=6, seed=1, chunk=2))


def own_task(change) -> ex.Task:
    """A task that trains by a fit which writes into every parameter."""

    def fit(model, data, seed):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                change(parameter, generator)

    plain = small_task()
    return ex.Task(
        name="own",
        train=(plain.train.x, plain.train.y),
        validation=(plain.validation.x, plain.validation.y),
        model=plain.model,
        fit=fit,
    )


def test_a_fit_of_ones_own(tmp_path):
    task = own_task(lambda parameter, generator: parameter.add_(torch.randn(parameter.shape, generator=generator)))
    here = ex.train(task, members=4, seed=2)
    assert same(here, ex.train(task, members=4, seed=2, store=tmp_path, runner="ray"))


def test_a_fit_that_ignores_its_seed_is_refused(tmp_path):
    task = own_task(lambda parameter, generator: parameter.zero_())
    with pytest.raises(InputError, match=r"members \d and \d of task 'own' came out the same"):
        ex.train(task, members=3, seed=2, store=tmp_path, runner="ray")


def test_a_fit_that_raises_is_named(tmp_path):
    task = own_task(lambda parameter, generator: 1 / 0)
    with pytest.raises(InputError, match=r"fit failed for member \d, .*ZeroDivisionError"):
        ex.train(task, members=2, seed=2, store=tmp_path, runner="ray")


def test_models_that_vote(tmp_path):
    task = ex.tasks.sisa(small_task(), voters=2)
    here = ex.train(task, members=3, seed=1, chunk=2)
    assert same(here, ex.train(task, members=3, seed=1, chunk=2, store=tmp_path, runner="ray"))


def test_a_worker_that_dies_in_the_middle_of_training_changes_nothing(tmp_path):
    plain, driver, marker = small_task(), os.getpid(), tmp_path / "died"

    def model():
        if os.getpid() != driver and not marker.exists():
            marker.touch()
            os._exit(1)
        return plain.model()

    task = ex.Task(
        name=plain.name,
        train=(plain.train.x, plain.train.y),
        validation=(plain.validation.x, plain.validation.y),
        model=model,
        recipe=plain.recipe,
    )
    there = ex.train(task, members=4, seed=3, chunk=2, store=tmp_path / "store", runner="ray")
    assert marker.exists()
    assert same(ex.train(plain, members=4, seed=3, chunk=2), there)


def shifted(model, retain, forget, validation):
    """Unlearn by moving every weight a little."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    return model


def test_an_audit_on_the_cluster_has_the_record_of_one_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # workers need not be started where the run's folder is
    task, records = small_task(), []
    methods = [
        ex.methods.Scrub(epochs=2, msteps=1),
        ex.methods.from_function(shifted),
        ex.methods.EarlyStoppedRetrain(cost=0.5),
        ex.methods.FineTune(lr=0.01, epochs=1),
    ]
    for place, runner in (("here", None), ("there", "ray")):
        run = ex.audit(
            task, forget="random:9", methods=methods, members=20, chunk=10, forecast=False, out=place, runner=runner
        )
        records.append(run.record)
        assert not list(run.folder.rglob("*.part"))
    here, there = (record.forget_sets[0].model_dump_json() for record in records)
    assert here == there


def test_a_part_that_is_not_to_be_seen_from_here_is_named(tmp_path):
    run = UnlearningRun(small_task(), None, ex.methods.GradientAscent(), 0, {"a": 1})
    with pytest.raises(InputError, match=r"\.part, which a machine of the cluster wrote, is not to be seen from here"):
        _join(run, [{"a": 1, "part": [0, 2]}], PartStore(tmp_path))


def touch(folder: Path, name: object) -> int:
    """Count how often something was tried."""
    (folder / f"{name}-{time.monotonic_ns()}-{os.getpid()}").touch()
    return len(list(folder.glob(f"{name}-*")))


def test_a_worker_that_dies_loses_its_shard_to_another(tmp_path):
    def work(shard: int) -> None:
        if touch(tmp_path, shard) == 1 and shard == 2:
            os._exit(1)

    done: list[int] = []
    RayRunner().run(work, range(5), finished=done.append)
    assert sorted(done) == list(range(5))
    assert len(list(tmp_path.glob("2-*"))) == 2


@pytest.mark.parametrize("dies", [True, False])
def test_a_shard_that_fails_again_and_again_is_named_with_its_log(tmp_path, dies):
    def work(shard: int) -> None:
        touch(tmp_path, shard)
        if shard == 3:
            if dies:
                os._exit(1)
            raise ZeroDivisionError("of mine")

    with pytest.raises(InputError, match="members 30 to 39 failed 2 times") as error:
        RayRunner(attempts=2).run(work, range(4), name=lambda shard: f"members {shard}0 to {shard}9")
    assert "logs on the machines" in str(error.value)
    assert dies or "ZeroDivisionError: of mine" in str(error.value)
    assert len(list(tmp_path.glob("3-*"))) == 2


def test_what_would_be_refused_again_is_not_tried_again(tmp_path):
    def work(shard: int) -> None:
        touch(tmp_path, shard)
        raise InputError("x = 3, expected 4")

    with pytest.raises(InputError, match=r"^x = 3, expected 4$"):
        RayRunner().run(work, [7])
    assert len(list(tmp_path.glob("7-*"))) == 1


def test_shards_that_are_not_waited_for_keep_what_they_have(tmp_path):
    def work(shard: int) -> None:
        if shard == 0:
            return
        (tmp_path / "begun").touch()
        while not stop_asked():
            time.sleep(0.01)
        (tmp_path / "kept").touch()

    def interrupted(shard: int) -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RayRunner().run(work, [0, 1], finished=interrupted)
    assert (tmp_path / "kept").exists()


def test_code_of_ones_own_that_machines_do_not_have_is_sent_along(tmp_path, monkeypatch):
    (tmp_path / "of_mine.py").write_text("def name():\n    return 'of mine'\n")
    monkeypatch.syspath_prepend(tmp_path)
    of_mine = importlib.import_module("of_mine")
    monkeypatch.setitem(sys.modules, "of_mine", of_mine)

    def work(shard: int) -> None:
        (tmp_path / of_mine.name()).touch()

    RayRunner().run(work, [0])
    assert (tmp_path / "of mine").exists()


def test_a_library_that_machines_lack_is_named(monkeypatch):
    lacking = types.ModuleType("lacking_here")
    lacking.__file__ = f"{sysconfig.get_path('purelib')}/lacking_here.py"
    exec("def work(shard):\n    pass\n", vars(lacking))
    lacking.work.__module__ = "lacking_here"
    monkeypatch.setitem(sys.modules, "lacking_here", lacking)
    with pytest.raises(InputError, match="a machine of the Ray cluster cannot import lacking_here"):
        RayRunner().run(lacking.work, [0])


def test_what_cannot_be_sent_is_refused(tmp_path):
    file = (tmp_path / "open").open("w")
    with file, pytest.raises(InputError, match=r"the task cannot be sent to other machines \(PicklingError"):
        RayRunner().run(lambda shard: file.write("a"), [0])


def test_a_late_shard_is_begun_a_second_time_once():
    late = RayRunner._late
    long_ago = time.monotonic() - 1000
    assert late({"a": (4, long_ago)}, {4}, [1.0, 2.0, 3.0, 4.0]) == [4]
    assert late({"a": (4, long_ago), "b": (4, long_ago)}, {4}, [1.0, 2.0, 3.0, 4.0]) == []
    assert late({"a": (4, long_ago)}, {4}, [400.0] * 4) == []
    assert late({"a": (4, time.monotonic())}, {4}, [1.0] * 4) == []
    assert late({"a": (4, long_ago)}, {4, 5, 6}, [1.0] * 2) == []


def test_a_late_shard_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "SLOW", 1.0)
    monkeypatch.setattr(on_ray, "SLOW_SECONDS", 0.2)

    class Work:
        def __call__(self, shard: int) -> None:
            while shard == 4 and not stop_asked():
                time.sleep(0.01)

        def beside(self, shard: int) -> None:
            (tmp_path / f"beside {shard}").touch()

    done: list[int] = []
    RayRunner().run(Work(), range(5), finished=done.append)
    assert sorted(done) == list(range(5))
    assert (tmp_path / "beside 4").exists()


def test_members_are_trained_beside_one_who_is_late(tmp_path):
    task = small_task()
    plan = Plan(task, task.recipe, torch.arange(len(task.train)).expand(2, -1), (0, 1), 5, task.recipe.epochs)
    work = _Elsewhere(plan, task.network.kind, tmp_path, plan.specification(), {}, torch.device("cpu"))
    with work.shelf().claim([0, 1]):
        work([0, 1])
        assert not work.shelf().members()
        work.beside([0, 1])
    assert work.shelf().members() == {0, 1}
    assert same(ex.train(task, members=2, seed=5, store=tmp_path), ex.train(task, members=2, seed=5, chunk=2))


def test_machines_with_other_versions_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "facts", lambda: {"torch": "1.0"})
    with pytest.raises(InputError, match=r"has torch 2\..*, this machine 1\.0; numbers would depend"):
        RayRunner().check(tmp_path)
    assert not list(tmp_path.iterdir())


def test_machines_that_do_not_see_the_store_are_refused(tmp_path):
    found = on_ray._look(str(tmp_path / "nothing"))
    with pytest.raises(InputError, match=r"cannot use the folder .* \(it does not see what lies there\)"):
        RayRunner._check_one(on_ray.facts(), "machine a", found, tmp_path)


def test_more_than_the_cluster_has(tmp_path):
    with pytest.raises(InputError, match="a shard needs 99 processors, and the whole Ray cluster has 2"):
        RayRunner(cpus=99).check(tmp_path)
    with pytest.raises(InputError, match="a shard needs 1 GPUs, and the whole Ray cluster has 0"):
        RayRunner(gpus=1).check(tmp_path)


def test_an_address_where_nobody_is(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InputError, match=f"no Ray cluster answers at 127.0.0.1:{port}"):
        RayRunner(f"127.0.0.1:{port}")._connected()
    with pytest.raises(InputError, match="expected ray:HOST:PORT"):
        RayRunner("nonsense")._connected()


@pytest.mark.parametrize("given", ["rays", "slurm", "", 3, "Ray"])
def test_what_is_no_runner(given):
    with pytest.raises(InputError, match=r"runner = .*, expected local, ray, or ray:ADDRESS"):
        read_runner(given)


def test_runners_by_name():
    assert read_runner(None) is None
    assert read_runner("local") is None
    assert read_runner("ray:10.0.0.1:6379") == RayRunner("10.0.0.1:6379")
    own = RayRunner(cpus=2)
    assert read_runner(own) is own


def test_a_runner_needs_a_store():
    with pytest.raises(InputError, match="runner was given and no store"):
        ex.train(small_task(), members=2, runner="ray")


@pytest.mark.parametrize("options", [{"cpus": 0}, {"gpus": -1}, {"attempts": 0}, {"cpus": float("nan")}])
def test_options_out_of_range(options):
    with pytest.raises(InputError):
        RayRunner(**options)
