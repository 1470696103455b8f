"""What the check of one result returns, before it is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from expunge.papers.ascent_fails_to_forget.finding import FindingVerdict, Table


@dataclass(frozen=True)
class Outcome:
    """One result, checked."""

    title: str
    source: str
    statement: str
    verdict: FindingVerdict
    sentence: str
    parameters: dict[str, Any]
    tables: list[Table] = field(default_factory=list)
    arrays: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)


def table(title: str, columns: list[str], rows: list[list[Any]]) -> Table:
    """Return a table with plain Python numbers."""
    plain = [[cell.item() if isinstance(cell, np.generic) else cell for cell in row] for row in rows]
    return Table(title=title, columns=columns, rows=plain)


PAPER = "Ascent Fails to Forget (arXiv 2509.26427)"
