"""Named errors for situations that a caller handles; everything else is a plain `ValueError` or `TypeError`."""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LONGEST_TOLD = 300
"""Characters of another library's or a user's error that a message repeats."""


class InputError(ValueError):
    """Something that a person gave cannot be used; the message says what came, what was expected, what to change."""


class DamagedFileError(RuntimeError):
    """A file of ours is truncated, altered, or was written for another specification; it is named and not read."""


class DivergedError(RuntimeError):
    """Every member of an ensemble became non-finite, so nothing that follows would mean anything."""


def noted(function: Callable[P, T], what: str) -> Callable[P, T]:
    """Return a user's function that is called in the midst of work; what it raises comes through as it is, with a note.

    Args:
        function: A callback, such as `progress`.
        what: What the note calls it.

    >>> try:
    ...     noted(lambda done: 1 / done, "progress, which train called")(0)
    ... except ZeroDivisionError as error:
    ...     error.__notes__
    ['raised by progress, which train called']
    """

    def call(*args: P.args, **options: P.kwargs) -> T:
        try:
            return function(*args, **options)
        except Exception as error:
            if not getattr(error, "__notes__", None):  # else one callback that went through several hands
                error.add_note(f"raised by {what}")
            raise

    return call


def told(error: BaseException, own: Any = "") -> str:
    """Return another's error as a message repeats it: its kind, what it says in one line, and the line at fault.

    Args:
        error: The error.
        own: A user's function, or the path of a file, on whose lines the fault is looked for; left out, or where it has
            no part in it, the last line outside of libraries.

    >>> told(KeyError("mine"))
    "KeyError: 'mine'"
    """
    line = fault(error, own)
    if line is None:
        return said(error)
    code = f": {line.line}" if line.line else ""
    return f"{said(error)} ({Path(line.filename).name}, line {line.lineno}{code})"


def said(error: BaseException) -> str:
    """Return an error's kind and what it says, in one line."""
    try:
        words = " ".join(str(error).split())
    except Exception:  # an error of one's own that cannot be written
        words = "it cannot say what"
    words = words[:LONGEST_TOLD].encode("utf-8", "backslashreplace").decode()
    return f"{type(error).__name__}{': ' if words else ''}{words}"


def fault(error: BaseException, own: Any = "") -> traceback.FrameSummary | None:
    """Return the line at fault, as in `told`; None where all lines are of libraries."""
    frames = traceback.extract_tb(error.__traceback__)
    file = _file(own) if callable(own) else str(own)
    mine = [frame for frame in frames if frame.filename == file] or [
        frame for frame in frames if not any(part in frame.filename for part in _LIBRARIES)
    ]
    return mine[-1] if mine else None


def _file(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    try:
        return inspect.getfile(function if inspect.isroutine(function) else type(function))
    except (TypeError, OSError):
        return ""


_LIBRARIES = (str(Path(__file__).parents[1]), "site-packages", "<")
