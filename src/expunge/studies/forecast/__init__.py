"""The run of forecasts: pretrained ensemble, one forecast for each forget set, and the record; no oracle anywhere.

    forecast.json, forecast/*.safetensors       what a report may read
    ensembles/                                  the pretrained ensemble and its earlier states; an audit of the same
                                                seed in the same folder finds them

A forecast that is finished is kept as a part until the run is complete, so a killed run goes on where it was and ends
with the same numbers. The audit makes its forecasts through `kept_forecast` too.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from safetensors.torch import save as save_tensors
from torch import Tensor

from expunge.core import Ensemble, ForgetSet, InputError, Network, Task
from expunge.core.checks import positive, whole
from expunge.core.digest import digest_json, digest_tensors
from expunge.core.forecast import ForecastRecord, ForecastRun, ForecastSet, PathPoint
from expunge.core.outcomes import Classes
from expunge.core.record import SPLITS, SplitName, write_atomically
from expunge.core.seeds import derive
from expunge.dependence.linearised import Linearised
from expunge.dependence.reduced import DIMENSIONS, TABLE
from expunge.ensembles import build_network, train
from expunge.ensembles.chunks import pick_device
from expunge.ensembles.train import check_size
from expunge.methods import Method, check_fits
from expunge.metrics.verdict import DEFAULT_TOLERANCE
from expunge.studies.run.forget_specs import is_component, parse_component, resolve
from expunge.studies.run.grid import plan_runs
from expunge.studies.run.lifecycle import Run
from expunge.studies.run.measure import RETAIN_EXAMPLES, VALIDATION_EXAMPLES
from expunge.studies.run.parts import PartStore
from expunge.studies.run.prediction import FOLLOWED, Forecast, Subject, forecast
from expunge.studies.run.progress import Reporter, Share
from expunge.studies.run.python_call import python_call
from expunge.studies.run.run_folder import check_folder
from expunge.tasks import Choice, choose

FORECAST_WORK = 1.5
"""About what a forecast takes, in units of training 100 members."""

FEWEST_ROWS = 64
"""Retain examples for which the reduced model must have room."""

DIGITS = 4
"""Significant digits of the paths in a record: there are hundreds of points, of a prediction."""


def forecast_run(
    task: Task,
    *,
    forget: Sequence[ForgetSet | str | Path],
    methods: Sequence[str | Method] | None = None,
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
    whole(minimum=2, members=members)
    whole(minimum=2, followed=followed)
    if chunk is not None:
        whole(chunk=chunk)
    asked = {"members": members, "followed": followed, "out": out, "seed": seed, "tolerance": tolerance}
    asked |= {"device": device, "chunk": chunk}
    tolerance = DEFAULT_TOLERANCE if tolerance is None else tolerance
    positive(tolerance=tolerance)
    followed = min(followed, members)
    where = pick_device(device)
    check_size(task, task.network, members)
    runs = plan_runs(task, methods, predicted=True)
    check_forecastable(task, followed, where)
    check_folder(out, ForecastRun.FILE, resume)
    choices = choose_all(task, forget, out, seed=seed, device=device, chunk=chunk, console=console)
    for choice in choices:
        network = build_network(choice.task)
        for method in runs:
            check_fits(method, network, choice.task, choice.forget, targets=True)
    request = {
        "task": task.name,
        "fingerprint": task.fingerprint,
        "forget": [{"name": c.forget.name, "digest": digest_forget(c.forget)} for c in choices],
        "methods": [method.describe() for method in runs],
        "members": members,
        "followed": followed,
        "seed": seed,
        "tolerance": tolerance,
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
                pretrained, reused = _pretrained(choice.task, members, seed, out, where, chunk, run.reporter)
                subjects[fingerprint] = follow(choice.task, pretrained, followed, out, chunk, run.reporter)
                run.record.training_seconds += 0.0 if reused else time.monotonic() - begin
            run.reporter.step(f"forecasting {choice.forget.name}")
            share = Share(run.reporter, FORECAST_WORK)
            found, kept = kept_forecast(
                run.parts, subjects[fingerprint], choice.forget, runs, seed=seed, tolerance=tolerance, progress=share
            )
            share.finish(spent=not kept)
            run.record.forget_sets.append(_keep(out, choice, found))
            run.save()
    return out, run.record


def choose_all(
    task: Task,
    forget: Sequence[ForgetSet | str | Path],
    out: Path,
    *,
    seed: int,
    device: str = "auto",
    chunk: int | None = None,
    console: Console | None = None,
) -> list[Choice]:
    """Return the forget sets that were asked for, each with a calibration set; all are read before any is computed.

    Args:
        task: The task to choose from.
        forget: What was asked for.
        out: The run's folder, where the subset models of component sets are kept.
        seed: The study's seed.
        device: `auto`, `cpu` or `cuda`.
        chunk: Models trained together.
        console: Where progress of subset models is shown.

    Raises:
        InputError: If there is none, one cannot be read, or two share a name.
    """
    if not forget:
        raise InputError("no forget set was given, expected at least one, such as --forget random:70.")
    chosen: dict[int, Choice] = {}
    for place, item in enumerate(forget):
        if is_component(item):
            parse_component(str(item), len(task.train))
        else:
            chosen[place] = choose(task, item, seed=seed)
    missing = [place for place in range(len(forget)) if place not in chosen]
    if missing:
        reporter = Reporter(console).start(1.0)
        with reporter:
            reporter.step("training subset models for components")
            share = Share(reporter, 1.0)
            for place in missing:
                chosen[place] = resolve(task, forget[place], out, seed, device=device, chunk=chunk, progress=share)
    choices = [chosen[place] for place in range(len(forget))]
    names = [choice.forget.name for choice in choices]
    if len(set(names)) < len(names):
        raise InputError(f"forget sets {names} share a name, expected each name once.")
    return choices


def check_forecastable(task: Task, followed: int, device: torch.device, network: Network | None = None) -> None:
    """Refuse, before any training, a task whose models cannot be linearised, or not in the memory that is allowed.

    Args:
        task: The task; two untrained members of it are tried on a few examples.
        followed: Members that will be linearised.
        device: Where.
        network: How the stack is evaluated; None chooses.

    Raises:
        InputError: If the outcome is not classes, an example has no gradient of its own, a layer has no forward
            derivative, or the table of the reduced model has no room.
    """
    if not isinstance(task.outcome, Classes):
        raise InputError(
            f"a forecast predicts margins between classes, and outcome {task.outcome.name!r} of the task "
            f"{task.name!r} has none; expected outcome='classes'."
        )
    scored = min(len(task.train), RETAIN_EXAMPLES) + min(len(task.validation), VALIDATION_EXAMPLES)
    room = TABLE // (followed * DIMENSIONS * task.classes) - scored
    if room < FEWEST_ROWS:
        raise InputError(
            f"a forecast that follows {followed} members with {task.classes} classes has room for {max(room, 0)} "
            f"training examples, expected at least {FEWEST_ROWS}; follow fewer members (--followed 2)."
        )
    two = train(task, members=2, epochs=0, device=device, network=network, chunk=2)
    linearised = Linearised(two)
    try:
        linearised.curvature(task.train.x[:4], linearised.params)
    except (NotImplementedError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"a forecast needs derivatives of the model forward and backward, and this model has none ({reason}); "
            "expected layers that torch.func.jvp and vmap can go through."
        ) from error


def follow(
    task: Task, pretrained: Ensemble, followed: int, folder: Path, chunk: int | None, reporter: Reporter
) -> Subject:
    """Return the subject of forecasts; earlier states of its members are kept in the run's store."""
    reporter.step(f"retracing the training of {min(followed, len(pretrained))} members")
    share = Share(reporter, 0.2)
    subject = Subject.of(task, pretrained, followed=followed, store=folder / "ensembles", chunk=chunk, progress=share)
    share.finish(spent=True)
    return subject


def kept_forecast(
    parts: PartStore,
    subject: Subject,
    forget: ForgetSet,
    runs: Sequence[Method],
    *,
    seed: int,
    tolerance: float,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Forecast, bool]:
    """Return the forecast of a forget set and whether it was found; else it is made and kept.

    Args:
        parts: Where forecasts are kept.
        subject: The pretrained members.
        forget: What is to be unlearned.
        runs: Methods with their settings.
        seed: The study's seed.
        tolerance: Excess over the floor that counts as indistinguishable, nats.
        progress: As in `forecast`.
    """
    key = {
        "kind": "forecast",
        "task": subject.task.fingerprint,
        "pretrained": digest_json(subject.pretrained.provenance["specification"]),
        "members": len(subject.pretrained),
        "followed": len(subject.followed),
        "forget": digest_forget(forget),
        "methods": [run.describe() for run in runs],
        "seed": seed,
        "tolerance": tolerance,
    }
    kept = parts.read(key)
    if kept is not None:
        tensors, words = kept
        sides: dict[str, dict[SplitName, np.ndarray[Any, Any]]] = {
            who: {split: tensors[f"{who}/{split}"].numpy() for split in SPLITS} for who in ("pretrained", "predicted")
        }
        record = ForecastRecord.model_validate_json(words["record"])
        cost = float(words["targets cost"])
        return Forecast(record, sides["pretrained"], sides["predicted"], tensors["targets"], cost), True
    found = forecast(subject, forget, runs, tolerance=tolerance, seed=seed, progress=progress)
    words = {"record": found.record.model_dump_json(), "targets cost": repr(found.targets_cost)}
    parts.write(key, {**arrays_of(found), "targets": found.targets.cpu()}, words)
    return found, False


def digest_forget(forget: ForgetSet) -> str:
    """Return the digest of which examples are to be forgotten."""
    return digest_tensors({"indices": torch.from_numpy(forget.indices)})


def arrays_of(found: Forecast) -> dict[str, Tensor]:
    """Return the margins behind a forecast by `<who>/<split>`, float64."""
    return {
        f"{who}/{split}": torch.from_numpy(np.ascontiguousarray(side[split]))
        for who, side in (("pretrained", found.pretrained), ("predicted", found.oracle))
        for split in SPLITS
    }


def compact(record: ForecastRecord) -> ForecastRecord:
    """Return a forecast whose paths have four significant digits, which is what a record keeps."""

    def short(point: PathPoint) -> PathPoint:
        def rounded(values: Mapping[SplitName, float]) -> dict[SplitName, float]:
            return {split: _rounded(value) for split, value in values.items()}

        return point.model_copy(
            update={
                "cost": _rounded(point.cost),
                "excess": rounded(point.excess),
                "means": rounded(point.means),
                "shifts": rounded(point.shifts),
            }
        )

    methods = [
        method.model_copy(
            update={
                "best": short(method.best),
                "at_target": None if method.at_target is None else short(method.at_target),
                "path": [short(point) for point in method.path],
            }
        )
        for method in record.methods
    ]
    return record.model_copy(update={"methods": methods, "nothing": short(record.nothing)})


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else value


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
        network=build_network(task),
        progress=share,
    )
    reused = bool(ensemble.provenance["reused"])
    share.finish(spent=not reused)
    return ensemble, reused


def pretrained_seed(seed: int) -> int:
    """Return the seed of the pretrained ensemble of a study, the same in a forecast and in an audit."""
    return derive(seed, "audit", "pretrained") % 2**31


def _keep(out: Path, choice: Choice, found: Forecast) -> ForecastSet:
    """Write the arrays of a forecast and return its entry in the record."""
    path = f"forecast/{choice.forget.name}.safetensors"
    content = save_tensors({key: tensor.float() for key, tensor in arrays_of(found).items()})
    write_atomically(out / path, content)
    labels = choice.task.train.y[torch.from_numpy(choice.forget.indices)]
    return ForecastSet(
        name=choice.forget.name,
        size=len(choice.forget),
        how=choice.forget.how,
        classes=torch.bincount(labels, minlength=choice.task.classes).tolist(),
        forecast=compact(found.record),
        margins=path,
        digest=hashlib.sha256(content).hexdigest(),
    )
