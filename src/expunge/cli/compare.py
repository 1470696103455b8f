"""`expunge compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli import shared
from expunge.cli.options import Json, Quiet


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Folders of audits and forecasts.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a page into this file (.html).")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every number into this file.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put runs beside each other.

    For each forget set the cheapest method that passes in every run, where the runs conclude differently, and what else
    differs between them, from their records alone.
    """
    from expunge.api import compare as compare_runs
    from expunge.report.compare_table import print_comparison

    found = compare_runs(*runs, out=out, csv=csv)
    console = shared.progress(json, quiet)
    if json:
        shared.print_json(found.as_json())
    elif console is not None:
        print_comparison(found, console)
    if console is not None:
        for what, path in (("Page", out), ("Table", csv)):
            if path is not None:
                console.print(f"{what}: {path}", soft_wrap=True)
