"""The study: chains of requests by three methods, each with several shares of real labels, against fresh oracles."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from expunge.core import Ensemble, ForgetSet, Recipe, Task
from expunge.core.checks import one_of, plain_arguments, seeds
from expunge.core.seeds import derive
from expunge.ensembles import train
from expunge.ensembles.chunks import even, pick_device, worker_count
from expunge.methods import FineTune, GradientDescentAscent, Method, Scrub
from expunge.metrics.klom import klom
from expunge.papers.sequential_drift.chain import Blocks, step
from expunge.papers.sequential_drift.readings import (
    LEAST,
    Array,
    Draws,
    above,
    exponents,
    growth,
    middle,
    percentile,
    readings,
)
from expunge.papers.sequential_drift.record import READINGS, ChainRecord, CurveRecord, DriftRecord
from expunge.studies.run.lifecycle import Run
from expunge.tasks import digits

CHUNK = 25
"""Members a kernel, fixed so that two runs have identical numbers."""
KEPT = 300
"""Rows that are never removed and are scored, beside those of validation."""


@dataclass(frozen=True)
class Preset:
    """What a run does; everything else is fixed."""

    members: int
    """Models of a chain, and of each of two sets of oracles a request."""
    requests: int
    size: int
    """Rows of a request."""
    shares: tuple[float, ...]
    """Shares of the kept rows whose labels are real."""


PRESETS: dict[str, Preset] = {
    "tiny": Preset(members=20, requests=5, size=20, shares=(0.0, 1.0)),
    "cpu": Preset(members=50, requests=20, size=20, shares=(0.0, 0.1, 0.5, 1.0)),
}
"""By name; digits and its fully connected network in both."""


def methods(recipe: Recipe, size: int) -> tuple[Method, ...]:
    """Return the methods, each with one gentle setting: two passes a request, fixed before any run.

    Args:
        recipe: Whose peak rate the rates are shares of.
        size: Rows of a request.
    """
    small: dict[str, Any] = {"lr": recipe.lr, "epochs": 2, "batch_size": recipe.batch_size, "weight_decay": 0.0}
    return (
        FineTune(momentum=0.0, **small).scaled(0.1),
        GradientDescentAscent(ascent_epochs=1, forget_batch_size=size, **small).scaled(0.3),
        Scrub(msteps=1, forget_batch_size=size, **small).scaled(0.03),
    )


@dataclass(frozen=True)
class Scored:
    """Margins that one set of models has at each request."""

    others: tuple[Array, ...]
    """On rows that are never removed, (members, rows)."""
    removed: tuple[Array, ...]
    """On all rows removed so far."""
    accuracy: tuple[float, ...]
    """On validation, mean over members."""


@dataclass(frozen=True)
class Scale:
    """What a study costs, before it is run."""

    trained: int
    """Models trained from scratch."""
    steps: int
    """Unlearned ensembles."""
    seconds: float
    """About how long, on this machine as it is now."""

    def __str__(self) -> str:
        """Return a line."""
        return (
            f"{self.trained:,} models to train and {self.steps:,} requests to unlearn: about {self.seconds / 60:.1f} "
            "minutes here."
        )


class Study:
    """The parts of one run that depend on one another.

    Args:
        task: Its task.
        preset: How much.
        seed: The study's seed.
        device: Where it computes.
    """

    def __init__(self, task: Task, preset: Preset, seed: int, device: torch.device) -> None:
        self.task, self.preset, self.seed, self.device = task, preset, seed, device
        self.blocks = Blocks.draw(task, preset.requests, preset.size, seed)
        self.workers = worker_count(device)
        self.chunk = even(preset.members, CHUNK, 1)
        kept = task.train[torch.from_numpy(self.blocks.kept(KEPT))]
        self.x = torch.cat([kept.x, task.validation.x])
        self.y = torch.cat([kept.y, task.validation.y])

    def train(self, role: str, request: int) -> Ensemble:
        """Return fresh models; from request 1 on they have never seen a row that is gone by then."""
        without: ForgetSet | None = self.blocks.so_far(request) if request else None
        seed = derive(self.seed, "sequential drift", role) % 2**31
        return train(
            self.task,
            members=self.preset.members,
            without=without,
            seed=seed,
            device=self.device,
            chunk=self.chunk,
        )

    def score(self, models: Ensemble, request: int) -> tuple[Array, Array, float]:
        """Return margins on the rows that stay, on those removed so far, and accuracy on validation."""
        removed = self.task.train[torch.from_numpy(self.blocks.so_far(request).indices)]
        validation = self.task.validation
        return (
            models.margins(self.x, self.y).double().numpy(),
            models.margins(removed.x, removed.y).double().numpy(),
            float(models.accuracy(validation.x, validation.y).mean()),
        )

    def oracles(self, role: str) -> Scored:
        """Return what fresh models of every request read."""
        numbers = range(1, self.preset.requests + 1)
        return _scored([self.score(self.train(role, request), request) for request in numbers])

    def chain(self, start: Ensemble, method: Method | None, share: float) -> Scored:
        """Return what a chain reads after every request; without a method, what the first models go on reading."""
        models, found = start, []
        for request in range(1, self.preset.requests + 1):
            if method is not None:
                models = step(
                    models,
                    self.blocks,
                    request,
                    method,
                    share,
                    seed=derive(self.seed, "sequential drift", "unlearn"),
                    chunk=self.chunk,
                    workers=self.workers,
                )
            found.append(self.score(models, request))
        return _scored(found)

    def scale(self) -> Scale:
        """Return what the study takes, from training one ensemble and one request of each method."""
        began = time.perf_counter()
        models = self.train("pretrained", 0)
        training = time.perf_counter() - began
        tried = methods(self.task.recipe, self.preset.size)
        began = time.perf_counter()
        for method in tried:
            step(models, self.blocks, 1, method, 0.0, seed=0, chunk=self.chunk, workers=self.workers)
        unlearning = (time.perf_counter() - began) / len(tried)
        ensembles = 1 + 2 * self.preset.requests
        steps = len(tried) * len(self.preset.shares) * self.preset.requests
        return Scale(ensembles * self.preset.members, steps, ensembles * training + steps * unlearning)


@plain_arguments
def run(
    preset: str = "cpu",
    *,
    out: Path | str = "runs/sequential-drift",
    seed: int = 0,
    resume: bool = False,
    device: str = "auto",
    console: Console | None = None,
    command: str = "",
) -> tuple[Path, DriftRecord]:
    """Run the study and write `sequential_drift.json`; chains and oracles are kept as they are finished.

    Args:
        preset: `tiny` or `cpu`, of `PRESETS`.
        out: Folder of the run.
        seed: The study's seed.
        resume: Go on with a run that was interrupted.
        device: `auto`, `cpu` or `cuda`.
        console: Where progress is shown; None is silent.
        command: The shell command that runs this again.

    Raises:
        InputError: If there is no such preset, or the folder cannot be written or holds another run.
    """
    study = prepare(preset, seed, device)
    return run_study(study, Path(out), preset, resume, console, command)


def prepare(preset: str, seed: int = 0, device: str = "auto") -> Study:
    """Return the study of a preset, before anything is trained.

    Raises:
        InputError: If there is no such preset or device.
    """
    one_of(PRESETS, preset=preset)
    seeds(seed=seed)
    # Where a last batch of one or few rows is kept, retrained models are twice as spread out at some k as at the next.
    return Study(digits(last_batch="drop"), PRESETS[preset], seed, pick_device(device))


def plan(preset: str = "cpu", *, seed: int = 0, device: str = "auto") -> Scale:
    """Return what a run would take, from a few seconds of it."""
    return prepare(preset, seed, device).scale()


def run_study(
    study: Study,
    folder: Path,
    name: str = "own",
    resume: bool = False,
    console: Console | None = None,
    command: str = "",
) -> tuple[Path, DriftRecord]:
    """Run a study into a folder; see `run`."""
    preset = study.preset
    chosen = methods(study.task.recipe, preset.size)
    chains: list[tuple[Method | None, float]] = [(None, 1.0), *((m, share) for m in chosen for share in preset.shares)]
    oracle_work = preset.requests / 3  # in chains: training a model takes longer than unlearning one
    request = {"preset": name, **vars(preset), "shares": list(preset.shares), "seed": study.seed}
    with Run.open(
        DriftRecord,
        folder,
        request,
        resume=resume,
        command=command,
        device=study.device,
        console=console,
        work=2 * oracle_work + len(chains),
        members=preset.members,
        requests=preset.requests,
        size=preset.size,
    ) as going:
        if going.finished:
            return folder, going.record
        key = {**request, "task": study.task.fingerprint}

        def kept(what: str, part: str, make: Callable[[], Scored], work: float) -> Scored:
            going.reporter.step(what)
            earlier = _read(going.parts.read({**key, "part": part}), preset.requests)
            found = earlier or make()
            if earlier is None:
                going.parts.write({**key, "part": part}, _tensors(found), {"accuracy": json.dumps(found.accuracy)})
            going.reporter.advance(work, spent=earlier is None)
            return found

        oracle, held_out = (
            kept(f"{role}s", role, partial(study.oracles, role), oracle_work) for role in ("oracle", "held-out oracle")
        )
        pretrained: list[Ensemble] = []  # trained when the first chain needs it

        def chain(method: Method | None, share: float) -> Scored:
            if not pretrained:
                pretrained.append(study.train("pretrained", 0))
            return study.chain(pretrained[0], method, share)

        judge = Judge(oracle, held_out, Draws.of(preset.members, preset.requests, study.seed))
        going.record.task, going.record.rows = study.task.describe(), len(study.y)
        going.record.floor = {each: [float(at[each][0]) for at in judge.floor] for each in READINGS}
        for method, share in chains:
            what = "do nothing" if method is None else f"{method.label}, {share:.0%} real labels"
            part = what if method is None else f"{method.describe()} {share}"
            scored = kept(what, part, partial(chain, method, share), 1.0)
            going.record.chains.append(judge.chain(method, share, scored))
            going.save()
    return folder, going.record


class Judge:
    """The oracles of every request, against which chains are read.

    Args:
        oracle: What the oracles read.
        held_out: What others read.
        draws: Of the bootstrap.
    """

    def __init__(self, oracle: Scored, held_out: Scored, draws: Draws) -> None:
        self.oracle, self.held_out, self.draws = oracle, held_out, draws
        self.floor = [
            readings(mine, theirs, *drawn)
            for mine, theirs, *drawn in zip(held_out.others, oracle.others, draws.held_out, draws.oracles, strict=True)
        ]
        """Readings of the held-out oracles at each request."""

    def chain(self, method: Method | None, share: float, scored: Scored) -> ChainRecord:
        """Return what is recorded of one chain."""
        found = [
            above(readings(mine, theirs, self.draws.members, drawn), floor)
            for mine, theirs, drawn, floor in zip(
                scored.others, self.oracle.others, self.draws.oracles, self.floor, strict=True
            )
        ]
        removed = [
            percentile(klom(mine, theirs)) - percentile(klom(other, theirs))
            for mine, theirs, other in zip(scored.removed, self.oracle.removed, self.held_out.removed, strict=True)
        ]
        return ChainRecord(
            name="do_nothing" if method is None else method.name,
            label="Do nothing" if method is None else method.label,
            setting="the models before the first request" if method is None else method.describe(),
            share=None if method is None else share,
            curves={
                name: _curve(np.stack([at[name] for at in found], 1), LEAST[name], name != "klom") for name in READINGS
            },
            removed=removed,
            accuracy=list(scored.accuracy),
            failed=int((~np.isfinite(scored.others[-1]).all(1)).sum()),
        )


def _curve(values: Array, least: float, root: bool) -> CurveRecord:
    """Return a reading over requests from its replicates, (1 + replicates, requests)."""
    ends = [middle(column) for column in values.T]
    if root:  # which is never below 0
        ends = [(max(0.0, low), high) for low, high in ends]
    scales, slopes = exponents(values, least)
    low, high = middle(slopes)
    return CurveRecord(
        values=values[0].tolist(),
        low=[end[0] for end in ends],
        high=[end[1] for end in ends],
        scale=float(scales[0]),
        exponent=float(slopes[0]),
        exponent_low=low,
        exponent_high=high,
        growth=growth(low, high, ends[-1][0], least),
    )


def _scored(found: list[tuple[Array, Array, float]]) -> Scored:
    others, removed, accuracy = zip(*found, strict=True)
    return Scored(others, removed, accuracy)


def _tensors(found: Scored) -> dict[str, torch.Tensor]:
    parts = {"others": found.others, "removed": found.removed}
    return {f"{name}/{k}": torch.from_numpy(each) for name, part in parts.items() for k, each in enumerate(part)}


def _read(part: Any, requests: int) -> Scored | None:
    if part is None:
        return None
    tensors, words = part
    others, removed = (tuple(tensors[f"{name}/{k}"].numpy() for k in range(requests)) for name in ("others", "removed"))
    return Scored(others, removed, tuple(json.loads(words["accuracy"])))
