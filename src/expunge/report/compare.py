"""Runs beside each other: what each concludes of a forget set, where they differ, and every number, a line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.core.errors import InputError
from expunge.core.forecast import ForecastRun, MethodForecast
from expunge.core.passing import AS_DEAR, failed_checks, working
from expunge.core.record import ForgetRecord, Record
from expunge.report import numbers, wording
from expunge.report.comparison import NOT_CHOSEN, NOT_RUN, Answer, ComparedRun, Comparison, Line

MEANS = {
    "members": "with more, intervals are narrower and smaller traces are told",
    "tolerance": "a verdict at a wider tolerance is easier to earn",
    "row tolerance": "a verdict at a wider one is easier to earn",
    "statistic": "scores of different statistics do not compare",
    "rule of verdicts": "'percentile' overlooks up to 5 % of the rows",
    "version of expunge": "verdicts of different versions may follow different rules",
}
"""What a difference between runs means; seeds and machines should change numbers by their noise alone."""


def compare(folders: Sequence[Path]) -> Comparison:
    """Put runs beside each other.

    Rows meet by the names of task, forget set and method; where those of two runs are not the same data or rows,
    `differences` says so.

    Args:
        folders: Of audits and forecasts, at least two.

    Raises:
        InputError: If there are fewer, one holds neither, or one is named twice.
        DamagedFileError: If a record cannot be read.
    """
    folders = [folder.parent if folder.is_file() else folder for folder in folders]
    if len(folders) < 2:
        raise InputError(f"{len(folders)} run to compare, expected two or more folders of audits or forecasts.")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError("one run is named twice, expected two or more different folders.")
    short = [folder.resolve().name for folder in folders]
    runs = [
        _read(folder, name if short.count(name) == 1 else str(folder))
        for folder, name in zip(folders, short, strict=True)
    ]
    audits = [run for run in runs if run.audit] or runs
    lines = list(_lines(audits, runs))
    if not lines:
        raise InputError("no forget set is on record in any of these runs yet; go on with them (--resume).")
    answers = [_answer(audits, lines, *at) for at in dict.fromkeys((line.task, line.forget_set) for line in lines)]
    return Comparison(runs, answers, _differences(runs), lines)


def _read(folder: Path, name: str) -> ComparedRun:
    audit = Record.load(folder) if (folder / Record.FILE).is_file() else None
    forecast = ForecastRun.load(folder) if (folder / ForecastRun.FILE).is_file() else None
    if audit is None and forecast is None:
        raise InputError(
            f"{folder} holds no run to compare, expected the folder of an audit ({Record.FILE}) or of a forecast "
            f"({ForecastRun.FILE})."
        )
    return ComparedRun(name, folder, audit, forecast)


def _lines(audits: Sequence[ComparedRun], runs: Sequence[ComparedRun]) -> Iterator[Line]:
    """Yield a line for every forget set of the runs, every method that one of them has on it, and every audit."""
    for task, name in dict.fromkeys(at for run in runs for at in _sets(run)):
        audited = [_audited(run, task, name) for run in audits]
        rows = [{row.method: row for row in wording.rows(forget)} if forget else {} for forget in audited]
        known: dict[str, tuple[str, bool]] = {}
        for found in rows:
            known |= {m: (row.label, row.control) for m, row in found.items() if m not in known}
        for forecast in _forecasts(runs, task, name, ""):
            known |= {f.method: (f.label, f.control) for f in forecast if f.method not in known}
        for method, (label, control) in sorted(known.items(), key=lambda item: item[1][1]):
            for run, forget, found in zip(audits, audited, rows, strict=True):
                same = _forecasts([run, *runs], task, name, _digest(run, name))
                expected = next((f for methods in same for f in methods if f.method == method), None)
                yield _line(run, forget, found.get(method), (task, name, method, label, control), expected)


def _line(
    run: ComparedRun,
    forget: ForgetRecord | None,
    row: wording.Row | None,
    what: tuple[str, str, str, str, bool],
    expected: MethodForecast | None,
) -> Line:
    common: dict[str, Any] = {"run": run.name, "seed": run.seed, "members": run.record.members}
    if expected is not None:
        common |= {"forecast": expected.outlook, "forecast_excess": expected.objective}
    if forget is None or row is None or row.chosen is None:
        return Line(*what, verdict=NOT_RUN if row is None else NOT_CHOSEN, **common)
    chosen = row.chosen
    return Line(
        *what,
        verdict=chosen.verdict.name,
        setting=wording.setting(forget, chosen),
        cost=chosen.cost,
        scores=chosen.scores,
        failed_checks=failed_checks(chosen),
        failed_members=chosen.failed,
        **common,
    )


def _sets(run: ComparedRun) -> list[tuple[str, str]]:
    both = (run.audit, run.forecast)
    return [(run.task, item.name) for record in both if record is not None for item in record.forget_sets]


def _audited(run: ComparedRun, task: str, name: str) -> ForgetRecord | None:
    sets = run.audit.forget_sets if run.audit and run.task == task else []
    return next((forget for forget in sets if forget.name == name), None)


def _forecasts(runs: Sequence[ComparedRun], task: str, name: str, digest: str) -> Iterator[Sequence[MethodForecast]]:
    """Yield what was forecast of a forget set, in audits or alone; of other rows under the same name nothing."""
    for run in runs:
        if run.task != task or (digest and _digest(run, name) not in ("", digest)):
            continue
        audited = _audited(run, task, name)
        if audited is not None and audited.forecast is not None:
            yield audited.forecast.methods
        if run.forecast is not None:
            yield from (item.forecast.methods for item in run.forecast.forget_sets if item.name == name)


def _digest(run: ComparedRun, name: str) -> str:
    """Return the digest of the rows of a forget set; nothing where it is not on record."""
    for record in (run.audit, run.forecast):
        asked = record.request.get("forget") if record is not None else None
        for item in asked if isinstance(asked, list) else []:
            if isinstance(item, Mapping) and item.get("name") == name:
                return str(item.get("digest", ""))
    return ""


def _answer(runs: Sequence[ComparedRun], lines: Sequence[Line], task: str, name: str) -> Answer:
    own = [line for line in lines if (line.task, line.forget_set) == (task, name)]
    methods = [[line for line in own if line.method == m] for m in dict.fromkeys(line.method for line in own)]
    differing = {same[0].method: text for same in methods if (text := _differing(same))}
    audited = {run.name: forget for run in runs if (forget := _audited(run, task, name))}
    if not audited:
        tone, sentence = "open", "None of these runs has audited it: what stands here is forecast, not measured."
    elif all(forget.nothing_to_unlearn for forget in audited.values()):
        tone, sentence = "empty", f"There is nothing to unlearn, in {_every(list(audited), runs)}."
    else:
        tone, sentence = _cheapest(audited, methods, runs)
    return Answer(task, name, tone, sentence, len(audited), list(differing.values()), list(differing))


def _cheapest(
    audited: Mapping[str, ForgetRecord], methods: Sequence[Sequence[Line]], runs: Sequence[ComparedRun]
) -> tuple[str, str]:
    """Name the cheapest that passes in every run, and in each where that is another."""
    best = {run: next((c for c in working(forget) if c.cost < AS_DEAR), None) for run, forget in audited.items()}
    every = _every(list(audited), runs)
    common = []
    for same in methods:
        seen = [line for line in same if line.run in audited]
        if all(line.passes and line.cost < AS_DEAR for line in seen):
            common.append((max(line.cost for line in seen), seen))
    if not any(best.values()):
        return "bad", f"Retrain: nothing cheaper is known to work in {every}."
    each = numbers.listing(
        [
            f"{c.label} at {numbers.percent(c.cost)} in {run}" if c else f"nothing cheaper than retraining in {run}"
            for run, c in best.items()
        ]
    )
    if not common:
        return "open", f"Nothing cheaper than retraining passes in {every}. The cheapest that passes: {each}."
    seen = min(common, key=lambda item: item[0])[1]
    costs = numbers.listing(list(dict.fromkeys(numbers.percent(line.cost) for line in seen)))
    sentence = f"{seen[0].label} cannot be told from retraining in {every}, at {costs} of its cost."
    if all(c is not None and c.method == seen[0].method for c in best.values()):
        return "good", f"{sentence} Nothing cheaper passes in any."
    return "good", f"{sentence} The cheapest of each: {each}."


def _every(names: Sequence[str], runs: Sequence[ComparedRun]) -> str:
    if len(names) == 1:
        return f"{names[0]}, the only run that has audited it"
    many = "both runs" if len(names) == 2 else f"all {len(names)} runs"
    return many if len(names) == len(runs) else f"{many} that have audited it"


def _differing(lines: Sequence[Line]) -> str:
    """Say how the runs' verdicts of a method differ; nothing where they do not, or where one run alone has any."""
    judged = [line for line in lines if line.verdict not in (NOT_RUN, NOT_CHOSEN)]
    verdicts = dict.fromkeys(line.verdict for line in judged)
    if len(verdicts) < 2:
        return ""
    said = [f"{v} in {numbers.listing([line.run for line in judged if line.verdict == v])}" for v in verdicts]
    beside = " (too few members there, no contradiction)" if len(verdicts) == 2 and "undecided" in verdicts else ""
    return f"{judged[0].label}: {numbers.listing(said)}{beside}."


def _differences(runs: Sequence[ComparedRun]) -> list[str]:
    """Say in what the runs differ beside their results."""
    found = [
        f"{run.name} is not complete: what stands here is what is on record so far."
        for run in runs
        if any(record.status != "complete" for record in (run.audit, run.forecast) if record)
    ]
    for task in dict.fromkeys(run.task for run in runs):
        own = [run for run in runs if run.task == task]
        if text := _unlike(own, [str(run.record.task.get("fingerprint", ""))[:12] for run in own]):
            found.append(f"{task} is not the same data, model and recipe in all runs: {text}.")
        for name in dict.fromkeys(name for run in own for _, name in _sets(run)):
            having = [run for run in own if (task, name) in _sets(run)]
            if text := _unlike(having, [_digest(run, name)[:12] for run in having]):
                found.append(f"{name} of {task} is not the same rows in all runs: {text}.")
    unlike = {fact: _unlike(runs, [run.facts[fact] for run in runs]) for fact in runs[0].facts}
    return found + [
        f"{fact[:1].upper()}{fact[1:]}: {text}{f'; {MEANS[fact]}' if fact in MEANS else ''}."
        for fact, text in unlike.items()
        if text
    ]


def _unlike(runs: Sequence[ComparedRun], seen: Sequence[str]) -> str:
    """Write which runs have which value; nothing where all that have one have the same."""
    values: dict[str, list[str]] = {}
    for run, value in zip(runs, seen, strict=True):
        if value:
            values.setdefault(value, []).append(run.name)
    return "" if len(values) < 2 else ", ".join(f"{value} in {numbers.listing(at)}" for value, at in values.items())
