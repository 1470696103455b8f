"""The page of a study of sequential drift, from its record alone: answer, figure, tables; tables in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from expunge.core.record import inside, write_atomically
from expunge.papers.sequential_drift.record import READINGS, ChainRecord, CurveRecord, DriftRecord, ReadingName
from expunge.report.fitting import print_fitting
from expunge.report.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, STYLE, image, inline, paper_page

WORDS: dict[ReadingName, str] = {
    "spread": "added spread, oracle sd",
    "shift": "shift of mean margins, oracle sd",
    "klom": "KLoM (P95), nats",
}
"""What the figure and the tables call the readings, in the order in which they are shown."""

LINES = ((RED, "-"), (ORANGE, "--"), (BLUE, "-."), (GREEN, "-"), (PURPLE, ":"))
"""Colour and dash of each share, from the smallest to the largest."""

Row = Sequence[str]


def draw(folder: Path | str) -> Path:
    """Draw the figure of a run into `figures/` (PNG, SVG) and the page `report.html`, and return the page.

    Raises:
        InputError: If the folder holds no such run.
        DamagedFileError: If its record cannot be read.
    """
    folder = Path(folder)
    record = DriftRecord.load(folder)
    made = figure(record)
    files = {kind: image(made, kind, 110) for kind in ("png", "svg")}
    for kind, content in files.items():
        write_atomically(inside(folder, f"figures/drift.{kind}"), content)
    page = paper_page(
        __package__,
        "page.html.j2",
        record=record,
        answer=answer(record),
        tables=list(tables(record)),
        svg=inline(files["svg"], "drift"),
    )
    return write_atomically(folder / "report.html", page.encode())


def print_tables(folder: Path | str, console: Console) -> None:
    """Print the answer and the tables of a run."""
    record = DriftRecord.load(Path(folder))
    for sentence in answer(record):
        console.print(sentence, markup=False, highlight=False)
    for title, header, rows in tables(record):
        # Where there is no room for them, the words of the last column go first, then the middle of the way.
        every = range(len(header))
        print_fitting(
            console,
            *(_terminal(title, header, rows, [n for n in every if n not in left]) for left in ((), (5,), (3, 5))),
        )


def _terminal(title: str, header: Row, rows: Sequence[Row], kept: Sequence[int]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number in kept:
        table.add_column(header[number], justify="right" if 0 < number < 5 else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(row[number] for number in kept))
    return table


def answer(record: DriftRecord) -> list[str]:
    """Return what was found, in sentences; the first is the answer."""
    found = []
    for share in sorted({chain.share for chain in record.chains if chain.share is not None}):
        curves = [chain.curves["spread"] for chain in record.chains if chain.share == share]
        growing = [curve for curve in curves if curve.growth.startswith("grows")]
        if not growing:
            found.append(
                f"{_labelled(share)} it does not grow (at most {max(c.values[-1] for c in curves):.2f} oracle sd)"
            )
            continue
        few = "" if len(growing) == len(curves) else f" for {len(growing)} of {len(curves)} methods"
        slopes, last = ([c.exponent for c in growing], [c.values[-1] for c in growing])
        found.append(
            f"{_labelled(share)} the added spread grows{few} with exponents {_range(slopes)} and reaches "
            f"{_range(last)} oracle sd"
        )
    nothing = next((chain for chain in record.chains if chain.share is None), None)
    sentences: list[str] = [
        f"Do models go apart, request after request, as retrained ones do not? {_sentence('; '.join(found))} A random "
        "walk has the exponent 0.5."
    ]
    what: dict[ReadingName, tuple[str, str]] = {
        "klom": ("KLoM to the oracles of all rows removed so far (P95)", "nats"),
        "shift": ("The shift of mean margins", "oracle sd"),
    }
    for reading, (words, unit) in what.items():
        last = [chain.curves[reading].values[-1] for chain in record.chains if chain.share is not None]
        if nothing is not None and last:
            sentences.append(
                f"{words} is {min(last):.2f} to {max(last):.2f} {unit} above the floor after {record.requests} "
                f"requests. Of models that nothing is done to it {nothing.curves[reading].growth}, to "
                f"{nothing.curves[reading].values[-1]:.2f} {unit}."
            )
    return sentences


def tables(record: DriftRecord) -> Iterator[tuple[str, Row, list[Row]]]:
    """Yield title, header and rows of every table."""
    half = max(1, record.requests // 2)
    for name in WORDS:
        yield (
            f"{WORDS[name][0].upper()}{WORDS[name][1:]}, above the floor",
            ("chain", "exponent b [95 %]", "k = 1", f"k = {half}", f"k = {record.requests} [95 %]", "with k it"),
            [
                (
                    _named(chain),
                    _with_interval(curve.exponent, curve.exponent_low, curve.exponent_high),
                    f"{curve.values[0]:.2f}",
                    f"{curve.values[half - 1]:.2f}",
                    _with_interval(curve.values[-1], curve.low[-1], curve.high[-1]),
                    curve.growth,
                )
                for chain in record.chains
                for curve in (chain.curves[name],)
            ],
        )
    yield (
        f"After {record.requests} requests",
        ("chain", "KLoM (P95) on removed rows", "accuracy", "failed"),
        [
            (_named(chain), f"{chain.removed[-1]:.2f}", f"{chain.accuracy[-1]:.3f}", str(chain.failed))
            for chain in record.chains
        ],
    )


def figure(record: DriftRecord) -> Figure:
    """Return readings over requests: a row a reading, a column a method, a line a share of real labels."""
    names = list(dict.fromkeys(chain.name for chain in record.chains if chain.share is not None))
    shares = sorted({chain.share for chain in record.chains if chain.share is not None})
    nothing = [chain for chain in record.chains if chain.share is None]
    with matplotlib.rc_context(STYLE):
        made = Figure(figsize=(3.9 * max(1, len(names)), 2.7 * len(READINGS) + 0.4))
        for row, reading in enumerate(WORDS):
            first: Axes | None = None
            for column, name in enumerate(names):
                axes = made.add_subplot(len(READINGS), len(names), row * len(names) + column + 1, sharey=first)
                first = first or axes
                for chain in [*nothing, *(one for one in record.chains if one.name == name)]:
                    _line(axes, chain, chain.curves[reading], shares)
                axes.axhline(0, color=GREY, lw=0.8)
                if row == 0:
                    axes.set_title(next(chain.label for chain in record.chains if chain.name == name))
                if column == 0:
                    axes.set_ylabel(WORDS[reading])
                if row == len(READINGS) - 1:
                    axes.set_xlabel("requests k")
        if names:
            handles, labels = made.axes[0].get_legend_handles_labels()
            made.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return made


def _line(axes: Axes, chain: ChainRecord, curve: CurveRecord, shares: list[float]) -> None:
    k = range(1, len(curve.values) + 1)
    place = 0 if chain.share is None else shares.index(chain.share) % len(LINES)
    colour, dash = (GREY, ":") if chain.share is None else LINES[place]
    label = "do nothing" if chain.share is None else f"{_percent(chain.share)} real labels"
    axes.plot(k, curve.values, dash, color=colour, label=label)
    axes.fill_between(k, curve.low, curve.high, color=colour, alpha=0.13, lw=0)


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _labelled(share: float) -> str:
    if share <= 0:
        return "where the last model labels all that is kept,"
    return "with all labels real" if share >= 1 else f"with {_percent(share)} of real labels"


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _named(chain: ChainRecord) -> str:
    return chain.label if chain.share is None else f"{chain.label}, {_percent(chain.share)} real"


def _with_interval(value: float, low: float, high: float) -> str:
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"
