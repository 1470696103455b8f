"""`expunge judge`."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expunge.cli import shared
from expunge.cli.options import IdColumn, Json, Quiet, TaskName, Train
from expunge.cli.shared import NOT_SO
from expunge.core import InputError
from expunge.core.limits import LEVEL, POWER

if TYPE_CHECKING:
    from expunge.metrics import OneModel

HOPED = "compatible"
"""The one verdict on a model that can be asked for."""


def judge(
    model: Annotated[
        Path,
        typer.Argument(
            help="The checkpoint: .safetensors, or .pt or .pth that holds tensors alone, of the task's model."
        ),
    ],
    task: TaskName,
    run: Annotated[Path, typer.Option(metavar="DIR", help="Folder of an audit of that task, which has the oracles.")],
    forget: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="The forget set: its name in the audit, or the file of its rows.  [default: its only]",
        ),
    ] = None,
    id_column: IdColumn = None,
    level: Annotated[
        float, typer.Option(metavar="A", help="Chance that a retrained model is told; it takes 1 / A - 1 oracles.")
    ] = LEVEL,
    power: Annotated[
        float, typer.Option(metavar="B", help="Share of the pretrained models that must be shown to be told.")
    ] = POWER,
    train: Train = None,
    fail_unless: Annotated[
        str | None,
        typer.Option(metavar="VERDICT", help=f"Given {HOPED}: exit with code {NOT_SO} unless that is the verdict."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Judge one model by an audit's oracles.

    Compatible with retraining, told from it, or more than so many oracles can say: by the model's rank among them, with
    the power that the test has against the audit's pretrained models.
    """
    from expunge.api import judge as judge_one

    if fail_unless not in (None, HOPED):
        raise InputError(f"--fail-unless {fail_unless!r}, expected {HOPED}.")
    console = shared.progress(json, quiet)
    chosen = shared.task_named(task, train)
    rows = None if forget is None else shared.forget_sets(chosen, [forget], id_column)[0]
    found = judge_one(model, task=chosen, run=run, forget=rows, level=level, power=power)
    if json:
        shared.print_json({"model": str(model), "run": str(run), **answer(found)})
    elif console is not None:
        console.print(found.sentence, highlight=False, markup=False)
        shifts = ", ".join(f"{split} {shift:+.2f}" for split, shift in found.shifts.items() if math.isfinite(shift))
        if shifts:
            console.print(f"Mean shift in oracle standard deviations: {shifts}.", style="dim", highlight=False)
    if fail_unless is not None and found.name != HOPED:
        shared.refuse(fail_unless, [found.sentence])


def answer(found: OneModel) -> dict[str, Any]:
    """Return a verdict as a JSON value; numbers that are none are null."""
    from expunge.report.answer import valid

    said = {"verdict": found.name, "sentence": found.sentence, **dataclasses.asdict(found)}
    return valid({key: value for key, value in said.items() if key not in ("name", "result")})
