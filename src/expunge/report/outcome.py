"""Forecast beside outcome: for every configuration of an audit, what was predicted before any oracle was trained.

A configuration and a predicted point belong together when they have the same run and the same epoch. Compared is the
excess of KLoM over the floor; `objective` is the largest of the three splits, which decides a verdict and a selection.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.core.forecast import Outlook, PathPoint, settings_of
from expunge.core.objective import objective, target_objective
from expunge.core.objective import outlook as expected
from expunge.core.ranks import spearman
from expunge.core.record import SPLITS, ConfigurationRecord, ForgetRecord, SplitName
from expunge.report import marks, numbers
from expunge.report.axes import Axis, Figure, base_layout, log_axis, short

COLOURS = 8
"""Colours of methods in the style sheet, `--method-0` and on."""

FEWEST = 5
"""Pairs below which no rank correlation is written."""


@dataclass(frozen=True)
class Pair:
    """A configuration with its prediction."""

    configuration: ConfigurationRecord
    predicted: PathPoint

    def values(self, split: SplitName | None) -> tuple[float, float]:
        """Return predicted and measured excess on a split, or the worst of the three for None; NaN counts as inf."""
        if split is None:
            both = [self.values(each) for each in SPLITS]
            return max(p for p, _ in both), max(m for _, m in both)
        return _worst(self.predicted.excess[split]), _worst(self.configuration.scores[split].excess)


@dataclass(frozen=True)
class MethodOutcome:
    """What was forecast for a method, and what it did."""

    label: str
    control: bool
    outlook: Outlook
    realised: Outlook
    settings: str
    predicted: float
    """Objective predicted for the setting that the forecast thinks best."""
    there: float | None
    """What that setting measured; None if it was not run."""
    chosen: float | None
    """What the setting chosen on the calibration set measured."""
    best: float
    """Least objective measured over the whole grid: biased, picked with the answer."""


@dataclass(frozen=True)
class Outcome:
    """Forecast and outcome of one forget set."""

    advice: list[str]
    pairs: int
    runs: int
    correlations: list[tuple[str, float | None, float]]
    """(what, Spearman's rank correlation, median absolute difference in nats) over configurations."""
    methods: list[MethodOutcome]
    removal: tuple[float, float, float | None] | None
    """Predicted and measured mean change of forget margins by retraining, and their rank correlation over examples."""
    sentence: str


def outcome(forget: ForgetRecord, margins: Mapping[str, np.ndarray[Any, Any]] | None) -> Outcome | None:
    """Return forecast and outcome of a forget set, or None if it was not forecast.

    Args:
        forget: What was found about one forget set.
        margins: Arrays by `<who>/<split>`, if they have been written.
    """
    if forget.forecast is None:
        return None
    pairs = paired(forget)
    names: list[tuple[str, SplitName | None]] = [("worst of the three", None), *((s, s) for s in SPLITS)]
    correlations = []
    for name, split in names if pairs else []:
        predicted, measured = (np.array(side) for side in zip(*(pair.values(split) for pair in pairs), strict=True))
        finite = np.isfinite(predicted) & np.isfinite(measured)
        apart = float(np.median(np.abs(predicted[finite] - measured[finite]))) if finite.any() else math.nan
        correlations.append((name, _rank_correlation(predicted, measured), apart))
    return Outcome(
        advice=forget.forecast.advice,
        pairs=len(pairs),
        runs=len({pair.configuration.run for pair in pairs}),
        correlations=correlations,
        methods=_methods(forget),
        removal=_removal(margins),
        sentence=outcome_sentence(forget, pairs),
    )


def outcome_sentence(forget: ForgetRecord, pairs: Sequence[Pair] | None = None) -> str:
    """Return in one sentence how the forecast of a forget set fared."""
    pairs = paired(forget) if pairs is None else pairs
    if forget.forecast is None or not pairs:
        return "No configuration has been measured that was forecast."
    predicted, measured = (np.array(side) for side in zip(*(pair.values(None) for pair in pairs), strict=True))
    found = _rank_correlation(predicted, measured)
    runs = numbers.count(len({pair.configuration.run for pair in pairs}), "run")
    methods = [m for m in _methods(forget) if not m.control]
    right = sum(m.outlook == m.realised for m in methods)
    text = f"The outlook came true for {right} of {numbers.count(len(methods), 'method')}" if methods else ""
    if found is None:
        return f"{text}; too few configurations for a rank correlation." if text else "Too few configurations."
    ranks = (
        f"predicted and measured excess over {numbers.count(len(pairs), 'configuration')} of {runs}: rank correlation "
        f"{found:.2f}"
    )
    return f"{text}; {ranks}." if text else f"{ranks[0].upper()}{ranks[1:]}."


def paired(forget: ForgetRecord) -> list[Pair]:
    """Return every configuration that has all its scores and a prediction, in the order of the record."""
    if forget.forecast is None:
        return []
    points = {(point.run, point.epoch): point for method in forget.forecast.methods for point in method.path}
    return [
        Pair(c, points[c.run, c.epoch])
        for c in forget.configurations
        if (c.run, c.epoch) in points and all(split in c.scores for split in SPLITS)
    ]


def _rank_correlation(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float | None:
    """Return Spearman's rank correlation, or None with fewer than five pairs or a side that does not vary."""
    found = spearman(a, b) if len(a) >= FEWEST else math.nan
    return None if math.isnan(found) else found


def _worst(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _methods(forget: ForgetRecord) -> list[MethodOutcome]:
    assert forget.forecast is not None
    by_place = {(c.run, c.epoch): c for c in forget.configurations}
    by_id = {c.id: c for c in forget.configurations}
    chosen = {s.method: by_id[s.chosen] for s in forget.selections if s.chosen in by_id}
    nothing = objective({split: score.excess for split, score in forget.pretrained.items()})
    found = []
    for method in forget.forecast.methods:
        own = [c for c in forget.configurations if c.method == method.method and c.control == method.control]
        if not own:
            continue
        best = min(target_objective(c) for c in own)
        reaches = any(c.shifts.get("forget", math.inf) <= 0 for c in own)
        there = by_place.get((method.best.run, method.best.epoch))
        idle = method.best.run == forget.forecast.nothing.run
        picked = chosen.get(method.method)
        found.append(
            MethodOutcome(
                label=method.label,
                control=method.control,
                outlook=method.outlook,
                realised=expected(nothing, min(best, nothing), reaches, forget.forecast.tolerance),
                settings="do nothing" if idle else f"{settings_of(method.best.run)}; epoch {method.best.epoch}",
                predicted=method.objective,
                there=nothing if idle else None if there is None else target_objective(there),
                chosen=target_objective(picked) if picked is not None and picked.control == method.control else None,
                best=best,
            )
        )
    return sorted(found, key=lambda m: m.control)


def _changes(margins: Mapping[str, np.ndarray[Any, Any]] | None) -> tuple[Any, Any] | None:
    """Return predicted and measured change of each forget example's mean margin by retraining, each (examples,)."""
    keys = ("pretrained/forget", "forecast/forget", "oracle/forget")
    if margins is None or any(key not in margins for key in keys):
        return None
    before, predicted, after = (np.nanmean(margins[key].astype(np.float64), axis=0) for key in keys)
    return predicted - before, after - before


def _removal(margins: Mapping[str, np.ndarray[Any, Any]] | None) -> tuple[float, float, float | None] | None:
    found = _changes(margins)
    if found is None:
        return None
    return float(found[0].mean()), float(found[1].mean()), _rank_correlation(*found)


def method_colours(forget_sets: Sequence[ForgetRecord]) -> dict[str, str]:
    """Return a colour for each method that was forecast, the same in all figures of a page."""
    names = dict.fromkeys(m.method for f in forget_sets if f.forecast for m in f.forecast.methods)
    return {name: f"var(--method-{i % COLOURS})" for i, name in enumerate(names)}


def configurations_figure(forget: ForgetRecord, colours: Mapping[str, str], shapes: Mapping[str, str]) -> Figure | None:
    """Return measured against predicted objective, one dot a configuration, coloured by method."""
    pairs = paired(forget)
    if not pairs:
        return None
    values = [pair.values(None) for pair in pairs]
    axis = Axis.over([value for both in values for value in both])
    layout = _square("predicted excess over the floor (nats)", "measured excess over the floor (nats)", "outcome", axis)
    positions = {c.id: i for i, c in enumerate(forget.configurations)}
    data: list[dict[str, Any]] = [marks.identity(axis.low, axis.off)]
    for name in dict.fromkeys(pair.configuration.method for pair in pairs):
        own = [(p, v) for p, v in zip(pairs, values, strict=True) if p.configuration.method == name]
        x, y = ([axis.place(both[side]) for _, both in own] for side in (0, 1))
        look = {"symbol": shapes.get(name, "square"), "size": 7.5, "color": colours.get(name, "var(--quiet)")}
        texts = [positions[p.configuration.id] for p, _ in own]
        data.append(marks.dots(html.escape(own[0][0].configuration.label), x, y, texts, **look, opacity=0.8))
    return {"data": data, "layout": layout, "ranges": {"xaxis": axis.ranges(), "yaxis": axis.ranges()}}


def changes_figure(forget: ForgetRecord, margins: Mapping[str, np.ndarray[Any, Any]] | None) -> Figure | None:
    """Return measured against predicted change of each forget example's mean margin by retraining."""
    found = _changes(margins)
    if found is None:
        return None
    low, high = (float(f(np.concatenate(found))) for f in (np.min, np.max))
    pad = 0.06 * (high - low) or 1.0
    layout = base_layout("predicted change of the mean margin", "measured change of the mean margin", "changes")
    for axis in ("xaxis", "yaxis"):
        layout[axis].update(range=[short(low - pad), short(high + pad)])
    texts = [
        [f"<b>forget example, row {row}</b><br>predicted {numbers.signed(p)}<br>measured {numbers.signed(m)}"]
        for row, (p, m) in enumerate(zip(*(side.tolist() for side in found), strict=True))
    ]
    x, y = ([short(float(value)) for value in side] for side in found)
    examples = marks.dots("forget examples", x, y, texts, size=8, color="var(--best)", opacity=0.8)
    data = [marks.identity(low - pad, high + pad), {**examples, "showlegend": False}]
    layout["showlegend"] = True
    layout["legend"] = marks.LEGEND_INSIDE
    return {"data": data, "layout": layout, "ranges": {}}


def _square(x_title: str, y_title: str, name: str, axis: Axis) -> dict[str, Any]:
    layout = base_layout(x_title, y_title, name)
    log_axis(layout["xaxis"], axis)
    log_axis(layout["yaxis"], axis)
    layout.update(
        showlegend=True,
        legend=marks.LEGEND_BELOW,
        margin={"l": 56, "r": 14, "t": 14, "b": 90},
    )
    return layout
