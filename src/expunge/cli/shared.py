"""What several commands do alike: what was typed becomes objects, and what was found is printed."""

from __future__ import annotations

import json as json_text
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from expunge.boundary import console as console_of
from expunge.core.errors import InputError
from expunge.tasks.names import FILES

if TYPE_CHECKING:
    from rich.console import Console

    from expunge.core import ForgetSet, Task
    from expunge.studies.run.trying import Estimate

NOT_SO = 3
"""Exit code where the answer is not the one that `--fail-unless` asks for."""


def task_named(name: str, train: str | None) -> Task:
    """Return the task of that name, trained by a command where one is given."""
    from expunge.tasks import command, load_task

    return load_task(name) if train is None else load_task(name).with_fit(command(train))


def forget_sets(task: Task, items: list[str] | None, id_column: str | None) -> list[ForgetSet | str]:
    """Return what to forget; files that list ids are read, now that the task is known."""
    asked = items or ["random:70"]
    if id_column is None:
        return [*asked]
    files = [item for item in asked if Path(item).suffix.lower() in FILES]
    if not files:
        raise InputError(f"--id-column {id_column} was given and no file to forget, expected --forget FILE.csv.")
    from expunge.tasks import from_file

    return [from_file(task, item, id_column=id_column) if item in files else item for item in asked]


def names(methods: str | None) -> list[str] | None:
    """Return the names of methods that commas separate."""
    return None if methods is None else [name.strip() for name in methods.split(",") if name.strip()]


def by_forget_set(items: list[str] | None) -> str | dict[str, str] | None:
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


def progress(json: bool, quiet: bool) -> Console | None:
    """Return where progress goes: beside the answer, to standard error where that is for a program, or nowhere."""
    return None if quiet else console_of(stderr=json)


def lines(console: Console | None) -> Callable[[str], None] | None:
    """Return what prints a line of progress."""
    return None if console is None else lambda text: console.print(text, style="dim")


def print_json(answer: object) -> None:
    """Print an answer for a program."""
    typer.echo(json_text.dumps(answer, indent=1, ensure_ascii=False, allow_nan=False))


def print_estimates(found: Mapping[str, Estimate], console: Console | None, *, json: bool) -> None:
    """Print what runs would take, each under its name; one without a name is printed alone."""
    if json:
        alone = found.get("")
        print_json({name: asdict(each) for name, each in found.items()} if alone is None else asdict(alone))
    elif console is not None:
        for name, each in found.items():
            console.print(f"{name}\n{each}" if name else str(each), highlight=False)


def check_runs(asked: str, methods: list[str] | None) -> None:
    """Refuse, before the work, an answer that is asked of a method that is not run."""
    from expunge.methods import ALL_METHODS, DEFAULT_METHODS, METHODS
    from expunge.report.answer import check_hope

    method = check_hope(asked)
    controls = [name for name, kind in METHODS.items() if kind.role == "control"]
    run = [*(DEFAULT_METHODS if methods is None else methods), *controls]
    run = [*METHODS] if ALL_METHODS in run else run
    own = any(".py" in name for name in run)  # these say their names when they are read
    if method and method not in run and not own:
        raise InputError(f"--fail-unless {asked}: {method!r} is not run, expected one of: {', '.join(run)}.")


def refuse(asked: str | None, missed: Sequence[str]) -> NoReturn:
    """Say what is not as `--fail-unless` asks, and end with its exit code."""
    console_of(stderr=True).print(f"not so: --fail-unless {asked}\n  " + "\n  ".join(missed), soft_wrap=True)
    raise typer.Exit(NOT_SO)
