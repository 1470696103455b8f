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
from expunge.core.forecast import ForecastRun
from expunge.report.table import print_forecast, print_table
from expunge.version import __version__

app = typer.Typer(
    name="expunge",
    help="Does this model behave as if it had never seen that data? Unlearning, measured against retraining.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

RECORDS = ("record.json", "forecast.json", "proof.json", "theory.json")
"""Files by which the folder of an audit, a forecast and a theory run is known."""

Out = Annotated[Path, typer.Option(help="Folder of the run.")]
TaskName = Annotated[str, typer.Argument(help="digits, digits:cnn, tabular, or path/to/task.py[:name].")]
ForgetSets = Annotated[
    list[str] | None,
    typer.Option(
        help="A file of indices (.npy, .csv); CHOOSER:SIZE with random, class_part, cluster or mislabelled; or "
        "component:NUMBER:SIDE:SIZE with top, bottom or both. Once a forget set; random:70 by default."
    ),
]
Methods = Annotated[
    str | None, typer.Option(help="Methods to try, separated by commas; all by default. Controls always run.")
]
Tolerance = Annotated[
    float | None, typer.Option(help="Excess over the floor, in nats, that still counts as indistinguishable.")
]
Seed = Annotated[int, typer.Option(help="The study's seed.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Chunk = Annotated[int | None, typer.Option(help="Members computed together; the fastest is measured by default.")]


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
    task: TaskName = "digits",
    forget: ForgetSets = None,
    methods: Methods = None,
    members: Annotated[int, typer.Option(help="Models in every ensemble.", min=1)] = 100,
    out: Out = Path("runs/audit"),
    seed: Seed = 0,
    tolerance: Tolerance = None,
    resume: Resume = False,
    forecast: Annotated[
        bool, typer.Option("--forecast/--no-forecast", help="Forecast first, and show forecast beside outcome.")
    ] = True,
    device: Device = "auto",
    chunk: Chunk = None,
) -> None:
    """Train, unlearn, score against retrained oracles, choose, judge, report: the main job."""
    from expunge.api import audit as run_audit
    from expunge.tasks import load_task

    console = Console()
    run = run_audit(
        load_task(task),
        forget=forget or ["random:70"],
        methods=_names(methods),
        members=members,
        out=out,
        seed=seed,
        tolerance=tolerance,
        resume=resume,
        forecast=forecast,
        device=device,
        chunk=chunk,
        console=console,
        command=_command(),
    )
    print_table(run.record, console)
    console.print(f"\nReport: {run.report}", soft_wrap=True, highlight=False)


@app.command()
def forecast(
    task: TaskName = "digits",
    forget: ForgetSets = None,
    methods: Methods = None,
    members: Annotated[int, typer.Option(help="Models in the pretrained ensemble.", min=2)] = 100,
    followed: Annotated[int, typer.Option(help="Models whose training is retraced and linearised.", min=2)] = 12,
    out: Out = Path("runs/forecast"),
    seed: Seed = 0,
    tolerance: Tolerance = None,
    resume: Resume = False,
    device: Device = "auto",
    chunk: Chunk = None,
) -> None:
    """Before unlearning: what retraining would change, what each method would reach, and advice. Needs no oracle."""
    from expunge.api import forecast as run_forecast
    from expunge.tasks import load_task

    console = Console()
    run = run_forecast(
        load_task(task),
        forget=forget or ["random:70"],
        methods=_names(methods),
        members=members,
        followed=followed,
        out=out,
        seed=seed,
        tolerance=tolerance,
        resume=resume,
        device=device,
        chunk=chunk,
        console=console,
        command=_command(),
    )
    print_forecast(run.record, console)
    console.print(f"\nReport: {run.report}", soft_wrap=True, highlight=False)


@app.command(name="prove-forecast")
def prove_forecast(
    tasks: Annotated[
        list[str] | None, typer.Argument(help="Tasks, as for audit, or teacher-mixture for the dependence dial.")
    ] = None,
    members: Annotated[int, typer.Option(help="Models in every ensemble.", min=20)] = 60,
    out: Out = Path("runs/proof"),
    seed: Seed = 0,
    resume: Resume = False,
    device: Device = "auto",
) -> None:
    """Over forty forget sets a task: does what the forecast predicts rank what then happens?"""
    from expunge.report.proof import draw as draw_proof
    from expunge.report.proof import print_tables
    from expunge.studies.proof import DEFAULT_TASKS, prove

    console = Console()
    folder, _ = prove(
        tasks or DEFAULT_TASKS,
        members=members,
        out=out,
        seed=seed,
        resume=resume,
        device=device,
        console=console,
        command=_command(),
    )
    print_tables(folder, console)
    console.print(f"\nTables: {draw_proof(folder)}, figures beside it", soft_wrap=True, highlight=False)


def _names(methods: str | None) -> list[str] | None:
    return None if methods is None else [name.strip() for name in methods.split(",") if name.strip()]


def _command() -> str:
    """Return the command as it would be typed again."""
    return shlex.join(["expunge", *(word for word in sys.argv[1:] if word != "--resume")])


@app.command(name="report")
def draw_report(
    run: Annotated[Path, typer.Argument(help="Folder of an audit, a forecast, a proof of forecasts or a theory run.")],
) -> None:
    """Draw the page of a run again, from its record alone."""
    from expunge.report import proof as proof_report
    from expunge.report import theory as theory_report

    found = [name for name in RECORDS if (run / name).is_file() or (run.is_file() and run.name == name)]
    if not found:
        raise InputError(f"{run} holds no run, expected a folder with one of: {', '.join(RECORDS)}.")
    console, folder = Console(), run.parent if run.is_file() else run
    for kind in found:
        if kind == "theory.json":
            path = theory_report.draw(folder)
            theory_report.print_tables(folder, console)
        elif kind == "proof.json":
            path = proof_report.draw(folder)
            proof_report.print_tables(folder, console)
        elif kind == "forecast.json":
            path = report.draw_forecast(folder)
            print_forecast(ForecastRun.load(folder), console)
        else:
            path = report.draw(folder)
            print_table(Record.load(folder), console)
        console.print(f"\nReport: {path}", soft_wrap=True, highlight=False)


@app.command()
def score(
    unlearned: Annotated[Path, typer.Option(help="Margins (members, examples), or logits with --labels.")],
    oracle: Annotated[Path, typer.Option(help="The same of retrained members, same examples, same order.")],
    held_out_oracle: Annotated[Path | None, typer.Option(help="Other retrained members, for an honest floor.")] = None,
    pretrained: Annotated[Path | None, typer.Option(help="The members before unlearning.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Labels of the forget examples; needed with logits.")] = None,
    retain: Annotated[list[str] | None, typer.Option(help="WHO=FILE on retain examples, such as oracle=r.npy.")] = None,
    validation: Annotated[list[str] | None, typer.Option(help="WHO=FILE on validation examples.")] = None,
    labels_retain: Annotated[Path | None, typer.Option(help="Labels of the retain examples.")] = None,
    labels_validation: Annotated[Path | None, typer.Option(help="Labels of the validation examples.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Excess over the floor that the verdict accepts, nats.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Score saved margins or logits (.npy, .npz, .safetensors, .csv) from any source."""
    from expunge.studies.score import score_files
    from expunge.studies.score_result import print_scores

    console = Console()
    result = score_files(
        unlearned,
        oracle,
        held_out=held_out_oracle,
        pretrained=pretrained,
        retain=_files_by_side(retain, "retain"),
        validation=_files_by_side(validation, "validation"),
        labels=labels,
        labels_retain=labels_retain,
        labels_validation=labels_validation,
        tolerance=tolerance,
        seed=seed,
        progress=None if json else lambda text: console.print(text, style="dim", markup=False, highlight=False),
    )
    if json:
        typer.echo(result.model_dump_json(indent=1))
    else:
        print_scores(result, console)


def _files_by_side(items: list[str] | None, option: str) -> dict[str, Path]:
    found = {}
    for item in items or []:
        who, equals, file = item.partition("=")
        if not equals or who not in ("unlearned", "oracle", "held_out", "pretrained"):
            raise InputError(
                f"--{option} {item!r}, expected WHO=FILE with WHO one of unlearned, oracle, held_out, pretrained."
            )
        found[who] = Path(file)
    return found


@app.command()
def theory(
    names: Annotated[
        list[str] | None, typer.Argument(help="Results to check, such as lemma-1 or fig-5; all by default.")
    ] = None,
    out: Out = Path("runs/theory"),
    seed: Annotated[int, typer.Option(help="Seed of every sweep and simulation.")] = 0,
) -> None:
    """Check the paper's lemmas and figures, and the solvable model that goes further."""
    from expunge.report.theory import draw as draw_theory
    from expunge.report.theory import print_tables
    from expunge.studies.theory import run as run_theory

    console = Console()
    folder = run_theory(
        names or ["all"],
        out,
        lambda name, position, total: console.print(f"[{position}/{total}] {name}", markup=False, highlight=False),
        seed=seed,
    )
    print_tables(folder, console)
    console.print(f"\nReport: {draw_theory(folder)}", soft_wrap=True, highlight=False)


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
