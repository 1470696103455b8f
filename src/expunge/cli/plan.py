"""`expunge plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli import shared
from expunge.cli.options import Device, IdColumn, Json, Methods, Quiet, Seed, TaskName, Train
from expunge.core import InputError


def plan(
    task: TaskName,
    forget: Annotated[
        str,
        typer.Option(metavar="FILE", help="The rows to forget: a file of positions in the training data, or of ids."),
    ],
    id_column: IdColumn = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL", help="The deployed model: does it fit the task, does it look trained on the rows?"
        ),
    ] = None,
    members: Annotated[
        str, typer.Option(metavar="N,...", help="Numbers of models for which costs are told, each at least 20.")
    ] = "20,50,100",
    workers: Annotated[
        int, typer.Option(metavar="N", help="Tell the time on so many machines like this one as well.", min=1)
    ] = 1,
    methods: Methods = None,
    seed: Seed = 0,
    device: Device = "auto",
    train: Train = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what a request would take.

    Before anything long: hours and gigabytes of retraining, a forecast and an audit; whether the rows can matter; rows
    that stay and equal them; and the next command. Two models are trained, and nothing is written.
    """
    from expunge.api import plan as run_plan
    from expunge.report.plan import print_plan

    try:
        counts = [int(count) for count in members.split(",")]
    except ValueError as error:
        raise InputError(f"--members {members!r}, expected whole numbers with commas, such as 20,50,100.") from error
    console = shared.progress(json, quiet)
    chosen = shared.task_named(task, train)
    found = run_plan(
        chosen,
        forget=shared.forget_sets(chosen, [forget], id_column)[0],
        checkpoint=checkpoint,
        members=counts,
        workers=workers,
        methods=shared.names(methods),
        seed=seed,
        device=device,
        typed=[task, "--forget", forget, *(["--id-column", id_column] if id_column else [])],
        progress=shared.lines(console),
    )
    if json:
        typer.echo(found.model_dump_json(indent=1))
    elif console is not None:
        print_plan(found, console)
