"""What an audit would take: hours, memory and disk, from a few steps of each kind; nothing is written.

training     as `studies.run.trying` tries it
unlearning   one epoch of gradient ascent: what a run takes beside its steps; the steps cost what training does
forecasts    as `studies.run.forecast_costs` follows their parts
readings     as `reading_costs` follows a few
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from expunge.core import Ensemble, ForgetSet, Task
from expunge.core.reading import available_memory
from expunge.ensembles.chunks import worker_count
from expunge.methods import GradientAscent, Method, check_fits, unlearn
from expunge.studies.audit.reading_costs import ReadingCost, reading_cost
from expunge.studies.run.forecast_costs import forecast_cost
from expunge.studies.run.grid import by_method, calibrated, kept_epochs
from expunge.studies.run.measure import Parts
from expunge.studies.run.prediction import FOLLOWED
from expunge.studies.run.trying import (
    BATCHES,
    HELD,
    PAGE_BYTES,
    PATIENCE,
    Estimate,
    Trial,
    grown,
    peak_memory,
    room_for,
    try_training,
    undisturbed,
)
from expunge.tasks import Choice

STATE = 3
"""A kept state of training, in units of the weights: with what an optimiser remembers, at most."""


def estimate(
    task: Task,
    choices: Sequence[Choice],
    runs: Sequence[Method],
    *,
    members: int,
    given: int,
    forecasts: bool,
    device: torch.device,
    chunk: int | None,
    out: Path,
    seed: int,
    subsets: int = 0,
    trial: Trial | None = None,
) -> Estimate:
    """Measure a few steps, and return what an audit would take.

    Args:
        task: The task.
        choices: Its forget sets.
        runs: Every run of every method.
        members: Members of an ensemble.
        given: Ensembles that need no training.
        forecasts: Whether forget sets are forecast.
        device: Where.
        chunk: Members computed together; None measures the fastest.
        out: Where the run would be.
        seed: The study's seed.
        subsets: Subset models that are trained for component sets.
        trial: What was measured of training already, at any number of members.
    """
    trial = trial or try_training(task, members, device, chunk, seed)
    each, ensemble, tried = trial.each * members, trial.ensemble, trial.tried
    size = len(ensemble)
    fingerprints = len({choice.task.fingerprint for choice in choices})
    ensembles = max(0, fingerprints + 4 * len(choices) - given)
    beside, measuring, cost = _readings(task, choices[0], ensemble, members, each, seed)
    cores = worker_count(torch.device("cpu"))
    reading, choosing = cost.reading / cores, cost.choosing
    seconds = dict.fromkeys(("training", "forecasts", "unlearning", "readings"), 0.0)
    seconds["training"] = each * (ensembles + 0.5 * subsets / members)
    largest = max(choices, key=lambda choice: len(choice.forget))
    if forecasts:
        forecast = forecast_cost(
            largest.task, largest.forget, runs, trial, members=members, followed=min(FOLLOWED, members), seed=seed
        )
        aims = forecast.aims if any("targets" in run.needs for run in runs) else 0.0
        seconds["forecasts"] = fingerprints * forecast.once + len(choices) * (forecast.each + aims)
    for choice in choices:
        for group in by_method(runs):
            times = 1 + calibrated(group)
            # One stopping time of each run is judged, and what is best in hindsight.
            seconds["readings"] += (len(group) + 1) * reading
            for run in group:
                share = run.cost_of(choice.task, choice.forget)
                stops = run.planned_stops
                seconds["unlearning"] += times * (share * each + beside + stops * measuring)
                # Scored here and on the calibration set by all cores, then on halves of the models for the gap.
                seconds["readings"] += stops * choosing * (times / cores + 2)
    weights = sum(tensor.nbytes for tensor in (*ensemble.params.values(), *ensemble.buffers.values())) * members // size
    scored = sum(len(part) for part in Parts.of(task, choices[0].forget, seed).splits.values())
    methods = len(by_method(runs))
    return Estimate(
        seconds=seconds,
        ensembles=ensembles,
        members=members,
        runs=sum((1 + calibrated(group)) * len(group) for group in by_method(runs)) * len(choices),
        memory=peak_memory(device) + HELD * weights + 8 * members * scored * task.classes,
        memory_free=available_memory(),
        disk=(ensembles + STATE * fingerprints * len(kept_epochs(runs, task))) * weights
        + 4 * members * scored * len(choices) * (4 + 2 * methods)
        + PAGE_BYTES * len(choices)
        + subsets * weights // members,
        disk_free=shutil.disk_usage(room_for(out)).free,
        tried=tried,
    )


def _readings(
    task: Task, choice: Choice, ensemble: Ensemble, members: int, each: float, seed: int
) -> tuple[float, float, ReadingCost]:
    """Return seconds of a run beside its steps and of measuring, and the processor seconds of reading."""
    size = len(ensemble)
    parts = Parts.of(task, choice.forget, seed)
    spent, measured = undisturbed(lambda: parts.measure(ensemble), ensemble.device)
    measuring = spent * members / size
    beside = 0.0
    if task.model is not None:
        step = GradientAscent(lr=1e-3 * task.recipe.lr, epochs=1)
        rows = choice.forget.indices[: BATCHES * task.recipe.batch_size]
        few = ForgetSet.of(task, rows, name=choice.forget.name, how=choice.forget.how)
        check_fits(step, task.network, task, few, targets=False)
        steps = step.cost_of(task, few) * each
        unlearn(ensemble, task, few, step)
        # What a run begins and ends with hardly grows with its members: all are tried where their steps take seconds.
        tried = grown(ensemble, members) if steps < PATIENCE else ensemble
        spent, _ = undisturbed(lambda: unlearn(tried, task, few, step), tried.device)
        beside = max(0.0, spent * members / len(tried) - steps)
    labels = {split: values.y.numpy() for split, values in parts.splits.items()}
    return beside, measuring, reading_cost(measured, labels, members)
