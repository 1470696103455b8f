"""Options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.core.limits import DEFAULT_ROW_TOLERANCE, DEFAULT_TOLERANCE
from expunge.methods import names
from expunge.run_file import read_run_file
from expunge.tasks.names import BUILT_IN, CHOOSERS, FILES, FROM_FOLDER

TASKS = ", ".join([*BUILT_IN, *(f"{name}:FOLDER" for name in FROM_FOLDER)])
"""Tasks that have a name."""

CANDIDATES = ", ".join(names.CANDIDATES)
DEFAULTS = ", ".join(names.DEFAULT_METHODS)
CONTROLS = ", ".join(names.CONTROLS)

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
        help=f"Methods to try, separated by commas: {CANDIDATES}; or {names.ALL_METHODS}. By default {DEFAULTS}. "
        f"Or functions of your own, as mine.py:function. The controls always run as well: {CONTROLS}.",
    ),
]
ForecastMethods = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...",
        help=f"Methods to forecast, separated by commas, of those that start from the pretrained models: "
        f"{CANDIDATES}; or {names.ALL_METHODS}. By default {DEFAULTS}. Fine-tuning is always shown as well.",
    ),
]
Pretrained = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|GLOB",
        help="Models trained on everything, instead of training them: a folder of checkpoints or of a saved "
        "ensemble, or a quoted pattern (.safetensors; .pt and .pth that hold tensors alone).",
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
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Measure a few steps and say how long all of it would take, and how much memory and disk; nothing is "
        "written.",
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
RunOn = Annotated[
    str,
    typer.Option(
        "--runner",
        metavar="local|ray[:ADDRESS]",
        help="Where models are trained and unlearned: here, or on a Ray cluster whose machines all see the run's "
        "folder. The numbers are the same.",
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
