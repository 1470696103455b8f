"""`expunge forecast`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from expunge.cli import shared
from expunge.cli.options import (
    Chunk,
    Config,
    Device,
    DryRun,
    ForecastMethods,
    ForgetSets,
    IdColumn,
    Json,
    Out,
    Pretrained,
    Quiet,
    Resume,
    Seed,
    TaskName,
    Tolerance,
    Train,
)
from expunge.run_file import typed_again


def forecast(
    context: typer.Context,
    task: TaskName = "digits",
    forget: ForgetSets = None,
    id_column: IdColumn = None,
    methods: ForecastMethods = None,
    pretrained: Pretrained = None,
    members: Annotated[int, typer.Option(metavar="N", help="Models in the pretrained ensemble.", min=2)] = 100,
    followed: Annotated[
        int, typer.Option(metavar="N", help="Models whose training is retraced and linearised.", min=2)
    ] = 12,
    out: Out = Path("runs/forecast"),
    seed: Seed = 0,
    tolerance: Tolerance = None,
    resume: Resume = False,
    device: Device = "auto",
    chunk: Chunk = None,
    train: Train = None,
    config: Config = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict outcomes before any unlearning.

    What retraining would change, what each method would reach, and advice, from the pretrained models alone: nothing is
    retrained or unlearned.
    """
    from expunge.api import forecast as run_forecast
    from expunge.report.answer import forecast_answer
    from expunge.report.table import print_forecast
    from expunge.studies.forecast import estimate_forecast

    console = shared.progress(json, quiet)
    chosen = shared.task_named(task, train)
    asked: dict[str, Any] = {
        "forget": shared.forget_sets(chosen, forget, id_column),
        "methods": shared.names(methods),
        "pretrained": pretrained,
        "members": members,
        "followed": followed,
        "out": out,
        "seed": seed,
        "resume": resume,
        "device": device,
        "chunk": chunk,
    }
    if dry_run:
        shared.print_estimates({"": estimate_forecast(chosen, **asked, tolerance=tolerance)}, console, json=json)
        return
    run = run_forecast(chosen, **asked, tolerance=tolerance, console=console, command=typed_again(context))
    if json:
        shared.print_json(forecast_answer(run.record, run.folder, run.report))
    elif console is not None:
        print_forecast(run.record, console)
        console.print(f"\nReport: {run.report}", soft_wrap=True)
