"""What retraining, a forecast and an audit of one forget set would take, at several numbers of members."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from expunge.core import ForgetSet, Task
from expunge.core.plan import Cost, Costs, JobName, Scale
from expunge.ensembles.chunks import pick_device
from expunge.methods import Method
from expunge.studies.audit import estimate_audit
from expunge.studies.run.forecasting import table_numbers
from expunge.studies.run.prediction import FOLLOWED
from expunge.studies.run.trying import HELD, Estimate, Trial, try_training


def plan_costs(
    task: Task,
    forget: ForgetSet,
    members: Sequence[int],
    *,
    methods: Sequence[str | Method] | None = None,
    machines: int = 1,
    seed: int = 0,
    device: str = "auto",
) -> Costs:
    """Measure a few steps once, and return what the jobs would take with so many members.

    Args:
        task: The task.
        forget: The rows of the request.
        members: Numbers of members, each at least 20.
        methods: What the audit would try; None for its default.
        machines: Machines like this one over which training and unlearning would be shared.
        seed: Of the study.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        InputError: As an audit would.
    """
    trial = try_training(task, max(members), pick_device(device), None, seed)
    asked: dict[str, Any] = {
        "forget": [forget],
        "methods": methods,
        "out": Path("runs/plan"),
        "seed": seed,
        "device": device,
    }
    found = [estimate_audit(task, **asked, members=count, resume=True, trial=trial) for count in members]
    scales = [Scale(members=each.members, jobs=_jobs(each, trial, task, machines)) for each in found]
    return Costs(scales, trial.alone, trial.tried, machines, found[-1].memory_free, found[-1].disk_free)


def _jobs(found: Estimate, trial: Trial, task: Task, machines: int) -> dict[JobName, Cost]:
    ensemble = found.seconds["training"] / found.ensembles
    state = {**trial.ensemble.params, **trial.ensemble.buffers}
    weights = sum(tensor.nbytes for tensor in state.values()) * found.members // len(trial.ensemble)
    held = found.memory - HELD * weights
    jobs: dict[JobName, Cost] = {}
    jobs["retraining"] = Cost(
        seconds=ensemble, memory=held + 2 * weights, disk=weights, shared_seconds=ensemble / machines
    )
    forecasts = found.seconds["forecasts"]
    if forecasts:
        jobs["forecast"] = Cost(
            seconds=ensemble + forecasts,
            memory=held + 3 * weights + 4 * table_numbers(task, FOLLOWED),
            # The pretrained members, and predicted margins on all training examples.
            disk=weights + 4 * found.members * len(task.train),
            shared_seconds=ensemble / machines + forecasts,
        )
    shared = found.seconds["training"] + found.seconds["unlearning"]
    jobs["audit"] = Cost(
        seconds=sum(found.seconds.values()),
        memory=found.memory,
        disk=found.disk,
        shared_seconds=shared / machines + forecasts + found.seconds["readings"],
    )
    return jobs
