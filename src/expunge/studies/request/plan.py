"""What a request would take, before anything long: costs, whether the rows can matter, their twins, the next command.

Two models are trained, where that takes minutes, and their training is followed to predict what the rows did to them.
Nothing is written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from expunge.core import Ensemble, ForgetSet, InputError, Task
from expunge.core.checkpoints import Architecture, read_state
from expunge.core.checks import instance, seeds
from expunge.core.errors import noted
from expunge.core.limits import DEFAULT_ROW_TOLERANCE, DEFAULT_TOLERANCE
from expunge.core.plan import Costs, Deployed, Influence, Plan, Twin
from expunge.core.record import SPLITS
from expunge.core.stopping import check_stopped
from expunge.core.twins import find_twins
from expunge.dependence.linearised import Linearised
from expunge.dependence.random_forget_sets import smallest_gap
from expunge.ensembles import train
from expunge.ensembles.chunks import pick_device
from expunge.metrics.remembered import remembered
from expunge.studies.request.plan_advice import advise, commands
from expunge.studies.run.forecasting import check_forecastable
from expunge.studies.run.measure import Parts, margins_of
from expunge.studies.run.prediction import Subject

TRAINED = 2
"""Models that are trained, and followed."""
LONGEST = 600.0
"""Seconds that their training may be expected to take; longer ones are not trained."""
LEVEL = 0.05
"""p-value from which on a deployed model is said to look trained on the rows."""


def plan_request(
    task: Task,
    forget: ForgetSet,
    costs: Callable[[], Costs],
    *,
    checkpoint: str | Path | None = None,
    typed: Sequence[str] = (),
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """Return what a request would take and whether it can matter; nothing is written.

    Args:
        task: The task.
        forget: The rows.
        costs: Measures what jobs take, when it is its turn.
        checkpoint: The deployed model, if it is to be looked at.
        typed: The words of a command that say task and rows, for the commands that are named.
        seed: Of the study.
        device: `auto`, `cpu` or `cuda`.
        progress: Called with what is done next.

    Raises:
        InputError: If something given cannot be used, or the checkpoint is not one of the task's models.
    """
    instance(Task, "an expunge.Task", task=task)
    seeds(seed=seed)
    forget.check(task)
    tell = noted(progress or (lambda _: None), "progress, which plan called")
    where = pick_device(device)
    deployed = None if checkpoint is None else _read(checkpoint, task)
    tell("looking for rows that stay and equal those to be forgotten")
    twins = find_twins(task.train, torch.from_numpy(forget.indices), torch.from_numpy(forget.retain))
    tell("measuring what training takes")
    measured = costs()
    parts = Parts.of(task, forget, seed)
    models, one_model, why = None, measured.alone, ""
    if measured.alone <= LONGEST:
        tell(f"training {TRAINED} models")
        begin = time.perf_counter()
        models = train(task, members=TRAINED, seed=seed, device=where)
        one_model = time.perf_counter() - begin
    else:
        why = f"training {TRAINED} models is expected to take more than {LONGEST / 60:.0f} minutes"
    check_stopped()
    influence = None
    if models is not None:
        tell("following what the rows did to them")
        try:
            check_forecastable(task, TRAINED, where)
            influence = _influence(task, forget, models, parts)
        except InputError as error:
            why = str(error)
    plan = Plan(
        task=task.name,
        forget=forget.name,
        how=forget.how,
        rows=len(forget),
        examples=len(task.train),
        validation=len(task.validation),
        machines=measured.machines,
        one_model=one_model,
        scales=measured.scales,
        measured=measured.tried,
        memory_free=measured.memory_free,
        disk_free=measured.disk_free,
        statistic=task.outcome.statistic_name,
        influence=influence,
        no_influence=why,
        smallest_gap=smallest_gap(len(forget), test=len(task.validation)),
        twins=[
            Twin(row=int(row), twin=int(twin), distance=float(distance), same_target=bool(same))
            for row, twin, distance, same in zip(
                twins.forget, twins.retain, twins.distance, twins.same_target, strict=True
            )
        ],
        twins_limit=twins.limit,
        deployed=None if deployed is None else _deployed(deployed, str(checkpoint), task, parts, seed),
        advice=[],
        next=[],
    )
    return plan.model_copy(update={"advice": advise(plan), "next": commands(plan, typed)})


def _read(checkpoint: str | Path, task: Task) -> Ensemble:
    """Return the deployed model as an ensemble of one, or say what it lacks."""
    instance((str, os.PathLike), "the path of a checkpoint", checkpoint=checkpoint)
    path, like = Path(checkpoint).expanduser(), Architecture.of(task)
    return like.ensemble([like.fit(read_state(path), str(path))], [str(path)])


def _influence(task: Task, forget: ForgetSet, models: Ensemble, parts: Parts) -> Influence:
    """Return what retraining is predicted to change in the models."""
    subject = Subject.of(task, models, followed=len(models))
    removal, linearised = subject.removal(forget), Linearised(models)
    moved = {s: linearised.margins(parts.splits[s].x, parts.splits[s].y, removal)[1].double().numpy() for s in SPLITS}
    by_row = moved["forget"].mean(0)
    own, unseen = (
        models.margins(parts.splits[s].x, parts.splits[s].y).double().numpy() for s in ("forget", "validation")
    )
    groups, others = (task.outcome.groups(parts.splits[s].y).numpy() for s in ("forget", "validation"))
    above = [own[:, groups == k].mean(1) - unseen[:, others == k].mean(1) for k in groups if (others == k).any()]
    spread = float(np.sqrt(own.var(0, ddof=1).mean())) if len(own) > 1 else 0.0
    worst = int(np.argmax(np.abs(by_row)))
    together = float(np.sqrt((by_row**2).sum())) / spread if spread > 0 else None
    largest = float(by_row[worst])
    # What an audit calls a difference: one row by the row tolerance, or all of them by that of a percentile.
    counts = together is not None and (
        abs(largest) >= DEFAULT_ROW_TOLERANCE * spread or together >= float(np.sqrt(2 * DEFAULT_TOLERANCE))
    )
    steps = len(subject.segments)
    followed = f"{steps} stages of their training" if not subject.notes else "the end of their training alone"
    return Influence(
        models=len(models),
        retraced=not subject.notes,
        rests_on=f"{len(models)} models that were trained on all rows, and {followed}, to first order",
        mean={split: float(values.mean()) for split, values in moved.items()},
        spread=spread if spread > 0 else None,
        row=int(forget.indices[worst]),
        largest=largest,
        together=together,
        above_validation=float(np.mean(above)) if above else None,
        can_matter=counts if together is not None and not subject.notes else None,
    )


def _deployed(model: Ensemble, path: str, task: Task, parts: Parts, seed: int) -> Deployed:
    """Return how the deployed model treats the rows beside validation rows of their classes."""
    margins = {split: values[0].astype(np.float64) for split, values in margins_of(parts.measure(model)).items()}
    groups = {split: task.outcome.groups(parts.splits[split].y).numpy() for split in SPLITS}
    found = remembered(margins["forget"], margins["validation"], groups["forget"], groups["validation"], seed=seed)
    there = found.pairs > 0
    return Deployed(
        path=path,
        median={split: float(np.median(values)) for split, values in margins.items()},
        share=found.share if there else None,
        p_value=found.p_value if there else None,
        pairs=found.pairs,
        remembered=found.p_value <= LEVEL if there else None,
    )
