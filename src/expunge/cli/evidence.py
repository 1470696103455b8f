"""`expunge evidence` and `expunge verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.boundary import console as console_of
from expunge.cli import shared
from expunge.cli.options import TASKS, Json, Quiet

DIFFERS = 1
"""Exit code where something differs."""


def evidence(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished audit.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The bundle: a file that ends in .zip. Not overwritten.")],
    unlearned: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder with the checkpoint that was made for the request: its digest goes in."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK", help="With --unlearned: hold that checkpoint against the audit's oracles as well."
        ),
    ] = None,
    salt: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Salt of an earlier bundle; the same run and salt give the same bytes."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a bundle that others can check.

    It holds the record and the margins of a finished audit, digests of rows, code and checkpoints, and in plain words
    what is shown, assumed and not shown. Beside it stand the page to be signed (.html) and the salt (.salt), without
    which no row can be guessed from the bundle: keep the salt where the data are.
    """
    from expunge import api
    from expunge.report.verification import print_root

    console = shared.progress(json, quiet)
    chosen = None if task is None else shared.task_named(task, None)
    made = api.evidence(run, out, unlearned=unlearned, task=chosen, salt=salt)
    if json:
        shared.print_json({name: str(v) if isinstance(v, Path) else v for name, v in vars(made).items()})
    elif console is not None:
        console.print(f"Bundle: {made.path} ({made.files} files, {made.bytes / 1e6:.1f} MB)", soft_wrap=True)
        console.print(f"Page to be signed: {made.page}", soft_wrap=True)
        console.print(f"Salt: {made.salt} (keep it with the data, and do not pass it on)", soft_wrap=True)
        print_root(made.root, console)
        if unlearned is not None and task is None:
            console.print("The checkpoint was held against no oracle: --task would do that.", soft_wrap=True)
        console.print(f"Check it: expunge verify {made.path} --recompute", soft_wrap=True)


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The file that expunge evidence wrote.")],
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Compute every score and verdict once more from the margins.")
    ] = False,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK", help=f"Compare every row of the data as well: {TASKS}, or path/to/task.py[:name]."
        ),
    ] = None,
    salt: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Key of the rows' digests.  [default: BUNDLE with .salt]")
    ] = None,
    root: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="The root digest that was written down or signed.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a bundle of evidence.

    Every byte against the bundle's own digests; what differs is named, and the exit code is 1. Nothing of it is run or
    unpacked. Without --root, a bundle that somebody changed and made whole again can pass.
    """
    from expunge import api
    from expunge.report.verification import print_verification

    found = api.verify(
        bundle,
        recompute=recompute,
        task=None if task is None else shared.task_named(task, None),
        salt=salt,
        root=root,
        console=shared.progress(json, quiet),
    )
    if json:
        shared.print_json({"passed": found.passed, **found.model_dump()})
    elif not quiet or not found.passed:
        print_verification(found, console_of(stderr=quiet))
    if not found.passed:
        raise typer.Exit(DIFFERS)
