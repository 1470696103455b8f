"""How well predictors rank outcomes over forget sets: Spearman's correlation, with intervals over the sets.

A censored outcome (the forget margins never reach the target) ranks as the worst, tied with the others like it. The
interval is the bootstrap's over forget sets, 2,000 replicates, percentiles: the sets are what could have been others.
The trivial predictor to beat is the one of size, mean loss and class skew that ranks the development half best, taken
with the sign that it has there; the comparison resamples both correlations together.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 13.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from expunge.core.ranks import spearman, spearman_rows
from expunge.core.seeds import derive
from expunge.papers.ascent_fails_to_forget.proof import (
    Comparison,
    Correlation,
    ForgetSetOutcome,
    MethodOutcome,
    OutcomeName,
)

REPLICATES = 2000
OUTCOMES: tuple[OutcomeName, ...] = ("achievable", "achievable_mean", "damage", "illusion_gap")
TRIVIAL = ("size", "mean_loss", "class_skew")
HALVES = ("development", "judged", "all")
FEWEST = 6
"""Fewer forget sets are not correlated."""

Array = np.ndarray[Any, Any]


def correlations(outcomes: Sequence[ForgetSetOutcome], seed: int = 0) -> list[Correlation]:
    """Return the correlation of every predictor with every outcome, by task, half and method."""
    found = []
    for task, half, method, outcome, rows in _groups(outcomes):
        values, predicted, predictors = columns(rows, method, outcome)
        for name, column in {"forecast": predicted, **predictors}.items():
            usable = ~np.isnan(column)
            if usable.sum() < FEWEST:
                continue

            def statistic(pick: Array, a: Array = column[usable], b: Array = values[usable]) -> Array:
                return spearman_rows(a[pick], b[pick])

            low, high = _interval(statistic, int(usable.sum()), seed)
            found.append(
                Correlation(
                    task=task,
                    half=half,
                    method=method,
                    outcome=outcome,
                    predictor=name,
                    spearman=spearman(column[usable], values[usable]),
                    low=low,
                    high=high,
                    sets=int(usable.sum()),
                )
            )
    return found


def comparisons(outcomes: Sequence[ForgetSetOutcome], fixed_on: str, seed: int = 0) -> list[Comparison]:
    """Return the forecast against the best trivial predictor, by task, half and method.

    Args:
        outcomes: Of all tasks.
        fixed_on: Task whose development half chooses the trivial predictor and its sign.
        seed: Of the bootstrap.
    """
    found, chosen = [], trivial_to_beat(outcomes, fixed_on)
    for task, half, method, outcome, rows in _groups(outcomes):
        if (method, outcome) not in chosen:
            continue
        name, sign = chosen[method, outcome]
        values, predicted, predictors = columns(rows, method, outcome)
        trivial = sign * predictors[name]

        def difference(pick: Array, p: Array = predicted, t: Array = trivial, v: Array = values) -> Array:
            return spearman_rows(p[pick], v[pick]) - spearman_rows(t[pick], v[pick])

        low, high = _interval(difference, len(values), seed)
        ours, theirs = spearman(predicted, values), spearman(trivial, values)
        found.append(
            Comparison(
                task=task,
                half=half,
                method=method,
                outcome=outcome,
                trivial=signed_name(name, sign),
                forecast=ours,
                trivial_spearman=theirs,
                difference=ours - theirs,
                low=low,
                high=high,
                sets=len(values),
            )
        )
    return found


def trivial_to_beat(
    outcomes: Sequence[ForgetSetOutcome], fixed_on: str
) -> dict[tuple[str, OutcomeName], tuple[str, float]]:
    """Return the trivial predictor that ranks a task's development half best, and its sign, by method and outcome."""
    chosen: dict[tuple[str, OutcomeName], tuple[str, float]] = {}
    for task, half, method, outcome, rows in _groups(outcomes):
        if task == fixed_on and half == "development":
            values, _, predictors = columns(rows, method, outcome)
            found = {name: spearman(predictors[name], values) for name in TRIVIAL}
            best = max(found, key=lambda name: abs(np.nan_to_num(found[name])))
            chosen[method, outcome] = (best, 1.0 if found[best] >= 0 else -1.0)
    return chosen


def signed_name(name: str, sign: float) -> str:
    """Return the name of a predictor that is taken with a sign."""
    return ("-" if sign < 0 else "") + name


def _groups(
    outcomes: Sequence[ForgetSetOutcome],
) -> Iterator[tuple[str, Any, str, OutcomeName, list[ForgetSetOutcome]]]:
    """Yield task, half, method, outcome and the forget sets that have it."""
    for task in dict.fromkeys(one.task for one in outcomes):
        for half in HALVES:
            rows = [one for one in outcomes if one.task == task and half in (one.half, "all")]
            for method in dict.fromkeys(m.method for one in rows for m in one.methods):
                for outcome in OUTCOMES:
                    usable = [one for one in rows if outcome == "damage" or _of(one, method, outcome) is not None]
                    if len(usable) >= FEWEST:
                        yield task, half, method, outcome, usable


def _of(one: ForgetSetOutcome, method: str, outcome: OutcomeName) -> float | None:
    value: float | None = getattr(_method(one, method), outcome)
    return value


def _method(one: ForgetSetOutcome, method: str) -> MethodOutcome:
    return next(m for m in one.methods if m.method == method)


def columns(
    rows: Sequence[ForgetSetOutcome], method: str, outcome: OutcomeName
) -> tuple[Array, Array, dict[str, Array]]:
    """Return what happened, the forecast of it, and every predictor, each (forget sets,)."""
    worst = float("inf")  # ranks need an order only: a target that is never reached is worse than any that is

    def number(value: float | None) -> float:
        return worst if value is None else value

    values = np.array([number(_of(one, method, outcome)) for one in rows])
    predicted = np.array([number(_method(one, method).forecast.get(outcome)) for one in rows])
    names = dict.fromkeys(name for one in rows for name in one.predictors)
    predictors = {name: np.array([one.predictors.get(name, float("nan")) for one in rows]) for name in names}
    if outcome == "damage":
        predictors["damage_by_path"] = np.array([number(_method(one, method).damage_by_path) for one in rows])
    predictors["predicted_nothing"] = np.array([one.predicted_nothing for one in rows])
    return values, predicted, predictors


def _interval(statistic: Callable[[Array], Array], count: int, seed: int) -> tuple[float, float]:
    """Return the percentile interval of a statistic of resampled positions (replicates, count)."""
    rng = np.random.default_rng(derive(seed, "forget sets"))
    draws = statistic(rng.integers(0, count, (REPLICATES, count)))
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return float("nan"), float("nan")
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
