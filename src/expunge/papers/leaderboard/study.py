"""The study: an audit of every method on each task, in a folder of its own, and the board that follows from them.

    for each task:   audit(task, twelve forget sets, all methods)     in OUT/<task>, kept and gone on with by itself
    board            rows of all audits, from their records alone

Nothing is computed that an audit does not compute, so the numbers of the board are those of its audits' pages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from expunge.core import InputError, Task
from expunge.core.checks import plain_arguments, seeds, whole
from expunge.core.limits import DEFAULT_TOLERANCE, FEWEST_MEMBERS
from expunge.core.record import Record
from expunge.ensembles.chunks import pick_device
from expunge.methods import ALL_METHODS, Method
from expunge.papers.leaderboard.board import board_rows, dial_rows
from expunge.papers.leaderboard.record import LeaderboardRecord
from expunge.papers.leaderboard.sets import forget_specs
from expunge.report import draw as draw_audit
from expunge.studies.audit import audit, estimate_audit
from expunge.studies.run.forget_specs import is_component, parse_component
from expunge.studies.run.grid import plan_runs
from expunge.studies.run.lifecycle import Run
from expunge.studies.run.trying import Estimate
from expunge.tasks import choose, load_task


@plain_arguments
def run(
    tasks: Sequence[str | Task] = ("digits",),
    *,
    forget: Sequence[str] | None = None,
    methods: Sequence[str | Method] | None = None,
    members: int = 100,
    out: Path | str = "runs/leaderboard",
    seed: int = 0,
    resume: bool = False,
    device: str = "auto",
    console: Console | None = None,
    command: str = "",
) -> tuple[Path, LeaderboardRecord]:
    """Audit methods on every task and write `leaderboard.json`; audits go on where they were.

    Args:
        tasks: Names as on the command line, or tasks, each once.
        forget: Forget sets of every task; None is the twelve of `sets.forget_specs`.
        methods: Of the candidates, as in an audit; None is the whole registry. Controls are always run.
        members: Members of every ensemble.
        out: Folder of the run.
        seed: The study's seed.
        resume: Go on with a run that was interrupted.
        device: `auto`, `cpu` or `cuda`.
        console: Where progress is shown; None is silent.
        command: The shell command that runs this again.

    Raises:
        InputError: If a task or forget set cannot be used, or the folder cannot be written or holds another run.
    """
    ready = prepare(tasks, forget, methods, members, seed)
    out = Path(out)
    request = {
        "tasks": {name: task.fingerprint for name, (task, _) in ready.items()},
        "forget": {name: list(specs) for name, (_, specs) in ready.items()},
        "methods": [method if isinstance(method, str) else method.describe() for method in _asked(methods)],
        "members": members,
        "seed": seed,
    }
    with Run.open(
        LeaderboardRecord,
        out,
        request,
        resume=resume,
        command=command,
        device=pick_device(device),
        members=members,
        tolerance=DEFAULT_TOLERANCE,
    ) as going:  # whose bar stays hidden: each audit has one
        if going.finished:
            return out, going.record
        for place, (name, (task, specs)) in enumerate(ready.items()):
            if console is not None:
                console.print(f"{name}: audit {place + 1} of {len(ready)}, {len(specs)} forget sets", highlight=False)
            folder = folder_of(name)
            _, found = audit(
                task,
                forget=list(specs),
                methods=_asked(methods),
                members=members,
                out=out / folder,
                seed=seed,
                resume=True,
                device=device,
                console=console,
            )
            draw_audit(out / folder)
            going.record.audits[name] = folder
            _enter(going.record, found, name, specs, task, methods)
            going.save()
    return out, going.record


def prepare(
    tasks: Sequence[str | Task], forget: Sequence[str] | None, methods: Sequence[str | Method] | None, members: int,
    seed: int,
) -> dict[str, tuple[Task, dict[str, str]]]:  # fmt: skip
    """Return each task by its name with its forget sets and their kinds, all checked before anything is trained."""
    whole(minimum=FEWEST_MEMBERS, members=members)
    seeds(seed=seed)
    if isinstance(tasks, str | Task):
        tasks = (tasks,)
    if not tasks:
        raise InputError("no task was given, expected at least one, such as digits.")
    found: dict[str, tuple[Task, dict[str, str]]] = {}
    for item in tasks:
        task = load_task(item) if isinstance(item, str) else item
        name = item if isinstance(item, str) else item.name
        if name in found or folder_of(name) in map(folder_of, found):
            raise InputError(f"task {name!r} is given twice, expected each task once.")
        specs = forget_specs(task) if forget is None else dict.fromkeys(forget, "")
        plan_runs(task, _asked(methods), predicted=True)
        for spec in specs:
            if is_component(spec):
                parse_component(spec, len(task.train))
            else:
                choose(task, spec, seed=seed)
        found[name] = task, specs
    return found


def estimates(
    tasks: Sequence[str | Task],
    *,
    forget: Sequence[str] | None = None,
    methods: Sequence[str | Method] | None = None,
    members: int = 100,
    out: Path | str = "runs/leaderboard",
    seed: int = 0,
    device: str = "auto",
) -> dict[str, Estimate]:
    """Return what the audit of each task would take, by its name; nothing is written."""
    return {
        name: estimate_audit(
            task,
            forget=list(specs),
            methods=_asked(methods),
            members=members,
            out=Path(out) / folder_of(name),
            seed=seed,
            resume=True,
            device=device,
        )
        for name, (task, specs) in prepare(tasks, forget, methods, members, seed).items()
    }


def folder_of(task: str) -> str:
    """Return the folder of a task's audit.

    >>> folder_of("digits:cnn")
    'digits-cnn'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", task).strip("-.") or "task"


def _asked(methods: Sequence[str | Method] | None) -> list[str | Method]:
    return [ALL_METHODS] if methods is None else list(methods)


def _enter(
    record: LeaderboardRecord,
    found: Record,
    name: str,
    specs: Mapping[str, str],
    task: Task,
    methods: Sequence[str | Method] | None,
) -> None:
    """Put an audit's rows on the board."""
    kinds = {forget.name: kind for forget, kind in zip(found.forget_sets, specs.values(), strict=True) if kind}
    own = {each.name: each for each in plan_runs(task, _asked(methods), predicted=True)}
    record.rows += board_rows(found, name, kinds, own)
    record.dial += dial_rows(found, name, kinds)
    record.notes += [f"{name}: {note}" for note in found.notes]
