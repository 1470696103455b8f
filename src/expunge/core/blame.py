"""Whose line failed: errors in a user's own function are told at that function's file and line."""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def blame(error: BaseException, function: Callable[..., Any]) -> str:
    """Return what went wrong, with the last line of the user's own file on the way to it.

    Args:
        error: What was raised while `function` ran.
        function: The user's function.
    """
    said = f"{type(error).__name__}: {error}"
    own = _file(function)
    frames = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in frames if frame.filename == own] or [
        frame for frame in frames if "site-packages" not in frame.filename and "expunge" not in frame.filename
    ]
    if not mine:
        return said
    last = mine[-1]
    return f"{Path(last.filename).name}, line {last.lineno}: {said}" + (f"\n    {last.line}" if last.line else "")


def _file(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    try:
        return inspect.getfile(function if inspect.isroutine(function) else type(function))
    except (TypeError, OSError):
        return ""
