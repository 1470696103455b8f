"""Charts of a reproduction, from their records alone: panels of dots and lines that share colours and one legend."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from expunge.papers.ascent_fails_to_forget.reproduction.record import Chart, Panel, Series
from expunge.report.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, STYLE

COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)
DASHES = ("-", "--", "-.", ":")
SHAPES = ("o", "s", "^", "D", "v", "P")
ACROSS = 3
"""Panels in a row."""
MOST_LABELS = 12
FEW_DECADES = 200.0
"""Ends of a logarithmic axis that are fewer times apart have ticks at 1, 2 and 5; others at powers of ten."""


def figure(chart: Chart) -> Figure:
    """Return the figure of a chart."""
    count = len(chart.panels)
    columns = min(ACROSS, count)
    rows = math.ceil(count / columns)
    places = {label: place for place, label in enumerate(_labels(chart))}
    norm = _norm(chart)
    with matplotlib.rc_context(STYLE):
        made = Figure(figsize=(4.1 * columns + 0.6, 3.3 * rows + 0.5))
        for number, panel in enumerate(chart.panels):
            _draw(made.add_subplot(rows, columns, number + 1), panel, places, norm)
        handles: dict[str, Artist] = {}
        for axes in made.axes:
            artists, labels = axes.get_legend_handles_labels()
            handles |= dict(zip(labels, artists, strict=True))
        if 1 < len(handles) <= MOST_LABELS:
            made.legend(
                list(handles.values()), list(handles), loc="outside lower center", ncols=min(len(handles), 2 * columns)
            )
        if norm is not None:
            shades = matplotlib.cm.ScalarMappable(norm, "viridis")
            made.colorbar(shades, ax=made.axes, label=chart.colours, shrink=0.8 if rows == 1 else 0.5)
    return made


def _labels(chart: Chart) -> list[str]:
    found = [series.label for panel in chart.panels for series in panel.series if series.mark in ("dots", "line")]
    return list(dict.fromkeys(found))


def _norm(chart: Chart) -> Normalize | None:
    values = [value for panel in chart.panels for series in panel.series for value in series.colours]
    values = [value for value in values if math.isfinite(value) and (value > 0 or not chart.log_colours)]
    if not values:
        return None
    low, high = min(values), max(values)
    high = high if high > low else low * 1.01 + 1e-9
    return LogNorm(low, high) if chart.log_colours else Normalize(low, high)


def _draw(axes: Axes, panel: Panel, places: dict[str, int], norm: Normalize | None) -> None:
    for level in panel.levels:
        axes.axhline(level, color=GREY, lw=0.9, ls=":")
    for series in panel.series:
        _series(axes, series, places.get(series.label, 0), norm)
    if panel.log_x:
        axes.set_xscale("log")
        _plain(axes.xaxis)
    if panel.log_y:
        axes.set_yscale("log")
        _plain(axes.yaxis)
    axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)


def _plain(axis: Axis) -> None:
    """Write a logarithmic axis in plain numbers, as few as are needed: powers of ten in small print overlap."""
    low, high = sorted(axis.get_view_interval())
    narrow = low > 0 and high < FEW_DECADES * low
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _series(axes: Axes, series: Series, place: int, norm: Normalize | None) -> None:
    x, y = np.array(series.x, float), np.array(series.y, float)
    if series.mark == "pretrained":
        axes.plot(x, y, "o", ms=11, mfc="none", mec="#1c2126", mew=1.8, label=series.label, zorder=5)
    elif series.mark == "oracle":
        axes.plot(x, y, "*", ms=14, color="#1c2126", label=series.label, zorder=5)
    elif series.mark == "line":
        colour, dash = COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)]
        axes.plot(x, y, dash, marker="o", ms=3, color=colour, label=series.label)
        if series.low:
            axes.fill_between(x, series.low, series.high, color=colour, alpha=0.13, lw=0)
    else:
        shape = SHAPES[place % len(SHAPES)]
        if series.colours and norm is not None:
            shades = np.maximum(series.colours, norm.vmin or 0)
            axes.scatter(x, y, c=shades, cmap="viridis", norm=norm, marker=shape, s=26, alpha=0.85, label=series.label)
        else:
            colour = COLOURS[place % len(COLOURS)]
            axes.scatter(x, y, color=colour, marker=shape, s=30, label=series.label)
            if series.low:
                axes.vlines(x, series.low, series.high, color=colour, lw=1)
