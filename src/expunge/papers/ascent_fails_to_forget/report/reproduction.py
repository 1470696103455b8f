"""The page of a reproduction, from its record alone: the answer, then the paper item by item."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from urllib.parse import quote

from rich.console import Console

from expunge.core.record import inside, write_atomically
from expunge.papers.ascent_fails_to_forget.report.charts import ACROSS, figure
from expunge.papers.ascent_fails_to_forget.report.theory import cell
from expunge.papers.ascent_fails_to_forget.reproduction.record import ItemRecord, ReproductionRecord, Verdict
from expunge.report.plots import image, inline, paper_page

MANY: dict[Verdict, str] = {
    "holds": "hold",
    "holds under conditions": "hold under conditions",
    "does not hold": "do not hold",
    "new result": "are new results",
    "not run at this preset": "are not run at this preset",
}
"""Verdicts in the order in which they are counted, and what several of a kind do."""


def draw(folder: Path | str) -> Path:
    """Draw every chart of a run into `charts/` (PNG, SVG) and the page `report.html`, and return the page.

    Raises:
        InputError: If the folder holds no such run.
        DamagedFileError: If its record cannot be read.
    """
    folder = Path(folder)
    record = ReproductionRecord.load(folder)
    items = []
    for each in record.items:
        drawn = []
        for number, chart in enumerate(each.charts):
            name = f"{each.name}-{number + 1}" if len(each.charts) > 1 else each.name
            made = figure(chart)
            files = {kind: image(made, kind, 110) for kind in ("png", "svg")}
            for kind, content in files.items():
                write_atomically(inside(folder, f"charts/{name}.{kind}"), content)
            drawn.append((chart.caption, inline(files["svg"], name), 460 * min(ACROSS, len(chart.panels))))
        items.append({"item": each, "charts": drawn, "pages": _pages(each)})
    page = paper_page(
        __package__, "reproduction.html.j2", filters={"cell": cell}, record=record, items=items, answer=answer(record)
    )
    return write_atomically(folder / "report.html", page.encode())


def print_answers(folder: Path | str, console: Console) -> None:
    """Print the answer, and verdict and first sentence of every item of a run; its tables are on the page."""
    record = ReproductionRecord.load(Path(folder))
    console.print(answer(record)[0], markup=False, highlight=False)
    for each in record.items:
        console.print(f"\n{each.title}", style="bold", markup=False, highlight=False)
        console.print(f"{each.verdict}: {each.sentences[0]}", markup=False, highlight=False)


def answer(record: ReproductionRecord) -> list[str]:
    """Return what was found of the paper, in sentences; the first is the answer."""
    counts = Counter(each.verdict for each in record.items)
    if not counts:
        return ["No item has been run yet."]
    parts = ", ".join(f"{counts[verdict]} {words}" for verdict, words in MANY.items() if counts[verdict])
    found = [f"Of {len(record.items)} items of the paper, run at preset {record.preset}, {parts}."]
    found += [f"{each.title}: {each.sentences[0]}" for each in record.items if each.verdict == "does not hold"]
    return found


def _pages(item: ItemRecord) -> list[tuple[str, str]]:
    """Return links that stay inside the run's folder; others are left out."""
    found = []
    for words, path in item.pages.items():
        name, _, place = path.partition("#")
        parts = Path(name).parts
        if name and ".." not in parts and not Path(name).is_absolute() and ":" not in name:
            found.append((words, quote(name) + (f"#{quote(place)}" if place else "")))
    return found
