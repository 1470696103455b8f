"""Forget sets that must be computed before they can be chosen: those along principal components of datamodels.

    component:COMPONENT:SIDE:SIZE       such as component:1:top:70, component:2:both:500
    component:COMPONENT:SIDE            of the paper's size, scaled to the task

The subset models are trained once a run, in its folder, and found there by every later specification and on resuming.
All other specifications go to `expunge.tasks.choose`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from expunge.core import ForgetSet, InputError, Task
from expunge.dependence import component_forget_set
from expunge.dependence.components import PAPER, Side, one_of_sides
from expunge.studies.run.progress import Reporter, Share
from expunge.studies.run.subset_models import LARGEST_COMPONENT, SUBSETS, Progress, task_components, task_subsets
from expunge.tasks import Choice, choose, random_forget_set


def resolve(
    task: Task,
    spec: str | Path | ForgetSet,
    folder: Path,
    seed: int = 0,
    *,
    subsets: int = SUBSETS,
    device: str = "auto",
    chunk: int | None = None,
    progress: Progress | None = None,
) -> Choice:
    """Return the forget set of a specification, with a calibration set of the same kind, and their task.

    For a component set the calibration set are the next examples along the component, on the same side: slightly less
    extreme, and disjoint.

    Args:
        task: The task to choose from.
        spec: `"component:1:top:70"`, or anything that `expunge.tasks.choose` takes.
        folder: The run's folder; subset models are kept in `subsets` in it.
        seed: The study's seed.
        subsets: Number of subset models K that a component set is computed from.
        device: `auto`, `cpu` or `cuda`.
        chunk: Models trained together; None measures the fastest.
        progress: Called with subset models done and in all.

    Raises:
        InputError: If the specification cannot be read or does not fit the task; before any training.
    """
    if not is_component(spec):
        return choose(task, spec, seed=seed)
    component, side, size = parse_component(str(spec), len(task.train))
    trained = task_subsets(task, folder, seed, subsets=subsets, device=device, chunk=chunk, progress=progress)
    made = task_components(trained)
    forget = component_forget_set(task, made, component, side, size)
    return Choice(task, forget, component_forget_set(task, made, component, side, size, skip=size))


def is_component(spec: object) -> bool:
    """Return whether a specification names a component set, so that subset models must be trained for it."""
    return isinstance(spec, str) and spec.split(":")[0] == "component"


def parse_component(spec: str, examples: int) -> tuple[int, Side, int]:
    """Return component, side and size of a specification, checked against the number of training examples.

    Raises:
        InputError: If it cannot be read, or there is no room for the set, its calibration set and a retain set.

    >>> parse_component("component:1:top:70", 1437)
    (1, 'top', 70)
    >>> parse_component("component:2:both", 50_000)
    (2, 'both', 500)
    """
    form = "component:NUMBER:SIDE:SIZE with SIDE top, bottom or both, such as component:1:top:70"
    parts = spec.split(":")
    numbers = [part for place, part in enumerate(parts) if place in (1, 3)]
    if not 3 <= len(parts) <= 4 or not all(re.fullmatch(r"[0-9]{1,15}", part) for part in numbers):
        raise InputError(f"forget set {spec!r} cannot be read, expected {form}.")
    side, component = one_of_sides(parts[2]), int(parts[1])
    if not 1 <= component <= LARGEST_COMPONENT:
        raise InputError(f"forget set {spec!r}: component {component}, expected 1 to {LARGEST_COMPONENT}.")
    if len(parts) == 4:
        size = int(parts[3])
    else:
        # The larger of the paper's one-sided sets, and its two-sided one.
        share, fewest = max((share, fewest) for kind, share, fewest in PAPER if (kind == "both") == (side == "both"))
        size = max(fewest, round(share * examples))
    if size < 1 or 2 * size >= examples:
        raise InputError(
            f"forget set {spec!r}: size {size} of {examples} training examples, expected at least 1 and fewer than "
            "half: a calibration set of the same size must fit beside it and leave something to train on."
        )
    return component, side, size


def stand_in(task: Task, item: ForgetSet | str | Path, seed: int) -> ForgetSet | str | Path:
    """Return a random forget set of the size of a component set, which would need subset models, or what was given."""
    if not is_component(item):
        return item
    return random_forget_set(task, parse_component(str(item), len(task.train))[2], seed=seed)


def choose_all(
    task: Task,
    forget: Sequence[ForgetSet | Choice | str | Path],
    out: Path,
    *,
    seed: int,
    device: str = "auto",
    chunk: int | None = None,
    console: Console | None = None,
) -> list[Choice]:
    """Return the forget sets that were asked for, each with a calibration set; all are read before any is computed.

    Args:
        task: The task to choose from.
        forget: What was asked for; a choice brings its calibration set with it.
        out: The run's folder, where the subset models of component sets are kept.
        seed: The study's seed.
        device: `auto`, `cpu` or `cuda`.
        chunk: Models trained together.
        console: Where progress of subset models is shown.

    Raises:
        InputError: If there is none, one cannot be read, or two share a name.
    """
    if not forget:
        raise InputError("no forget set was given, expected at least one, such as --forget random:70.")
    chosen: dict[int, Choice] = {}
    for place, item in enumerate(forget):
        if is_component(item):
            parse_component(str(item), len(task.train))
        else:
            chosen[place] = item if isinstance(item, Choice) else choose(task, item, seed=seed)
    missing = [place for place in range(len(forget)) if place not in chosen]
    if missing:
        reporter = Reporter(console).start(1.0)
        with reporter:
            reporter.step("training subset models for components")
            share = Share(reporter, 1.0)
            for place in missing:
                chosen[place] = resolve(task, str(forget[place]), out, seed, device=device, chunk=chunk, progress=share)
    choices = [chosen[place] for place in range(len(forget))]
    names = [choice.forget.name for choice in choices]
    if len(set(names)) < len(names):
        raise InputError(f"forget sets {names} share a name, expected each name once.")
    return choices
