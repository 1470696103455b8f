"""Trying training out: what an ensemble would take, from a few steps; nothing is written.

By a recipe some epochs of a few batches, of as many members as will be computed together, extrapolated in rows, epochs
and members; by a task's own fit one training of a few members on some rows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from expunge.core import Ensemble, Task
from expunge.ensembles import train
from expunge.ensembles.chunks import worker_count
from expunge.ensembles.train import fastest_chunk
from expunge.studies.run.check import MOST_ROWS, span

T = TypeVar("T")

BATCHES = 4
"""Batches of an epoch that is tried."""
EPOCHS = 3
"""Epochs that are tried where the first took less than `PATIENCE` seconds."""
PATIENCE = 2.0
PAGE_BYTES = 6 * 2**20
"""About what record and page take."""
HELD = 6
"""Copies of an ensemble's weights that are in memory at most: pretrained, oracles, the ensemble in work, its steps."""


@dataclass(frozen=True)
class Estimate:
    """What a run would take; the whole of it, whatever an interrupted one has already done."""

    seconds: dict[str, float]
    """Wall-clock seconds on this machine by kind of work."""
    ensembles: int
    """Ensembles that are trained, without those that methods retrain."""
    members: int
    runs: int
    """Runs of methods, over all forget sets; a forecast has none."""
    memory: int
    """Bytes at most."""
    memory_free: int | None
    disk: int
    """Bytes that stay in the folder of the run."""
    disk_free: int
    tried: str
    """What was measured."""

    @property
    def counts(self) -> str:
        """What is trained and run, in a sentence."""
        found = [f"{self.ensembles} ensemble{'s' * (self.ensembles != 1)} of {self.members} models"]
        found += [f"{self.runs} runs of methods"] if self.runs else []
        return f"That is {', and '.join(found)}."

    def __str__(self) -> str:
        """Return it in a few lines."""
        parts = ", ".join(f"{kind} {span(seconds)}" for kind, seconds in self.seconds.items() if seconds)
        free = "" if self.memory_free is None else f" ({as_size(self.memory_free)} are free)"
        return "\n".join(
            [
                f"time    about {span(sum(self.seconds.values()))}: {parts}",
                f"memory  at most about {as_size(self.memory)}{free}",
                f"disk    about {as_size(self.disk)} ({as_size(self.disk_free)} are free)",
                self.counts,
                f"Measured: {self.tried}; what else this machine does now counts as well.",
            ]
        )


@dataclass(frozen=True)
class Trial:
    """What a few steps of training showed."""

    each: float
    """Seconds of a member among many, with all cores at work."""
    alone: float
    """Seconds until as many members as were tried together would be trained; one alone takes no longer."""
    ensemble: Ensemble
    """The members that were tried."""
    tried: str


def try_training(task: Task, members: int, device: torch.device, chunk: int | None, seed: int) -> Trial:
    """Train a little, as an ensemble of so many members would be trained."""
    workers, n = worker_count(device), len(task.train)
    if task.fit is None:
        models = 1 if task.voting is None else task.voting.voters
        rows = min(n, BATCHES * models * task.recipe.batch_size)
        count = min(members, workers * (chunk or fastest_chunk(task, members, device)))
        together = -(-count // workers)

        def timed(epochs: int) -> tuple[float, Ensemble]:
            begin = time.perf_counter()
            examples = torch.arange(rows).expand(count, rows)
            made = train(
                task, members=count, examples=examples, epochs=epochs, seed=seed, device=device, chunk=together
            )
            return time.perf_counter() - begin, made

        timed(0)
        start, ensemble = timed(0)
        epochs = 1
        spent, ensemble = timed(epochs)
        if spent < PATIENCE and task.recipe.epochs > 1:
            epochs = min(EPOCHS, task.recipe.epochs)
            spent, ensemble = timed(epochs)
        step = max(spent - start, 1e-3) / epochs  # an epoch of these rows, of these members
        whole = start + step * task.recipe.epochs * n / rows
        return Trial(whole / count, whole, ensemble, f"{count} members trained {epochs} epochs on {rows} rows")
    rows, count = min(n // 2, MOST_ROWS), min(members, workers)
    begin = time.perf_counter()
    examples = torch.arange(rows).expand(count, rows)
    ensemble = train(task, members=count, examples=examples, seed=seed, device=device)
    spent = time.perf_counter() - begin
    whole = spent * n / rows
    return Trial(whole / count, whole, ensemble, f"fit trained {count} members on {rows} rows")


def grown(ensemble: Ensemble, members: int) -> Ensemble:
    """Return an ensemble of so many members, made of those of a few: only what it takes counts."""
    rows = torch.arange(members) % len(ensemble)
    params = {name: tensor[rows.to(tensor.device)] for name, tensor in ensemble.params.items()}
    buffers = {name: tensor[rows.to(tensor.device)] for name, tensor in ensemble.buffers.items()}
    return Ensemble(ensemble.network, params, buffers, tuple(range(members)), ensemble.seed)


def undisturbed(work: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """Return the seconds that work takes when nothing else does, and its result.

    On a CPU it is processor time: of this thread, which otherwise waits, and of the workers that share the cores.
    """
    if device.type != "cpu":
        begin = time.perf_counter()
        result = work()
        torch.cuda.synchronize(device)
        return time.perf_counter() - begin, result
    everywhere, here = time.process_time(), time.thread_time()
    result = work()
    here = time.thread_time() - here
    return here + (time.process_time() - everywhere - here) / worker_count(device), result


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that this process has had, and what it had on a GPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return unit * int(own + children * worker_count(device) * (children > 0))


def as_size(count: float) -> str:
    """Return bytes in words."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{max(count / 2**20, 1):.0f} MiB"


def room_for(out: Path) -> Path:
    """Return the nearest folder that exists, on whose disk a run in `out` would be."""
    while not out.exists():
        out = out.parent
    return out
