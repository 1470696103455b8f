"""What all records share: the splits, a strict base class, and files that are read checked and written atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from expunge.core.errors import DamagedFileError, InputError
from expunge.core.files import write_atomically as write_atomically

SplitName = Literal["forget", "retain", "validation"]
SPLITS: tuple[SplitName, ...] = ("forget", "retain", "validation")

RECORDS = (
    "record.json", "forecast.json", "unlearn.json", "proof.json", "theory.json", "sequential_drift.json",
    "leaderboard.json", "reproduction.json",
)  # fmt: skip
"""Files by which the folder of an audit, a forecast, an unlearned checkpoint, a proof of forecasts, a theory run,
another paper, a leaderboard and a reproduction is known."""

LONGEST_INPUT = 40
"""Characters of a wrong value that a message repeats."""


REPAIR = "Restore the file, or delete it and repeat the command of the run with --resume, which finds what was kept."
OUTSIDE = "Nothing is read or written there; leave the file out, or take the run from somebody you trust."


class Strict(BaseModel):
    """A model that refuses unknown fields, so that a typing mistake is not silently dropped."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")


R = TypeVar("R", bound=BaseModel)


def read_record(kind: type[R], path: Path, schema: int) -> R:
    """Read a record of any study from a JSON file and check it.

    Args:
        kind: The class of the record; its field `schema_version` numbers the format.
        path: The file.
        schema: The format that this version reads.

    Raises:
        InputError: If the file does not exist.
        DamagedFileError: If it is not such a record, or of another format.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist, expected the folder of a finished run (it holds {path.name}).")
    try:
        raw = json.loads(path.read_bytes())  # UTF-8, whatever the system's own encoding is
        if not isinstance(raw, dict) or "schema_version" not in raw:
            raise DamagedFileError(f"{path} is not a record of expunge: it has no schema_version. {REPAIR}")
        if raw["schema_version"] != schema:
            raise DamagedFileError(
                f"{path} has record format {raw['schema_version']}, this version of expunge reads {schema}; "
                "use the version that wrote it, or repeat the run."
            )
        return kind.model_validate(raw)
    except ValidationError as error:
        raise DamagedFileError(f"{path} is not a record of expunge: {_in_words(error)}. {REPAIR}") from error
    except (ValueError, RecursionError) as error:  # no JSON, no text, or a number of thousands of digits
        raise DamagedFileError(f"{path} is not a record of expunge, or damaged ({error}). {REPAIR}") from error
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read ({error.strerror}).") from error


def _in_words(error: ValidationError) -> str:
    """Return the first thing that is wrong with a record, where and what stands there, and a count of the rest."""
    problems = error.errors(include_url=False, include_context=False)
    first = problems[0]
    where = ".".join(str(part) for part in first["loc"]) or "the whole"
    text = f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}{_came(first['input'])}"
    rest = len(problems) - 1
    return text + (f" (and {rest} more problem{'s' if rest > 1 else ''})" if rest else "")


def _came(value: Any) -> str:
    """Return a short wrong value; a whole part of a record would say nothing."""
    if not isinstance(value, str | int | float | None):
        return ""
    text = repr(value)
    return f", got {text if len(text) <= LONGEST_INPUT else text[:LONGEST_INPUT] + '...'}"


class StudyRecord(Strict):
    """The record of a run: one JSON file in the run's folder, with a number for its format."""

    FILE: ClassVar[str]
    """Name of the file."""
    schema_version: int

    def save(self, folder: Path) -> Path:
        """Write the file into a folder, atomically, and return its path."""
        return write_atomically(folder / self.FILE, self.model_dump_json(indent=1).encode())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read and check the file of a run.

        Args:
            folder: Folder of the run, or the file itself.

        Raises:
            InputError: If there is none in the folder.
            DamagedFileError: If it is not such a record, or of another format.
        """
        path = folder if folder.is_file() else folder / cls.FILE
        return read_record(cls, inside(path.parent, path.name), cls.model_fields["schema_version"].default)


class RunRecord(StudyRecord):
    """The record of a run that can be stopped and gone on with."""

    KIND: ClassVar[str]
    """What such a run is called in messages."""
    status: Literal["running", "complete"]
    started: str
    """ISO 8601 time in UTC."""
    seconds: float
    """Wall-clock seconds spent, over all resumptions."""
    command: str
    """The shell command, or the Python call, that runs the same study again."""
    request: dict[str, Any]
    """What was asked, defaults included."""
    environment: dict[str, Any]
    """Versions, platform, cores, device, commit."""


def inside(folder: Path, name: str) -> Path:
    """Return a path in the folder of a run; refuse one that leads out of it, since a record may come from anybody.

    Args:
        folder: The run's folder.
        name: What a record calls the file.

    Raises:
        DamagedFileError: If it is not below the folder, links followed.
    """
    try:
        if (folder / name).resolve().is_relative_to(folder.resolve()):
            return folder / name
    except (ValueError, OSError, RuntimeError):  # no path at all, or links in a circle
        pass
    raise DamagedFileError(f"{name!r} leads out of {folder}, expected a file below it. {OUTSIDE}")
