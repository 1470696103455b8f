"""The folder of a run: opened once, gone on with only by the same request, never overwritten."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from expunge.core import InputError
from expunge.core.schema import RECORDS

TOGETHER = frozenset({"record.json", "forecast.json"})
"""Records that may lie in one folder: an audit finds the ensembles of a forecast there, and their pages differ."""


class RunRecord(Protocol):
    """What the record of every kind of run has."""

    status: Literal["running", "complete"]
    command: str
    request: dict[str, Any]


R = TypeVar("R", bound=RunRecord)


def check_folder(out: Path, file: str, resume: bool) -> None:
    """Refuse a folder that cannot be written, or holds something and is not to be gone on with; nothing is left in it.

    Args:
        out: The folder.
        file: Name of the record of this kind of run.
        resume: Whether `--resume` was asked for.

    Raises:
        InputError: If the run must not or cannot write there.
    """
    try:
        _check_contents(out, file, resume)
        _check_writable(out)
    except OSError as error:
        raise InputError(
            f"{out} cannot be written to ({error.strerror or error}), expected a folder or a place for one; choose "
            "another --out."
        ) from error


def _check_contents(out: Path, file: str, resume: bool) -> None:
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"{place} is a file, expected a folder; choose another --out.")
    others = [name for name in RECORDS if name != file and (out / name).exists()]
    if any(not {name, file} <= TOGETHER for name in others):
        raise InputError(f"{out} holds the run of another study ({', '.join(others)}); choose another --out.")
    if (out / file).exists() and not resume:
        raise InputError(f"{out} holds a run already; add --resume to go on with it, or choose another --out.")
    if out.exists() and any(out.iterdir()) and not resume:
        raise InputError(f"{out} is not empty, expected a new folder; choose another --out, or --resume.")


def _check_writable(out: Path) -> None:
    """Write a file of no name, and remove the folders that had to be made for it: the run may yet be refused."""
    missing = [place for place in (out, *out.parents) if not place.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as file:
            file.write(b"\0")
    finally:
        for place in missing:
            with contextlib.suppress(OSError):
                place.rmdir()


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
