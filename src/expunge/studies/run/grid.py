"""The grid: which runs an audit makes, and what each will cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from expunge.core import InputError, Task, has_statistics
from expunge.methods import METHODS, DoNothing, EarlyStoppedRetrain, FineTune, GradientAscent, Method, Retrain
from expunge.studies.run.measure import RETAIN_EXAMPLES, VALIDATION_EXAMPLES

CONTROLS: tuple[type[Method], ...] = (DoNothing, Retrain, EarlyStoppedRetrain, FineTune)
"""Methods that every audit runs, asked for or not."""


def plan_runs(task: Task, methods: Sequence[str | Method] | None, *, predicted: bool = False) -> list[Method]:
    """Return every run of an audit: the controls, and the settings of the methods asked for.

    Args:
        task: Whose recipe sets the rates, and whose model decides whether statistics can drift.
        methods: Registry names (their whole grid is tried), or methods with options (tried as given); None means all.
        predicted: Whether oracle margins will be predicted; without them, all means those that do not aim at them.

    Raises:
        InputError: If a name is unknown or the same setting is given twice.
    """
    every: list[str | Method] = [name for name, method in METHODS.items() if predicted or not method.needs_targets]
    asked = every if methods is None else list(methods)
    runs: list[Method] = []
    for item in asked:
        if isinstance(item, Method):
            runs.append(item)
        elif item in METHODS:
            runs.extend(METHODS[item].grid(task.recipe))
        else:
            raise InputError(f"method {item!r} is unknown, expected one of: {', '.join(METHODS)}.")
    controls = [
        run for kind in CONTROLS if not any(isinstance(r, kind) for r in runs) for run in kind.grid(task.recipe)
    ]
    if has_statistics(task.build(0)):
        # Ten epochs at rate 0 in training mode: nothing but the normalisation statistics can change.
        controls.append(GradientAscent(lr=0.0, statistics="updated"))
    described = [run.describe() for run in runs]
    for text in described:
        if described.count(text) > 1:
            raise InputError(f"{text} is asked for {described.count(text)} times, expected each setting once.")
    return [run for run in controls if run.describe() not in described] + runs


def is_control(method: Method) -> bool:
    """Return whether a run is a control: a baseline, or a method whose rate is 0."""
    return method.control or not method.moves


def expected_cost(method: Method, task: Task, forget: int) -> float:
    """Return about what a run costs relative to retraining on R, before it has run."""
    retain = len(task.train) - forget
    if method.from_scratch:
        return float(getattr(method, "cost", 1.0))
    examples = method.examples_an_epoch(forget, retain) * int(getattr(method, "epochs", 0))
    return examples / (retain * task.recipe.epochs)


def run_work(method: Method, task: Task, forget: int) -> float:
    """Return about what a run takes, in units of training one ensemble: its steps, and its measurements."""
    scored = forget + min(len(task.train), RETAIN_EXAMPLES) + min(len(task.validation), VALIDATION_EXAMPLES)
    measuring = expected_stops(method) * scored / 3 / (len(task.train) * task.recipe.epochs)
    return expected_cost(method, task, forget) + 2 * measuring


def runs_work(runs: Sequence[Method], task: Task, forget: int) -> float:
    """Return about what all runs take; those with a grid to choose from run on the calibration set too."""
    twice = [1 if run.from_scratch or run.name == DoNothing.name else 2 for run in runs]
    return sum(times * run_work(run, task, forget) for times, run in zip(twice, runs, strict=True))


def expected_stops(method: Method) -> int:
    """Return how many stopping times a run has."""
    return 1 if method.from_scratch else max(1, int(getattr(method, "epochs", 1)))


def relative_options(method: Method, task: Task) -> dict[str, Any]:
    """Return the options of a run with its rate also in units of the recipe's peak rate."""
    options = method.options()
    if "lr" in options:
        options["relative_lr"] = options["lr"] / task.recipe.lr
    return options


def run_name(method: Method) -> str:
    """Return a short name of a run that tells it from the others of its method.

    >>> run_name(GradientAscent(lr=0.02, epochs=3))
    'gradient_ascent/lr=0.02,epochs=3'
    """
    defaults = type(method)().options()
    differing = {k: v for k, v in method.options().items() if v != defaults[k] or k in ("lr", "cost")}
    inside = ",".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in differing.items()
    )
    return f"{method.name}/{inside}" if inside else method.name
