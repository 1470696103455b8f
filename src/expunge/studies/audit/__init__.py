"""The audit: does any unlearning method make these models behave as if they had never seen that data?

    pretrained ensemble
    for each forget set:
        the forecast, from the pretrained ensemble alone
        oracles and as many held-out oracles, for it and for a calibration forget set of the same kind
        checklist: is there anything to unlearn, do the oracles look right
        every method over its grid, every epoch a stopping time, on both forget sets
        scores, verdicts; one configuration a method, chosen on the calibration set
    record.json, margins/*.safetensors

Everything long is kept as it is made (ensembles in the store, measurements in parts), so a killed audit goes on where
it was and ends with the same numbers.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from expunge.core import ForgetSet, InputError, Task
from expunge.core.checks import positive, whole
from expunge.core.record import Record
from expunge.ensembles import build_network
from expunge.ensembles.chunks import pick_device
from expunge.ensembles.train import check_size
from expunge.methods import Method, check_fits
from expunge.metrics.verdict import DEFAULT_TOLERANCE
from expunge.studies.audit.forget_set import Study, audit_forget_set
from expunge.studies.forecast import FORECAST_WORK, check_forecastable, choose_all, digest_forget
from expunge.studies.run.environment import describe_environment
from expunge.studies.run.grid import plan_runs, runs_work
from expunge.studies.run.parts import PartStore
from expunge.studies.run.prediction import FOLLOWED
from expunge.studies.run.progress import Reporter
from expunge.studies.run.python_call import python_call
from expunge.studies.run.run_folder import check_folder, open_run
from expunge.tasks import Choice

FILE = "record.json"

FEWEST_MEMBERS = 20
"""Below this an interval says nothing, so an audit is refused."""

DEFAULTS = {
    "members": 100,
    "seed": 0,
    "tolerance": DEFAULT_TOLERANCE,
    "forecast": True,
    "device": "auto",
    "chunk": None,
}
"""What `audit` does when it is not told."""


def audit(
    task: Task,
    *,
    forget: Sequence[ForgetSet | str | Path],
    methods: Sequence[str | Method] | None = None,
    members: int = 100,
    out: Path = Path("runs/audit"),
    seed: int = 0,
    tolerance: float | None = None,
    resume: bool = False,
    forecast: bool = True,
    device: str = "auto",
    chunk: int | None = None,
    console: Console | None = None,
    command: str | None = None,
) -> tuple[Path, Record]:
    """Run an audit and write its record; the arguments are those of `expunge.audit`.

    Returns:
        The folder and the record.

    Raises:
        InputError: If something given cannot be used; before any training.
    """
    whole(members=members)
    if chunk is not None:
        whole(chunk=chunk)
    tolerance = DEFAULT_TOLERANCE if tolerance is None else tolerance
    positive(tolerance=tolerance)
    if members < FEWEST_MEMBERS:
        raise InputError(
            f"members = {members}, expected at least {FEWEST_MEMBERS}: with fewer, the floor is as high as the effects "
            "to be seen; 100 is what the paper uses."
        )
    where = pick_device(device)
    check_size(task, task.network, members)
    reason = _no_forecast(task, members, where) if forecast else ""
    forecasts = forecast and not reason
    runs = plan_runs(task, methods, predicted=forecasts)
    check_folder(out, FILE, resume)
    for run in runs:
        if run.needs_targets and not forecasts:
            raise InputError(
                f"{run.name} aims at oracle margins that the forecast predicts, and this audit makes no forecast"
                + (f": {reason}" if reason else "; leave out --no-forecast, or this method.")
            )
    choices = choose_all(task, forget, out, seed=seed, device=device, chunk=chunk, console=console)
    for choice in choices:
        network = build_network(choice.task)
        for run in runs:
            for each in (choice.forget, choice.calibration):
                check_fits(run, network, choice.task, each, targets=forecasts)
    request = _request(task, choices, runs, members, seed, tolerance, forecasts)
    record = open_run(out, FILE, Record.load, request, "audit")
    if record is not None and record.status == "complete":
        if console is not None:
            console.print(f"{out} holds this audit, finished; nothing to run.", highlight=False)
        return out, record

    options = {"members": members, "out": out, "seed": seed, "tolerance": tolerance, "forecast": forecast}
    again = python_call("audit", task.name, forget, methods, {**options, "device": device, "chunk": chunk}, DEFAULTS)
    began, before = time.monotonic(), record.seconds if record else 0.0
    record = Record(
        study="audit",
        status="running",
        started=record.started if record else datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=before,
        command=command or again,
        request=request,
        environment=describe_environment(where),
        task=task.describe(),
        members=members,
        tolerance=tolerance,
        statistic=task.outcome.statistic_name,
        utility=task.outcome.utility_name,
    )
    record.save(out)
    reporter = Reporter(console).start(_work(task, choices, runs, forecasts))
    study = Study(task, members, seed, tolerance, where, chunk, out, reporter, PartStore(out / "parts"), forecasts)
    with reporter:
        for choice in choices:
            record.forget_sets.append(audit_forget_set(study, choice, runs))
            record.ensembles = study.ensembles
            record.seconds = before + time.monotonic() - began
            record.save(out)
    record.status = "complete"
    record.notes = [*([f"No forecast was made: {reason}"] if reason else []), *_notes(record, study)]
    record.save(out)
    study.parts.clear()
    return out, record


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
    each = FORECAST_WORK * (1.5 if any(run.needs_targets for run in runs) else 1.0) if forecasts else 0.0
    return total + sum(5.0 + each + runs_work(runs, task, len(choice.forget)) for choice in choices)


def _request(
    task: Task,
    choices: Sequence[Choice],
    runs: Sequence[Method],
    members: int,
    seed: int,
    tolerance: float,
    forecasts: bool,
) -> dict[str, Any]:
    return {
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
    }


def _notes(record: Record, study: Study) -> list[str]:
    notes = []
    if study.forecasts and study.task.augment is not None:
        notes.append("The forecasts follow training as if its inputs were not augmented.")
    if any(ensemble.network == "vmap" for ensemble in study.ensembles):
        notes.append("The model has layers without a hand-stacked form; torch.vmap was used, which is slower.")
    notes.extend(
        f"The forget set {forget.name} was given as a list, so its kind is unknown; its calibration set is only an "
        f"approximation ({forget.calibration_how})"
        for forget in record.forget_sets
        if forget.chooser == "given"
    )
    return notes
