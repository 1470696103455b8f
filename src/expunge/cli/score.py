"""`expunge score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli import shared
from expunge.cli.options import Json, Quiet, RowTolerance, Tolerance
from expunge.cli.shared import NOT_SO
from expunge.core import InputError
from expunge.core.limits import HOPED


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
    from expunge.report.answer import check_hope
    from expunge.report.score_table import print_scores
    from expunge.studies.score import score_files

    if fail_unless is not None and check_hope(fail_unless):
        raise InputError(f"--fail-unless {fail_unless!r}, expected {HOPED}: there is one set of models, no method.")
    if fail_unless is not None and not (retain and validation):
        raise InputError("--fail-unless needs a verdict, which needs --retain and --validation as well.")
    console = shared.progress(json, quiet)
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
        progress=shared.lines(console),
    )
    if json:
        typer.echo(result.model_dump_json(indent=1))
    elif console is not None:
        print_scores(result, console)
    if fail_unless is not None and result.verdict != HOPED:
        shared.refuse(fail_unless, [result.verdict_sentence or "there is no verdict"])


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
