"""Axes, markers and layout that the figures of all pages share.

Colours are written as CSS variables (`var(--ink)`) or as places on the colour scale (`cost(0.4)`), which the page's
script replaces by the values of the current colour scheme before it draws; so one figure serves light, dark and print.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Figure = dict[str, Any]

SYMBOLS = (
    "square",
    "diamond",
    "triangle-up",
    "cross",
    "pentagon",
    "triangle-down",
    "hexagon",
    "hourglass",
    "x",
    "bowtie",
    "diamond-wide",
    "triangle-left",
    "triangle-right",
)
"""Marker shapes of methods, in order; circle and star are kept for pretrained models and oracles."""

EPOCH_TICKS = 10
"""Epochs up to which each has a tick."""

COST_SCALE = [[step / 4, f"var(--cost-{step})"] for step in range(5)]
"""Colour scale of cost and of the rate, from cheap (small) to dear (large)."""


@dataclass(frozen=True)
class Axis:
    """A score axis that holds every value: infinities and NaN sit at the end, zeros at the start of the log scale."""

    low: float
    """Smallest value that the log scale shows; smaller ones are drawn there."""
    off: float
    """Largest value shown: finite ones stay below, the others are drawn there."""

    @classmethod
    def over(cls, values: Iterable[float]) -> Axis:
        """Return the axis that fits these values."""
        positive = [v for v in values if 0 < v < math.inf]
        top = max([*positive, 1e-3])
        # Five decades at most: one score of 1e-12 must not flatten the rest.
        return cls(low=max(min([*positive, top]) / 1.35, top / 1e5), off=top * 1.25)

    def place(self, value: float) -> float:
        """Return where a value is drawn."""
        if not math.isfinite(value):
            return short(self.low if value == -math.inf else self.off)
        return short(min(max(value, self.low), self.off))

    def ranges(self) -> dict[str, list[float]]:
        """Return the ranges of the log and of the linear scale, in plotly's units."""
        low, high = math.log10(self.low), math.log10(self.off)
        margin = 0.04 * (high - low)
        return {"log": [low - margin, high + margin], "linear": [0.0, self.off * 1.04]}


def short(value: float) -> float:
    """Return a number with four significant digits, which is finer than a screen."""
    return float(f"{value:.4g}")


def base_layout(x_title: str, y_title: str, name: str) -> dict[str, Any]:
    """Return the layout that all figures have in common.

    Args:
        x_title: Of the horizontal axis.
        y_title: Of the vertical axis.
        name: What the figure is called in its `meta`.
    """
    title: dict[str, Any] = {"font": {"size": 13}, "standoff": 8}
    axis: dict[str, Any] = {
        "gridcolor": "var(--grid)",
        "zeroline": False,
        "linecolor": "var(--rule)",
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "var(--rule)",
        "automargin": True,
    }
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {
            "family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
            "size": 12,
            "color": "var(--ink)",
        },
        "margin": {"l": 56, "r": 14, "t": 14, "b": 48},
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": "var(--card)",
            "bordercolor": "var(--rule)",
            "font": {"color": "var(--ink)"},
            "align": "left",
        },
        "showlegend": False,
        "dragmode": "zoom",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "var(--rule)", "activecolor": "var(--ink)"},
        "meta": name,
        "xaxis": {**axis, "title": {**title, "text": x_title}},
        "yaxis": {**axis, "title": {**title, "text": y_title}},
    }


def log_axis(axis: dict[str, Any], scale: Axis) -> None:
    """Make an axis logarithmic, with 1, 2 and 5 of each decade labelled in plain decimals."""
    ticks = [digit * 10.0**power for power in range(-6, 7) for digit in (1, 2, 5)]
    shown = [tick for tick in ticks if scale.low <= tick <= scale.off]
    axis.update(type="log", range=scale.ranges()["log"], tickvals=shown, ticktext=[f"{tick:g}" for tick in shown])


def epoch_axis(axis: dict[str, Any], last: int) -> None:
    """Make an axis count epochs from 0 to the last one, with whole numbers as ticks."""
    axis.update(rangemode="tozero", tickformat="d", tick0=0)
    if last <= EPOCH_TICKS:
        # Left alone, a short axis gets ticks at halves, which are written as whole numbers, each twice.
        axis.update(dtick=1)


def wrap(text: str, width: int = 64) -> str:
    """Return text escaped and broken into lines, for a label that opens when a reader points at a mark."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "<br>".join(html.escape(part[:200]) for part in [*lines, line])


HOVER = "%{customdata[0]}<br>%{customdata[1]}<br>%{customdata[2]}<br>%{customdata[3]}<extra></extra>"
"""How a label is put together from the four texts that a mark has."""
