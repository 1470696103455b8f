"""`expunge unlearn`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from expunge.cli import shared
from expunge.cli.options import CANDIDATES, CONTROLS, Config, Device, IdColumn, Json, Out, Quiet, Resume, Seed, TaskName
from expunge.cli.options import Train as TrainCommand
from expunge.run_file import typed_again


class Unlearn(TyperCommand):
    """Reads `--method audited RUN`, two words, as `--method audited:RUN`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the two words, then read as ever."""
        joined: list[str] = []
        for word in args:
            if joined[-2:] == ["--method", "audited"] and not word.startswith("-"):
                joined[-1] = f"audited:{word}"
            else:
                joined.append(word)
        return super().parse_args(ctx, joined)


def unlearn(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="The checkpoint: .safetensors, or .pt or .pth that holds tensors alone, of the task's model."
        ),
    ],
    task: TaskName,
    forget: Annotated[
        str,
        typer.Option(metavar="FILE", help="The rows to forget: a file of positions in the training data, or of ids."),
    ],
    id_column: IdColumn = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME|audited RUN",
            help=f"{CONTROLS}, {CANDIDATES}, each at its defaults; mine.py:NAME for a function of your own or a method "
            "with options; or audited RUN: the cheapest setting that the audit in the folder RUN, of this task and "
            "these rows, found indistinguishable from retraining.",
        ),
    ] = "retrain",
    out: Out = Path("runs/unlearn"),
    seed: Seed = 0,
    resume: Resume = False,
    device: Device = "auto",
    train: TrainCommand = None,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Unlearn rows from one checkpoint.

    Writes a checkpoint of the same form, and unlearn.json beside it: the method and where its setting comes from, its
    runtime checks, and what changed. For one model retraining is often the right answer, and is the default.
    """
    from expunge.api import unlearn_checkpoint
    from expunge.report.unlearning import print_unlearning, unlearning_answer

    console = shared.progress(json, quiet)
    chosen = shared.task_named(task, train)
    done = unlearn_checkpoint(
        model,
        chosen,
        shared.forget_sets(chosen, [forget], id_column)[0],
        method,
        out=out,
        seed=seed,
        resume=resume,
        device=device,
        console=console,
        command=typed_again(context),
    )
    if json:
        shared.print_json(unlearning_answer(done.record, done.folder))
    elif console is not None:
        print_unlearning(done.record, console)
        console.print(f"\nCheckpoint: {done.model}", soft_wrap=True)
