"""The marks that the figures of all pages are made of: dots, lines, rings, landmarks, levels and bands, as plotly data.

Names and labels must have been escaped: plotly reads a small subset of HTML in them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from expunge.report.axes import COST_SCALE, HOVER, SYMBOLS, Axis, short

Trace = dict[str, Any]
Costs = tuple[float, float]
"""The ends of the colour scale of cost."""

LEAST = 1e-9
"""A score below what any log scale shows: where bands that reach down to 0 begin."""

LEGEND_BELOW = {"orientation": "h", "y": -0.16, "yanchor": "top", "x": 0, "font": {"size": 12}}
LEGEND_INSIDE = {"x": 0.01, "y": 0.99, "bgcolor": "rgba(0,0,0,0)"}

START: list[str] = ["<b>pretrained</b>", "epoch 0", "", ""]
"""What the first point of every run says."""


def symbols(keys: Iterable[str]) -> dict[str, str]:
    """Return a marker shape for each method, the same in all figures of a page."""
    return {key: SYMBOLS[i % len(SYMBOLS)] for i, key in enumerate(dict.fromkeys(keys))}


def cost_range(costs: Iterable[float]) -> Costs:
    """Return the smallest and largest positive cost, the ends of the colour scale."""
    kept = [cost for cost in costs if 0 < cost < math.inf]
    low, high = (min(kept), max(kept)) if kept else (0.01, 1.0)
    return (low, high) if high > low else (low / 2, high * 2)


def scale_colour(place: float) -> str:
    """Return the CSS colour at a place on the scale, 0 to 1."""
    step = min(int(4 * place), 3)
    share = round(100 * (1 - (4 * place - step)), 1)
    return f"color-mix(in srgb, var(--cost-{step}) {share}%, var(--cost-{step + 1}))"


def grid_places(number: int) -> list[float]:
    """Return that many places on the scale, 0 to 1, evenly."""
    return [round(i / max(number - 1, 1), 3) for i in range(number)]


def trace(name: str, x: Sequence[float], y: Sequence[float], mode: str = "markers", **more: Any) -> Trace:
    """Return a scatter trace that says nothing when a reader points at it."""
    return {"type": "scatter", "mode": mode, "name": name, "x": x, "y": y, "hoverinfo": "skip", **more}


def speaking(made: Trace, texts: Sequence[Any]) -> Trace:
    """Let each point of a trace say one text (a list of one), or the four at its position in the page's list."""
    one = bool(texts) and isinstance(texts[0], list) and len(texts[0]) == 1
    silent = {key: value for key, value in made.items() if key != "hoverinfo"}
    return {**silent, "customdata": texts, "hovertemplate": "%{customdata[0]}<extra></extra>" if one else HOVER}


def dots(name: str, x: Sequence[float], y: Sequence[float], texts: Sequence[Any], **marker: Any) -> Trace:
    """Return a dot for each configuration; `marker` has at least its size, colour and opacity."""
    return speaking(trace(name, x, y, marker={**marker, "line": {"width": 0.6, "color": "var(--edge)"}}), texts)


def by_cost(costs: Iterable[float], ends: Costs) -> dict[str, Any]:
    """Return the part of a marker that colours dots by their cost; an unknown one counts as cheap."""
    low, high = math.log10(ends[0]), math.log10(ends[1])
    places = [short(math.log10(min(max(c, ends[0]), ends[1]))) if c == c else low for c in costs]
    return {"color": places, "cmin": short(low), "cmax": short(high), "colorscale": COST_SCALE}


def ring(
    name: str,
    x: Sequence[float],
    y: Sequence[float],
    meta: dict[str, Any],
    *,
    size: int = 15,
    width: float = 2.2,
    colour: str = "var(--chosen)",
) -> Trace:
    """Return rings around dots, by default those of what was chosen."""
    line = {"width": width, "color": colour}
    return trace(name, x, y, meta=meta, marker={"symbol": "circle-open", "size": size, "color": colour, "line": line})


def landmark(name: str, x: float, y: float, text: str, *, oracle: bool) -> Trace:
    """Return the star of the oracles, or the circle of the pretrained models."""
    colour, inside = ("var(--oracle)", "var(--card)") if oracle else ("var(--pretrained)", "var(--card)")
    marker = {
        "symbol": "star" if oracle else "circle",
        "size": 17 if oracle else 14,
        "color": colour if oracle else inside,
        "line": {"width": 1 if oracle else 2.4, "color": inside if oracle else colour},
    }
    return speaking(trace(name, [x], [y], marker=marker), [[f"<b>{name}</b>{text}"]])


def run_line(
    name: str, method: str, x: Sequence[float], y: Sequence[float], texts: Sequence[Any], colour: str
) -> Trace:
    """Return a run over unlearning time."""
    style = {"line": {"color": colour, "width": 1.6}, "marker": {"size": 4.5, "color": colour}, "opacity": 0.85}
    return speaking(trace(name, x, y, "lines+markers", meta={"method": method}, **style), texts)


def identity(low: float, high: float) -> Trace:
    """Return the line of what came out as predicted."""
    ends = [short(low), short(high)]
    return trace("as predicted", ends, ends, "lines", line={"color": "var(--quiet)", "width": 1.2, "dash": "dot"})


def text_at(text: str, x: float, y: float, position: str) -> Trace:
    """Return a label as a trace: unlike a plotly annotation it needs no logarithm when the scale changes."""
    font = {"size": 11, "color": "var(--quiet)"}
    made = trace(
        "", [short(x)], [short(y)], "text", text=[text], textposition=position, textfont=font, showlegend=False
    )
    del made["name"]
    return made


def band(colour: str, *, x: tuple[float, float] | None = None, y: tuple[float, float] | None = None) -> dict[str, Any]:
    """Return a band behind the dots; a side that is not given goes from edge to edge."""
    return {"type": "rect", "layer": "below", "line": {"width": 0}, "fillcolor": colour, **_box(x, y)}


def guide(
    colour: str, *, x: float | None = None, y: float | None = None, width: float = 1.4, dash: str = "dot"
) -> dict[str, Any]:
    """Return a vertical line at `x` or a horizontal one at `y`, from edge to edge."""
    box = _box(None if x is None else (x, x), None if y is None else (y, y))
    return {"type": "line", "layer": "below", "line": {"color": colour, "width": width, "dash": dash}, **box}


def pretrained_level(level: float) -> dict[str, Any]:
    """Return the line of the pretrained models over unlearning time."""
    font = {"color": "var(--pretrained)", "size": 11}
    label = {"text": "pretrained", "textposition": "end", "font": font}
    return {**guide("var(--pretrained)", y=level, dash="dash"), "label": label}


def target(y: float, x: float | None = None) -> dict[str, Any]:
    """Return the region up to `y`, and up to `x` where there is one, that counts as indistinguishable."""
    return band("var(--target)", x=None if x is None else (LEAST, x), y=(LEAST, y))


def visible(low: float, high: float) -> tuple[float, float]:
    """Return the ends of a band on a log scale."""
    return short(max(low, LEAST)), short(max(high, LEAST))


def below_zero(axis: Axis) -> dict[str, list[float]]:
    """Return the ranges of an axis whose linear scale shows a little below 0, where a predicted oracle is."""
    found = axis.ranges()
    return {**found, "linear": [-0.035 * axis.off, found["linear"][1]]}


def _box(x: tuple[float, float] | None, y: tuple[float, float] | None) -> dict[str, Any]:
    box: dict[str, Any] = {}
    for name, ends in (("x", x), ("y", y)):
        if ends is None:
            box[f"{name}ref"] = "paper"
        box[f"{name}0"], box[f"{name}1"] = ends or (0, 1)
    return box
