"""The folder of a run: what is refused before anything is computed, so that nothing is overwritten."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from expunge.core import InputError
from expunge.core.schema import RECORDS, inside

TOGETHER = frozenset({"record.json", "forecast.json"})
"""Records that may lie in one folder: an audit finds the ensembles of a forecast there, and their pages differ."""


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
    for name in ("parts", "margins", "figures", "ensembles"):
        if (out / name).exists() and not (out / name).is_dir():
            raise InputError(f"{out / name} is a file, expected a folder; move it away, then go on.")
        if name != "ensembles":  # which may lie on a disk of their own
            inside(out, name)
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
