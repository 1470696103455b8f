"""`expunge prove-forecast` and `expunge theory`: what papers claim, computed again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli import shared
from expunge.cli.options import Config, Device, Out, Quiet, Resume, Seed
from expunge.papers.ascent_fails_to_forget.names import DEFAULT_TASKS, RESULTS
from expunge.run_file import typed_again


def prove_forecast(
    context: typer.Context,
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            help="Tasks, as for audit, or teacher-mixture: synthetic data with a dial for the dependence between "
            f"forget and retain set.  [default: {' '.join(DEFAULT_TASKS)}]"
        ),
    ] = None,
    members: Annotated[
        int,
        typer.Option(
            metavar="N", help="Models in every ensemble; with fewer than 20 the outcome is mostly chance.", min=20
        ),
    ] = 60,
    out: Out = Path("runs/proof"),
    seed: Seed = 0,
    resume: Resume = False,
    device: Device = "auto",
    config: Config = None,
    quiet: Quiet = False,
) -> None:
    """Test the forecast on many forget sets.

    Forty forget sets a task are forecast, retrained and unlearned: does the forecast rank what then happens? That is
    the work of many audits.
    """
    from expunge.papers.ascent_fails_to_forget.forecast_proof import prove
    from expunge.papers.ascent_fails_to_forget.report.proof import draw as draw_proof
    from expunge.papers.ascent_fails_to_forget.report.proof import print_tables

    console = shared.progress(False, quiet)
    folder, _ = prove(
        tasks or DEFAULT_TASKS,
        members=members,
        out=out,
        seed=seed,
        resume=resume,
        device=device,
        console=console,
        command=typed_again(context),
    )
    page = draw_proof(folder)
    if console is not None:
        print_tables(folder, console)
        console.print(f"\nTables: {page}, figures beside it", soft_wrap=True)


def theory(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Results to check: {', '.join(RESULTS)}; all by default.")
    ] = None,
    out: Out = Path("runs/theory"),
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of every sweep and simulation.")] = 0,
    resume: Resume = False,
    quiet: Quiet = False,
) -> None:
    """Check what is proved about unlearning.

    The lemmas and figures of "Ascent Fails to Forget" (arXiv 2509.26427), and solvable models that go further, each
    computed again.
    """
    from expunge.papers.ascent_fails_to_forget.report.theory import draw as draw_theory
    from expunge.papers.ascent_fails_to_forget.report.theory import print_tables
    from expunge.papers.ascent_fails_to_forget.theory_study import run as run_theory

    console = shared.progress(False, quiet)
    folder = run_theory(names or ["all"], out, seed=seed, resume=resume, console=console)
    page = draw_theory(folder)
    if console is not None:
        print_tables(folder, console)
        console.print(f"\nReport: {page}", soft_wrap=True)
