"""App. A, left open in the paper: does the spectral norm of the cross-influence matrix rank where ascent fails?

For each forget set the norm and every other measure of dependence, and the forecast, all from the pretrained models
alone; against what then happened: the best distance that each method reached. With nine sets a rank correlation is
coarse; the proof of forecasts asks the same over 128 smaller ones.
"""

from __future__ import annotations

import math

import numpy as np

from expunge.core.ranks import spearman
from expunge.core.record import ForgetRecord
from expunge.papers.ascent_fails_to_forget.finding import Table
from expunge.papers.ascent_fails_to_forget.reproduction import sets
from expunge.papers.ascent_fails_to_forget.reproduction.context import Context
from expunge.papers.ascent_fails_to_forget.reproduction.item import Found, Item
from expunge.papers.ascent_fails_to_forget.reproduction.reading import reached

NORM = "spectral_retain"
FEWEST = 4
"""Forget sets below which nothing can be ranked."""


def check(context: Context) -> Found:
    """Rank forget sets by every measure, and by the forecast, and hold the ranks against what happened."""
    forgets = {number: forget for number, forget in context.figures().items() if forget.forecast is not None}
    if len(forgets) < FEWEST:
        return Found(
            "not run at this preset",
            [f"{len(forgets)} forget sets have a forecast and an audit, expected at least {FEWEST} to rank."],
        )
    outcomes = _outcomes(list(forgets.values()))
    predictors = _predictors(list(forgets.values()))
    rows: list[list[str | int | float | None]] = []
    for name, values in predictors.items():
        found = [_rank(values, outcome) for outcome in outcomes.values()]
        rows.append([name, *(None if math.isnan(each) else round(each, 2) for each in found)])
    norm = next(row for row in rows if row[0] == NORM)
    forecast = [_rank(_forecast(list(forgets.values()), method), values) for method, values in outcomes.items()]
    rows.append(["the forecast of each method", *(None if math.isnan(each) else round(each, 2) for each in forecast)])
    labels = _labels(list(forgets.values()))
    known = [float(each) for each in norm[1:] if isinstance(each, float)]
    return Found(
        "new result",
        [
            f"Over {len(forgets)} forget sets the spectral norm ranks the best distance that a method reaches with ρ = "
            f"{_span(known)}, the forecast with {_span([each for each in forecast if not math.isnan(each)])}. With so "
            "few sets a correlation below about 0.7 is within chance.",
        ],
        size=context.setting(context.preset.figures, context.preset.members)
        + f"; forget sets {', '.join(sets.words(number) for number in forgets)}",
        tables=[
            Table(
                title="Rank correlation with the best distance reached (P95 above the floor, worst split)",
                columns=["known beforehand", *(labels[method] for method in outcomes)],
                rows=rows,
            )
        ],
    )


def _outcomes(forgets: list[ForgetRecord]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for forget in forgets:
        for each in reached(forget):
            found.setdefault(each.method, []).append(each.least)
    return {method: values for method, values in found.items() if len(values) == len(forgets)}


def _labels(forgets: list[ForgetRecord]) -> dict[str, str]:
    return {each.method: each.label for each in reached(forgets[0])}


def _predictors(forgets: list[ForgetRecord]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for forget in forgets:
        for measure in forget.forecast.measures if forget.forecast else []:
            found.setdefault(measure.name, []).append(measure.value)
    return {name: values for name, values in found.items() if len(values) == len(forgets)}


def _forecast(forgets: list[ForgetRecord], method: str) -> list[float]:
    return [
        next((each.objective for each in forget.forecast.methods if each.method == method), math.nan)
        if forget.forecast
        else math.nan
        for forget in forgets
    ]


def _rank(predicted: list[float], happened: list[float]) -> float:
    if not all(map(math.isfinite, [*predicted, *happened])):
        return math.nan
    return spearman(np.array(predicted), np.array(happened))


def _span(values: list[float]) -> str:
    if not values:
        return "nothing"
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


ITEM = Item(
    ("P13",),
    "App. A: does the cross-influence predict failure?",
    "The spectral norm of the forget-retain block of the influence matrix may predict where descent-ascent fails; the "
    "paper leaves it open.",
    check,
    work=frozenset({"audits"}),
)
