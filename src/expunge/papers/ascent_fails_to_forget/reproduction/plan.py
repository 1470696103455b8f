"""What a run would take, before it: hours, memory and disk, from a few steps of each kind of work on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.core import Ensemble
from expunge.core.reading import available_memory
from expunge.core.seeds import derive
from expunge.methods import Method
from expunge.papers.ascent_fails_to_forget.reproduction import data as files
from expunge.papers.ascent_fails_to_forget.reproduction import grid
from expunge.papers.ascent_fails_to_forget.reproduction import sets as forget_sets
from expunge.papers.ascent_fails_to_forget.reproduction.context import RESIDUAL, Context
from expunge.papers.ascent_fails_to_forget.reproduction.item import Work
from expunge.papers.ascent_fails_to_forget.reproduction.items import promising, scrub
from expunge.papers.ascent_fails_to_forget.reproduction.items.batch_norm import SET, with_norm, without_norm
from expunge.papers.ascent_fails_to_forget.reproduction.presets import PRESETS, Grid, Images
from expunge.papers.ascent_fails_to_forget.reproduction.study import prepare
from expunge.studies.audit import estimate_audit
from expunge.studies.run.check import span
from expunge.studies.run.trying import HELD, as_size, room_for, try_training
from expunge.tasks import random_forget_set

THEORY_SECONDS = 30.0
"""About what the theory study takes on two cores; it is the same at every preset."""


@dataclass(frozen=True)
class Plan:
    """What a run would take; the whole of it, whatever an interrupted one has already done."""

    preset: str
    declared: dict[str, Any]
    """The preset's table, as JSON values."""
    items: list[str]
    seconds: dict[str, float]
    """Wall-clock seconds on this machine by kind of work."""
    memory: int
    """Bytes at most."""
    memory_free: int | None
    disk: int
    """Bytes that stay in the folder of the run."""
    disk_free: int

    def __str__(self) -> str:
        """Return it in lines: what is declared, then what it takes."""
        lines = [f"preset {self.preset}: {', '.join(self.items)}"]
        lines += [f"  {name:<14} {_words(value)}" for name, value in vars(PRESETS[self.preset]).items()]
        free = "" if self.memory_free is None else f" ({as_size(self.memory_free)} are free)"
        lines += [f"time    about {span(sum(self.seconds.values()))} on this machine"]
        lines += [f"  {kind:<34} {span(seconds)}" for kind, seconds in self.seconds.items()]
        lines += [
            f"memory  at most about {as_size(self.memory)}{free}",
            f"disk    about {as_size(self.disk)} ({as_size(self.disk_free)} are free)",
            "Measured on a few steps of each kind; what else this machine does now counts as well.",
        ]
        return "\n".join(lines)


def plan(
    preset: str = "cpu",
    *,
    only: Sequence[str] = (),
    sets: Sequence[str] = (),
    data: Path | str | None = None,
    out: Path | str = "runs/ascent-fails-to-forget",
    seed: int = 0,
    device: str = "auto",
) -> Plan:
    """Return what a run with these arguments would take; they are those of `study.run`, and refused as it would."""
    folder = Path(out)
    context, items = prepare(preset, only, sets, None if data is None else Path(data), seed, device, folder)
    work = frozenset().union(*(each.work for each in items.values()))
    seconds: dict[str, float] = {}
    memory = disk = 0

    def add(kind: str, part: tuple[float, int, int]) -> None:
        nonlocal memory, disk
        seconds[kind] = part[0]
        memory, disk = max(memory, part[1]), disk + part[2]

    if work & {"audits", "sets"} or ("residual" in work and context.preset.residual is None):
        numbers = _numbers(context, [each.sets for each in items.values() if "audits" in each.work])
        wanted = context.numbers if "sets" in work else numbers
        add("figures: models and forget sets", _models(context, context.preset.figures, wanted))
        if numbers:
            add(f"figures: audits of {len(numbers)} sets", _audits(context, context.preset.figures, numbers, "figures"))
    if context.preset.residual is not None and "residual" in work:
        add("residual network: models", _models(context, context.preset.residual, RESIDUAL))
        add(
            f"residual network: {len(RESIDUAL)} audits", _audits(context, context.preset.residual, RESIDUAL, "residual")
        )
    for kind, part in _probes(context, work).items():
        add(kind, part)
    if "promising" in work:
        tried = promising.of_network(context.task(context.preset.figures).recipe)
        add("what is named as promising", _audits(context, context.preset.figures, (SET,), "promising", tried))
    if "tables" in work:
        for images in context.preset.tables:
            add(f"table 1, {images.data}", _table(context, images))
    if "theory" in work:
        seconds["theory"] = THEORY_SECONDS
    return Plan(
        preset,
        context.preset.describe(),
        list(items),
        seconds,
        memory,
        available_memory(),
        disk,
        shutil.disk_usage(room_for(folder)).free,
    )


def _numbers(context: Context, asked: list[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the forget sets whose audits are read."""
    every = any(not each for each in asked)
    return tuple(number for number in context.numbers if every or any(number in each for each in asked))


def _models(context: Context, images: Images, numbers: Sequence[str]) -> tuple[float, int, int]:
    """Pretrained models, and those on halves of the data where a component set is asked for."""
    task, members = context.task(images), context.preset.members
    trial = try_training(task, members, context.device, None, context.seed)
    subsets = context.preset.subsets if any(map(forget_sets.component_of, numbers)) else 0
    weights = _weights(trial.ensemble)
    margins = 5 * subsets * (len(task.train) + len(task.validation))
    return trial.each * (members + 0.5 * subsets), HELD * members * weights + margins, members * weights + margins


def _audits(
    context: Context, images: Images, numbers: Sequence[str], part: str, tried: list[Method] | None = None
) -> tuple[float, int, int]:
    task = context.task(images)
    sizes = [
        len(context.choice(images, part, number).forget)
        if number in forget_sets.PUBLISHED
        else forget_sets.size_of(number, len(task.train))
        for number in numbers
    ]
    likewise = [
        random_forget_set(task, size, seed=derive(context.seed, "plan", place) % 2**31)
        for place, size in enumerate(sizes)
    ]
    methods = grid.methods if part == "figures" else grid.ascents
    found = estimate_audit(
        task,
        forget=likewise,
        methods=tried or methods(context.preset.grid, task.recipe),
        members=context.preset.members,
        out=context.folder / part,
        seed=context.seed,
        forecast=part == "figures",
        device=context.device.type,
    )
    return sum(found.seconds.values()), found.memory, found.disk


def _table(context: Context, images: Images) -> tuple[float, int, int]:
    task, members = context.task(images), context.preset.table_members
    trial = try_training(task, members, context.device, None, context.seed)
    ensembles = 1 + 2 * len(context.preset.shares)
    weights = _weights(trial.ensemble)
    margins = 8 * members * (len(task.train) + len(task.validation))
    return ensembles * members * trial.each, HELD * members * weights + 8 * margins, ensembles * members * weights


def _probes(context: Context, work: frozenset[Work]) -> dict[str, tuple[float, int, int]]:
    """Models of the random set that is read without an audit, with and without norm."""
    images = context.preset.figures
    found = {}
    for name, experiment, kind in (
        ("probe", with_norm(images), "one random set: models"),
        ("plain", without_norm(images), "the same without norm"),
    ):
        if name in work:
            each, memory, disk = _models(context, experiment, ())
            found[kind] = 3 * each, memory, 3 * disk
    if "scrub" in work:
        each, memory, _ = _models(context, with_norm(images), ())
        runs = len(scrub.PUBLISHED_RATES) + len(scrub.rates(context))
        found[f"{runs} runs of SCRUB"] = runs * each * context.preset.grid.joint_stop / images.epochs, memory, 0
    return found


def _weights(ensemble: Ensemble) -> int:
    """Return bytes of a member's weights and buffers."""
    return sum(tensor.nbytes for tensor in (*ensemble.params.values(), *ensemble.buffers.values())) // len(ensemble)


def _words(value: Any) -> str:
    if isinstance(value, Images):
        return files.describe(value)
    if isinstance(value, Grid):
        return "; ".join(f"{key.replace('_', ' ')} {_words(each)}" for key, each in vars(value).items())
    if isinstance(value, tuple):
        separator = "; " if value and isinstance(value[0], Images) else ", "
        return separator.join(map(_words, value))
    return "none" if value is None else str(value)
