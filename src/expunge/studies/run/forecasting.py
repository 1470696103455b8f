"""The forecast as every study makes it: refused early, kept as a part, and rounded for a record."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.core import Ensemble, ForgetSet, InputError, Network, Task
from expunge.core.digest import digest_json
from expunge.core.forecast import ForecastRecord, PathPoint
from expunge.core.outcomes import Classes
from expunge.core.record import SPLITS, SplitName
from expunge.dependence.linearised import Linearised
from expunge.dependence.reduced import DIMENSIONS, TABLE
from expunge.ensembles import train
from expunge.methods import Method
from expunge.studies.run.measure import RETAIN_EXAMPLES, VALIDATION_EXAMPLES
from expunge.studies.run.parts import PartStore
from expunge.studies.run.prediction import Forecast, Subject, forecast
from expunge.studies.run.progress import Reporter, Share
from expunge.studies.run.seeds import digest_forget, unlearning_seed

FORECAST_WORK = 3.0
"""About what a forecast takes, in units of training 100 members, for the bar of progress alone: more on tables, less
where training is the larger part. What dry runs say is tried (`forecast_costs`)."""
AIMS_WORK = 1.0
"""The same of predicted margins alone."""

FEWEST_ROWS = 64
"""Retain examples for which the reduced model must have room."""


DIGITS = 4
"""Significant digits of the paths in a record: there are hundreds of points, of a prediction."""


def table_numbers(task: Task, followed: int) -> int:
    """Return how many numbers the table of the reduced model holds at most.

    Args:
        task: The task.
        followed: Members that are linearised.
    """
    rows = len(task.train) + RETAIN_EXAMPLES + VALIDATION_EXAMPLES
    return min(TABLE, followed * DIMENSIONS * task.classes * rows)


def check_forecastable(task: Task, followed: int, device: torch.device, network: Network | None = None) -> None:
    """Refuse, before any training, a task whose models cannot be linearised, or not in the memory that is allowed.

    Args:
        task: The task; two untrained members of it are tried on a few examples.
        followed: Members that will be linearised.
        device: Where.
        network: How the stack is evaluated; None chooses.

    Raises:
        InputError: If there are no weights, models vote, the outcome is not classes, an example has no gradient of its
            own, a layer has no forward derivative, or the table of the reduced model has no room.
    """
    if task.model is None:
        raise InputError(f"a forecast needs weights, and the models of {task.name} are known by their outputs alone.")
    if not isinstance(task.outcome, Classes):
        raise InputError(
            f"a forecast predicts margins between classes, and outcome {task.outcome.name!r} of the task "
            f"{task.name!r} has none; expected outcome='classes'."
        )
    if task.voting is not None:
        raise InputError(
            f"a forecast follows one training on all rows, and the models of {task.name} are voters, each trained on "
            "rows of its own."
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
        "seed": unlearning_seed(seed, forget),
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
                "displacements": rounded(point.displacements),
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
