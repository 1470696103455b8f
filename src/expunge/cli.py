"""The command line: one verb a study or report."""

from __future__ import annotations

import json as json_text
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from expunge import report
from expunge.boundary import console as _console
from expunge.boundary import guarded
from expunge.core import ForgetSet, InputError, Record, Task
from expunge.core.forecast import ForecastRun
from expunge.core.schema import RECORDS
from expunge.methods import METHODS
from expunge.metrics.verdict import DEFAULT_ROW_TOLERANCE, DEFAULT_TOLERANCE
from expunge.papers.ascent_fails_to_forget.forecast_proof import DEFAULT_TASKS
from expunge.papers.ascent_fails_to_forget.theory_study import STUDIES
from expunge.report.answer import HOPED, audit_answer, check_hope, forecast_answer, shortfalls
from expunge.report.table import print_forecast, print_table
from expunge.run_file import read_run_file, typed_again
from expunge.studies.audit import FEWEST_MEMBERS
from expunge.tasks import CHOOSERS
from expunge.tasks.forget_sets import FILES, from_file
from expunge.tasks.user_task import BUILT_IN, FROM_FOLDER
from expunge.version import __version__

app = typer.Typer(
    name="expunge",
    help="Does this model behave as if it had never seen that data? Unlearning, measured against retraining.",
    no_args_is_help=True,
    epilog="Begin with: expunge audit digits --forget random:70 --forget cluster:70 --out runs/digits",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

TASKS = ", ".join([*BUILT_IN, *(f"{name}:FOLDER" for name in FROM_FOLDER)])
"""Tasks that have a name."""

CANDIDATES = ", ".join(name for name, method in METHODS.items() if method.role == "candidate")
CONTROLS = ", ".join(name for name, method in METHODS.items() if method.role == "control")

Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run, made if it does not exist.")]
TaskName = Annotated[
    str, typer.Argument(help=f"{TASKS} (the folder holds the original files), or path/to/task.py[:name].")
]
Train = Annotated[
    str | None,
    typer.Option(
        "--train",
        metavar="COMMAND",
        help='Train by this command instead, in any framework: "python train.py --rows {rows} --seed {seed} --out '
        "{out}\". It reads the positions of its rows (one a line), and leaves weights of the task's model, or outputs "
        "alone for a task with model=None.",
    ),
]
ForgetSets = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE|KIND:SIZE",
        help=f"What to forget: a file of positions in the training data ({', '.join(FILES)}); SIZE examples as "
        f"{', '.join(f'{name}:SIZE' for name in CHOOSERS)}, or class_part:SIZE:CLASS; or component:NUMBER:SIDE:SIZE "
        "with top, bottom or both. Give the option again for another forget set.  [default: random:70]",
    ),
]
IdColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Column of a --forget file (.csv, its first line names the columns) that holds ids of training examples; "
        "the task says them with Task(ids=...).",
    ),
]
Methods = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...",
        help=f"Methods to try, separated by commas: {CANDIDATES}; all by default. Or functions of your own, as "
        f"mine.py:function. The controls always run as well: {CONTROLS}.",
    ),
]
ForecastMethods = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...",
        help=f"Methods to forecast, separated by commas, of those that start from the pretrained models: "
        f"{CANDIDATES}; all by default. Fine-tuning is always shown as well.",
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        metavar="NATS",
        help="How far above the floor KLoM may be, in nats, and still count as indistinguishable.  "
        f"[default: {DEFAULT_TOLERANCE}]",
    ),
]
RowTolerance = Annotated[
    float | None,
    typer.Option(
        metavar="SD",
        help="Shift of one forget row, in standard deviations of retrained models, that must not be missed; where it "
        f"could be, the verdict is undecided.  [default: {DEFAULT_ROW_TOLERANCE:g}]",
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of everything random.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in that folder.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto (a GPU where there is one), cpu, cuda or cuda:NUMBER.")]
Chunk = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Models computed together; the fastest number is measured by default. Fix it where two runs must agree to "
        "the last digit.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        callback=read_run_file,
        is_eager=True,
        metavar="FILE",
        help="A run file: these options by their names, in TOML, paths relative to the file. Or the record.json of an "
        "earlier run, which is run again. What is given here as well wins. It runs what it names: trust it first.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON, and all else to standard error.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but warnings, errors, and what --json asks for.")]

NOT_SO = 3
"""Exit code where the answer is not the one that `--fail-unless` asks for."""


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


@app.command()
def audit(
    context: typer.Context,
    task: TaskName = "digits",
    forget: ForgetSets = None,
    id_column: IdColumn = None,
    methods: Methods = None,
    pretrained: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|GLOB",
            help="Models trained on everything, instead of training them: a folder of checkpoints or of a saved "
            "ensemble, or a quoted pattern (.safetensors; .pt and .pth that hold tensors alone).",
        ),
    ] = None,
    oracles: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SET=]DIR",
            help="Models retrained without the forget set, likewise; FORGETSET=FOLDER, once for each, with several.",
        ),
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SET=]DIR", help="More of these, for the floor. Without them the oracles given are halved."
        ),
    ] = None,
    members: Annotated[
        int, typer.Option(metavar="N", help=f"Models in every ensemble that is trained, at least {FEWEST_MEMBERS}.")
    ] = 100,
    out: Out = Path("runs/audit"),
    seed: Seed = 0,
    tolerance: Tolerance = None,
    row_tolerance: RowTolerance = None,
    resume: Resume = False,
    forecast: Annotated[
        bool,
        typer.Option(
            "--forecast/--no-forecast",
            help="Forecast first, and show forecast beside outcome; margin_matching needs it.",
        ),
    ] = True,
    device: Device = "auto",
    chunk: Chunk = None,
    train: Train = None,
    config: Config = None,
    fail_unless: Annotated[
        str | None,
        typer.Option(
            metavar="VERDICT",
            help=f"Given {HOPED}: exit with code {NOT_SO} unless, on every forget set, some candidate method has that "
            f"verdict at the setting chosen for it, and failed none of its checks. METHOD={HOPED} asks it of one "
            "method; controls can be named too.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Measure a few steps and say how long all of it would take, and how much memory and disk; nothing is "
            "written.",
        ),
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Judge unlearning against retrained models.

    The main job: train ensembles, forecast, retrain without the forget set (oracles), unlearn with every setting,
    choose settings without looking at the answer, judge, and write a report.
    """
    from expunge.api import audit as run_audit
    from expunge.studies.audit import estimate_audit

    if fail_unless is not None:
        _check_runs(fail_unless, _names(methods))
    console = _progress(json, quiet)
    chosen = _task(task, train)
    asked: dict[str, Any] = {
        "forget": _forget(chosen, forget, id_column),
        "methods": _names(methods),
        "pretrained": pretrained,
        "oracles": _by_forget_set(oracles),
        "held_out": _by_forget_set(held_out),
        "members": members,
        "out": out,
        "seed": seed,
        "resume": resume,
        "forecast": forecast,
        "device": device,
        "chunk": chunk,
    }
    if dry_run:
        found = estimate_audit(chosen, **asked)
        if json:
            _print_json(asdict(found))
        elif console is not None:
            console.print(str(found))
        return
    run = run_audit(
        chosen,
        **asked,
        tolerance=tolerance,
        row_tolerance=row_tolerance,
        console=console,
        command=typed_again(context),
    )
    missed = shortfalls(run.record, fail_unless) if fail_unless else []
    if json:
        _print_json(audit_answer(run.record, run.folder, run.report) | ({"missed": missed} if fail_unless else {}))
    elif console is not None:
        print_table(run.record, console)
        console.print(f"\nReport: {run.report}", soft_wrap=True)
    if missed:
        _fail_unless(fail_unless, missed)


@app.command()
def forecast(
    context: typer.Context,
    task: TaskName = "digits",
    forget: ForgetSets = None,
    id_column: IdColumn = None,
    methods: ForecastMethods = None,
    members: Annotated[int, typer.Option(metavar="N", help="Models in the pretrained ensemble.", min=2)] = 100,
    followed: Annotated[
        int, typer.Option(metavar="N", help="Models whose training is retraced and linearised.", min=2)
    ] = 12,
    out: Out = Path("runs/forecast"),
    seed: Seed = 0,
    tolerance: Tolerance = None,
    resume: Resume = False,
    device: Device = "auto",
    chunk: Chunk = None,
    train: Train = None,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict outcomes before any unlearning.

    What retraining would change, what each method would reach, and advice, from the pretrained models alone: nothing is
    retrained or unlearned.
    """
    from expunge.api import forecast as run_forecast

    console = _progress(json, quiet)
    chosen = _task(task, train)
    run = run_forecast(
        chosen,
        forget=_forget(chosen, forget, id_column),
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
        command=typed_again(context),
    )
    if json:
        _print_json(forecast_answer(run.record, run.folder, run.report))
    elif console is not None:
        print_forecast(run.record, console)
        console.print(f"\nReport: {run.report}", soft_wrap=True)


@app.command()
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

    console = _progress(json, quiet)
    found = run_check(_task(task, train), members=members, seed=seed, progress=_lines(console))
    if json:
        _print_json({"passed": found.passed, "answers": [vars(answer) for answer in found.answers]})
    elif console is not None:
        console.print(str(found), soft_wrap=True)
    if not found.passed:
        raise typer.Exit(1)


@app.command(name="prove-forecast")
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

    console = _progress(False, quiet)
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


def _task(name: str, train: str | None) -> Task:
    """Return the task of that name, trained by a command where one is given."""
    from expunge.tasks import command, load_task

    return load_task(name) if train is None else load_task(name).with_fit(command(train))


def _forget(task: Task, items: list[str] | None, id_column: str | None) -> list[ForgetSet | str]:
    """Return what to forget; files that list ids are read, now that the task is known."""
    asked = items or ["random:70"]
    if id_column is None:
        return [*asked]
    files = [item for item in asked if Path(item).suffix.lower() in FILES]
    if not files:
        raise InputError(f"--id-column {id_column} was given and no file to forget, expected --forget FILE.csv.")
    return [from_file(task, item, id_column=id_column) if item in files else item for item in asked]


def _names(methods: str | None) -> list[str] | None:
    return None if methods is None else [name.strip() for name in methods.split(",") if name.strip()]


def _by_forget_set(items: list[str] | None) -> str | dict[str, str] | None:
    """Return where models are: one place, or one for each forget set, given as FORGETSET=PLACE."""
    if not items:
        return None
    pairs = [item.partition("=") for item in items]
    if all(equals and "/" not in name for name, equals, _ in pairs):
        return {name: place for name, _, place in pairs}
    if len(items) > 1:
        raise InputError(
            f"models of {len(items)} forget sets were given ({', '.join(items)}), expected FORGETSET=FOLDER."
        )
    return items[0]


def _progress(json: bool, quiet: bool) -> Console | None:
    """Return where progress goes: beside the answer, to standard error where that is for a program, or nowhere."""
    return None if quiet else _console(stderr=json)


def _lines(console: Console | None) -> Callable[[str], None] | None:
    """Return what prints a line of progress."""
    return None if console is None else lambda text: console.print(text, style="dim")


def _print_json(answer: object) -> None:
    typer.echo(json_text.dumps(answer, indent=1, ensure_ascii=False, allow_nan=False))


def _check_runs(asked: str, methods: list[str] | None) -> None:
    """Refuse, before the work, an answer that is asked of a method that is not run."""
    method = check_hope(asked)
    controls = [name for name, kind in METHODS.items() if kind.role == "control"]
    run = [*METHODS] if methods is None else [*methods, *controls]
    own = any(".py" in name for name in run)  # these say their names when they are read
    if method and method not in run and not own:
        raise InputError(f"--fail-unless {asked}: {method!r} is not run, expected one of: {', '.join(run)}.")


def _fail_unless(asked: str | None, missed: Sequence[str]) -> NoReturn:
    _console(stderr=True).print(f"not so: --fail-unless {asked}\n  " + "\n  ".join(missed), soft_wrap=True)
    raise typer.Exit(NOT_SO)


@app.command(name="report")
def draw_report(
    run: Annotated[Path, typer.Argument(help="Folder of an audit, a forecast, a proof of forecasts or a theory run.")],
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print an audit's table as Markdown, and draw nothing.")
    ] = False,
) -> None:
    """Draw the page of a run again.

    From its record alone; for a proof of forecasts its tables and figures, which have no page.
    """
    from expunge.papers.ascent_fails_to_forget.report import proof as proof_report
    from expunge.papers.ascent_fails_to_forget.report import theory as theory_report

    found = [name for name in RECORDS if (run / name).is_file() or (run.is_file() and run.name == name)]
    if not found:
        raise InputError(f"{run} holds no run, expected a folder with one of: {', '.join(RECORDS)}.")
    console, folder = _console(), run.parent if run.is_file() else run
    if markdown:
        typer.echo(report.markdown(Record.load(folder)), nl=False)
        return
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
        console.print(f"\nReport: {path}", soft_wrap=True)


@app.command()
def score(
    unlearned: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="File of the unlearned models: margins (models, examples), or logits with --labels."
        ),
    ],
    oracle: Annotated[
        Path, typer.Option(metavar="FILE", help="The same of retrained models, same examples, same order.")
    ],
    held_out_oracle: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of other retrained models, for an honest floor.")
    ] = None,
    pretrained: Annotated[Path | None, typer.Option(metavar="FILE", help="Of the models before unlearning.")] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Labels of the forget examples; needed with logits.")
    ] = None,
    retain: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHO=FILE",
            help="WHO=FILE on retain examples, such as oracle=r.npy; WHO is unlearned, oracle, held_out or pretrained. "
            "Once for each.",
        ),
    ] = None,
    validation: Annotated[
        list[str] | None, typer.Option(metavar="WHO=FILE", help="The same on validation examples.")
    ] = None,
    labels_retain: Annotated[Path | None, typer.Option(metavar="FILE", help="Labels of the retain examples.")] = None,
    labels_validation: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Labels of the validation examples.")
    ] = None,
    tolerance: Tolerance = None,
    row_tolerance: RowTolerance = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of everything random.")] = 0,
    fail_unless: Annotated[
        str | None,
        typer.Option(
            metavar="VERDICT",
            help=f"Given {HOPED}: exit with code {NOT_SO} unless that is the verdict, which needs --retain and "
            "--validation.",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score saved margins or logits of any models.

    They are compared with those of retrained models, at least 5 on each side. Files are .npy, .npz, .safetensors or
    .csv (a row a model). FILE:NAME takes the arrays under NAME, such as
    runs/digits/margins/random-70.safetensors:oracle. A verdict needs retain and validation examples as well.
    """
    from expunge.report.score_table import print_scores
    from expunge.studies.score import score_files

    if fail_unless is not None and check_hope(fail_unless):
        raise InputError(f"--fail-unless {fail_unless!r}, expected {HOPED}: there is one set of models, no method.")
    if fail_unless is not None and not (retain and validation):
        raise InputError("--fail-unless needs a verdict, which needs --retain and --validation as well.")
    console = _progress(json, quiet)
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
        row_tolerance=row_tolerance,
        seed=seed,
        progress=_lines(console),
    )
    if json:
        typer.echo(result.model_dump_json(indent=1))
    elif console is not None:
        print_scores(result, console)
    if fail_unless is not None and result.verdict != HOPED:
        _fail_unless(fail_unless, [result.verdict_sentence or "there is no verdict"])


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
        list[str] | None, typer.Argument(help=f"Results to check: {', '.join(STUDIES)}; all by default.")
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

    console = _progress(False, quiet)
    folder = run_theory(names or ["all"], out, seed=seed, resume=resume, console=console)
    page = draw_theory(folder)
    if console is not None:
        print_tables(folder, console)
        console.print(f"\nReport: {page}", soft_wrap=True)


def _takes_resume(words: Sequence[str]) -> bool:
    commands = getattr(typer.main.get_command(app), "commands", {})
    command = commands.get(next(iter(words), ""))
    return command is not None and any(option.name == "resume" for option in command.params)


def _show_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    _console(stderr=True).print(f"warning: {message}", soft_wrap=True)


def main() -> None:
    """Run the command line; whatever happens ends in one clear line, not in a traceback (see `boundary`)."""
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    warnings.showwarning = _show_warning
    guarded(lambda: app(prog_name="expunge"), resumable=_takes_resume(sys.argv[1:]))


if __name__ == "__main__":
    main()
