"""`expunge audit`."""

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
    ForgetSets,
    IdColumn,
    Json,
    Methods,
    Out,
    Pretrained,
    Quiet,
    Resume,
    RowTolerance,
    RunOn,
    Seed,
    TaskName,
    Tolerance,
    Train,
)
from expunge.cli.shared import NOT_SO
from expunge.core.limits import FEWEST_MEMBERS, HOPED
from expunge.run_file import typed_again


def audit(
    context: typer.Context,
    task: TaskName = "digits",
    forget: ForgetSets = None,
    id_column: IdColumn = None,
    methods: Methods = None,
    pretrained: Pretrained = None,
    oracles: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SET=]DIR",
            help="Models retrained without the forget set, likewise; FORGETSET=FOLDER, once for each, with several.",
        ),
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SET=]DIR", help="More of these, for the floor. Without them the oracles given are halved."
        ),
    ] = None,
    members: Annotated[
        int, typer.Option(metavar="N", help=f"Models in every ensemble that is trained, at least {FEWEST_MEMBERS}.")
    ] = 100,
    out: Out = Path("runs/audit"),
    seed: Seed = 0,
    tolerance: Tolerance = None,
    row_tolerance: RowTolerance = None,
    resume: Resume = False,
    forecast: Annotated[
        bool,
        typer.Option(
            "--forecast/--no-forecast",
            help="Forecast first, and show forecast beside outcome; margin_matching needs it.",
        ),
    ] = True,
    device: Device = "auto",
    chunk: Chunk = None,
    runner: RunOn = "local",
    train: Train = None,
    config: Config = None,
    fail_unless: Annotated[
        str | None,
        typer.Option(
            metavar="VERDICT",
            help=f"Given {HOPED}: exit with code {NOT_SO} unless, on every forget set, some candidate method has that "
            f"verdict at the setting chosen for it, and failed none of its checks. METHOD={HOPED} asks it of one "
            "method; controls can be named too.",
        ),
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Judge unlearning against retrained models.

    The main job: train ensembles, forecast, retrain without the forget set (oracles), unlearn with every setting,
    choose settings without looking at the answer, judge, and write a report.
    """
    from expunge.api import audit as run_audit
    from expunge.report.answer import audit_answer, shortfalls
    from expunge.report.table import print_table
    from expunge.studies.audit import estimate_audit

    if fail_unless is not None:
        shared.check_runs(fail_unless, shared.names(methods))
    console = shared.progress(json, quiet)
    chosen = shared.task_named(task, train)
    asked: dict[str, Any] = {
        "forget": shared.forget_sets(chosen, forget, id_column),
        "methods": shared.names(methods),
        "pretrained": pretrained,
        "oracles": shared.by_forget_set(oracles),
        "held_out": shared.by_forget_set(held_out),
        "members": members,
        "out": out,
        "seed": seed,
        "resume": resume,
        "forecast": forecast,
        "device": device,
        "chunk": chunk,
    }
    if dry_run:
        shared.print_estimates(
            {"": estimate_audit(chosen, **asked, tolerance=tolerance, row_tolerance=row_tolerance)}, console, json=json
        )
        return
    run = run_audit(
        chosen,
        **asked,
        runner=runner,
        tolerance=tolerance,
        row_tolerance=row_tolerance,
        console=console,
        command=typed_again(context),
    )
    missed = shortfalls(run.record, fail_unless) if fail_unless else []
    if json:
        shared.print_json(
            audit_answer(run.record, run.folder, run.report) | ({"missed": missed} if fail_unless else {})
        )
    elif console is not None:
        print_table(run.record, console)
        console.print(f"\nReport: {run.report}", soft_wrap=True)
    if missed:
        shared.refuse(fail_unless, missed)
