"""The verdict in a terminal: what a person sees when an audit or a forecast ends."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from expunge.core.claim import beside
from expunge.core.forecast import ForecastRecord, ForecastRun, Outlook, settings_of
from expunge.core.record import SPLITS, ForgetRecord, Record, SelectionRecord, VerdictName
from expunge.core.result import Result
from expunge.report import numbers, wording
from expunge.report.fitting import print_fitting
from expunge.report.forecast_words import OUTLOOKS, forecast_headline
from expunge.report.headline import headline
from expunge.report.outcome import outcome_sentence

STYLES: dict[VerdictName, str] = {
    "indistinguishable": "bold green",
    "under-forgotten": "yellow",
    "over-forgotten": "magenta",
    "damaged": "red",
    "diverged": "bold red",
    "undecided": "dim",
    "unjudged": "dim",
}
"""Colour of each verdict; the word itself is always printed, so nothing is said by colour alone."""

OUTLOOK_STYLES: dict[Outlook, str] = {
    "nothing to unlearn": "bold cyan",
    "can work": "bold green",
    "partly": "yellow",
    "breaks first": "red",
    "cannot forget": "bold red",
}
"""Colour of each outlook, likewise."""

TONES = {"good": "bold green", "bad": "bold red", "open": "bold yellow", "empty": "bold cyan"}


def print_table(record: Record, console: Console) -> None:
    """Print the verdicts of a record, the most important sentence first.

    Args:
        record: A study's record, complete or still running.
        console: Where to print; its width decides what the table shows.
    """
    if record.status == "running":
        console.print(Text("This audit is not complete; what follows is what is known so far.", "bold yellow"))
    for forget in record.forget_sets:
        console.print()
        console.print(Text(f"{forget.name}", "bold").append(f"  {numbers.count(forget.size, 'forget example')}", "dim"))
        words = headline(forget)
        console.print(Text(words.sentence, TONES[words.tone]))
        console.print(Text(words.action))
        print_fitting(console, _table(forget, intervals=True), _table(forget), _table(forget, beneath=True))
        if wording.other_results(forget):
            print_fitting(console, _others(forget))
        if forget.forecast is not None:
            said = forecast_headline(forget.forecast).sentence
            console.print(Text(f"Forecast beforehand: {said} {outcome_sentence(forget)}", "dim"))
    if record.forget_sets:
        console.print(
            Text(
                f"KLoM in nats, 95th percentile over examples, {numbers.count(record.members, 'member')}. Compare "
                f"with the floor (last row), not with 0; tolerance {record.tolerance:g} above it.",
                "dim",
            )
        )
    else:
        console.print(Text("No forget set has been audited yet.", "bold yellow"))
    for forget in record.forget_sets:
        for row in wording.rows(forget):
            if row.chosen is not None and row.chosen.claim is not None:
                claim = row.chosen.claim
                told = beside(claim, row.chosen.epsilon)
                style = "bold red" if not claim.holds or "CONTRADICTED" in told else "dim"
                console.print(Text(f"{row.label}, {forget.name}: {told}", style))
    for note in record.notes:
        console.print(Text(f"Note: {note}", "dim"))


def _table(forget: ForgetRecord, *, intervals: bool = False, beneath: bool = False) -> Table:
    """Return the table of one forget set, with intervals, or with remarks beneath the methods' names."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("method", min_width=20)
    table.add_column("verdict", no_wrap=True)
    for split in SPLITS:
        table.add_column(split, justify="right", no_wrap=True)
    table.add_column("cost", justify="right", no_wrap=True)
    table.add_column("illusion gap" if intervals else "gap", justify="right", no_wrap=True)
    if not beneath:
        table.add_column("checks", min_width=16)
    rows = wording.rows(forget)
    for row in wording.with_equal_cost(rows):
        name = Text(row.label + (" (control)" if row.control else ""), "dim" if row.control else "")
        if row.chosen is None:
            if not row.control:
                _add(table, name, [Text("not chosen", "dim")], Text(f"{row.configurations} tried", "dim"), beneath)
            continue
        c = row.chosen
        failed = [check.name for check in c.checks if not check.passed]
        remarks = [f"FAILED: {', '.join(failed)}"] * bool(failed)
        if wording.chip(c.verdict) != c.verdict.name:
            remarks.append(wording.chip(c.verdict).partition(" (")[2].removesuffix(")"))
        if wording.tails(c.verdict):
            kept = sum(seen.counted for split, seen in c.verdict.rows.items() if split != "forget")
            remarks.append(f"damage on {numbers.count(kept, 'kept row')}")
        remarks += [f"{numbers.count(c.failed, 'member')} failed"] * bool(c.failed)
        remarks += ["CLAIM VOID"] * (c.claim is not None and not c.claim.holds)
        remarks += ["edge of grid"] * bool(row.selection and row.selection.edge)
        cells = [
            Text(c.verdict.name, STYLES[c.verdict.name]),
            *(_score(c.scores.get(split), intervals) for split in SPLITS),
            Text(numbers.percent(c.cost)),
            _gap(row.selection, intervals) if row.selection else Text(""),
        ]
        passed = "" if beneath else "passed"
        _add(
            table, name, cells, Text("; ".join(remarks) or passed, "bold red" if failed or c.failed else "dim"), beneath
        )
    shown = [row.chosen.scores for row in rows if row.chosen]
    for name_, scores, cost in (("pretrained", forget.pretrained, "0 %"), ("floor (retrained)", forget.floor, "100 %")):
        if scores in shown:  # a do-nothing control is the pretrained ensemble
            continue
        cells = [Text(""), *(_score(scores.get(split), intervals) for split in SPLITS), Text(cost)]
        _add(table, Text(name_, "dim"), cells, Text(""), beneath)
    return table


def _others(forget: ForgetRecord) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("metric (beside what oracles read)", min_width=20)
    table.add_column("method", min_width=20)
    for split in SPLITS:
        table.add_column(split, justify="right", no_wrap=True)
    for row, name, found in wording.other_results(forget):
        table.add_row(name, row.label, *(wording.beside_floor(found.get(split)) for split in SPLITS))
    return table


def _add(table: Table, name: Text, cells: list[Text], remark: Text, beneath: bool) -> None:
    """Add a row, its remark in the last column or beneath its name."""
    if beneath and remark:
        name = Text("\n").join([name, remark])
    count = len(table.columns) - 1
    filled = [*cells, *[Text("")] * (count - len(cells))]
    table.add_row(name, *(filled if beneath else [*filled[:-1], remark]))


def _gap(selection: SelectionRecord, intervals: bool) -> Text:
    found = Text(wording.gap_text(selection))
    inside = wording.gap_interval(selection) if intervals and selection.gap_low is not None else ""
    return found.append(f" [{inside.replace(' to ', ', ')}]", "dim") if inside else found


def _score(score: Result | None, intervals: bool) -> Text:
    if score is None:
        return Text("not scored", "dim")
    found = Text(numbers.number(score.value))
    return found.append(f" [{numbers.number(score.low)}, {numbers.number(score.high)}]", "dim") if intervals else found


def print_forecast(record: ForecastRun, console: Console) -> None:
    """Print the forecasts of a record, the most important sentence first.

    Args:
        record: Of a run of forecasts, complete or still running.
        console: Where to print.
    """
    if record.status == "running":
        console.print(Text("This forecast is not complete; what follows is what is known so far.", "bold yellow"))
    for item in record.forget_sets:
        console.print()
        console.print(Text(f"{item.name}", "bold").append(f"  {numbers.count(item.size, 'forget example')}", "dim"))
        words = forecast_headline(item.forecast)
        console.print(Text(words.sentence, TONES[words.tone]))
        if words.action:
            console.print(Text(words.action))
        for sentence in item.forecast.advice[1:]:
            console.print(Text(f"- {sentence}", "dim"))
        print_fitting(console, *(_forecast_table(item.forecast, settings=settings) for settings in (True, False)))
        for note in item.forecast.notes:
            console.print(Text(f"Note: {note}", "dim"))
    if record.forget_sets:
        console.print(
            Text(
                "Predicted KLoM above the floor in nats, 95th percentile over examples, at the predicted best setting "
                f"of each method; tolerance {record.tolerance:g}. From "
                f"{numbers.count(record.members, 'pretrained member')}; nothing was retrained or unlearned.",
                "dim",
            )
        )
    else:
        console.print(Text("No forget set has been forecast yet.", "bold yellow"))


def _forecast_table(forecast: ForecastRecord, *, settings: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("method", min_width=20)
    table.add_column("outlook", no_wrap=True)
    for split in SPLITS:
        table.add_column(split, justify="right", no_wrap=True)
    table.add_column("damage", justify="right", no_wrap=True)
    table.add_column("cost", justify="right", no_wrap=True)
    if settings:
        table.add_column("predicted best setting", min_width=32)
    order = list(OUTLOOKS)
    for method in sorted(forecast.methods, key=lambda m: (m.control, order.index(m.outlook), m.rank)):
        moves = method.best.run != forecast.nothing.run
        best = f"{settings_of(method.best.run)}; epoch {method.best.epoch}" if moves else "none beats doing nothing"
        table.add_row(
            Text(method.label + (" (control)" if method.control else ""), "dim" if method.control else ""),
            Text(method.outlook, OUTLOOK_STYLES[method.outlook]),
            *(numbers.number(method.best.excess[split]) for split in SPLITS),
            "never there" if method.damage is None else numbers.number(method.damage),
            numbers.percent(method.best.cost),
            *([Text(best, "dim")] if settings else []),
        )
    nothing = [numbers.number(forecast.nothing.excess[split]) for split in SPLITS]
    table.add_row(Text("pretrained, nothing done", "dim"), "", *nothing, "", "0 %")
    return table
