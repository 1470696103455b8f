"""The figures of a forecast, as data: where each method is predicted to go, over time, and what retraining changes.

All text that came from a person is escaped here, because plotly reads a small subset of HTML in labels.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from expunge.core.forecast import ForecastRecord, MethodForecast, PathPoint
from expunge.core.schema import SPLITS, SplitName
from expunge.report import numbers
from expunge.report.axes import COST_SCALE, HOVER, SYMBOLS, Axis, Figure, base_layout, epoch_axis, log_axis, short, wrap

CHANGE_BINS = 30
"""Bins of the histogram of predicted changes."""

CHANGE_REACH = 99.0
"""Percentile of the changes that the histogram reaches; the few beyond are in the last bin."""


def method_key(method: MethodForecast) -> str:
    """Return a name that tells a method from its control with the same name."""
    return f"{method.method}, control" if method.control else method.method


def symbols(forecasts: Iterable[ForecastRecord]) -> dict[str, str]:
    """Return a marker shape for each method, the same in all figures of a page."""
    keys = dict.fromkeys(method_key(method) for forecast in forecasts for method in forecast.methods)
    return {key: SYMBOLS[i % len(SYMBOLS)] for i, key in enumerate(keys)}


def cost_range(forecasts: Iterable[ForecastRecord]) -> tuple[float, float]:
    """Return the smallest and largest positive cost, the ends of the colour scale."""
    costs = [p.cost for f in forecasts for method in f.methods for p in method.path if 0 < p.cost < math.inf]
    low, high = (min(costs), max(costs)) if costs else (0.01, 1.0)
    return (low, high) if high > low else (low / 2, high * 2)


def hover(forecast: ForecastRecord) -> list[list[str]]:
    """Return what each predicted point says when a reader points at it, in the order of methods and paths."""
    return [_hover(method.label, point) for method in forecast.methods for point in method.path]


def _hover(label: str, point: PathPoint) -> list[str]:
    scores = "<br>".join(
        f"{split} {numbers.number(point.excess[split])} above the floor, margins "
        f"{numbers.signed(point.shifts[split])} standard deviations from the oracle's"
        for split in SPLITS
    )
    return [
        f"<b>{html.escape(label)}</b>, epoch {point.epoch}, predicted",
        wrap(settings_of(point.run) or "no options"),
        f"cost {numbers.percent(point.cost)} of retraining",
        scores,
    ]


def settings_of(run: str) -> str:
    """Return the settings in the name of a run.

    >>> settings_of("gradient_ascent/lr=0.02,epochs=3")
    'lr=0.02, epochs=3'
    """
    return ", ".join(run.partition("/")[2].split(","))


def runs_of(method: MethodForecast) -> dict[str, list[PathPoint]]:
    """Return the path of each run in order of time."""
    runs: dict[str, list[PathPoint]] = {}
    for point in method.path:
        runs.setdefault(point.run, []).append(point)
    return {run: sorted(points, key=lambda point: point.epoch) for run, points in runs.items()}


def _axis(forecast: ForecastRecord, *splits: SplitName) -> Axis:
    points = [forecast.nothing, *(point for method in forecast.methods for point in method.path)]
    values = [point.excess[split] for point in points for split in splits]
    return Axis.over([*values, forecast.tolerance])


def plane(forecast: ForecastRecord, other: SplitName, shapes: Mapping[str, str], costs: tuple[float, float]) -> Figure:
    """Return predicted KLoM above the floor, forget against another split, one line a run from the pretrained models.

    Args:
        forecast: Of one forget set.
        other: The split on the horizontal axis, `validation` or `retain`.
        shapes: Marker shape of each method.
        costs: Ends of the colour scale.

    Returns:
        A plotly figure (`data`, `layout`) and `ranges` of both axes for the log and the linear scale.
    """
    x_axis, y_axis = _axis(forecast, other), _axis(forecast, "forget")
    layout = base_layout(
        f"predicted KLoM above the floor, {other} (nats)",
        "predicted KLoM above the floor, forget (nats)",
        f"plane-{other}",
    )
    log_axis(layout["xaxis"], x_axis)
    log_axis(layout["yaxis"], y_axis)
    box = {"type": "rect", "layer": "below", "line": {"width": 0}, "fillcolor": "var(--target)"}
    layout["shapes"] = [{**box, "x0": 1e-9, "x1": forecast.tolerance, "y0": 1e-9, "y1": forecast.tolerance}]
    low, high = math.log10(costs[0]), math.log10(costs[1])
    start = (x_axis.place(forecast.nothing.excess[other]), y_axis.place(forecast.nothing.excess["forget"]))
    data: list[dict[str, Any]] = []
    position = 0
    for method in forecast.methods:
        key = method_key(method)
        places = {(p.run, p.epoch): position + i for i, p in enumerate(method.path)}
        position += len(method.path)
        for run, path in runs_of(method).items():
            x = [x_axis.place(p.excess[other]) for p in path]
            y = [y_axis.place(p.excess["forget"]) for p in path]
            meta = {"method": key}
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": html.escape(run),
                    "meta": meta,
                    "x": [start[0], *x],
                    "y": [start[1], *y],
                    "line": {"color": "var(--rule)", "width": 1},
                    "hoverinfo": "skip",
                }
            )
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": html.escape(method.label),
                    "meta": meta,
                    "x": x,
                    "y": y,
                    "marker": {
                        "symbol": shapes.get(key, "square"),
                        "size": 7,
                        "color": [short(math.log10(min(max(p.cost, costs[0]), costs[1]))) for p in path],
                        "cmin": short(low),
                        "cmax": short(high),
                        "colorscale": COST_SCALE,
                        "opacity": 0.9,
                        "line": {"width": 0.6, "color": "var(--edge)"},
                    },
                    "customdata": [places[p.run, p.epoch] for p in path],
                    "hovertemplate": HOVER,
                }
            )
    data += _best(forecast, other, x_axis, y_axis)
    data.append(_landmark("pretrained, nothing done", "circle", start, forecast.nothing, other))
    oracle = (x_axis.low, y_axis.low)
    data.append({**_landmark("predicted oracle", "star", oracle, None, other), "meta": {"origin": True}})
    ranges = {"xaxis": _ranges(x_axis), "yaxis": _ranges(y_axis)}
    return {"data": data, "layout": layout, "ranges": ranges}


def _ranges(axis: Axis) -> dict[str, list[float]]:
    """Return the ranges of an axis whose linear scale shows a little below 0, where the predicted oracle is."""
    found = axis.ranges()
    return {**found, "linear": [-0.035 * axis.off, found["linear"][1]]}


def _best(forecast: ForecastRecord, other: SplitName, x_axis: Axis, y_axis: Axis) -> list[dict[str, Any]]:
    own = [m for m in forecast.methods if m.best.run != forecast.nothing.run]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "predicted best of the method",
            "meta": {"method": method_key(method)},
            "x": [x_axis.place(method.best.excess[other])],
            "y": [y_axis.place(method.best.excess["forget"])],
            "marker": {
                "symbol": "circle-open",
                "size": 15,
                "color": "var(--chosen)",
                "line": {"width": 2.2, "color": "var(--chosen)"},
            },
            "hoverinfo": "skip",
        }
        for method in own
    ]


def _landmark(
    name: str, symbol: str, at: tuple[float, float], point: PathPoint | None, other: SplitName
) -> dict[str, Any]:
    filled = symbol == "star"
    colour = "var(--oracle)" if filled else "var(--pretrained)"
    text = f"<b>{name}</b>"
    if point is not None:
        text += f"<br>forget {numbers.number(point.excess['forget'])}<br>{other} {numbers.number(point.excess[other])}"
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [at[0]],
        "y": [at[1]],
        "marker": {
            "symbol": symbol,
            "size": 17 if filled else 14,
            "color": colour if filled else "var(--card)",
            "line": {"width": 1 if filled else 2.4, "color": "var(--card)" if filled else colour},
        },
        "customdata": [[text]],
        "hovertemplate": "%{customdata[0]}<extra></extra>",
        "cliponaxis": False,
    }


def over_time(forecast: ForecastRecord, split: SplitName) -> Figure:
    """Return predicted KLoM above the floor over unlearning time, one line a run, all methods.

    Lines are coloured by their place in the grid of the method; each trace's `meta.method` lets the page show one
    method at a time.
    """
    axis = _axis(forecast, "forget", "validation")
    layout = base_layout("epochs of unlearning", f"predicted KLoM above the floor, {split} (nats)", f"time-{split}")
    epoch_axis(layout["xaxis"], max((p.epoch for method in forecast.methods for p in method.path), default=0))
    log_axis(layout["yaxis"], axis)
    level = axis.place(forecast.nothing.excess[split])
    layout["shapes"] = [
        {
            "type": "rect",
            "layer": "below",
            "line": {"width": 0},
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": 1e-9,
            "y1": forecast.tolerance,
            "fillcolor": "var(--target)",
        },
        {
            "type": "line",
            "layer": "below",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": level,
            "y1": level,
            "line": {"color": "var(--pretrained)", "width": 1.4, "dash": "dash"},
            "label": {
                "text": "pretrained",
                "textposition": "end",
                "font": {"color": "var(--pretrained)", "size": 11},
            },
        },
    ]
    data: list[dict[str, Any]] = []
    position = 0
    for method in forecast.methods:
        places = {(p.run, p.epoch): position + i for i, p in enumerate(method.path)}
        position += len(method.path)
        for (run, path), place in zip(runs_of(method).items(), grid_places(method), strict=True):
            words: list[int | list[str]] = [["<b>pretrained</b>", "epoch 0", "", ""]]
            words += [places[p.run, p.epoch] for p in path]
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": html.escape(run),
                    "meta": {"method": method_key(method)},
                    "x": [0, *(p.epoch for p in path)],
                    "y": [level, *(axis.place(p.excess[split]) for p in path)],
                    "line": {"color": f"cost({place})", "width": 1.6},
                    "marker": {"size": 4.5, "color": f"cost({place})"},
                    "opacity": 0.85,
                    "customdata": words,
                    "hovertemplate": HOVER,
                }
            )
    return {"data": data, "layout": layout, "ranges": {"yaxis": _ranges(axis)}}


def grid_places(method: MethodForecast) -> list[float]:
    """Return the place of each run on the colour scale, 0 to 1, in the order of the grid."""
    number = len(runs_of(method))
    return [round(i / max(number - 1, 1), 3) for i in range(number)]


def grid_legend(method: MethodForecast) -> list[tuple[str, str]]:
    """Return (CSS colour, settings in words) for the lines of a method."""
    return [
        (scale_colour(place), settings_of(run) or "no options")
        for run, place in zip(runs_of(method), grid_places(method), strict=True)
    ]


def scale_colour(place: float) -> str:
    """Return the CSS colour at a place on the scale, 0 to 1."""
    step = min(int(4 * place), 3)
    share = round(100 * (1 - (4 * place - step)), 1)
    return f"color-mix(in srgb, var(--cost-{step}) {share}%, var(--cost-{step + 1}))"


def changes(margins: Mapping[str, np.ndarray[Any, Any]], split: SplitName) -> np.ndarray[Any, Any] | None:
    """Return the predicted change of each example's margin by retraining, mean over members, (examples,)."""
    before, after = margins.get(f"pretrained/{split}"), margins.get(f"predicted/{split}")
    if before is None or after is None:
        return None
    return np.asarray((after.astype(np.float64) - before).mean(0))


def change_histogram(margins: Mapping[str, np.ndarray[Any, Any]]) -> Figure | None:
    """Return how many examples of each split are predicted to change by how much when the models are retrained.

    Args:
        margins: Arrays of a forecast by `<who>/<split>`.
    """
    found = {split: value for split in SPLITS if (value := changes(margins, split)) is not None}
    if not found:
        return None
    reach = max([1e-6, *(float(np.percentile(np.abs(value), CHANGE_REACH)) for value in found.values())])
    edges = np.linspace(-reach, reach, CHANGE_BINS + 1)
    layout = base_layout("predicted change of the margin, mean over members", "share of examples", "change")
    layout.update(showlegend=True, barmode="overlay", bargap=0.06)
    layout["legend"] = {"x": 0.01, "y": 0.99, "bgcolor": "rgba(0,0,0,0)"}
    layout["yaxis"]["tickformat"] = ".0%"
    layout["shapes"] = [
        {
            "type": "line",
            "layer": "below",
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "x0": 0,
            "x1": 0,
            "line": {"color": "var(--quiet)", "width": 1.2, "dash": "dot"},
        }
    ]
    colours = {"forget": "var(--best)", "retain": "var(--histogram)", "validation": "var(--pretrained)"}
    middle = (edges[:-1] + edges[1:]) / 2
    data = []
    for split in ("retain", "validation", "forget"):
        if split not in found:
            continue
        value = found[split]
        shares = np.histogram(value.clip(edges[0], edges[-1]), bins=edges)[0] / len(value)
        data.append(
            {
                "type": "bar",
                "name": f"{split} ({len(value)} examples)",
                "x": [short(float(at)) for at in middle],
                "y": [short(float(share)) for share in shares],
                "width": short(float(edges[1] - edges[0])),
                "marker": {"color": colours[split], "line": {"width": 0}},
                "opacity": 0.62 if split != "forget" else 0.78,
                "customdata": [[f"{split}: {share:.0%} of the examples"] for share in shares],
                "hovertemplate": "%{customdata[0]}<extra></extra>",
            }
        )
    return {"data": data, "layout": layout, "ranges": {}}
