"""`expunge check`."""

from __future__ import annotations

from typing import Annotated

import typer

from expunge.cli import shared
from expunge.cli.options import Json, Quiet, Seed, TaskName, Train


def check(
    task: TaskName,
    members: Annotated[int, typer.Option(metavar="N", help="For how many models the time is told.", min=1)] = 100,
    seed: Seed = 0,
    train: Train = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Try whether training does what an audit needs.

    Trains a few times on some of the rows: does it follow its rows and its seed, what does it put out, how long will it
    take? The exit code is 1 if something fails.
    """
    from expunge.studies.run.check import check as run_check

    console = shared.progress(json, quiet)
    found = run_check(shared.task_named(task, train), members=members, seed=seed, progress=shared.lines(console))
    if json:
        shared.print_json({"passed": found.passed, "answers": [vars(answer) for answer in found.answers]})
    elif console is not None:
        console.print(str(found), soft_wrap=True)
    if not found.passed:
        raise typer.Exit(1)
