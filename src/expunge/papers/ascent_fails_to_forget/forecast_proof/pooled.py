"""The forecast against the best trivial predictor, averaged over tasks.

One task has too few forget sets to tell correlations of .85 and .92 apart. Here the difference of the two correlations
is averaged over tasks, for each method and for all of them. The bootstrap resamples the forget sets within each task,
the same ones for every method, 2,000 replicates, percentiles. A dial is no sample of forget sets and is left out.

Source: the stratified bootstrap, Davison and Hinkley, "Bootstrap Methods and their Application" (1997), sec. 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from expunge.core.ranks import spearman_rows
from expunge.core.seeds import derive
from expunge.papers.ascent_fails_to_forget.forecast_proof.judge import (
    FEWEST,
    HALVES,
    REPLICATES,
    columns,
    signed_name,
    trivial_to_beat,
)
from expunge.papers.ascent_fails_to_forget.proof import POOLED, Comparison, ForgetSetOutcome, OutcomeName

OUTCOMES: tuple[OutcomeName, ...] = ("achievable", "achievable_mean", "damage")
"""Outcomes that every forget set has."""

Array = np.ndarray[Any, Any]


def pooled_comparisons(outcomes: Sequence[ForgetSetOutcome], fixed_on: str, seed: int = 0) -> list[Comparison]:
    """Return the average comparison by half, outcome and method, and over all methods; none for a single task.

    Args:
        outcomes: Of all tasks.
        fixed_on: Task whose development half chooses the trivial predictor and its sign.
        seed: Of the bootstrap.
    """
    chosen = trivial_to_beat(outcomes, fixed_on)
    sampled = [one for one in outcomes if one.dial is None]
    found = []
    for half in HALVES:
        tasks = list(_tasks(sampled, half))
        if len(tasks) < 2:
            continue
        methods = list(dict.fromkeys(m.method for rows in tasks for one in rows for m in one.methods))
        for outcome in OUTCOMES:
            ready = [method for method in methods if (method, outcome) in chosen]
            for group in [*([method] for method in ready), *([ready] if len(ready) > 1 else [])]:
                rivals = {method: chosen[method, outcome] for method in group}
                ours, theirs = _correlations(tasks, outcome, rivals, seed)
                low, high = np.nanpercentile(ours[1:] - theirs[1:], [2.5, 97.5])
                found.append(
                    Comparison(
                        task=POOLED,
                        half=half,
                        method=group[0] if len(group) == 1 else POOLED,
                        outcome=outcome,
                        trivial=", ".join(dict.fromkeys(signed_name(*rival) for rival in rivals.values())),
                        forecast=float(ours[0]),
                        trivial_spearman=float(theirs[0]),
                        difference=float(ours[0] - theirs[0]),
                        low=float(low),
                        high=float(high),
                        sets=sum(len(rows) for rows in tasks),
                    )
                )
    return found


def _tasks(outcomes: Sequence[ForgetSetOutcome], half: str) -> Iterator[list[ForgetSetOutcome]]:
    for task in dict.fromkeys(one.task for one in outcomes):
        rows = [one for one in outcomes if one.task == task and half in (one.half, "all")]
        if len(rows) >= FEWEST:
            yield rows


def _correlations(
    tasks: Sequence[Sequence[ForgetSetOutcome]],
    outcome: OutcomeName,
    rivals: dict[str, tuple[str, float]],
    seed: int,
) -> tuple[Array, Array]:
    """Return mean correlations of forecast and trivial predictor, (1 + replicates,), the first of the sets as found."""
    rng = np.random.default_rng(derive(seed, "forget sets, pooled"))
    ours, theirs = [], []
    for rows in tasks:
        count = len(rows)
        pick = np.concatenate([np.arange(count)[None], rng.integers(0, count, (REPLICATES, count))])
        for method, (name, sign) in rivals.items():
            values, predicted, predictors = columns(rows, method, outcome)
            ours.append(spearman_rows(predicted[pick], values[pick]))
            theirs.append(spearman_rows(sign * predictors[name][pick], values[pick]))
    return np.mean(ours, axis=0), np.mean(theirs, axis=0)
