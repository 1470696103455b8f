"""`expunge report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.boundary import console as console_of
from expunge.core import InputError


def draw_report(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder of an audit, a forecast, an unlearned checkpoint, a proof of forecasts, a leaderboard, or a "
            "paper."
        ),
    ],
    markdown: Annotated[
        bool,
        typer.Option("--markdown", help="Print the table of an audit or a leaderboard as Markdown, and draw nothing."),
    ] = False,
    mlflow: Annotated[
        bool,
        typer.Option(
            "--mlflow",
            help="Log an audit or a forecast to MLflow as well: a local file, or the store that MLFLOW_TRACKING_URI "
            "names.",
        ),
    ] = False,
) -> None:
    """Draw the page of a run again.

    From its record alone; for a proof of forecasts its tables and figures, which have no page.
    """
    from expunge import report
    from expunge.core import Record
    from expunge.core.checks import as_path
    from expunge.core.forecast import ForecastRun
    from expunge.core.schema import RECORDS
    from expunge.core.unlearning import Unlearning
    from expunge.papers.ascent_fails_to_forget.report import proof as proof_report
    from expunge.papers.ascent_fails_to_forget.report import reproduction as reproduction_report
    from expunge.papers.ascent_fails_to_forget.report import theory as theory_report
    from expunge.papers.leaderboard import report as board_report
    from expunge.papers.leaderboard.record import LeaderboardRecord
    from expunge.papers.sequential_drift import report as drift_report
    from expunge.report.mlflow_log import log
    from expunge.report.table import print_forecast, print_table
    from expunge.report.unlearning import print_unlearning

    logged: dict[str, type[Record] | type[ForecastRun]] = {Record.FILE: Record, ForecastRun.FILE: ForecastRun}

    run = as_path(run, "the folder of a run")
    found = [name for name in RECORDS if (run / name).is_file() or (run.is_file() and run.name == name)]
    if not found:
        raise InputError(f"{run} holds no run, expected a folder with one of: {', '.join(RECORDS)}.")
    console, folder = console_of(), run.parent if run.is_file() else run
    if markdown:
        board = LeaderboardRecord.FILE in found
        typer.echo(
            board_report.markdown(LeaderboardRecord.load(folder)) if board else report.markdown(Record.load(folder)),
            nl=False,
        )
        return
    if mlflow and not logged.keys() & {*found}:
        raise InputError(f"--mlflow logs an audit or a forecast, {run} holds {' and '.join(found)}.")
    for kind in found:
        if kind == Unlearning.FILE:
            print_unlearning(Unlearning.load(folder), console)
            continue
        if kind == "theory.json":
            path = theory_report.draw(folder)
            theory_report.print_tables(folder, console)
        elif kind == "proof.json":
            path = proof_report.draw(folder)
            proof_report.print_tables(folder, console)
        elif kind == "sequential_drift.json":
            path = drift_report.draw(folder)
            drift_report.print_tables(folder, console)
        elif kind == "leaderboard.json":
            path = board_report.draw(folder)
            board_report.print_tables(folder, console)
        elif kind == "reproduction.json":
            path = reproduction_report.draw(folder)
            reproduction_report.print_answers(folder, console)
        elif kind == "forecast.json":
            path = report.draw_forecast(folder)
            print_forecast(ForecastRun.load(folder), console)
        else:
            path = report.draw(folder)
            print_table(Record.load(folder), console)
        console.print(f"\nReport: {path}", soft_wrap=True)
        if mlflow and kind in logged:
            there = log(logged[kind].load(folder), folder, path)
            done = "was logged before" if there.earlier else "logged"
            console.print(f"MLflow: {done}, run {there.run} of {there.experiment!r} in {there.store}", soft_wrap=True)
