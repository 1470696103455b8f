"""The audit's report: one HTML file, drawn from a record and its margins alone, that opens without a network."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from expunge.core.claim import beside
from expunge.core.passing import passes
from expunge.core.record import (
    SPLITS,
    ConfigurationRecord,
    ForgetRecord,
    Record,
    SplitName,
    load_margins,
    write_atomically,
)
from expunge.core.result import Result
from expunge.report import figures, numbers, wording
from expunge.report.axes import Figure
from expunge.report.definitions import definitions
from expunge.report.headline import Headline, headline
from expunge.report.html import made_facts, render_page, task_facts
from expunge.report.margin_grid import CELL_HEIGHT, CELL_WIDTH, MarginGrid, margin_grid
from expunge.report.outcome import Outcome, changes_figure, configurations_figure, method_colours, outcome
from expunge.report.pictures import png
from expunge.report.strip import Strip, strip

Margins = Mapping[str, np.ndarray[Any, Any]]


def draw(folder: Path) -> Path:
    """Draw the report of a run from its record, and return the path of the page.

    Args:
        folder: A run's folder (it holds `record.json` and `margins/`), or the path of its `record.json`.

    Returns:
        `folder/report.html`; the same record always gives the same bytes.

    Raises:
        InputError: If there is no record, or a complete record lacks its margins.
        DamagedFileError: If the record or the margins cannot be read.
    """
    folder = Path(folder)
    record = Record.load(folder)
    if folder.is_file():
        folder = folder.parent
    margins: dict[str, Margins] = {}
    for forget in record.forget_sets:
        # A study that still runs may not have written its margins yet; a complete one must have.
        if record.status == "complete" or (folder / forget.margins).is_file():
            margins[forget.name] = load_margins(folder, forget)
    return write_atomically(folder / "report.html", render(record, margins).encode())


def render(record: Record, margins: Mapping[str, Margins]) -> str:
    """Return the report as HTML.

    Args:
        record: A study's record, complete or still running.
        margins: For each forget set by name, arrays by `<who>/<split>`; forget sets without an entry have no
            histograms.
    """
    shapes = figures.symbols(record.forget_sets)
    costs = figures.cost_range(record.forget_sets)
    colours = method_colours(record.forget_sets)
    panels = [
        _panel(i, record, forget, margins.get(forget.name), shapes, costs, colours)
        for i, forget in enumerate(record.forget_sets)
    ]
    payload = {
        "figures": {key: figure for panel in panels for key, figure in panel.drawn.items()},
        "hover": {str(panel.number): figures.hover(panel.forget) for panel in panels},
        "tables": {str(panel.number): panel.table for panel in panels},
    }
    return render_page(
        "page.html.j2",
        payload,
        record,
        costs,
        panels=panels,
        matrix=_matrix(panels),
        shapes=shapes,
        verdicts=wording.VERDICTS,
        definitions=definitions(record.statistic),
        facts=_facts(record),
        options_text=wording.options_text,
        gap_text=wording.gap_text,
        chip=wording.chip,
        tails=wording.tails,
        beside=beside,
        told_rows=wording.told_rows,
        png=png,
        gap_interval=wording.gap_interval,
        beside_floor=wording.beside_floor,
        failed_ensembles=[e for e in record.ensembles if e.failed],
        cell_width=CELL_WIDTH,
        cell_height=CELL_HEIGHT,
    )


@dataclass(frozen=True)
class VerdictRow:
    """A line of the verdict table."""

    row: wording.Row
    configuration: ConfigurationRecord
    setting: str
    strips: dict[str, Strip]
    failed_checks: list[str]


@dataclass(frozen=True)
class ControlRow:
    """A line of the table of controls."""

    configuration: ConfigurationRecord
    label: str
    options: str
    stops: int


@dataclass(frozen=True)
class CheckRow:
    """A line of the table of runtime checks."""

    label: str
    check: str
    passed: int
    total: int
    detail: str

    @property
    def failed(self) -> bool:
        """Whether the check failed in any configuration."""
        return self.passed < self.total


@dataclass(frozen=True)
class Panel:
    """Everything that the page says about one forget set."""

    number: int
    forget: ForgetRecord
    headline: Headline
    rows: list[wording.Row]
    verdicts: list[VerdictRow]
    ladder: list[VerdictRow]
    """The same, what works first and the cheapest of it before the others."""
    references: list[tuple[str, str, str, Mapping[SplitName, Result], Mapping[SplitName, float], dict[str, Strip]]]
    unjudged: list[wording.Row]
    drawn: dict[str, Figure]
    timing: list[tuple[str, str, str, list[tuple[str, str]]]]
    grid: MarginGrid | None
    selections: list[tuple[wording.Row, str, str]]
    rules: list[tuple[tuple[str, str], int]]
    controls: list[ControlRow]
    rate_zero: list[str]
    checks: list[CheckRow]
    failed_members: list[tuple[str, int, int]]
    disagreements: list[tuple[wording.Disagreement, str]]
    disagreement_count: int
    cautions: list[str]
    outcome: Outcome | None
    table: dict[str, Any]
    others: list[tuple[wording.Row, str, Mapping[SplitName, Result]]]


def _panel(
    index: int,
    record: Record,
    forget: ForgetRecord,
    margins: Margins | None,
    shapes: Mapping[str, str],
    costs: tuple[float, float],
    colours: Mapping[str, str],
) -> Panel:
    rows = wording.rows(forget)
    keys = {row.method: wording.varying([c for c in forget.configurations if c.method == row.method]) for row in rows}
    judged = [row for row in rows if row.chosen is not None]
    top = _strip_top(forget, judged)
    verdicts = [
        VerdictRow(
            row=row,
            configuration=row.chosen,
            setting=wording.setting(forget, row.chosen),
            strips={s: strip(score, record.tolerance, top) for s, score in row.chosen.scores.items()},
            failed_checks=[check.name for check in row.chosen.checks if not check.passed],
        )
        for row in wording.with_equal_cost(judged)
        if row.chosen is not None
    ]
    order = list(wording.VERDICTS)
    shown = [v.configuration.scores for v in verdicts]
    verdicts.sort(
        key=lambda v: (
            v.row.control,
            not passes(v.configuration),
            # Those that pass by their cost, as in the headline; the others by how far off they are.
            v.configuration.cost if passes(v.configuration) else wording.worst_excess(v.configuration),
            order.index(v.configuration.verdict.name),
        )
    )
    everything = wording.disagreements(forget)
    drawn: dict[str, Figure] = {}
    if forget.configurations:
        drawn = {
            f"{index}-plane-validation": figures.plane(forget, "validation", shapes, costs, record.tolerance),
            f"{index}-plane-retain": figures.plane(forget, "retain", shapes, costs, record.tolerance),
            f"{index}-time-forget": figures.over_time(forget, "forget", record.tolerance),
            f"{index}-time-validation": figures.over_time(forget, "validation", record.tolerance),
            f"{index}-public": figures.against_public(forget, shapes),
        }
    for name, figure in (
        ("outcome", configurations_figure(forget, colours, shapes)),
        ("changes", changes_figure(forget, margins)),
    ):
        if figure is not None:
            drawn[f"{index}-{name}"] = figure
    return Panel(
        number=index,
        forget=forget,
        headline=headline(forget),
        rows=rows,
        verdicts=verdicts,
        ladder=sorted(verdicts, key=lambda v: v.configuration.cost if passes(v.configuration) else math.inf),
        # A do-nothing control is the pretrained ensemble, with a verdict: its row takes the reference's place.
        references=[r for r in _references(forget, record.tolerance, top) if dict(r[3]) not in shown],
        unjudged=[row for row in rows if row.chosen is None and not row.control],
        drawn=drawn,
        timing=[
            (
                row.method,
                row.label,
                wording.timing_sentence(forget, row.method),
                figures.rate_legend(forget, row.method),
            )
            for row in rows
            if any(c.method == row.method and wording.starts_pretrained(c) for c in forget.configurations)
        ],
        grid=margin_grid(forget, margins, record.statistic) if margins is not None else None,
        selections=[
            (
                row,
                wording.options_text(row.chosen.options, keys[row.method]) if row.chosen else "",
                wording.options_text(row.best.options, keys[row.method]) if row.best else "",
            )
            for row in rows
            if row.selection and row.configurations > 1
        ],
        rules=Counter((row.selection.rule, row.selection.objective) for row in rows if row.selection).most_common(),
        controls=_controls(forget, keys),
        rate_zero=_rate_zero(forget),
        checks=_checks(forget, rows),
        failed_members=[
            (row.label, sum(c.failed > 0 for c in own), max(c.failed for c in own))
            for row in rows
            if (own := [c for c in forget.configurations if c.method == row.method]) and any(c.failed for c in own)
        ],
        disagreements=[
            (d, wording.options_text(d.configuration.options, keys[d.configuration.method])) for d in everything[:8]
        ],
        disagreement_count=sum(d.stops for d in everything),
        cautions=_cautions(forget, record),
        outcome=outcome(forget, margins),
        table=_table(forget, record.utility),
        others=wording.other_results(forget),
    )


def _strip_top(forget: ForgetRecord, judged: Sequence[wording.Row]) -> float:
    """Return the end of the scale of a panel's strips: all that is finite, but no more than four times pretrained."""
    values = [s.high for s in forget.pretrained.values()] + [s.floor_high for s in forget.floor.values()]
    values = [v for v in values if math.isfinite(v)]
    limit = 4 * max([*values, 1e-3])
    for row in judged:
        values += [s.high for s in row.chosen.scores.values() if s.high <= limit] if row.chosen else []
    return max([*values, 1e-3]) * 1.05


def _references(
    forget: ForgetRecord, tolerance: float, top: float
) -> list[tuple[str, str, str, Mapping[SplitName, Result], Mapping[SplitName, float], dict[str, Strip]]]:
    return [
        (name, note, cost, scores, accuracy, {s: strip(score, tolerance, top) for s, score in scores.items()})
        for name, note, cost, scores, accuracy in (
            ("Pretrained", "nothing done", "0 %", forget.pretrained, forget.pretrained_accuracy),
            ("Retrained", "held-out oracles: the floor", "100 %", forget.floor, forget.oracle_accuracy),
        )
    ]


def _controls(forget: ForgetRecord, keys: Mapping[str, list[str]]) -> list[ControlRow]:
    """Return one line for each run of a control: its chosen stopping time if there is one, else one that was judged."""
    chosen = {s.chosen for s in forget.selections}
    runs: dict[str, list[ConfigurationRecord]] = {}
    for c in forget.configurations:
        if c.control:
            runs.setdefault(c.run, []).append(c)
    found = []
    for run in runs.values():
        shown = max(run, key=lambda c: (c.id in chosen, c.verdict.name not in ("unjudged", "diverged"), c.epoch))
        options = wording.options_text(shown.options, keys[shown.method])
        found.append(ControlRow(shown, wording.short_label(shown.label, shown.statistics), options, len(run)))
    return found


def _rate_zero(forget: ForgetRecord) -> list[str]:
    """Say what changing the normalisation statistics alone does, for each way of doing so that was tried."""
    found: dict[str, ConfigurationRecord] = {}
    for c in forget.configurations:
        if c.still and c.statistics != "frozen" and (c.statistics not in found or c.epoch > found[c.statistics].epoch):
            found[c.statistics] = c
    sentences = []
    for statistics, c in found.items():
        parts = [
            f"{split} from {numbers.number(forget.pretrained[split].value)} to {numbers.number(c.scores[split].value)}"
            for split in SPLITS
            if split in forget.pretrained and split in c.scores
        ]
        if parts:
            sentences.append(
                f"Statistics alone, {statistics} for {numbers.count(c.epoch, 'epoch')}: no weight moves, and "
                f"KLoM goes on {numbers.listing(parts)}."
            )
    return sentences


def _checks(forget: ForgetRecord, rows: Sequence[wording.Row]) -> list[CheckRow]:
    labels = {row.method: row.label for row in rows}
    groups: dict[tuple[str, str], list[tuple[ConfigurationRecord, bool, str]]] = {}
    for c in forget.configurations:
        for check in c.checks:
            groups.setdefault((c.method, check.name), []).append((c, check.passed, check.detail))
    found = []
    for (method, name), seen in groups.items():
        wrong = [(c, detail) for c, passed, detail in seen if not passed]
        detail = f"{wrong[0][0].id}: {wrong[0][1]}" if wrong else seen[-1][2]
        found.append(CheckRow(labels[method], name, len(seen) - len(wrong), len(seen), detail))
    return sorted(found, key=lambda row: not row.failed)


def _cautions(forget: ForgetRecord, record: Record) -> list[str]:
    """Return what limits this panel's conclusions and can be read off the record."""
    found = []
    floors = [score for score in forget.floor.values() if math.isfinite(score.floor_high - score.floor_low)]
    width = max((score.floor_high - score.floor_low for score in floors), default=0.0)
    if width > 2 * record.tolerance:
        found.append(
            f"With {numbers.count(record.members, 'member')} the floor itself is only known to within "
            f"{numbers.number(width)} nats, more than twice the tolerance of {record.tolerance:g}. "
            "More members would sharpen every verdict here."
        )
    rules = {row.chosen.verdict.rule for row in wording.rows(forget) if row.chosen}
    if rules == {"percentile"}:
        found.append(
            "Verdicts here were judged by the 95th percentile over rows alone, as in earlier versions: up to 5 % of "
            "the forget rows may be remembered unseen. Audit again to have every row judged."
        )
    failed = [check for check in forget.checklist if not check.passed]
    if failed and not forget.nothing_to_unlearn:
        # A check is named by the sentence that it tests, which must not be read as the finding.
        sentences = numbers.listing([f'"{check.name}"' for check in failed])
        found.append(f"Before any method ran, {numbers.count(len(failed), 'check')} failed. Not so here: {sentences}.")
    if forget.size < 20:
        found.append(
            f"With {numbers.count(forget.size, 'forget example')} the 95th percentile on forget is set by the "
            "worst one or two."
        )
    return found


_COLUMNS = (
    "method",
    "options",
    "statistics",
    "epoch",
    "cost",
    "verdict",
    "forget",
    "forget interval",
    "retain",
    "retain interval",
    "validation",
    "validation interval",
    "mean forget",
    "shift forget",
    "accuracy forget",
    "accuracy validation",
    "public forget",
    "excess on calibration",
    "failed",
    "id",
)


def _table(forget: ForgetRecord, utility: str) -> dict[str, Any]:
    """Return all configurations as rows of plain values, which the page shows on request, sorts and saves as CSV."""
    rows = []
    others = [
        (name, split) for name in dict.fromkeys(n for c in forget.configurations for n in c.others) for split in SPLITS
    ]
    for c in forget.configurations:
        read = [c.others.get(name, {}).get(split) for name, split in others]
        scores = {split: c.scores.get(split) for split in SPLITS}
        rows.append(
            [
                c.label + (" (control)" if c.control else ""),
                wording.options_text(c.options),
                c.statistics,
                c.epoch,
                numbers.plain(c.cost),
                c.verdict.name,
                *(
                    item
                    for score in scores.values()
                    for item in ((numbers.plain(score.value), numbers.interval(score)) if score else (None, ""))
                ),
                numbers.plain(c.means.get("forget")),
                numbers.plain(c.shifts.get("forget")),
                numbers.plain(c.accuracy.get("forget")),
                numbers.plain(c.accuracy.get("validation")),
                numbers.plain(c.public.get("forget")),
                numbers.plain(max(c.calibration.values()) if c.calibration else None),
                c.failed,
                c.id,
                *(numbers.plain(result.value) if result else None for result in read),
            ]
        )
    columns = [name.replace("accuracy", utility) for name in _COLUMNS]
    return {"columns": [*columns, *(f"{name} {split}" for name, split in others)], "rows": rows}


def _matrix(panels: Sequence[Panel]) -> list[tuple[str, bool, list[ConfigurationRecord | None]]]:
    """Return method by forget set: the chosen configuration, or None where there is none."""
    methods: dict[str, tuple[str, bool]] = {}
    for panel in panels:
        for row in panel.rows:
            if row.chosen is not None:
                methods.setdefault(row.method, (row.label, row.control))
    found: list[tuple[str, bool, list[ConfigurationRecord | None]]] = []
    for method, (label, control) in methods.items():
        by_panel = [next((row.chosen for row in panel.rows if row.method == method), None) for panel in panels]
        found.append((label, control, by_panel))
    return sorted(found, key=lambda item: item[1])


def _facts(record: Record) -> list[str]:
    """Return the line below the title."""
    return [
        *made_facts(record),
        *task_facts(record.task),
        numbers.count(record.members, "member") + " an ensemble",
        f"tolerance {record.tolerance:g} nats above the floor",
    ]
