"""The proof of the forecast from its record alone: figures and tables as files, tables in the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from expunge.core.record import SPLITS, inside, write_atomically
from expunge.papers.ascent_fails_to_forget.proof import POOLED, Comparison, Correlation, OutcomeName, ProofRecord
from expunge.papers.ascent_fails_to_forget.report.proof_figures import MEASURES, WORDS, figures
from expunge.report.fitting import print_fitting
from expunge.report.plots import image

Row = Sequence[str]

WORDING = (
    "F, R and V are forget set, retain set and validation; |F| is the number of forget examples. KLoM is the "
    "divergence between the margins of unlearned and of retrained models, in nats; P95 its 95th percentile over "
    "examples; above the floor: less what other retrained models read. Spearman's \u03c1 is a rank correlation, r an "
    "ordinary one, slope that of the measured on the predicted change. Choices were made on the development half of "
    "the forget sets only."
)
"""What the letters of the tables mean, for somebody who has nothing but the tables."""


def draw(folder: Path | str) -> Path:
    """Draw every figure of a proof into `figures/` and its tables into `tables.md`, and return the tables' path.

    Args:
        folder: Folder of the run, with `proof.json`.

    Raises:
        InputError: If the folder holds no proof.
        DamagedFileError: If the record cannot be read.
    """
    folder = Path(folder)
    record = ProofRecord.load(folder)
    for name, figure in figures(record).items():
        write_atomically(inside(folder, f"figures/{name}.png"), image(figure, "png", 110))
    text = "\n".join([f"{WORDING}\n", *(_markdown(title, header, rows) for title, header, rows in tables(record))])
    return write_atomically(folder / "tables.md", text.encode())


def print_tables(folder: Path | str, console: Console) -> None:
    """Print the tables of a proof."""
    for title, header, rows in tables(ProofRecord.load(Path(folder))):
        table = Table(title=title, box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for place, column in enumerate(header):
            numbers = all(re.match(r"[-+.\d]|nan|$", row[place]) for row in rows)
            table.add_column(column, justify="right" if numbers else "left")
        for row in rows:
            table.add_row(*row)
        print_fitting(console, table)
    console.print(WORDING, style="dim", markup=False, highlight=False)


def tables(record: ProofRecord) -> Iterator[tuple[str, Row, list[Row]]]:
    """Yield title, header and rows of every table."""
    halves = ("judged", "all")
    for half in halves:
        rows = [_comparison(c) for c in record.comparisons if c.half == half]
        if rows:
            yield (
                f"Forecast against the best trivial predictor, {_half(half)} (Spearman's ρ over forget sets)",
                ("task", "method", "outcome", "sets", "forecast", "trivial", "difference [95 %]"),
                rows,
            )
    yield (
        "Predicted and measured change of mean margins by retraining, median over forget sets of correlation and slope",
        ("task", "sets", *(f"{split} {what}" for split in SPLITS for what in ("r", "slope")), "forecast, s"),
        [_removal(record, task) for task in _tasks(record)],
    )
    yield (
        "Forecast against outcome over the settings of a forget set, median over forget sets of Spearman's ρ",
        ("task", *dict.fromkeys(m.label for one in record.outcomes for m in one.methods)),
        [_within(record, task) for task in _tasks(record)],
    )
    yield (
        "Damage at the target: how often it is reached, and Spearman's \u03c1 of two forecasts of it [95 %]",
        ("task", "method", "half", "sets", "reached", "forecast", "path in the reduced model"),
        list(_damage(record)),
    )
    for task in _tasks(record):
        methods = list(dict.fromkeys(m.method for one in record.outcomes if one.task == task for m in one.methods))
        names = dict.fromkeys(c.predictor for c in record.correlations if c.task == task)
        rows = [
            (
                MEASURES.get(key, key),
                *(_cell(record, task, method, outcome, key) for outcome in _OUTCOMES for method in methods),
            )
            for key in names
        ]
        header = ("predictor", *(f"{WORDS[outcome]}, {method}" for outcome in _OUTCOMES for method in methods))
        yield f"Every predictor on {task}, all forget sets (Spearman's ρ [95 %])", header, rows
    for task in _tasks(record):
        yield (
            f"Every forget set of {task}: measured (forecast), worst P95 KLoM above the floor, nats",
            ("forget set", "half", "do nothing", "removal r", "slope", *_labels(record, task)),
            [
                (
                    one.name,
                    one.half,
                    f"{one.nothing:.2f} ({one.predicted_nothing:.2f})",
                    "/".join(f"{one.removal_correlation[s]:.2f}" for s in SPLITS),
                    "/".join(f"{one.removal_slope[s]:.2f}" for s in SPLITS),
                    *(f"{m.achievable:.2f} ({_number(m.forecast['achievable'])})" for m in one.methods),
                )
                for one in record.outcomes
                if one.task == task
            ],
        )
    yield (
        "Following the forecast: worst P95 KLoM above the floor at the setting that each rule chooses, mean over sets",
        ("task", "method", "sets", "with the oracles", "by the forecast", "by other sets of the family"),
        list(_followed(record)),
    )


_OUTCOMES: tuple[OutcomeName, ...] = ("achievable", "damage")


def _tasks(record: ProofRecord) -> list[str]:
    return list(dict.fromkeys(one.task for one in record.outcomes))


def _removal(record: ProofRecord, task: str) -> Row:
    rows = [one for one in record.outcomes if one.task == task]
    found = [
        f"{np.nanmedian([values[split] for values in columns]):.2f}"
        for split in SPLITS
        for columns in ([one.removal_correlation for one in rows], [one.removal_slope for one in rows])
    ]
    return (task, str(len(rows)), *found, f"{np.median([one.forecast_seconds for one in rows]):.1f}")


def _within(record: ProofRecord, task: str) -> Row:
    methods = [m for one in record.outcomes if one.task == task for m in one.methods]
    return (
        task,
        *(
            f"{np.nanmedian([m.within for m in methods if m.method == name]):.2f}"
            for name in dict.fromkeys(m.method for m in methods)
        ),
    )


def _followed(record: ProofRecord) -> Iterator[Row]:
    for task in _tasks(record):
        rows = [one for one in record.outcomes if one.task == task]
        for method in dict.fromkeys(m.method for one in rows for m in one.methods):
            both = [m for one in rows for m in one.methods if m.method == method and m.transferred is not None]
            if not both:
                continue
            mean = [
                sum(values) / len(values)
                for values in (
                    [m.achievable for m in both],
                    [m.at_forecast for m in both],
                    [m.transferred or 0.0 for m in both],
                )
            ]
            yield (task, both[0].label, str(len(both)), *(f"{value:.2f}" for value in mean))


def _damage(record: ProofRecord) -> Iterator[Row]:
    for task in _tasks(record):
        for method in dict.fromkeys(m.method for one in record.outcomes if one.task == task for m in one.methods):
            for half in ("development", "judged", "all"):
                rows = [one for one in record.outcomes if one.task == task and half in (one.half, "all")]
                reached = sum(m.damage is not None for one in rows for m in one.methods if m.method == method)
                cells = [_cell(record, task, method, "damage", key, half) for key in ("forecast", "damage_by_path")]
                yield (task, method, half, str(len(rows)), str(reached), *cells)


def _comparison(c: Comparison) -> Row:
    return (
        "mean over tasks" if c.task == POOLED else c.task,
        "mean over methods" if c.method == POOLED else c.method,
        WORDS[c.outcome],
        str(c.sets),
        f"{c.forecast:.2f}",
        f"{c.trivial} {c.trivial_spearman:.2f}",
        f"{c.difference:+.2f} [{_end(c.low)}, {_end(c.high)}]",
    )


def _end(value: float) -> str:
    """Return an end of an interval so that its side of 0 can be seen."""
    return f"{value:+.2f}" if abs(value) >= 0.01 else f"{value:+.4f}"


def _cell(record: ProofRecord, task: str, method: str, outcome: OutcomeName, predictor: str, half: str = "all") -> str:
    found: list[Correlation] = [
        c
        for c in record.correlations
        if (c.task, c.half, c.method, c.outcome, c.predictor) == (task, half, method, outcome, predictor)
    ]
    return f"{found[0].spearman:.2f} [{found[0].low:.2f}, {found[0].high:.2f}]" if found else ""


def _labels(record: ProofRecord, task: str) -> list[str]:
    return [m.label for m in next(one for one in record.outcomes if one.task == task).methods]


def _half(half: str) -> str:
    return {"judged": "judged half", "all": "both halves"}[half]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _markdown(title: str, header: Row, rows: Sequence[Row]) -> str:
    lines = [f"**{title}**", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), ""])
