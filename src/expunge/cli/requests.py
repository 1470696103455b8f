"""`expunge requests TASK --ledger DIR add|status|run`."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from expunge.cli import shared
from expunge.cli.options import CANDIDATES, CONTROLS, Device, Json, Quiet, Seed, TaskName, Tolerance, Train
from expunge.cli.unlearn import Unlearn

if TYPE_CHECKING:
    from rich.console import Console

    from expunge.studies.request.ledger import Ledger
    from expunge.studies.request.ledger_status import Status


class TaskFirst(TyperGroup):
    """Lets the task stand before the options, as in every other command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move the task behind the options of the group, then read as ever."""
        if args and not args[0].startswith("-"):
            place = 1
            while place < len(args) and args[place].startswith("-"):
                place += 1 if "=" in args[place] or args[place] in ("-h", "--help") else 2
            args = [*args[1:place], args[0], *args[place:]]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=TaskFirst, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def requests(
    context: typer.Context,
    task: TaskName,
    ledger: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the ledger, made by the first request.")],
    train: Train = None,
) -> None:
    """Keep a ledger of deletion requests.

    Rows are entered as requests come in; a run carries out what is pending, from the last accepted model; the status
    says when to retrain.
    """
    words = ["expunge", "requests", task, "--ledger", str(ledger), *(["--train", train] if train else [])]

    def opened() -> Ledger:
        from expunge.studies.request.ledger import Ledger

        return Ledger(ledger, shared.task_named(task, train))

    context.obj = {"open": opened, "words": words}


@app.command()
def add(
    context: typer.Context,
    rows: Annotated[Path, typer.Argument(help="A file of positions in the training data (.npy, .csv, .txt).")],
    id_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Column of a .csv file that holds ids; the task says them with Task(ids=...)."
        ),
    ] = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="A line that is kept with the request.")] = "",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Enter a request; the same rows twice are one."""
    found = context.obj["open"]().add(rows, id_column=id_column, note=note)
    console = shared.progress(json, quiet)
    if json:
        shared.print_json(asdict(found))
    elif console is not None:
        console.print(str(found), soft_wrap=True)


@app.command()
def status(
    context: typer.Context,
    removed: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the positions of all rows removed so far, for expunge audit --forget."
        ),
    ] = None,
    tolerance: Tolerance = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show requests, last model, and when to retrain."""
    from expunge.core.schema import write_atomically

    ledger = context.obj["open"]()
    found, console = ledger.status(tolerance=tolerance), shared.progress(json, quiet)
    if removed is not None:
        write_atomically(removed, "".join(f"{row}\n" for row in ledger.removed().indices).encode())
    if json:
        shared.print_json(asdict(found))
    elif console is not None:
        _print_status(found, console)


@app.command(cls=Unlearn)
def run(
    context: typer.Context,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME|audited RUN",
            help=f"{CONTROLS}, {CANDIDATES}, each at its defaults; mine.py:NAME; audited RUN: as for expunge unlearn.",
        ),
    ] = "retrain",
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", help="The deployed model; for the first run, later ones start from the last."),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Carry out what is pending, and accept the model.

    After a kill the same command goes on: nothing is lost, and nothing done twice.
    """
    from expunge.report.unlearning import print_unlearning, unlearning_answer

    console = shared.progress(json, quiet)
    words = [*context.obj["words"], "run", "--method", method, *(["--seed", str(seed)] if seed else [])]
    words += ["--checkpoint", str(checkpoint)] if checkpoint else []
    found = context.obj["open"]().run(
        method, checkpoint=checkpoint, seed=seed, device=device, console=console, command=shlex.join(words)
    )
    if json:
        done = None if found is None else unlearning_answer(found.record, found.model.parent)
        facts = {} if found is None else {"run": found.run, "requests": list(found.requests), "model": str(found.model)}
        shared.print_json({**facts, "accepted": done})
    elif console is not None and found is None:
        console.print("Nothing is pending.")
    elif console is not None and found is not None:
        print_unlearning(found.record, console)
        said = f"Accepted as run {found.run}: requests {', '.join(map(str, found.requests))}, {found.rows} rows."
        console.print(f"\n{said}\nCheckpoint: {found.model}", soft_wrap=True)


def _print_status(status: Status, console: Console) -> None:
    from rich.table import Table

    from expunge.report.fitting import print_fitting

    table = Table(box=None, pad_edge=False)
    for column in ("request", "entered", "rows", "state", ""):
        table.add_column(column, justify="right" if column in ("request", "rows") else "left", no_wrap=bool(column))
    for one in status.requests:
        state = "pending" if one.run is None else f"done in run {one.run}"
        known = f"{one.known} known before" if one.known else ""
        words = "; ".join(part for part in (one.source, one.note, known) if part)
        table.add_row(
            str(one.request), one.at.replace("T", " ").replace("+00:00", " UTC"), f"{one.rows:,}", state, words
        )
    if status.requests:
        print_fitting(console, table)
    said = f"{status.pending:,} rows pending; {status.removed:,} of {status.examples:,} removed so far"
    since = f", {status.runs_since_retraining} of them since the last training from nothing" if status.runs else ""
    console.print(f"{said} (runs: {status.runs}{since}).")
    if status.model:
        console.print(f"Last accepted model: {status.model}", soft_wrap=True)
    console.print(status.advice)
    if status.head:
        console.print(f"Last line of the ledger: {status.head}", soft_wrap=True)
