"""The report's figures, as data: plotly figures for what a reader explores, SVG paths for the margin histograms.

All text that came from a person is escaped here, because plotly reads a small subset of HTML in labels.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from expunge.core.record import SPLITS, ConfigurationRecord, ForgetRecord, SelectionRecord, SplitName
from expunge.core.score import Score
from expunge.report import numbers, wording
from expunge.report.axes import COST_SCALE, HOVER, SYMBOLS, Axis, Figure, base_layout, epoch_axis, log_axis, short, wrap

Floats = np.ndarray[Any, np.dtype[np.float64]]


def symbols(forget_sets: Iterable[ForgetRecord]) -> dict[str, str]:
    """Return a marker shape for each method, the same in all figures of a page."""
    methods = dict.fromkeys(c.method for forget in forget_sets for c in forget.configurations)
    return {method: SYMBOLS[i % len(SYMBOLS)] for i, method in enumerate(methods)}


def cost_range(forget_sets: Iterable[ForgetRecord]) -> tuple[float, float]:
    """Return the smallest and largest positive cost of a record, the ends of the colour scale."""
    costs = [c.cost for forget in forget_sets for c in forget.configurations if 0 < c.cost < math.inf]
    low, high = (min(costs), max(costs)) if costs else (0.01, 1.0)
    return (low, high) if high > low else (low / 2, high * 2)


def _values(forget: ForgetRecord, split: SplitName) -> list[float]:
    scores = [c.scores[split].value for c in forget.configurations if split in c.scores]
    for table in (forget.pretrained, forget.floor):
        if split in table:
            scores += [table[split].value, table[split].floor_high]
    return scores


def hover(forget: ForgetRecord) -> list[list[str]]:
    """Return what each configuration says when a reader points at it, in the order of the record.

    Figures refer to these by position (`customdata`), so that a page holds each text once.
    """
    keys = {
        method: wording.varying([c for c in forget.configurations if c.method == method])
        for method in dict.fromkeys(c.method for c in forget.configurations)
    }
    return [_hover(c, keys[c.method]) for c in forget.configurations]


def _positions(forget: ForgetRecord) -> dict[str, int]:
    return {c.id: i for i, c in enumerate(forget.configurations)}


def _hover(c: ConfigurationRecord, keys: Sequence[str]) -> list[str]:
    scores = "<br>".join(
        f"{split} {numbers.number(c.scores[split].value)} ({numbers.interval(c.scores[split])})"
        + (f", public {numbers.number(c.public[split])}" if split in c.public else "")
        for split in SPLITS
        if split in c.scores
    )
    options = wording.options_text(c.options, keys) or "no options"
    failed = f"<br>{numbers.count(c.failed, 'member')} failed" if c.failed else ""
    wrong = [check.name for check in c.checks if not check.passed]
    checks = f"<br>failed check: {html.escape(', '.join(wrong))}" if wrong else ""
    return [
        f"<b>{html.escape(c.label)}</b>, epoch {c.epoch}",
        wrap(f"{options}; statistics {c.statistics}"),
        f"{c.verdict.name}; cost {numbers.percent(c.cost)} of retraining{failed}{checks}",
        scores,
    ]


def plane(
    forget: ForgetRecord,
    other: SplitName,
    shapes: Mapping[str, str],
    costs: tuple[float, float],
    tolerance: float,
) -> Figure:
    """Return KLoM(forget) against KLoM of another split, one dot a configuration (figures 1, 3, 6, 7 of the paper).

    Args:
        forget: What was found about one forget set.
        other: The split on the horizontal axis, `validation` or `retain`.
        shapes: Marker shape of each method.
        costs: Ends of the colour scale.
        tolerance: Largest excess over the floor that still counts as the same, in nats.

    Returns:
        A plotly figure (`data`, `layout`) and `ranges` of both axes for the log and the linear scale.
    """
    x_axis, y_axis = Axis.over(_values(forget, other)), Axis.over(_values(forget, "forget"))
    layout = base_layout(
        f"KLoM on {other} (nats, 95th percentile)", "KLoM on forget (nats, 95th percentile)", f"plane-{other}"
    )
    log_axis(layout["xaxis"], x_axis)
    log_axis(layout["yaxis"], y_axis)
    layout["shapes"] = []
    floor_x, floor_y = forget.floor.get(other), forget.floor.get("forget")
    if floor_x and floor_y:
        layout["shapes"] = _target(floor_x, floor_y, tolerance)
    low, high = math.log10(costs[0]), math.log10(costs[1])
    at = _positions(forget)
    data: list[dict[str, Any]] = []
    for row in wording.rows(forget):
        own = [
            c for c in forget.configurations if c.method == row.method and other in c.scores and "forget" in c.scores
        ]
        if not own:
            continue
        colours = [short(math.log10(min(max(c.cost, costs[0]), costs[1]))) if c.cost == c.cost else low for c in own]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": html.escape(row.label),
                "meta": {"method": row.method},
                "x": [x_axis.place(c.scores[other].value) for c in own],
                "y": [y_axis.place(c.scores["forget"].value) for c in own],
                "marker": {
                    "symbol": shapes.get(row.method, "square"),
                    "size": 8 if len(forget.configurations) < 700 else 6.5,
                    "color": colours,
                    "cmin": short(low),
                    "cmax": short(high),
                    "colorscale": COST_SCALE,
                    "opacity": 0.85,
                    "line": {"width": 0.6, "color": "var(--edge)"},
                },
                "customdata": [at[c.id] for c in own],
                "hovertemplate": HOVER,
            }
        )
    data += _rings(forget, other, x_axis, y_axis)
    data += _landmarks(forget, other, x_axis, y_axis)
    return {"data": data, "layout": layout, "ranges": {"xaxis": x_axis.ranges(), "yaxis": y_axis.ranges()}}


def _target(floor_x: Score, floor_y: Score, tolerance: float) -> list[dict[str, Any]]:
    """Return the floor as two crossing bands (its interval) and the region within the tolerance of both floors."""
    tiny = 1e-9
    flat = {"type": "rect", "layer": "below", "line": {"width": 0}}
    return [
        {
            **flat,
            "x0": tiny,
            "x1": short(floor_x.value + tolerance),
            "y0": tiny,
            "y1": short(floor_y.value + tolerance),
            "fillcolor": "var(--target)",
        },
        {
            **flat,
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": short(max(floor_y.floor_low, tiny)),
            "y1": short(max(floor_y.floor_high, tiny)),
            "fillcolor": "var(--floor)",
        },
        {
            **flat,
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "x0": short(max(floor_x.floor_low, tiny)),
            "x1": short(max(floor_x.floor_high, tiny)),
            "fillcolor": "var(--floor)",
        },
    ]


def _rings(forget: ForgetRecord, other: SplitName, x_axis: Axis, y_axis: Axis) -> list[dict[str, Any]]:
    by_id = {c.id: c for c in forget.configurations}

    def ring(
        ids: Sequence[tuple[str, SelectionRecord]], size: int, colour: str, width: float, words: str
    ) -> dict[str, Any]:
        found = [
            (by_id[i], s) for i, s in ids if i in by_id and other in by_id[i].scores and "forget" in by_id[i].scores
        ]
        return {
            "type": "scatter",
            "mode": "markers",
            "name": words,
            "meta": {"methods": [c.method for c, _ in found]},
            "x": [x_axis.place(c.scores[other].value) for c, _ in found],
            "y": [y_axis.place(c.scores["forget"].value) for c, _ in found],
            "marker": {
                "symbol": "circle-open",
                "size": size,
                "color": colour,
                "line": {"width": width, "color": colour},
            },
            "hoverinfo": "skip",
        }

    return [
        ring([(s.best, s) for s in forget.selections], 21, "var(--best)", 1.6, "best of grid (biased)"),
        ring([(s.chosen, s) for s in forget.selections], 15, "var(--chosen)", 2.2, "chosen"),
    ]


def _landmarks(forget: ForgetRecord, other: SplitName, x_axis: Axis, y_axis: Axis) -> list[dict[str, Any]]:
    found = []
    for table, name, symbol, size, colour in (
        (forget.pretrained, "pretrained, nothing done", "circle", 14, "var(--pretrained)"),
        (forget.floor, "oracle (held-out, retrained)", "star", 17, "var(--oracle)"),
    ):
        x, y = table.get(other), table.get("forget")
        if x is None or y is None:
            continue
        text = (
            f"<b>{name}</b><br>forget {numbers.number(y.value)} ({numbers.interval(y)})"
            f"<br>{other} {numbers.number(x.value)} ({numbers.interval(x)})"
        )
        found.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [x_axis.place(x.value)],
                "y": [y_axis.place(y.value)],
                "marker": {
                    "symbol": symbol,
                    "size": size,
                    "color": "var(--card)" if symbol == "circle" else colour,
                    "line": {
                        "width": 2.4 if symbol == "circle" else 1,
                        "color": colour if symbol == "circle" else "var(--card)",
                    },
                },
                "customdata": [[text]],
                "hovertemplate": "%{customdata[0]}<extra></extra>",
            }
        )
    return found


def over_time(forget: ForgetRecord, split: SplitName, tolerance: float) -> Figure:
    """Return KLoM over unlearning time, one line a run, all methods (figure 2 of the paper).

    Every run starts at epoch 0 with the pretrained models; those that do not, such as retraining, are left out. Lines
    are coloured by the learning rate (log scale within a method; grey where a method has none). Each trace's
    `meta.method` lets the page show one method at a time.
    """
    axis = Axis.over([*_values(forget, "forget"), *_values(forget, "validation")])
    layout = base_layout("epochs of unlearning", f"KLoM on {split} (nats, 95th percentile)", f"time-{split}")
    moving = [c for c in forget.configurations if wording.starts_pretrained(c)]
    epoch_axis(layout["xaxis"], max((c.epoch for c in moving), default=0))
    log_axis(layout["yaxis"], axis)
    layout["shapes"] = []
    floor, start = forget.floor.get(split), forget.pretrained.get(split)
    if floor:
        flat = {"type": "rect", "layer": "below", "line": {"width": 0}, "xref": "paper", "x0": 0, "x1": 1}
        top = short(floor.value + tolerance)
        layout["shapes"] += [
            {**flat, "y0": 1e-9, "y1": top, "fillcolor": "var(--target)"},
            {
                **flat,
                "y0": short(max(floor.floor_low, 1e-9)),
                "y1": short(max(floor.floor_high, 1e-9)),
                "fillcolor": "var(--floor)",
            },
        ]
    if start:
        level = axis.place(start.value)
        layout["shapes"].append(
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
            }
        )
    data: list[dict[str, Any]] = []
    chosen = {s.chosen for s in forget.selections}
    at = _positions(forget)
    for method in dict.fromkeys(c.method for c in moving):
        own = [c for c in moving if c.method == method and split in c.scores]
        rates = _rate_places(own)
        runs: dict[str, list[ConfigurationRecord]] = {}
        for c in own:
            runs.setdefault(c.run, []).append(c)
        for run in runs.values():
            run.sort(key=lambda c: c.epoch)
            rate = _rate(run[0])
            colour = "var(--quiet)" if rate is None else f"cost({rates[rate]})"
            x: list[float] = [c.epoch for c in run]
            y = [axis.place(c.scores[split].value) for c in run]
            words: list[int | list[str]] = [at[c.id] for c in run]
            if start:
                x, y = [0, *x], [axis.place(start.value), *y]
                words = [["<b>pretrained</b>", "epoch 0", "", ""], *words]
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": html.escape(run[0].run),
                    "meta": {"method": method},
                    "x": x,
                    "y": y,
                    "line": {"color": colour, "width": 1.6},
                    "marker": {"size": 4.5, "color": colour},
                    "opacity": 0.85,
                    "customdata": words,
                    "hovertemplate": HOVER,
                }
            )
        data += [
            {
                "type": "scatter",
                "mode": "markers",
                "name": "chosen",
                "meta": {"method": method},
                "x": [c.epoch],
                "y": [axis.place(c.scores[split].value)],
                "marker": {
                    "symbol": "circle-open",
                    "size": 15,
                    "color": "var(--chosen)",
                    "line": {"width": 2.2, "color": "var(--chosen)"},
                },
                "hoverinfo": "skip",
            }
            for c in own
            if c.id in chosen
        ]
    return {"data": data, "layout": layout, "ranges": {"yaxis": axis.ranges()}}


def _rate(c: ConfigurationRecord) -> float | None:
    for key in ("relative_lr", "lr"):
        rate = c.options.get(key)
        if isinstance(rate, int | float) and not isinstance(rate, bool) and 0 < rate < math.inf:
            return float(rate)
    return None


def _rate_places(own: Sequence[ConfigurationRecord]) -> dict[float, float]:
    """Return each rate's place on the colour scale, 0 to 1, by rank: grids of rates are seldom evenly spaced."""
    rates = sorted({rate for c in own if (rate := _rate(c)) is not None})
    return {rate: round(i / max(len(rates) - 1, 1), 3) for i, rate in enumerate(rates)}


def rate_legend(forget: ForgetRecord, method: str) -> list[tuple[str, str]]:
    """Return (CSS colour, rate in words) for the lines of a method, from the smallest rate to the largest."""
    own = [c for c in forget.configurations if c.method == method]
    relative = any("relative_lr" in c.options for c in own)
    found = []
    for rate, place in _rate_places(own).items():
        step = min(int(4 * place), 3)
        share = round(100 * (1 - (4 * place - step)), 1)
        colour = f"color-mix(in srgb, var(--cost-{step}) {share}%, var(--cost-{step + 1}))"
        found.append((colour, f"{rate:.3g}{' of peak' if relative else ''}"))
    return found


def against_public(forget: ForgetRecord, shapes: Mapping[str, str]) -> Figure:
    """Return our KLoM(forget) against the published `easydub` variant, coloured by verdict."""
    own = [c for c in forget.configurations if "forget" in c.public and "forget" in c.scores]
    y_axis = Axis.over(_values(forget, "forget"))
    x_axis = Axis.over([*(c.public["forget"] for c in own), *forget.floor_public.values()])
    layout = base_layout("public variant, KLoM on forget (nats)", "this report, KLoM on forget (nats)", "public")
    log_axis(layout["xaxis"], x_axis)
    log_axis(layout["yaxis"], y_axis)
    layout["shapes"] = []
    line = {"type": "line", "layer": "below", "line": {"color": "var(--quiet)", "width": 1.4, "dash": "dot"}}
    data: list[dict[str, Any]] = []
    if "forget" in forget.floor_public:
        at = x_axis.place(forget.floor_public["forget"])
        layout["shapes"].append({**line, "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1})
        data.append(_label("public floor", at, y_axis.low * 1.08, "middle right"))
    if "forget" in forget.floor:
        at = y_axis.place(forget.floor["forget"].value)
        layout["shapes"].append({**line, "y0": at, "y1": at, "xref": "paper", "x0": 0, "x1": 1})
        data.append(_label("floor of this report", x_axis.off, at, "top left"))
    positions = _positions(forget)
    for verdict in wording.VERDICTS:
        group = [c for c in own if c.verdict.name == verdict]
        if group:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": verdict,
                    "x": [x_axis.place(c.public["forget"]) for c in group],
                    "y": [y_axis.place(c.scores["forget"].value) for c in group],
                    "marker": {
                        "symbol": [shapes.get(c.method, "square") for c in group],
                        "size": 7.5,
                        "color": f"var(--{verdict})",
                        "opacity": 0.85,
                        "line": {"width": 0.6, "color": "var(--edge)"},
                    },
                    "customdata": [positions[c.id] for c in group],
                    "hovertemplate": HOVER,
                }
            )
    layout.update(
        showlegend=True,
        legend={"orientation": "h", "y": -0.16, "yanchor": "top", "x": 0, "font": {"size": 12}},
        margin={"l": 56, "r": 14, "t": 30, "b": 90},
    )
    return {"data": data, "layout": layout, "ranges": {"xaxis": x_axis.ranges(), "yaxis": y_axis.ranges()}}


def _label(text: str, x: float, y: float, position: str) -> dict[str, Any]:
    """Return a label as a trace: unlike a plotly annotation it needs no logarithm when the scale changes."""
    return {
        "type": "scatter",
        "mode": "text",
        "x": [short(x)],
        "y": [short(y)],
        "text": [text],
        "textposition": position,
        "textfont": {"size": 11, "color": "var(--quiet)"},
        "hoverinfo": "skip",
        "showlegend": False,
    }
