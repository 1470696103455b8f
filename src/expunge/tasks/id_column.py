"""Forget lists as databases write them: a column of ids in a CSV file, which the task knows."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from expunge.core import InputError, Task

NAMED = 5
"""Ids that a message names at most."""


def read_id_column(task: Task, path: Path, column: str) -> list[int]:
    """Return the positions of the training examples whose ids a CSV file lists in one of its columns.

    Args:
        task: Made with `Task(ids=...)`.
        path: A `.csv` file whose first line names the columns.
        column: Name of the one with the ids.

    Raises:
        InputError: If the task has no ids, the file or the column cannot be read, or ids are unknown or repeated.
    """
    if task.ids is None:
        raise InputError(
            f"{path} lists ids in its column {column!r}, and the task {task.name!r} has none; write Task(ids=...) with "
            "an id for each training example."
        )
    if path.suffix.lower() != ".csv":
        raise InputError(f"{path}: ids are read from a column of a .csv file, expected one whose first line names it.")
    ids = _column(path, column)
    unknown = [name for name in ids if name not in task.ids]
    if unknown:
        raise InputError(
            f"{path}: {len(unknown)} of {len(ids)} ids are of no training example of {task.name!r} ({_some(unknown)}); "
            f"expected ids such as {next(iter(task.ids))!r}."
        )
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        raise InputError(
            f"{path}: {len(repeated)} ids are listed more than once ({_some(repeated)}), expected each once."
        )
    return [task.ids[name] for name in ids]


def _column(path: Path, column: str) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = [cell.strip() for cell in next(rows, [])]
            if header.count(column) != 1:
                raise InputError(
                    f"{path} has {header.count(column) or 'no'} columns {column!r} in its first line, expected one of: "
                    f"{', '.join(header)[:200] or 'a line that names the columns'}."
                )
            place, found = header.index(column), []
            for cells in rows:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) <= place or not cells[place].strip():
                    raise InputError(
                        f"{path}, line {rows.line_num}: there is no {column!r}, expected an id in each line."
                    )
                found.append(cells[place].strip())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}), expected a .csv file in UTF-8.") from error
    return found


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:NAMED])) + ", ..." * (len(names) > NAMED)
