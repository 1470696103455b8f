"""The command line: one verb a study or report."""

from __future__ import annotations

import shlex
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from expunge import report
from expunge.core import DamagedFileError, DivergedError, InputError, Record
from expunge.report.table import print_table
from expunge.version import __version__

app = typer.Typer(
    name="expunge",
    help="Does this model behave as if it had never seen that data? Unlearning, measured against retraining.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path, typer.Option(help="Folder of the run.")]


def _version(show: bool) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that belong to no verb."""


@app.command()
def audit(
    task: Annotated[str, typer.Argument(help="digits, digits:cnn, tabular, or path/to/task.py[:name].")] = "digits",
    forget: Annotated[
        list[str] | None,
        typer.Option(
            help="A file of indices (.npy, .csv), or CHOOSER:SIZE with random, class_part, cluster or mislabelled."
        ),
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Methods to try, separated by commas; all by default. Controls always run.")
    ] = None,
    members: Annotated[int, typer.Option(help="Models in every ensemble.", min=1)] = 100,
    out: Out = Path("runs/audit"),
    seed: Annotated[int, typer.Option(help="The study's seed.")] = 0,
    tolerance: Annotated[
        float | None, typer.Option(help="Excess over the floor, in nats, that still counts as indistinguishable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    chunk: Annotated[
        int | None, typer.Option(help="Members computed together; the fastest is measured by default.")
    ] = None,
) -> None:
    """Train, unlearn, score against retrained oracles, choose, judge, report: the main job."""
    from expunge.api import audit as run_audit
    from expunge.tasks import load_task

    console = Console()
    run = run_audit(
        load_task(task),
        forget=forget or ["random:70"],
        methods=None if methods is None else [name.strip() for name in methods.split(",") if name.strip()],
        members=members,
        out=out,
        seed=seed,
        tolerance=tolerance,
        resume=resume,
        device=device,
        chunk=chunk,
        console=console,
        command=shlex.join(["expunge", *(word for word in sys.argv[1:] if word != "--resume")]),
    )
    print_table(run.record, console)
    console.print(f"\nReport: {run.report}", soft_wrap=True, highlight=False)


@app.command(name="report")
def draw_report(run: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Draw the page of a run again, from its record alone."""
    path = report.draw(run)
    console = Console()
    print_table(Record.load(run), console)
    console.print(f"\nReport: {path}", soft_wrap=True, highlight=False)


def main() -> None:
    """Run the command line; what a person can correct ends in one clear line, not in a traceback."""
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    try:
        app()
    except (InputError, DamagedFileError, DivergedError) as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; add --resume to go on where it was", markup=False, highlight=False)
        sys.exit(130)


if __name__ == "__main__":
    main()
