"""Figures of the proof of the forecast, drawn from its record and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from expunge.papers.ascent_fails_to_forget.proof import ForgetSetOutcome, MethodOutcome, OutcomeName, ProofRecord
from expunge.report.plots import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    STYLE,
)

FAMILIES: Mapping[str, tuple[str, str]] = {
    "random": (BLUE, "o"),
    "class part": (ORANGE, "s"),
    "cluster": (GREEN, "^"),
    "component": (PURPLE, "D"),
    "memorisation": (RED, "v"),
    "mislabelled": (SKY, "P"),
    "duplicates": (GREY, "X"),
    "dial": (BLUE, "*"),
}
"""Colour and marker of each kind of forget set."""

MEASURES: Mapping[str, str] = {
    "forecast": "the forecast",
    "predicted_nothing": "predicted distance to go",
    "spectral_retain": "spectral norm, R from F (app. A)",
    "effect_retain": "effect of F on R, first order",
    "canonical_largest": "largest canonical correlation",
    "kappa": "leverage κ of F",
    "ascent_excess": "collateral of one ascent step",
    "entanglement_normalised": "entanglement, normalised",
    "classifier_normalised": "classifier F / R within class",
    "cosine_validation_curved": "gradient cosine F / V, curved",
    "size": "|F|",
    "mean_loss": "mean loss on F",
    "class_skew": "class skew",
}
"""Predictors shown, in order, and how people call them."""

WORDS: Mapping[OutcomeName, str] = {
    "achievable": "best reached",
    "achievable_mean": "best reached, mean",
    "damage": "damage at target",
    "illusion_gap": "illusion gap",
}


def forecast_against_outcome(record: ProofRecord, task: str) -> Figure:
    """Return predicted against measured objective, a panel a method, a mark a forget set."""
    rows = [one for one in record.outcomes if one.task == task]
    names = list(dict.fromkeys(m.method for one in rows for m in one.methods))

    def draw(axes: Axes, name: str) -> None:
        top = 0.1
        for one in rows:
            method = _method(one, name)
            predicted = method.forecast["achievable"]
            if predicted is None:
                continue
            colour, marker = FAMILIES[one.family]
            face = colour if one.half == "judged" else "none"
            axes.plot(predicted, method.achievable, marker, mec=colour, mfc=face, ms=7, mew=1.4)
            top = max(top, predicted, method.achievable)
        axes.plot([0, top], [0, top], color="#9aa1a9", lw=1, dashes=(4, 3))
        rho = _spearman(record, task, name, "achievable", "forecast", "judged")
        axes.set(
            title=f"{_method(rows[0], name).label}" + (f"   ρ = {rho}" if rho else ""),
            xlabel="forecast, nats above the floor",
            ylabel="measured, nats above the floor",
        )

    return _panels(names, draw, _families(rows))


def predictors(record: ProofRecord, task: str, outcome: OutcomeName) -> Figure:
    """Return rank correlation of every predictor with an outcome, with intervals, a panel a method."""
    names = list(dict.fromkeys(c.method for c in record.correlations if c.task == task))

    def draw(axes: Axes, method: str) -> None:
        shown = [
            (label, found)
            for key, label in MEASURES.items()
            for found in record.correlations
            if (found.task, found.half, found.method, found.outcome, found.predictor)
            == (task, "judged", method, outcome, key)
        ]
        for row, (label, found) in enumerate(reversed(shown)):
            colour = BLUE if label == "the forecast" else GREY
            axes.plot([found.low, found.high], [row, row], color=colour, lw=2)
            axes.plot(found.spearman, row, "o", color=colour, ms=6)
        axes.axvline(0, color="#9aa1a9", lw=1)
        axes.axvline(0.8, color=GREEN, lw=1, dashes=(4, 3))
        axes.set(xlim=(-1.02, 1.02), yticks=range(len(shown)), xlabel=f"Spearman's ρ with {WORDS[outcome]}")
        axes.set_yticklabels([label for label, _ in reversed(shown)])
        axes.set_title(_label_of(record, method))

    return _panels(names, draw, [], height=4.6)


def dial(record: ProofRecord) -> Figure:
    """Return outcomes along the dependence dial, measured and forecast."""
    rows = sorted((one for one in record.outcomes if one.dial is not None), key=lambda one: one.dial or 0.0)
    names = list(dict.fromkeys(m.method for one in rows for m in one.methods))
    at = np.array([one.dial for one in rows], dtype=float)

    def draw(axes: Axes, name: str) -> None:
        measured = [_method(one, name).achievable for one in rows]
        foretold = [_method(one, name).forecast["achievable"] for one in rows]
        axes.plot(at, [one.nothing for one in rows], color=GREY, marker="o", mfc="none", label="do nothing")
        axes.plot(at, measured, color=BLUE, marker="o", label="best reached")
        axes.plot(at, np.array(foretold, dtype=float), color=ORANGE, dashes=(4, 3), label="forecast of it")
        axes.set(
            title=_method(rows[0], name).label,
            xlabel="overlap of what F and R teach",
            ylabel="nats above the floor",
            ylim=(min(0.0, axes.get_ylim()[0]), None),
        )
        axes.legend()

    return _panels(names, draw, [])


def figures(record: ProofRecord) -> dict[str, Figure]:
    """Return every figure that the record has the data for, by name."""
    out: dict[str, Figure] = {}
    with matplotlib.rc_context(STYLE):
        for task in dict.fromkeys(one.task for one in record.outcomes if one.dial is None):
            safe = task.replace(":", "-")
            out[f"forecast-{safe}"] = forecast_against_outcome(record, task)
            if any(c.task == task and c.half == "judged" for c in record.correlations):
                out[f"predictors-{safe}"] = predictors(record, task, "achievable")
        if any(one.dial is not None for one in record.outcomes):
            out["dial"] = dial(record)
    return out


def _panels(
    names: Sequence[str], draw: Callable[[Axes, str], None], legend: Sequence[Line2D], height: float = 4.0
) -> Figure:
    made = Figure(figsize=(4.7 * len(names), height + (0.4 if legend else 0.0)))
    for number, name in enumerate(names, start=1):
        draw(made.add_subplot(1, len(names), number), name)
    if legend:
        made.legend(handles=list(legend), loc="outside lower center", ncols=len(legend))
    return made


def _families(rows: Sequence[ForgetSetOutcome]) -> list[Line2D]:
    marks = [
        Line2D([], [], color=FAMILIES[name][0], marker=FAMILIES[name][1], ls="", label=name)
        for name in dict.fromkeys(one.family for one in rows)
    ]
    hollow = Line2D([], [], color=GREY, marker="o", mfc="none", ls="", label="hollow: development half")
    return [*marks, hollow]


def _method(one: ForgetSetOutcome, name: str) -> MethodOutcome:
    return next(method for method in one.methods if method.method == name)


def _label_of(record: ProofRecord, name: str) -> str:
    return _method(record.outcomes[0], name).label


def _spearman(record: ProofRecord, task: str, method: str, outcome: OutcomeName, predictor: str, half: str) -> str:
    for found in record.correlations:
        if (found.task, found.method, found.outcome, found.predictor, found.half) == (
            task,
            method,
            outcome,
            predictor,
            half,
        ):
            return f"{found.spearman:.2f} [{found.low:.2f}, {found.high:.2f}]"
    return ""
