"""What a study of a theorem found: the statement, the verdict, tables and arrays; all that its report may read.

A run is a folder: `theory.json` (this schema) and `arrays/<name>.safetensors` for each finding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from expunge.core.errors import DamagedFileError, InputError
from expunge.core.schema import RunRecord, Strict, inside, write_atomically

FORMAT = 1
"""Number of the format of `theory.json`."""

FindingVerdict = Literal["holds", "holds under conditions", "does not hold", "new result"]


class Table(Strict):
    """A table of a finding; cells are numbers or words."""

    title: str
    columns: list[str]
    rows: list[list[str | int | float | None]]


class Finding(Strict):
    """One result of the theory, checked."""

    name: str
    """Name on the command line, such as `lemma-1`."""
    title: str
    source: str
    """Where it is stated."""
    statement: str
    """What is claimed, in words and formulas."""
    verdict: FindingVerdict
    sentence: str
    """What was found, with its numbers."""
    parameters: dict[str, Any]
    tables: list[Table]
    arrays: str
    """Path of the arrays, relative to the run's folder."""
    seconds: float
    """Wall-clock seconds."""


class TheoryRecord(RunRecord):
    """One run of `expunge theory`."""

    FILE: ClassVar[str] = "theory.json"
    KIND: ClassVar[str] = "theory run"
    schema_version: int = FORMAT
    study: Literal["theory"] = "theory"
    # Earlier versions wrote none of these.
    status: Literal["running", "complete"] = "complete"
    started: str = ""
    request: dict[str, Any] = Field(default_factory=dict)
    environment: dict[str, Any] = Field(default_factory=dict)
    findings: list[Finding] = Field(default_factory=list)


def save_arrays(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> Path:
    """Write named arrays as one safetensors file, atomically."""
    from safetensors.numpy import save

    return write_atomically(path, save({name: np.ascontiguousarray(value) for name, value in arrays.items()}))


def load_arrays(folder: Path, finding: Finding) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays of one finding by name.

    Raises:
        InputError: If the file is missing.
        DamagedFileError: If it cannot be read.
    """
    from safetensors.numpy import load_file

    path = inside(folder, finding.arrays)
    if not path.is_file():
        raise InputError(f"{path} does not exist; the run's folder is incomplete, run `expunge theory --resume`.")
    try:
        return dict(load_file(path))
    except Exception as error:
        raise DamagedFileError(f"{path} cannot be read ({error}); run `expunge theory --resume`.") from error
