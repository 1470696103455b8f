"""The audit: does any unlearning method make these models behave as if they had never seen that data?

    pretrained ensemble, trained or given
    for each forget set:
        the forecast, from the pretrained ensemble alone
        oracles and as many held-out oracles, for it and for a calibration forget set of the same kind
        checklist: is there anything to unlearn, do the oracles look right
        every method over its grid, every epoch a stopping time, on both forget sets
        scores, verdicts; one configuration a method, chosen on the calibration set
    record.json, rows.safetensors, margins/*.safetensors

Everything long is kept as it is made (ensembles in the store, measurements in parts), so a killed audit goes on where
it was and ends with the same numbers.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from expunge.core import Ensemble, ForgetSet, InputError, Task
from expunge.core.checks import positive, whole
from expunge.core.limits import DEFAULT_ROW_TOLERANCE, DEFAULT_TOLERANCE, FEWEST_MEMBERS
from expunge.core.reading import check_memory
from expunge.core.record import Record
from expunge.ensembles.chunks import pick_device
from expunge.ensembles.plan import check_members, check_size
from expunge.ensembles.runners import Runner, read_runner
from expunge.ensembles.train import train
from expunge.ensembles.trial import NAMES
from expunge.methods import METHODS, Method, check_fits, unlearn
from expunge.methods.method import lacking
from expunge.studies.audit.estimate import estimate
from expunge.studies.audit.forget_set import Study, audit_forget_set
from expunge.studies.audit.rows import save_rows
from expunge.studies.run.check import NEEDED, check
from expunge.studies.run.forecasting import AIMS_WORK, FORECAST_WORK, check_forecastable
from expunge.studies.run.forget_specs import choose_all, is_component, stand_in
from expunge.studies.run.given import Given, Models
from expunge.studies.run.grid import kept_epochs, plan_runs, runs_work
from expunge.studies.run.lifecycle import Run
from expunge.studies.run.measure import RETAIN_EXAMPLES, VALIDATION_EXAMPLES
from expunge.studies.run.prediction import FOLLOWED
from expunge.studies.run.progress import Pulse
from expunge.studies.run.python_call import python_call
from expunge.studies.run.run_folder import check_folder
from expunge.studies.run.seeds import digest_forget
from expunge.studies.run.subset_models import SUBSETS
from expunge.studies.run.trying import Estimate, Trial
from expunge.tasks import Choice

SIDES = 4
"""Ensembles that are compared at once: unlearned, oracles, held-out oracles, pretrained."""


def audit(
    task: Task,
    *,
    forget: Sequence[ForgetSet | Choice | str | Path],
    methods: Sequence[str | Method] | None = None,
    pretrained: Models | None = None,
    oracles: Models | Mapping[str, Models] | None = None,
    held_out: Models | Mapping[str, Models] | None = None,
    members: int = 100,
    out: Path = Path("runs/audit"),
    seed: int = 0,
    tolerance: float | None = None,
    row_tolerance: float | None = None,
    resume: bool = False,
    forecast: bool = True,
    device: str = "auto",
    chunk: int | None = None,
    runner: str | Runner | None = None,
    console: Console | None = None,
    command: str | None = None,
) -> tuple[Path, Record]:
    """Run an audit and write its record; the arguments are those of `expunge.audit`.

    Returns:
        The folder and the record.

    Raises:
        InputError: If something given cannot be used; before any training.
    """
    asked = {"members": members, "out": out, "seed": seed, "tolerance": tolerance, "forecast": forecast}
    asked |= {
        "row_tolerance": row_tolerance,
        "device": device,
        "chunk": chunk,
        "runner": runner,
        "pretrained": pretrained,
        "oracles": oracles,
        "held_out": held_out,
    }
    tolerance, row_tolerance = _tolerances(tolerance, row_tolerance)
    ready = _prepare(
        task,
        forget,
        methods,
        (pretrained, oracles, held_out),
        members,
        out,
        seed,
        resume,
        forecast,
        device,
        chunk,
        console,
    )
    elsewhere = read_runner(runner)
    if elsewhere is not None:
        elsewhere.check((out / "ensembles").resolve())
    choices, runs, given, forecasts, where = ready.choices, ready.runs, ready.given, ready.forecasts, ready.device
    if not (out / Record.FILE).exists():
        _try_fit(task, console)
        _try_functions(choices[0], runs)
    with Run.open(
        Record,
        out,
        _request(task, choices, runs, members, seed, tolerance, row_tolerance, forecasts, given),
        resume=True,  # checked above, before subset models were kept in it
        command=command or python_call("audit", task.name, [*map(_set_of, forget)], methods, asked, audit),
        device=where,
        console=console,
        work=_work(task, choices, runs, forecasts),
        study="audit",
        task=task.describe(),
        members=ready.starting,
        tolerance=tolerance,
        statistic=task.outcome.statistic_name,
        utility=task.outcome.utility_name,
    ) as run:
        if run.finished:
            return out, run.record
        run.record.rows, run.record.rows_digest = save_rows(out, task, choices, seed)
        study = Study(
            task,
            members,
            seed,
            tolerance,
            row_tolerance,
            where,
            chunk,
            out,
            run.reporter,
            run.parts,
            forecasts,
            given,
            elsewhere,
            kept_epochs(runs, task),
        )
        for choice in choices:
            run.record.forget_sets.append(audit_forget_set(study, choice, runs))
            run.record.ensembles = study.ensembles
            run.save()
        run.record.notes = [
            *([f"No forecast was made: {ready.reason}"] if ready.reason else []),
            *_notes(run.record, study),
        ]
    return out, run.record


def _set_of(given: ForgetSet | Choice | str | Path) -> ForgetSet | str | Path:
    return given.forget if isinstance(given, Choice) else given


def _tolerances(tolerance: float | None, row_tolerance: float | None) -> tuple[float, float]:
    """Return both, checked, with defaults for those that were left out."""
    tolerance = DEFAULT_TOLERANCE if tolerance is None else tolerance
    row_tolerance = DEFAULT_ROW_TOLERANCE if row_tolerance is None else row_tolerance
    positive(tolerance=tolerance, row_tolerance=row_tolerance)
    return tolerance, row_tolerance


@dataclass(frozen=True)
class _Ready:
    """An audit that has been checked and can begin."""

    choices: list[Choice]
    runs: list[Method]
    given: Given
    forecasts: bool
    reason: str
    """Why no forecast can be made, where one was asked for."""
    starting: int
    """Members that methods start from."""
    device: torch.device


def _prepare(
    task: Task,
    forget: Sequence[ForgetSet | Choice | str | Path],
    methods: Sequence[str | Method] | None,
    models: tuple[Any, Any, Any],
    members: int,
    out: Path,
    seed: int,
    resume: bool,
    forecast: bool,
    device: str,
    chunk: int | None,
    console: Console | None,
) -> _Ready:
    """Read and check everything that an audit is asked for; subset models of component sets are all that is trained."""
    check_members(members)
    if chunk is not None:
        whole(chunk=chunk)
    if members < FEWEST_MEMBERS:
        raise InputError(
            f"members = {members}, expected at least {FEWEST_MEMBERS}: with fewer, the floor is as high as the effects "
            "to be seen; 100 is what the paper uses."
        )
    where = pick_device(device)
    with Pulse(console, lambda: f"still trying how models of {task.name} are best computed"):
        network = task.network
    if task.fit is None:  # members of a fit lie in files
        check_size(task, network, members)
    given = Given.of(task, *models, FEWEST_MEMBERS)
    starting = len(given.models.get(("pretrained", ""), range(members)))
    reason = _no_forecast(task, starting, where) if forecast else ""
    forecasts = forecast and not reason
    start = given.models.get(("pretrained", ""))
    why = reason or "as --no-forecast asks"
    runs = plan_runs(task, methods, predicted=forecasts, why=why, given=start)
    check_folder(out, Record.FILE, resume)
    choices = choose_all(task, forget, out, seed=seed, device=device, chunk=chunk, console=console)
    given = given.of_sets(task, choices, FEWEST_MEMBERS)
    for choice in choices:
        network = choice.task.network
        for method in runs:
            for each in (choice.forget, choice.calibration)[: 1 if method.chosen == "last" else 2]:
                check_fits(method, network, choice.task, each, targets=forecasts, start=start)
        scored = (
            len(choice.forget) + min(len(task.train), RETAIN_EXAMPLES) + min(len(task.validation), VALIDATION_EXAMPLES)
        )
        check_memory(SIDES * 8 * members * scored, f"what is measured of {members:,} members on {choice.forget.name}")
    return _Ready(choices, runs, given, forecasts, reason, starting, where)


def estimate_audit(
    task: Task,
    *,
    forget: Sequence[ForgetSet | str | Path],
    methods: Sequence[str | Method] | None = None,
    pretrained: Models | None = None,
    oracles: Models | Mapping[str, Models] | None = None,
    held_out: Models | Mapping[str, Models] | None = None,
    members: int = 100,
    out: Path = Path("runs/audit"),
    seed: int = 0,
    resume: bool = False,
    forecast: bool = True,
    device: str = "auto",
    chunk: int | None = None,
    tolerance: float | None = None,
    row_tolerance: float | None = None,
    trial: Trial | None = None,
) -> Estimate:
    """Return what an audit with these arguments would take; it is refused as the audit would be, and writes nothing.

    Component forget sets are stood for by random ones of their size, and their subset models are counted.
    What training took in a `trial` is not measured again.

    Raises:
        InputError: If something given cannot be used.
    """
    _tolerances(tolerance, row_tolerance)
    likewise = [stand_in(task, item, place + 1) for place, item in enumerate(forget)]
    models = (pretrained, oracles, held_out)
    ready = _prepare(task, likewise, methods, models, members, out, seed, resume, forecast, device, chunk, None)
    return estimate(
        task,
        ready.choices,
        ready.runs,
        members=members,
        given=len(ready.given.models),
        forecasts=ready.forecasts,
        device=ready.device,
        chunk=chunk,
        out=out,
        seed=seed,
        subsets=SUBSETS if any(is_component(item) for item in forget) else 0,
        trial=trial,
    )


def _try_fit(task: Task, console: Console | None) -> None:
    """Train a few times by the user's own loop on some rows, and refuse one that no oracle can come from."""
    if task.fit is None:
        return
    if console is not None:
        console.print("trying fit on some rows, four times", style="dim")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        found = check(task)
    for answer in found.answers:
        if answer.passed is not False:
            continue
        if answer.question in NEEDED:
            raise InputError(
                f"the training of task {task.name!r} is not what an audit needs; {answer.question}: {answer.sentence}"
            )
        if console is not None:
            console.print(f"{answer.question}: {answer.sentence}", highlight=False, markup=False)


def _try_functions(choice: Choice, runs: Sequence[Method]) -> None:
    """Run each function of the user's on one untrained model: what it raises is known before any training."""
    own = [method for method in runs if "modules" in method.needs]
    if not own:
        return
    task = choice.task
    start = train(task, members=1) if task.model is None else Ensemble.from_modules([task.build(0)], task)
    for method in own:
        unlearn(start, task, choice.forget, method)


def _no_forecast(task: Task, members: int, device: torch.device) -> str:
    """Return why no forecast can be made for a task, or nothing if one can."""
    try:
        check_forecastable(task, min(FOLLOWED, members), device)
    except InputError as error:
        return str(error)
    return ""


def _work(task: Task, choices: Sequence[Choice], runs: Sequence[Method], forecasts: bool) -> float:
    """About what an audit takes, in units of training one ensemble."""
    total = 0.2 * len({choice.task.fingerprint for choice in choices}) if forecasts else 0.0
    aims = AIMS_WORK if any("targets" in run.needs for run in runs) else 0.0
    each = FORECAST_WORK + aims if forecasts else 0.0
    return total + sum(5.0 + each + runs_work(runs, task, choice.forget) for choice in choices)


def _request(
    task: Task,
    choices: Sequence[Choice],
    runs: Sequence[Method],
    members: int,
    seed: int,
    tolerance: float,
    row_tolerance: float,
    forecasts: bool,
    given: Given,
) -> dict[str, Any]:
    asked = {} if row_tolerance == DEFAULT_ROW_TOLERANCE else {"row_tolerance": row_tolerance}
    return asked | {
        "task": task.name,
        "fingerprint": task.fingerprint,
        "forget": [
            {
                "name": choice.forget.name,
                "digest": digest_forget(choice.forget),
                "calibration": digest_forget(choice.calibration),
            }
            for choice in choices
        ],
        "methods": [run.describe() for run in runs],
        "members": members,
        "seed": seed,
        "tolerance": tolerance,
        "forecast": {"followed": FOLLOWED} if forecasts else None,
        "given": given.digests(),
    }


def _notes(record: Record, study: Study) -> list[str]:
    notes = [*study.given.notes(study.task), *([f"Of the task: {study.task.overlap}"] if study.task.overlap else [])]
    notes += study.notes
    if study.forecasts and study.task.augment is not None:
        notes.append("The forecasts follow training as if its inputs were not augmented.")
    if study.task.network.reason:
        form = NAMES[study.task.network.kind]
        notes.append(f"The models were {form}, which is slower than the fastest form ({study.task.network.reason}).")
    if study.task.common_start:
        notes.append("All models start from the same weights; they differ by the order of their batches alone.")
    lacks = lacking(study.task)
    for method in METHODS.values():
        why = [lacks[need] for need in ("weights", "recipe") if need in method.needs and need in lacks]
        if method.role == "control" and why:
            notes.append(f"{method.label} is left out: it needs {why[0]}.")
    notes.extend(
        f"The forget set {forget.name} was given as a list, so its kind is unknown; its calibration set is only an "
        f"approximation ({forget.calibration_how})"
        for forget in record.forget_sets
        if forget.chooser == "given"
    )
    return notes
