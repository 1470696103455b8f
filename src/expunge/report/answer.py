"""The answer for a program: what a terminal shows of a record, as a JSON value; and whether it is the one hoped for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from expunge.core import InputError
from expunge.core.forecast import ForecastRun, ForecastSet, PathPoint
from expunge.core.limits import HOPED
from expunge.core.passing import failed_checks, passes
from expunge.core.record import ForgetRecord, Record
from expunge.core.result import Result
from expunge.report import wording
from expunge.report.forecast_words import forecast_headline
from expunge.report.headline import headline


def audit_answer(record: Record, folder: Path, page: Path) -> dict[str, Any]:
    """Return what an audit found: for each forget set the sentence, and a verdict a method.

    Args:
        record: The audit's.
        folder: Of the run.
        page: The report.

    Returns:
        A JSON value. Numbers that are none (NaN, infinite) are null, and so is the verdict of a method for which no
        setting was chosen.
    """
    sets = [_forget_set(forget) for forget in record.forget_sets]
    return valid({**_head(record, folder, page), "forget_sets": sets, "notes": record.notes})


def forecast_answer(record: ForecastRun, folder: Path, page: Path) -> dict[str, Any]:
    """Return what a run of forecasts predicts, likewise: for each forget set the advice, and an outlook a method."""
    sets = [_forecast(item) for item in record.forget_sets]
    return valid({**_head(record, folder, page), "forget_sets": sets})


def _head(record: Record | ForecastRun, folder: Path, page: Path) -> dict[str, Any]:
    return {
        "run": str(folder),
        "report": str(page),
        "status": record.status,
        "members": record.members,
        "tolerance": record.tolerance,
    }


def check_hope(asked: str) -> str:
    """Return the method that must be indistinguishable, or nothing for any candidate.

    Raises:
        InputError: If something else is asked for.

    >>> check_hope("scrub=indistinguishable")
    'scrub'
    """
    method, _, verdict = asked.rpartition("=")
    if verdict != HOPED or asked.startswith("="):
        raise InputError(f"--fail-unless {asked!r}, expected {HOPED} or METHOD={HOPED}.")
    return method


def shortfalls(record: Record, asked: str) -> list[str]:
    """Return a sentence for each forget set on which the answer is not the one asked for; none if it is.

    What is asked of a forget set: a candidate method (or the one named, controls too) whose setting, chosen without the
    target's oracles, is indistinguishable from retraining, and passed all of its own checks.

    Args:
        record: A finished audit.
        asked: As `check_hope` reads it.

    Raises:
        InputError: If the audit ran no method of that name.
    """
    method = check_hope(asked)
    found = []
    for forget in record.forget_sets:
        rows = [row for row in wording.rows(forget) if (row.method == method if method else not row.control)]
        if method and not rows:
            ran = ", ".join(row.method for row in wording.rows(forget))
            raise InputError(f"--fail-unless {asked}: the audit ran no {method!r}, expected one of: {ran}.")
        if not any(passes(row.chosen) and not failed_checks(row.chosen) for row in rows):
            said = [
                f"{row.method} {row.chosen.verdict.name if row.chosen else 'not chosen'}"
                + f" (failed: {', '.join(failed_checks(row.chosen))})" * bool(failed_checks(row.chosen))
                for row in rows
            ]
            found.append(f"{forget.name}: {'; '.join(said) or 'no method'}")
    return found


def _forget_set(forget: ForgetRecord) -> dict[str, Any]:
    words = headline(forget)
    return {
        "name": forget.name,
        "size": forget.size,
        "answer": words.sentence,
        "advice": words.action,
        "nothing_to_unlearn": forget.nothing_to_unlearn,
        "floor": _scores(forget.floor),
        "pretrained": _scores(forget.pretrained),
        "methods": [_method(row) for row in wording.rows(forget)],
    }


def _method(row: wording.Row) -> dict[str, Any]:
    found: dict[str, Any] = {"method": row.method, "label": row.label, "control": row.control, "verdict": None}
    if row.chosen is None or row.selection is None:
        return found
    return found | {
        "verdict": row.chosen.verdict.name,
        "sentence": row.chosen.verdict.sentence,
        "options": row.chosen.options,
        "epoch": row.chosen.epoch,
        "cost": row.chosen.cost,
        "scores": _scores(row.chosen.scores),
        "failed_checks": failed_checks(row.chosen),
        "failed_members": row.chosen.failed,
        "claim": None
        if row.chosen.claim is None
        else row.chosen.claim.model_dump() | {"holds": row.chosen.claim.holds, "sentence": row.chosen.claim.sentence},
        "epsilon": None if row.chosen.epsilon is None else row.chosen.epsilon.model_dump(),
        "rows": {split: {"examples": r.examples, "counted": r.counted} for split, r in row.chosen.verdict.rows.items()},
        "illusion_gap": row.selection.illusion_gap,
        "gap_low": row.selection.gap_low,
        "gap_high": row.selection.gap_high,
        "edge": row.selection.edge,
    }


def _scores(scores: Any) -> dict[str, dict[str, float]]:
    def numbers(score: Result) -> dict[str, float]:
        return {"value": score.value, "low": score.low, "high": score.high, "floor": score.floor}

    return {split: numbers(score) for split, score in scores.items()}


def _forecast(item: ForecastSet) -> dict[str, Any]:
    def point(at: PathPoint) -> dict[str, Any]:
        return {"setting": at.run, "epoch": at.epoch, "cost": at.cost, "excess": at.excess}

    return {
        "name": item.name,
        "size": item.size,
        "answer": forecast_headline(item.forecast).sentence,
        "advice": item.forecast.advice,
        "nothing_done": point(item.forecast.nothing),
        "methods": [
            {
                "method": method.method,
                "label": method.label,
                "control": method.control,
                "outlook": method.outlook,
                "damage": method.damage,
                "best": point(method.best),
            }
            for method in item.forecast.methods
        ],
        "notes": item.forecast.notes,
    }


def valid(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without numbers that JSON has no word for."""
    return {key: _plain(value) for key, value in answer.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return valid(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
