"""The command line: one verb a study or report, each in a file of its own."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from expunge.boundary import console, guarded
from expunge.cli.commands import COMMANDS, Group
from expunge.version import __version__

app = typer.Typer(
    name="expunge",
    cls=Group,
    help="Does this model behave as if it had never seen that data? Unlearning, measured against retraining.",
    no_args_is_help=True,
    epilog="Begin with: expunge audit digits --forget random:70 --forget cluster:70 --out runs/digits",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


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
    """Does this model behave as if it had never seen that data? Unlearning, measured against retraining."""


def _takes_resume(words: Sequence[str]) -> bool:
    place = COMMANDS.get(next(iter(words), ""))
    return place is not None and place.resumes


def _show_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    console(stderr=True).print(f"warning: {message}", soft_wrap=True)


def main() -> None:
    """Run the command line; whatever happens ends in one clear line, not in a traceback (see `boundary`)."""
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    warnings.showwarning = _show_warning
    guarded(lambda: app(prog_name="expunge"), resumable=_takes_resume(sys.argv[1:]))
