"""Evidence that others can check: write a bundle, verify one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from expunge import report
from expunge.api.audits import Run
from expunge.core import InputError, Record, Task
from expunge.core.checks import as_path, instance, plain_arguments
from expunge.core.evidence import Verification
from expunge.core.record import ForgetRecord
from expunge.ensembles.plan import TASK_EXPECTED
from expunge.report.verification import verification_text
from expunge.studies.audit.recompute import Recomputed
from expunge.studies.audit.recompute import recompute as recomputed
from expunge.studies.evidence import make_bundle, verify_bundle
from expunge.studies.evidence.bundle import Made


@dataclass(frozen=True)
class Evidence(Made):
    """A bundle that was written."""


class Verified(Verification):
    """What `verify` found; printed, it is what `expunge verify` says."""

    def __str__(self) -> str:
        """Return the words."""
        return verification_text(self)


@plain_arguments
def evidence(
    run: Run | Path | str,
    out: Path | str,
    *,
    unlearned: Path | str | None = None,
    task: Task | None = None,
    salt: Path | str | None = None,
) -> Evidence:
    """Write what a third party needs to check a finished audit, in one file, and a page for the person who signs.

    Beside the bundle `out` stand the page (`.html`) and the salt (`.salt`), with which alone the bundle can be held
    against the data: keep it where the data are, and do not pass it on.

    Args:
        run: The audit, or its folder.
        out: The bundle, a file that ends in `.zip`; not overwritten.
        unlearned: Folder with the checkpoint that was made for the request (`expunge unlearn`); its digest goes in.
        task: The task of the audit; with `unlearned`, that checkpoint is held against the audit's oracles as well.
        salt: The salt of an earlier bundle; None draws a new one. The same run and salt give the same bytes.

    Returns:
        Where it is, with the `root` digest that names it: write that down, or sign the file.

    Raises:
        InputError: If the run is no audit, is not finished, or a file is there already.
        DamagedFileError: If a file of the run is not the one that it wrote.
    """
    instance((Run, str, Path), "an audit, or the path of its folder", run=run)
    if task is not None:
        instance(Task, TASK_EXPECTED, task=task)
        if unlearned is None:
            raise InputError("task was given without unlearned, expected both: it is the checkpoint that it judges.")
    made = make_bundle(
        run.folder if isinstance(run, Run) else as_path(run, "run"),
        as_path(out, "out"),
        report.draw_statement,
        unlearned=None if unlearned is None else as_path(unlearned, "unlearned"),
        task=task,
        salt=None if salt is None else as_path(salt, "salt"),
    )
    return Evidence(**vars(made))


@plain_arguments
def verify(
    bundle: Path | str,
    *,
    recompute: bool = False,
    task: Task | None = None,
    salt: Path | str | None = None,
    root: str | None = None,
    console: Console | None = None,
) -> Verified:
    """Check a bundle of evidence: is every byte as its manifest says, and does it say what follows from its margins?

    Nothing in the bundle is run, unpickled or written to disk.

    Args:
        bundle: The file.
        recompute: Compute every score and verdict once more from the margins.
        task: The data of the audit, to be compared row by row; needs the salt.
        salt: The salt that was kept; None takes the file beside the bundle.
        root: The root digest that was written down or signed. Without it, a bundle that somebody changed and made whole
            again passes, as far as its numbers follow from its margins.
        console: Where progress is shown; None is silent.

    Returns:
        What was found: `passed`, `differences`, what was `checked` and what was not.

    Raises:
        InputError: If the file is no bundle, or holds what is never opened (a name that leads out of it, a link,
            something compressed).
        DamagedFileError: If its directory cannot be read.
    """
    if task is not None:
        instance(Task, TASK_EXPECTED, task=task)

    def again(record: Record, forget: ForgetRecord, margins: Any, positions: Any) -> Recomputed:
        if console is not None:
            console.print(f"computing the scores and verdicts of {forget.name} again", style="dim", soft_wrap=True)
        return recomputed(record, forget, margins, positions)

    found = verify_bundle(
        as_path(bundle, "bundle"),
        report.draw_statement,
        again=again if recompute else None,
        task=task,
        salt=None if salt is None else as_path(salt, "salt"),
        root=root,
    )
    return Verified(**dict(found))
