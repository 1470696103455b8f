"""The theory report from records alone: figures (PNG, SVG), one self-contained page, tables in the terminal."""

from __future__ import annotations

import io
import re
from importlib import resources
from pathlib import Path

import matplotlib
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from rich.console import Console
from rich.table import Table as RichTable

from expunge.core.record import inside, write_atomically
from expunge.papers.ascent_fails_to_forget.finding import TheoryRecord, load_arrays
from expunge.papers.ascent_fails_to_forget.report.theory_figures import STYLE, figure
from expunge.report.fitting import print_fitting


def draw(folder: Path | str) -> Path:
    """Draw every figure of a theory run into `figures/`, and the page `report.html`.

    Args:
        folder: Folder of the run, with `theory.json`.

    Returns:
        Path of the page.

    Raises:
        InputError: If the folder holds no theory run or lacks arrays.
        DamagedFileError: If a file cannot be read.
    """
    folder = Path(folder)
    record = TheoryRecord.load(folder)
    items = []
    for finding in record.findings:
        made = figure(finding.name, load_arrays(folder, finding))
        files = {}
        for kind in ("png", "svg"):
            buffer = io.BytesIO()
            # No date in the file: the same record gives the same bytes.
            with matplotlib.rc_context(STYLE):
                made.savefig(buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {})
            files[kind] = buffer.getvalue()
            write_atomically(inside(folder, f"figures/{finding.name}.{kind}"), files[kind])
        items.append({"finding": finding, "svg": Markup(_inline(files["svg"].decode(), finding.name))})
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = cell
    text = resources.files(__package__).joinpath("templates/theory.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(text).render(record=record, items=items)
    return write_atomically(folder / "report.html", page.encode())


def print_tables(folder: Path | str, console: Console) -> None:
    """Print verdict, sentence and tables of every finding of a run."""
    for finding in TheoryRecord.load(Path(folder)).findings:
        console.print(f"\n{finding.title}", style="bold", markup=False, highlight=False)
        console.print(f"{finding.verdict}: {finding.sentence}", markup=False, highlight=False)
        for found in finding.tables:
            table = RichTable(title=found.title, title_justify="left", box=None, pad_edge=False)
            for k, column in enumerate(found.columns):
                table.add_column(column, justify="left" if k == 0 else "right", no_wrap=k > 0)
            for row in found.rows:
                table.add_row(*(cell(value) for value in row))
            print_fitting(console, table)


def cell(value: str | int | float | None) -> str:
    """Return how a table shows a value: at most five significant digits, nothing for None.

    >>> cell(0.000012345678)
    '1.2346e-05'
    """
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _inline(svg: str, name: str) -> str:
    """Return an SVG ready for a page: without XML header, with identifiers that no other figure uses."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    return re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body)
