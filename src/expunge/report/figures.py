"""The report's figures, as data: plotly figures for what a reader explores, SVG paths for the margin histograms.

All text that came from a person is escaped here, because plotly reads a small subset of HTML in labels.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from expunge.core.record import SPLITS, ConfigurationRecord, ForgetRecord, SplitName
from expunge.core.result import Result
from expunge.report import marks, numbers, wording
from expunge.report.axes import Axis, Figure, base_layout, epoch_axis, log_axis, short, wrap

Floats = np.ndarray[Any, np.dtype[np.float64]]


def symbols(forget_sets: Iterable[ForgetRecord]) -> dict[str, str]:
    """Return a marker shape for each method, the same in all figures of a page."""
    return marks.symbols(c.method for forget in forget_sets for c in forget.configurations)


def cost_range(forget_sets: Iterable[ForgetRecord]) -> marks.Costs:
    """Return the ends of the colour scale of cost."""
    return marks.cost_range(c.cost for forget in forget_sets for c in forget.configurations)


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
    at = _positions(forget)
    size = 8 if len(forget.configurations) < 700 else 6.5
    data: list[marks.Trace] = []
    for row in wording.rows(forget):
        own = [
            c for c in forget.configurations if c.method == row.method and other in c.scores and "forget" in c.scores
        ]
        if not own:
            continue
        x, y = _at(own, other, x_axis), _at(own, "forget", y_axis)
        look = {"symbol": shapes.get(row.method, "square"), "size": size, "opacity": 0.85}
        texts = [at[c.id] for c in own]
        made = marks.dots(html.escape(row.label), x, y, texts, **look, **marks.by_cost([c.cost for c in own], costs))
        data.append({**made, "meta": {"method": row.method}})
    data += _rings(forget, other, x_axis, y_axis)
    data += _landmarks(forget, other, x_axis, y_axis)
    return {"data": data, "layout": layout, "ranges": {"xaxis": x_axis.ranges(), "yaxis": y_axis.ranges()}}


def _at(own: Iterable[ConfigurationRecord], split: SplitName, axis: Axis) -> list[float]:
    return [axis.place(c.scores[split].value) for c in own]


def _target(floor_x: Result, floor_y: Result, tolerance: float) -> list[dict[str, Any]]:
    """Return the floor as two crossing bands (its interval) and the region within the tolerance of both floors."""
    return [
        marks.target(short(floor_y.value + tolerance), short(floor_x.value + tolerance)),
        marks.band("var(--floor)", y=marks.visible(floor_y.floor_low, floor_y.floor_high)),
        marks.band("var(--floor)", x=marks.visible(floor_x.floor_low, floor_x.floor_high)),
    ]


def _rings(forget: ForgetRecord, other: SplitName, x_axis: Axis, y_axis: Axis) -> list[marks.Trace]:
    by_id = {c.id: c for c in forget.configurations}

    def ring(ids: Iterable[str], words: str, **look: Any) -> marks.Trace:
        found = [by_id[i] for i in ids if i in by_id and {other, "forget"} <= by_id[i].scores.keys()]
        meta = {"methods": [c.method for c in found]}
        return marks.ring(words, _at(found, other, x_axis), _at(found, "forget", y_axis), meta, **look)

    return [
        ring([s.best for s in forget.selections], "best of grid (biased)", size=21, colour="var(--best)", width=1.6),
        ring([s.chosen for s in forget.selections], "chosen"),
    ]


def _landmarks(forget: ForgetRecord, other: SplitName, x_axis: Axis, y_axis: Axis) -> list[marks.Trace]:
    found = []
    for table, name in (
        (forget.pretrained, "pretrained, nothing done"),
        (forget.floor, "oracle (held-out, retrained)"),
    ):
        x, y = table.get(other), table.get("forget")
        if x is None or y is None:
            continue
        text = (
            f"<br>forget {numbers.number(y.value)} ({numbers.interval(y)})"
            f"<br>{other} {numbers.number(x.value)} ({numbers.interval(x)})"
        )
        place = (x_axis.place(x.value), y_axis.place(y.value))
        found.append(marks.landmark(name, *place, text, oracle=table is forget.floor))
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
        layout["shapes"] += [
            marks.target(short(floor.value + tolerance)),
            marks.band("var(--floor)", y=marks.visible(floor.floor_low, floor.floor_high)),
        ]
    if start:
        layout["shapes"].append(marks.pretrained_level(axis.place(start.value)))
    data: list[marks.Trace] = []
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
            y = _at(run, split, axis)
            words: list[int | list[str]] = [at[c.id] for c in run]
            if start:
                x, y = [0, *x], [axis.place(start.value), *y]
                words = [marks.START, *words]
            data.append(marks.run_line(html.escape(run[0].run), method, x, y, words, colour))
        data += [
            marks.ring("chosen", [c.epoch], _at([c], split, axis), {"method": method}) for c in own if c.id in chosen
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
    return dict(zip(rates, marks.grid_places(len(rates)), strict=True))


def rate_legend(forget: ForgetRecord, method: str) -> list[tuple[str, str]]:
    """Return (CSS colour, rate in words) for the lines of a method, from the smallest rate to the largest."""
    own = [c for c in forget.configurations if c.method == method]
    relative = any("relative_lr" in c.options for c in own)
    unit = " of peak" if relative else ""
    return [(marks.scale_colour(place), f"{rate:.3g}{unit}") for rate, place in _rate_places(own).items()]


def against_public(forget: ForgetRecord, shapes: Mapping[str, str]) -> Figure:
    """Return our KLoM(forget) against the published `easydub` variant, coloured by verdict."""
    own = [c for c in forget.configurations if "forget" in c.public and "forget" in c.scores]
    y_axis = Axis.over(_values(forget, "forget"))
    x_axis = Axis.over([*(c.public["forget"] for c in own), *forget.floor_public.values()])
    layout = base_layout("public variant, KLoM on forget (nats)", "this report, KLoM on forget (nats)", "public")
    log_axis(layout["xaxis"], x_axis)
    log_axis(layout["yaxis"], y_axis)
    layout["shapes"] = []
    data: list[marks.Trace] = []
    if "forget" in forget.floor_public:
        at = x_axis.place(forget.floor_public["forget"])
        layout["shapes"].append(marks.guide("var(--quiet)", x=at))
        data.append(marks.text_at("public floor", at, y_axis.low * 1.08, "middle right"))
    if "forget" in forget.floor:
        at = y_axis.place(forget.floor["forget"].value)
        layout["shapes"].append(marks.guide("var(--quiet)", y=at))
        data.append(marks.text_at("floor of this report", x_axis.off, at, "top left"))
    positions = _positions(forget)
    for verdict in wording.VERDICTS:
        group = [c for c in own if c.verdict.name == verdict]
        if group:
            x = [x_axis.place(c.public["forget"]) for c in group]
            look = {"symbol": [shapes.get(c.method, "square") for c in group], "color": f"var(--{verdict})"}
            texts = [positions[c.id] for c in group]
            y = _at(group, "forget", y_axis)
            data.append(marks.dots(verdict, x, y, texts, size=7.5, opacity=0.85, **look))
    layout.update(
        showlegend=True,
        legend=marks.LEGEND_BELOW,
        margin={"l": 56, "r": 14, "t": 30, "b": 90},
    )
    return {"data": data, "layout": layout, "ranges": {"xaxis": x_axis.ranges(), "yaxis": y_axis.ranges()}}
