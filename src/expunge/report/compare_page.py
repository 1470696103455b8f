"""The page that puts runs beside each other: one HTML file, drawn from records alone, that opens without a network."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from expunge.core.record import SPLITS
from expunge.core.schema import write_atomically
from expunge.report.comparison import NOT_CHOSEN, NOT_RUN, Comparison, Line
from expunge.report.html import fill_without_figures, made_facts

PAGES = ("report.html", "forecast.html")
"""Where the pages of runs lie in their folders."""


def draw_comparison(found: Comparison, path: Path) -> Path:
    """Write the page and return its path.

    Args:
        found: Of `compare`.
        path: The file; it is written over.

    Raises:
        InputError: If it cannot be written.
    """
    return write_atomically(path, render_comparison(found, path.parent).encode())


def render_comparison(found: Comparison, beside: Path | None = None) -> str:
    """Return the page as HTML.

    Args:
        found: Of `compare`.
        beside: Folder of the page, from which it links to the runs' own pages; without it there are no links.
    """
    return fill_without_figures(
        "compare.html.j2",
        found=found,
        splits=SPLITS,
        absent=(NOT_RUN, NOT_CHOSEN),
        tasks=list(dict.fromkeys(line.task for line in found.lines)),
        links={run.name: _links(run.folder, beside) for run in found.runs},
        made={run.name: made_facts(run.record) for run in found.runs},
        grid={(a.task, a.forget_set): _grid(found, a.task, a.forget_set) for a in found.answers},
        forecasts=any(line.forecast for line in found.lines),
        runs=found.columns,
    )


def _grid(found: Comparison, task: str, forget_set: str) -> list[list[Line]]:
    """Return the lines of a forget set, a row a method, a column a run."""
    own = [line for line in found.lines if (line.task, line.forget_set) == (task, forget_set)]
    return [[line for line in own if line.method == method] for method in dict.fromkeys(line.method for line in own)]


def _links(folder: Path, beside: Path | None) -> list[tuple[str, str]]:
    """Return (address, name) of a run's own pages."""
    if beside is None:
        return []
    pages = [folder / name for name in PAGES if (folder / name).is_file()]
    return [(quote(os.path.relpath(page, beside).replace(os.sep, "/")), page.stem) for page in pages]
