"""The folder of a run: opened once, gone on with only by the same request, never overwritten."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from expunge.core import InputError


class RunRecord(Protocol):
    """What the record of every kind of run has."""

    status: Literal["running", "complete"]
    command: str
    request: dict[str, Any]


R = TypeVar("R", bound=RunRecord)


def check_folder(out: Path, file: str, resume: bool) -> None:
    """Refuse a folder that holds something, unless it is to be gone on with.

    Args:
        out: The folder.
        file: Name of the record of this kind of run.
        resume: Whether `--resume` was asked for.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, expected a folder; choose another --out.")
    if (out / file).exists() and not resume:
        raise InputError(f"{out} holds a run already; add --resume to go on with it, or choose another --out.")
    if out.exists() and any(out.iterdir()) and not resume:
        raise InputError(f"{out} is not empty, expected a new folder; choose another --out, or --resume.")


def open_run(out: Path, file: str, load: Callable[[Path], R], request: Mapping[str, Any], kind: str) -> R | None:
    """Return the record of an earlier start of this run, or None; refuse to mix it with another.

    The folder has passed `check_folder`, before anything was written into it.

    Args:
        out: The folder.
        file: Name of the record of this kind of run.
        load: Reads the record of a folder.
        request: What is asked for now, with defaults. What an older record does not know is not compared.
        kind: What the run is called, such as `audit`.
    """
    if not (out / file).exists():
        return None
    record = load(out)
    different = [key for key in request if record.request.get(key, request[key]) != request[key]]
    if different:
        raise InputError(
            f"{out} holds another {kind} (different: {', '.join(different)}); repeat its command "
            f"({record.command}), or choose another --out."
        )
    return record
