"""`expunge leaderboard`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from expunge.cli import shared
from expunge.cli.options import TASKS, Device, DryRun, Json, Methods, Out, Quiet, Resume, Seed
from expunge.run_file import typed_again


def leaderboard(
    context: typer.Context,
    tasks: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK]...", help=f"{TASKS}, or path/to/task.py[:name].")
    ] = None,
    forget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:SIZE",
            help="A forget set, as in an audit; again for another. By default twelve of six kinds, with sizes that "
            "suit each task.",
        ),
    ] = None,
    methods: Methods = "all",
    members: Annotated[int, typer.Option(metavar="N", help="Models in every ensemble.")] = 100,
    out: Out = Path("runs/leaderboard"),
    seed: Seed = 0,
    resume: Resume = False,
    device: Device = "auto",
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put every method beside retraining.

    An audit of each task with all methods on forget sets of six kinds, and from them: who cannot be told from
    retraining, how often, and at which price. Functions of your own (--methods all,mine.py:fn) get their row beside
    them.
    """
    from expunge.papers.leaderboard import report, study
    from expunge.papers.leaderboard.board import answer, standings
    from expunge.report.answer import valid

    console = shared.progress(json, quiet)
    asked: dict[str, Any] = {
        "forget": forget,
        "methods": shared.names(methods),
        "members": members,
        "out": out,
        "seed": seed,
    }
    named = tasks or ["digits"]
    if dry_run:
        shared.print_estimates(study.estimates(named, device=device, **asked), console, json=json)
        return
    folder, record = study.run(
        named, resume=resume, device=device, console=console, command=typed_again(context), **asked
    )
    page = report.draw(folder)
    if json:
        found = [asdict(each) for each in standings(record.rows)]
        shared.print_json(
            valid({"run": str(folder), "report": str(page), "answer": answer(record), "standings": found})
        )
    elif console is not None:
        report.print_tables(folder, console)
        console.print(f"\nPage: {page}\nTable: {folder / report.TABLE}", soft_wrap=True)
