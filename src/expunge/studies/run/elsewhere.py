"""Unlearning by a runner: each run of a method, some members at a time, into the parts of the study.

A shard measures its members at every stopping time and leaves that as a part, with the facts that checks are made of.
When all members of a run are there they are joined, with the checks of all, into the part that a study without a runner
would have written; the study then goes on as if it had found it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.core import Ensemble, ForgetSet, InputError, Task
from expunge.core.tree import State
from expunge.ensembles import Runner
from expunge.ensembles.chunks import split
from expunge.ensembles.trial import network_of
from expunge.methods import Method, unlearn
from expunge.methods.unlearning import all_together, joined_stops, members_at_once
from expunge.studies.run.grid import run_name
from expunge.studies.run.measure import Parts
from expunge.studies.run.parts import PartStore


@dataclass(frozen=True)
class UnlearningRun:
    """One run of a method on one forget set."""

    task: Task
    forget: ForgetSet
    method: Method
    seed: int
    """Decides the batch orders."""
    key: Mapping[str, Any]
    """Of the part of all members."""
    targets: Tensor | None = None
    targets_cost: float = 0.0


@dataclass(frozen=True)
class Shard:
    """Some members of one run."""

    run: int
    first: int
    last: int
    """The member after the last one."""


@dataclass(frozen=True)
class _Job:
    """What shards of several runs share; it is sent to each worker once."""

    runs: tuple[UnlearningRun, ...]
    start: Mapping[str, Any]
    """The pretrained ensemble without its network."""
    form: str
    """How the stack is evaluated."""
    folder: Path
    """Of the parts."""
    store: Path
    study_seed: int
    device: torch.device

    def __call__(self, shard: Shard) -> None:
        """Unlearn and measure some members, unless the part is there."""
        run, parts = self.runs[shard.run], PartStore(self.folder)
        key = self.key(shard)
        if parts.path(key).is_file():
            return
        members = slice(shard.first, shard.last)
        task, targets = run.task, run.targets
        some = Ensemble(network=network_of(task, self.form), **self.start)[members].to(self.device)
        done = unlearn(
            some,
            task,
            run.forget,
            run.method,
            seed=run.seed,
            evaluate=Parts.of(task, run.forget, self.study_seed).measure,
            chunk=shard.last - shard.first,
            workers=1,
            targets=None if targets is None else targets[members],
            targets_cost=run.targets_cost,
            store=self.store,
        )
        parts.save(key, done.trace.stops, facts=True)

    def key(self, shard: Shard) -> dict[str, Any]:
        """Return what the part of a shard depends on."""
        return {**self.runs[shard.run].key, "part": [shard.first, shard.last]}

    def name(self, shard: Shard) -> str:
        """Return how a message calls a shard."""
        run = self.runs[shard.run]
        return f"members {shard.first} to {shard.last - 1} of {run_name(run.method)} on {run.forget.name}"


def unlearn_elsewhere(
    runner: Runner,
    runs: Sequence[UnlearningRun],
    pretrained: Ensemble,
    parts: PartStore,
    store: Path,
    seed: int,
    finished: Callable[[int], None],
) -> None:
    """Have a runner do what is missing of some runs; afterwards `parts` holds all of them.

    Args:
        runner: Where.
        runs: Runs of methods that start from the same ensemble.
        pretrained: That ensemble.
        parts: Where measurements are kept; all machines see the folder.
        store: Folder of ensembles, for methods that retrain.
        seed: The study's seed, which says what examples are scored.
        finished: Called with the number of each run all of whose members are done.
    """
    numbers = [n for n, run in enumerate(runs) if not parts.path(run.key).is_file()]
    shards: dict[int, list[Shard]] = {}
    for number in numbers:
        run = runs[number]
        size = members_at_once(pretrained, run.method)
        every = [range(len(pretrained))] if all_together(run.method, run.task) else split(len(pretrained), size)
        shards[number] = [Shard(number, part.start, part.stop) for part in every]
    job = _Job(
        tuple(runs),
        _plain(pretrained),
        pretrained.network.kind,
        parts.folder.resolve(),
        store.resolve(),
        seed,
        runner.device,
    )
    left = {number: len(those) for number, those in shards.items()}

    def one(shard: Shard) -> None:
        left[shard.run] -= 1
        if not left[shard.run]:
            _join(runs[shard.run], [job.key(each) for each in shards[shard.run]], parts)
            finished(shard.run)

    runner.run(job, [shard for those in shards.values() for shard in those], name=job.name, finished=one)


def _join(run: UnlearningRun, keys: Sequence[Any], parts: PartStore) -> None:
    """Write the part of all members of a run, and delete those of some."""
    some = []
    for key in keys:
        stops = parts.load(key)
        if stops is None:
            raise InputError(
                f"{parts.path(key)}, which a machine of the cluster wrote, is not to be seen from here; look whether "
                "all machines share the folder, and run again with --resume."
            )
        some.append(stops)
    parts.save(run.key, joined_stops(run.method, some))
    for key in keys:
        parts.path(key).unlink(missing_ok=True)


def _plain(ensemble: Ensemble) -> dict[str, Any]:
    """Return the fields of an ensemble but its network, on the CPU."""

    def here(state: Mapping[str, Tensor]) -> State:
        return {name: tensor.cpu() for name, tensor in state.items()}

    one = replace(
        ensemble,
        params=here(ensemble.params),
        buffers=here(ensemble.buffers),
        states={epoch: here(state) for epoch, state in ensemble.states.items()},
        trace=None,
    )
    return {name: value for name, value in vars(one).items() if name != "network"}
