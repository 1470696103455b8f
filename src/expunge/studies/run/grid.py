"""The grid: which runs an audit makes, and what each will cost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import FunctionType
from typing import Any

from expunge.core import Ensemble, ForgetSet, InputError, Task
from expunge.core.seeds import derive
from expunge.methods import ALL_METHODS, DEFAULT_METHODS, METHODS, Method, Trained, from_function, scale
from expunge.methods.method import Need, check_complete, lacking
from expunge.studies.run.measure import RETAIN_EXAMPLES, VALIDATION_EXAMPLES
from expunge.studies.run.seeds import unlearning_seed
from expunge.tasks.user_task import load_object

OWN_EXPECTED = "a function fn(model, retain_loader, forget_loader, validation_loader), or a method"


def plan_runs(
    task: Task,
    methods: Sequence[str | Method] | None,
    *,
    predicted: bool = False,
    why: str = "",
    given: Ensemble | None = None,
) -> list[Method]:
    """Return every run of an audit: the controls, and the settings of the methods asked for.

    Args:
        task: Whose recipe sets the rates, and whose model decides whether statistics can drift.
        methods: Registry names (their whole grid is tried), methods with options (tried as given), or functions of
            one's own as `path/to/mine.py:function`; `all` is whatever of the registry the task can run on any
            forget set, None whatever of `DEFAULT_METHODS`.
        predicted: Whether oracle margins will be predicted.
        why: Why not.
        given: The pretrained ensemble, where it will not be trained: it has the kept states that it has.

    Raises:
        InputError: If a name is unknown, the same setting is given twice, or a method needs what is lacking.
    """
    lacks: dict[Need, str] = lacking(task)
    if not predicted:
        lacks["targets"] = "oracle margins that a forecast predicts, and no forecast is made" + (why and f" ({why})")
    if given is not None and not given.states:
        lacks["states"] = "kept states of training, and the pretrained models were given without"
    possible = {name: method for name, method in METHODS.items() if not method.needs & lacks.keys()}
    asked_for = [name for name in DEFAULT_METHODS if name in possible] if methods is None else methods
    runs: list[Method] = []
    every = [name for name, method in possible.items() if "whole_classes" not in method.needs]
    for item in itertools.chain.from_iterable(every if item == ALL_METHODS else [item] for item in asked_for):
        if isinstance(item, Method):
            runs.append(item)
        elif item in METHODS:
            runs.extend(METHODS[item].grid(task.recipe))
        elif ".py" in item:
            found = load_object(item, (FunctionType, Method), OWN_EXPECTED)
            runs.append(found if isinstance(found, Method) else from_function(found))
        else:
            raise InputError(
                f"method {item!r} is unknown, expected one of: {', '.join(METHODS)}; all; or mine.py:function."
            )
    for run in runs:
        check_complete(run)
        for need in sorted(run.needs & lacks.keys()):
            raise InputError(f"{run.name} needs {lacks[need]}; leave out this method.")
    names = [run_name(run) for run in runs]
    for run, name in zip(runs, names, strict=True):
        if names.count(name) > 1:
            raise InputError(
                f"{run.describe()} is asked for {names.count(name)} times, expected each setting once, and "
                "functions of one's own under different names."
            )
    # Controls are run whether asked for or not.
    asked = {run.name for run in runs}
    controls = [kind for name, kind in possible.items() if kind.role == "control" and name not in asked]
    return [run for kind in controls for run in kind.grid(task.recipe)] + runs


def on_scale(
    runs: Sequence[Method], task: Task, pretrained: Ensemble, forget: ForgetSet, seed: int
) -> tuple[list[Method], list[str]]:
    """Return the runs with the rates of whole grids on scale (`methods.scale`), and a sentence that names those moved.

    Args:
        runs: From `plan_runs`; settings that are not a method's whole grid stay as they are.
        task: The task.
        pretrained: The ensemble that will be unlearned.
        forget: What is to be forgotten.
        seed: The study's seed.
    """
    placed: list[Method] = []
    moved = []
    for group in by_method(runs):
        grid = [run for run in group if isinstance(run, Trained)]
        if not grid or group != list(type(grid[0]).grid(task.recipe)):
            placed += group
            continue
        found = scale.on_scale(grid, pretrained, task, forget, derive(unlearning_seed(seed, forget), "probe"))
        placed += found
        if found[0] != grid[0]:
            moved.append(f"{grid[0].label} x {found[0].lr / grid[0].lr:.3g}")
    why = "with multiples of the recipe's rate a probing epoch moved the forget margins far too little, or too much"
    return placed, [f"Rates on {forget.name} were put on scale, since {why}: {', '.join(moved)}."] if moved else []


def calibrated(group: Sequence[Method]) -> bool:
    """Return whether the runs of one method are made on the calibration set too: there is a choice that reads it."""
    chosen = {run.chosen for run in group}
    return bool(chosen & {"calibration", "cheapest"}) and sum(run.planned_stops for run in group) > 1


def by_method(runs: Sequence[Method]) -> list[list[Method]]:
    """Return the runs of each method together, in the order in which methods first appear."""
    return [[run for run in runs if run.name == name] for name in dict.fromkeys(run.name for run in runs)]


def run_work(method: Method, task: Task, forget: ForgetSet) -> float:
    """Return about what a run takes, in units of training one ensemble: its steps, and its measurements."""
    scored = len(forget) + min(len(task.train), RETAIN_EXAMPLES) + min(len(task.validation), VALIDATION_EXAMPLES)
    measuring = method.planned_stops * scored / 3 / (len(task.train) * task.recipe.epochs)
    return method.cost_of(task, forget) + 2 * measuring


def runs_work(runs: Sequence[Method], task: Task, forget: ForgetSet) -> float:
    """Return about what all runs take; those with a grid to choose from run on the calibration set too."""
    return sum((1 + calibrated(group)) * run_work(run, task, forget) for group in by_method(runs) for run in group)


def kept_epochs(runs: Sequence[Method], task: Task) -> list[int]:
    """Return the epochs of training after which the runs need the state."""
    return sorted({epoch for run in runs for epoch in run.states(task.recipe)})


def relative_options(method: Method, task: Task) -> dict[str, Any]:
    """Return the options of a run with its rate also in units of the recipe's peak rate."""
    options = method.options()
    if isinstance(method, Trained):
        options["optimizer"] = method.steps_with(task.recipe)
        options["relative_lr"] = options["lr"] / task.recipe.lr
    return options


def run_name(method: Method) -> str:
    """Return a short name of a run that tells it from the others of its method.

    >>> from expunge.methods import GradientAscent
    >>> run_name(GradientAscent(lr=0.02, epochs=3))
    'gradient_ascent/lr=0.02,epochs=3'
    """
    defaults = method.defaults()
    differing = {k: v for k, v in method.options().items() if v != defaults.get(k, ...) or k in method.shown}
    inside = ",".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in differing.items()
    )
    return f"{method.name}/{inside}" if inside else method.name
