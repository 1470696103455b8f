"""The run of forecasts: pretrained ensemble, one forecast for each forget set, and the record; no oracle anywhere.

    forecast.json, forecast/*.safetensors       what a report may read
    ensembles/                                  the pretrained ensemble and its earlier states; an audit of the same
                                                seed in the same folder finds them

A forecast that is finished is kept as a part until the run is complete, so a killed run goes on where it was and ends
with the same numbers. The audit makes its forecasts through `kept_forecast` too.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import save as save_tensors

from expunge.core import Ensemble, ForgetSet, Task
from expunge.core.checks import positive, whole
from expunge.core.forecast import ForecastRun, ForecastSet
from expunge.core.limits import DEFAULT_TOLERANCE
from expunge.core.reading import available_memory
from expunge.core.record import write_atomically
from expunge.ensembles import train
from expunge.ensembles.chunks import pick_device
from expunge.ensembles.plan import check_members, check_size
from expunge.methods import Method, check_fits
from expunge.studies.run.forecast_costs import forecast_cost
from expunge.studies.run.forecasting import (
    FORECAST_WORK,
    arrays_of,
    check_forecastable,
    compact,
    follow,
    kept_forecast,
    table_numbers,
)
from expunge.studies.run.forget_specs import choose_all, is_component, stand_in
from expunge.studies.run.given import ON_TRUST, Given, Models
from expunge.studies.run.grid import on_scale, plan_runs
from expunge.studies.run.lifecycle import Run
from expunge.studies.run.measure import Parts
from expunge.studies.run.prediction import FOLLOWED, Forecast, Subject
from expunge.studies.run.progress import Pulse, Reporter, Share
from expunge.studies.run.python_call import python_call
from expunge.studies.run.run_folder import check_folder
from expunge.studies.run.seeds import digest_forget, pretrained_seed
from expunge.studies.run.subset_models import SUBSETS
from expunge.studies.run.trying import HELD, PAGE_BYTES, Estimate, peak_memory, room_for, try_training
from expunge.tasks import Choice


def forecast_run(
    task: Task,
    *,
    forget: Sequence[ForgetSet | str | Path],
    methods: Sequence[str | Method] | None = None,
    pretrained: Models | None = None,
    members: int = 100,
    followed: int = FOLLOWED,
    out: Path = Path("runs/forecast"),
    seed: int = 0,
    tolerance: float | None = None,
    resume: bool = False,
    device: str = "auto",
    chunk: int | None = None,
    console: Console | None = None,
    command: str | None = None,
) -> tuple[Path, ForecastRun]:
    """Forecast every forget set and write the record; the arguments are those of `expunge.forecast`.

    Returns:
        The folder and the record.

    Raises:
        InputError: If something given cannot be used; before any training.
    """
    asked = {"members": members, "followed": followed, "out": out, "seed": seed, "tolerance": tolerance}
    asked |= {"device": device, "chunk": chunk, "pretrained": pretrained}
    tolerance = _tolerance(tolerance)
    ready = _prepare(task, forget, methods, pretrained, members, followed, out, seed, resume, device, chunk, console)
    choices, runs, given, models = ready.choices, ready.runs, ready.given, ready.models
    members, followed, where = ready.members, ready.followed, ready.device
    request = {
        "task": task.name,
        "fingerprint": task.fingerprint,
        "forget": [{"name": c.forget.name, "digest": digest_forget(c.forget)} for c in choices],
        "methods": [method.describe() for method in runs],
        "members": members,
        "followed": followed,
        "seed": seed,
        "tolerance": tolerance,
        **({} if models is None else {"given": given.digests()}),
    }
    with Run.open(
        ForecastRun,
        out,
        request,
        resume=True,  # checked above, before subset models were kept in it
        command=command or python_call("forecast", task.name, forget, methods, asked, forecast_run),
        device=where,
        console=console,
        work=1.2 * len({c.task.fingerprint for c in choices}) + FORECAST_WORK * len(choices),
        task=task.describe(),
        members=members,
        tolerance=tolerance,
    ) as run:
        if run.finished:
            return out, run.record
        run.record.training_seconds = run.earlier.training_seconds if run.earlier else 0.0
        subjects: dict[str, Subject] = {}
        for choice in choices:
            fingerprint = choice.task.fingerprint
            if fingerprint not in subjects:
                begin = time.monotonic()
                if models is None:
                    start, reused = _pretrained(choice.task, members, seed, out, where, chunk, run.reporter)
                else:
                    start, reused = models.to(where), True
                subjects[fingerprint] = follow(choice.task, start, followed, out, chunk, run.reporter)
                run.record.training_seconds += 0.0 if reused else time.monotonic() - begin
            subject = subjects[fingerprint]
            tried, _ = on_scale(runs, choice.task, subject.pretrained, choice.forget, seed)
            run.reporter.step(f"forecasting {choice.forget.name}")
            share = Share(run.reporter, FORECAST_WORK)
            found, kept = kept_forecast(
                run.parts, subject, choice.forget, tried, seed=seed, tolerance=tolerance, progress=share
            )
            share.finish(spent=not kept)
            run.record.forget_sets.append(_keep(out, choice, found, given=models is not None))
            run.save()
    return out, run.record


def _tolerance(tolerance: float | None) -> float:
    """Return it, checked, or the default."""
    tolerance = DEFAULT_TOLERANCE if tolerance is None else tolerance
    positive(tolerance=tolerance)
    return tolerance


@dataclass(frozen=True)
class _Ready:
    """A run that has been checked and can begin."""

    choices: list[Choice]
    runs: list[Method]
    given: Given
    models: Ensemble | None
    """The pretrained models, where they were given."""
    members: int
    followed: int
    device: torch.device


def _prepare(
    task: Task,
    forget: Sequence[ForgetSet | str | Path],
    methods: Sequence[str | Method] | None,
    pretrained: Models | None,
    members: int,
    followed: int,
    out: Path,
    seed: int,
    resume: bool,
    device: str,
    chunk: int | None,
    console: Console | None,
) -> _Ready:
    """Read and check everything that is asked for; subset models of component sets are all that is trained."""
    check_members(members, fewest=2)
    whole(minimum=2, followed=followed)
    if chunk is not None:
        whole(chunk=chunk)
    given = Given.of(task, pretrained, None, None, fewest=2)
    models = given.models.get(("pretrained", ""))
    members = members if models is None else len(models)
    followed = min(followed, members)
    where = pick_device(device)
    with Pulse(console, lambda: f"still trying how models of {task.name} are best computed"):
        network = task.network
    if models is None:
        check_size(task, network, members)
    runs = plan_runs(task, methods, predicted=True)
    check_forecastable(task, followed, where)
    check_folder(out, ForecastRun.FILE, resume)
    choices = choose_all(task, forget, out, seed=seed, device=device, chunk=chunk, console=console)
    given.of_sets(task, choices, fewest=2)
    for choice in choices:
        network = choice.task.network
        for method in runs:
            check_fits(method, network, choice.task, choice.forget, targets=True)
    return _Ready(choices, runs, given, models, members, followed, where)


def estimate_forecast(
    task: Task,
    *,
    forget: Sequence[ForgetSet | str | Path],
    methods: Sequence[str | Method] | None = None,
    pretrained: Models | None = None,
    members: int = 100,
    followed: int = FOLLOWED,
    out: Path = Path("runs/forecast"),
    seed: int = 0,
    tolerance: float | None = None,
    resume: bool = False,
    device: str = "auto",
    chunk: int | None = None,
) -> Estimate:
    """Return what a run with these arguments would take; it is refused as the run would be, and writes nothing.

    Component forget sets are stood for by random ones of their size, and their subset models are counted.

    Raises:
        InputError: If something given cannot be used.
    """
    _tolerance(tolerance)
    likewise = [stand_in(task, item, place + 1) for place, item in enumerate(forget)]
    ready = _prepare(task, likewise, methods, pretrained, members, followed, out, seed, resume, device, chunk, None)
    trial = try_training(task, ready.members, ready.device, chunk, seed)
    fingerprints = len({choice.task.fingerprint for choice in ready.choices})
    trained = fingerprints if ready.models is None else 0
    components = any(is_component(item) for item in forget)
    ensemble = trial.ensemble
    one = sum(tensor.nbytes for tensor in (*ensemble.params.values(), *ensemble.buffers.values())) // len(ensemble)
    scored = sum(len(part) for part in Parts.of(task, ready.choices[0].forget, seed).splits.values())
    largest = max(ready.choices, key=lambda choice: len(choice.forget))
    cost = forecast_cost(
        largest.task, largest.forget, ready.runs, trial, members=ready.members, followed=ready.followed, seed=seed
    )
    return Estimate(
        seconds={
            "training": trial.each * (ready.members * trained + 0.5 * SUBSETS * components),
            "forecasts": fingerprints * cost.once + len(ready.choices) * cost.each,
        },
        ensembles=trained,
        members=ready.members,
        runs=0,
        memory=peak_memory(ready.device) + HELD * one * ready.members + 4 * table_numbers(task, ready.followed),
        memory_free=available_memory(),
        disk=one * (trained * ready.members + components * SUBSETS)
        + len(ready.choices) * (PAGE_BYTES + 8 * ready.members * scored),
        disk_free=shutil.disk_usage(room_for(out)).free,
        tried=trial.tried,
    )


def _pretrained(
    task: Task,
    members: int,
    seed: int,
    out: Path,
    device: torch.device,
    chunk: int | None,
    reporter: Reporter,
) -> tuple[Ensemble, bool]:
    reporter.step(f"training {members} pretrained")
    share = Share(reporter, 1.0)
    ensemble = train(
        task,
        members=members,
        seed=pretrained_seed(seed),
        store=out / "ensembles",
        device=device,
        chunk=chunk,
        network=task.network,
        progress=share,
    )
    reused = bool(ensemble.provenance["reused"])
    share.finish(spent=not reused)
    return ensemble, reused


def _keep(out: Path, choice: Choice, found: Forecast, *, given: bool) -> ForecastSet:
    """Write the arrays of a forecast and return its entry in the record."""
    path = f"forecast/{choice.forget.name}.safetensors"
    content = save_tensors({key: tensor.float() for key, tensor in arrays_of(found).items()})
    write_atomically(out / path, content)
    record = compact(found.record)
    if given:
        record.notes = [f"The pretrained models were given, not trained here. {ON_TRUST}.", *record.notes]
    labels = choice.task.train.y[torch.from_numpy(choice.forget.indices)]
    return ForecastSet(
        name=choice.forget.name,
        size=len(choice.forget),
        how=choice.forget.how,
        classes=torch.bincount(labels, minlength=choice.task.classes).tolist(),
        forecast=record,
        margins=path,
        digest=hashlib.sha256(content).hexdigest(),
    )
