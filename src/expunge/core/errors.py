"""Named errors for situations that a caller handles; everything else is a plain `ValueError` or `TypeError`."""

from __future__ import annotations

import traceback
from pathlib import Path

LONGEST_TOLD = 300
"""Characters of another library's or a user's error that a message repeats."""


class InputError(ValueError):
    """Something that a person gave cannot be used; the message says what came, what was expected, what to change."""


class DamagedFileError(RuntimeError):
    """A file of ours is truncated, altered, or was written for another specification; it is named and not read."""


class DivergedError(RuntimeError):
    """Every member of an ensemble became non-finite, so nothing that follows would mean anything."""


def told(error: BaseException, file: str | Path = "") -> str:
    """Return another's error as a message repeats it: its kind, the first line of what it says, and where.

    Args:
        error: The error.
        file: The file in which its place is looked for; left out, the last place outside of libraries.

    >>> told(KeyError("mine"))
    "KeyError: 'mine'"
    """
    try:
        said = str(error).strip().partition("\n")[0]
    except Exception:  # an error of one's own that cannot be written
        said = "it cannot say what"
    said = said[:LONGEST_TOLD].encode("utf-8", "backslashreplace").decode()
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if (frame.filename == str(file) if file else not any(part in frame.filename for part in _LIBRARIES))
    ]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if said else ''}{said}{where}"


_LIBRARIES = (str(Path(__file__).parents[1]), "site-packages", "<")
