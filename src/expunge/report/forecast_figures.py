"""The figures of a forecast, as data: where each method is predicted to go, over time, and what retraining changes.

All text that came from a person is escaped here, because plotly reads a small subset of HTML in labels.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from expunge.core.forecast import ForecastRecord, MethodForecast, PathPoint, settings_of
from expunge.core.schema import SPLITS, SplitName
from expunge.report import marks, numbers
from expunge.report.axes import Axis, Figure, base_layout, epoch_axis, log_axis, short, wrap

CHANGE_BINS = 30
"""Bins of the histogram of predicted changes."""

CHANGE_REACH = 99.0
"""Percentile of the changes that the histogram reaches; the few beyond are in the last bin."""


def method_key(method: MethodForecast) -> str:
    """Return a name that tells a method from its control with the same name."""
    return f"{method.method}, control" if method.control else method.method


def symbols(forecasts: Iterable[ForecastRecord]) -> dict[str, str]:
    """Return a marker shape for each method, the same in all figures of a page."""
    return marks.symbols(method_key(method) for forecast in forecasts for method in forecast.methods)


def cost_range(forecasts: Iterable[ForecastRecord]) -> marks.Costs:
    """Return the ends of the colour scale of cost."""
    return marks.cost_range(p.cost for f in forecasts for method in f.methods for p in method.path)


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
    layout["shapes"] = [marks.target(forecast.tolerance, forecast.tolerance)]
    nothing = forecast.nothing.excess
    start = (x_axis.place(nothing[other]), y_axis.place(nothing["forget"]))
    data: list[marks.Trace] = []
    for method, run, path, positions in _runs(forecast):
        x = [x_axis.place(p.excess[other]) for p in path]
        y = [y_axis.place(p.excess["forget"]) for p in path]
        line = {"color": "var(--rule)", "width": 1}
        data.append(marks.trace(html.escape(run), [start[0], *x], [start[1], *y], "lines", line=line))
        look = {"symbol": shapes.get(method_key(method), "square"), "size": 7, "opacity": 0.9}
        colours = marks.by_cost([p.cost for p in path], costs)
        data.append(marks.dots(html.escape(method.label), x, y, positions, **look, **colours))
        for made in data[-2:]:
            made["meta"] = {"method": method_key(method)}
    for method in forecast.methods:
        if method.best.run != forecast.nothing.run:
            best = method.best.excess
            at = ([x_axis.place(best[other])], [y_axis.place(best["forget"])])
            data.append(marks.ring("predicted best of the method", *at, {"method": method_key(method)}))
    text = f"<br>forget {numbers.number(nothing['forget'])}<br>{other} {numbers.number(nothing[other])}"
    pretrained = marks.landmark("pretrained, nothing done", *start, text, oracle=False)
    oracle = marks.landmark("predicted oracle", x_axis.low, y_axis.low, "", oracle=True)
    data += [{**pretrained, "cliponaxis": False}, {**oracle, "cliponaxis": False, "meta": {"origin": True}}]
    ranges = {"xaxis": marks.below_zero(x_axis), "yaxis": marks.below_zero(y_axis)}
    return {"data": data, "layout": layout, "ranges": ranges}


def _runs(forecast: ForecastRecord) -> Iterator[tuple[MethodForecast, str, list[PathPoint], list[int]]]:
    """Yield method, run, its points in order of time, and their positions in what `hover` returns."""
    before = 0
    for method in forecast.methods:
        positions = {(p.run, p.epoch): before + i for i, p in enumerate(method.path)}
        before += len(method.path)
        for run, path in runs_of(method).items():
            yield method, run, path, [positions[p.run, p.epoch] for p in path]


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
    layout["shapes"] = [marks.target(forecast.tolerance), marks.pretrained_level(level)]
    places = (place for method in forecast.methods for place in marks.grid_places(len(runs_of(method))))
    data = [
        marks.run_line(
            html.escape(run),
            method_key(method),
            [0, *(p.epoch for p in path)],
            [level, *(axis.place(p.excess[split]) for p in path)],
            [marks.START, *positions],
            f"cost({place})",
        )
        for (method, run, path, positions), place in zip(_runs(forecast), places, strict=True)
    ]
    return {"data": data, "layout": layout, "ranges": {"yaxis": marks.below_zero(axis)}}


def grid_legend(method: MethodForecast) -> list[tuple[str, str]]:
    """Return (CSS colour, settings in words) for the lines of a method."""
    runs = runs_of(method)
    return [
        (marks.scale_colour(place), settings_of(run) or "no options")
        for run, place in zip(runs, marks.grid_places(len(runs)), strict=True)
    ]


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
    layout["legend"] = marks.LEGEND_INSIDE
    layout["yaxis"]["tickformat"] = ".0%"
    layout["shapes"] = [marks.guide("var(--quiet)", x=0, width=1.2)]
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
