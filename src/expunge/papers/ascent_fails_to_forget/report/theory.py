"""The theory report from records alone: figures (PNG, SVG), one self-contained page, tables in the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from expunge.core.record import inside, write_atomically
from expunge.papers.ascent_fails_to_forget.finding import TheoryRecord, load_arrays
from expunge.papers.ascent_fails_to_forget.report.theory_figures import figure
from expunge.report.fitting import print_fitting
from expunge.report.plots import image, inline, paper_page


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
            files[kind] = image(made, kind)
            write_atomically(inside(folder, f"figures/{finding.name}.{kind}"), files[kind])
        items.append({"finding": finding, "svg": inline(files["svg"], finding.name)})
    page = paper_page(__package__, "theory.html.j2", filters={"cell": cell}, record=record, items=items)
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
