"""The page of a forecast: one HTML file, drawn from a record and its margins alone, that opens without a network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from expunge.core.forecast import (
    ForecastRecord,
    ForecastRun,
    ForecastSet,
    MethodForecast,
    PathPoint,
    load_forecast_margins,
    settings_of,
)
from expunge.core.schema import SPLITS, write_atomically
from expunge.report import forecast_figures as figures
from expunge.report import numbers
from expunge.report.axes import Figure
from expunge.report.forecast_words import DEFINITIONS, OUTLOOKS, forecast_headline
from expunge.report.headline import Headline
from expunge.report.html import render_page, task_facts

PAGE = "forecast.html"


def draw_forecast(folder: Path) -> Path:
    """Draw the page of a forecast from its record, and return the path of the page.

    Args:
        folder: A run's folder (it holds `forecast.json` and `forecast/`), or the path of its `forecast.json`.

    Returns:
        `folder/forecast.html`; the same record always gives the same bytes.

    Raises:
        InputError: If there is no record, or its margins are missing.
        DamagedFileError: If the record or the margins cannot be read.
    """
    folder = Path(folder)
    record = ForecastRun.load(folder)
    if folder.is_file():
        folder = folder.parent
    margins = {item.name: load_forecast_margins(folder, item) for item in record.forget_sets}
    return write_atomically(folder / PAGE, render_forecast(record, margins).encode())


def render_forecast(record: ForecastRun, margins: Mapping[str, Mapping[str, np.ndarray[Any, Any]]]) -> str:
    """Return the page as HTML.

    Args:
        record: Of a run of forecasts, complete or still running.
        margins: For each forget set by name, arrays by `<who>/<split>`; forget sets without an entry have no histogram.
    """
    forecasts = [item.forecast for item in record.forget_sets]
    shapes, costs = figures.symbols(forecasts), figures.cost_range(forecasts)
    panels = [
        _panel(number, item, margins.get(item.name, {}), shapes, costs)
        for number, item in enumerate(record.forget_sets)
    ]
    payload = {
        "figures": {key: figure for panel in panels for key, figure in panel.drawn.items()},
        "hover": {str(panel.number): figures.hover(panel.forecast) for panel in panels},
        "tables": {str(panel.number): _table(panel.forecast) for panel in panels},
    }
    return render_page(
        "forecast.html.j2",
        payload,
        record,
        costs,
        panels=panels,
        matrix=_matrix(panels),
        shapes=shapes,
        outlooks=OUTLOOKS,
        definitions=DEFINITIONS,
        facts=_facts(record),
    )


@dataclass(frozen=True)
class Line:
    """A line of the table of methods."""

    method: MethodForecast
    key: str
    settings: str
    moves: bool
    """Whether any setting is predicted to be better than doing nothing."""


@dataclass(frozen=True)
class Panel:
    """Everything that the page says about one forget set."""

    number: int
    item: ForecastSet
    headline: Headline
    lines: list[Line]
    drawn: dict[str, Figure]
    timing: list[tuple[str, str, str, list[tuple[str, str]]]]
    assumptions: list[str]

    @property
    def forecast(self) -> ForecastRecord:
        """The forecast."""
        return self.item.forecast


def _panel(
    number: int,
    item: ForecastSet,
    margins: Mapping[str, np.ndarray[Any, Any]],
    shapes: Mapping[str, str],
    costs: tuple[float, float],
) -> Panel:
    forecast = item.forecast
    order = list(OUTLOOKS)
    lines = [
        Line(
            method,
            figures.method_key(method),
            settings_of(method.best.run),
            method.best.run != forecast.nothing.run,
        )
        for method in forecast.methods
    ]
    lines.sort(key=lambda line: (line.method.control, order.index(line.method.outlook), line.method.rank))
    drawn: dict[str, Figure] = {}
    if forecast.methods:
        drawn = {
            f"{number}-plane-validation": figures.plane(forecast, "validation", shapes, costs),
            f"{number}-plane-retain": figures.plane(forecast, "retain", shapes, costs),
            f"{number}-time-forget": figures.over_time(forecast, "forget"),
            f"{number}-time-validation": figures.over_time(forecast, "validation"),
        }
    change = figures.change_histogram(margins)
    if change is not None:
        drawn[f"{number}-change"] = change
    return Panel(
        number=number,
        item=item,
        headline=forecast_headline(forecast),
        lines=lines,
        drawn=drawn,
        timing=[
            (line.key, line.method.label, _timing(line.method, forecast), figures.grid_legend(line.method))
            for line in lines
        ],
        assumptions=_assumptions(forecast),
    )


def _timing(method: MethodForecast, forecast: ForecastRecord) -> str:
    runs = figures.runs_of(method)
    close = [p for p in method.path if max(p.excess.values()) <= forecast.tolerance]
    last = [path for path in runs.values() if path and max(path[-1].excess.values()) <= forecast.tolerance]
    text = f"{numbers.count(len(runs), 'run')}, {numbers.count(len(method.path), 'stopping time')}: "
    if not close:
        return text + "none is predicted to come within the tolerance on all three splits."
    return text + (
        f"{len(close)} stopping times are predicted to come within the tolerance on all three splits; "
        f"{len(last) or 'none'} of the runs {'is' if len(last) == 1 else 'are'} still there at the end."
    )


def _assumptions(forecast: ForecastRecord) -> list[str]:
    """Return what the prediction rests on, in sentences."""
    followed = numbers.count(forecast.followed, "member")
    many = [f"epoch {epoch}" for epoch, _ in forecast.segments]
    found = []
    if len(forecast.segments) > 1:
        found.append(
            f"The predicted oracle follows training in {len(many)} segments, looked at in {numbers.listing(many)}; "
            "within each, gradient and curvature are held constant."
        )
    else:
        found.append("The predicted oracle is seen from the end of training alone, with its gradient and curvature.")
    found.append(
        f"The weights of {followed} are linearised, and the changes of the other "
        f"{max(forecast.members - forecast.followed, 0)} are those of these in turn; the margins that everything "
        f"starts from are those of all {forecast.members}."
    )
    found.append(
        f"Methods run on a reduced model with {forecast.dimensions} coordinates and {forecast.retain_in_table:,} "
        "retain examples; normalisation statistics are frozen and dropout is off."
    )
    found.append("Predicted members differ only by where they started: no new randomness of training is simulated.")
    return [*found, *forecast.notes]


_COLUMNS = (
    "method",
    "settings",
    "epoch",
    "cost",
    *(f"{split} above floor" for split in SPLITS),
    *(f"mean {split}" for split in SPLITS),
    *(f"shift {split}" for split in SPLITS),
    *(f"displacement {split}" for split in SPLITS),
)


def _table(forecast: ForecastRecord) -> dict[str, Any]:
    """Return every predicted point as a row, which the page shows on request, sorts and saves as CSV."""

    def row(label: str, point: PathPoint) -> list[Any]:
        groups = (point.excess, point.means, point.shifts, point.displacements)
        values = [group.get(split, math.nan) for group in groups for split in SPLITS]
        return [
            label,
            settings_of(point.run),
            point.epoch,
            numbers.plain(point.cost),
            *map(numbers.plain, values),
        ]

    rows = [row("Do nothing", forecast.nothing)]
    rows += [
        row(method.label + (" (control)" if method.control else ""), point)
        for method in forecast.methods
        for point in method.path
    ]
    return {"columns": list(_COLUMNS), "rows": rows}


def _matrix(panels: list[Panel]) -> list[tuple[str, bool, list[MethodForecast | None]]]:
    """Return method by forget set: the forecast, or None where there is none."""
    names = {line.key: line.method for panel in panels for line in panel.lines}
    found = [
        (
            method.label,
            method.control,
            [next((line.method for line in panel.lines if line.key == key), None) for panel in panels],
        )
        for key, method in names.items()
    ]
    return sorted(found, key=lambda line: line[1])


def _facts(record: ForecastRun) -> list[str]:
    """Return the line below the title."""
    return [
        f"{record.members} pretrained models, no oracle",
        *task_facts(record.task),
        f"tolerance {record.tolerance:g} nats above the floor",
    ]
