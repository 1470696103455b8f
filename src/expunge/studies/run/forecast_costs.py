"""What a forecast takes: its parts are tried with a few members that were hardly trained, and followed to all.

    removal     one function of the curvature, which is what a segment of training takes
    reduced     the reduced model of a few members
    measures    kernel and measures of dependence of a few members
    paths       a run of some methods in the reduced model, with as many members as will be followed and read; the
                others by their stopping times

The first three grow with the members; all are tried where that takes seconds. Of a network for which one product with
the curvature takes seconds, one member, one product and few coordinates are tried, and followed to their number. On a
CPU processor time is taken, so that what else the machine does now does not count. `benchmarks/estimates.py
--forecasts` puts the sum beside what a forecast then takes.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from expunge.core import Ensemble, ForgetSet, InputError, Task
from expunge.core.record import SPLITS
from expunge.core.tree import State
from expunge.dependence.kernel import Kernel
from expunge.dependence.linearised import Linearised
from expunge.dependence.measures import kernel_beside, measure_dependence
from expunge.dependence.reduced import DIMENSIONS, ReducedModel, TableNetwork, reduce_model
from expunge.dependence.representatives import LARGE
from expunge.dependence.unrolled import STEPS, Segment, segment_plan, unrolled_removal
from expunge.ensembles.chunks import one_thread_each, worker_count
from expunge.methods import Method
from expunge.studies.run.grid import by_method
from expunge.studies.run.measure import Parts
from expunge.studies.run.prediction import MEASURED, follow_path, forecastable, training_time
from expunge.studies.run.prediction import Scale as MarginScale
from expunge.studies.run.trying import PATIENCE, Trial, grown

FEW = 3
"""Members that are tried."""
METHODS = 4
"""Methods of which a run is tried, at most."""
SLOW = 2.0
"""Seconds of a product with the curvature of one member above which no more is tried."""
FEWEST = 6
"""Coordinates of the reduced model that is tried then."""

T = TypeVar("T")


@dataclass(frozen=True)
class ForecastCost:
    """Wall-clock seconds with all cores at work."""

    once: float
    """Of what all forecasts of an ensemble share: training retraced, and the kernel."""
    each: float
    """Of one forecast."""
    aims: float
    """Of predicted margins alone, for a calibration set."""


class _Clock:
    """Seconds that work takes when nothing else does."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._now = time.perf_counter if self._cuda else time.process_time
        self._workers = 1 if self._cuda else worker_count(device)

    def of(self, work: Callable[[], object]) -> float:
        """Return what the work took, shared among the cores."""
        begin = self._now()
        work()
        if self._cuda:
            torch.cuda.synchronize()
        return (self._now() - begin) / self._workers

    def grown(self, work: Callable[[Ensemble], T], few: Ensemble, members: int) -> tuple[T, float]:
        """Return what the work gives for a few members, and what it takes with so many.

        What is done first takes longer, and small work hardly grows with its members: it is done again, and with all.
        """
        found: list[T] = []
        tried = self.of(lambda: found.append(work(few))) * members / len(few)
        if tried * self._workers <= PATIENCE * members / len(few):
            tried = self.of(lambda: work(few)) * members / len(few)
        if tried * self._workers > PATIENCE or members == len(few):
            return found[0], tried
        return found[0], self.of(lambda: work(grown(few, members)))


def forecast_cost(
    task: Task, forget: ForgetSet, runs: Sequence[Method], trial: Trial, *, members: int, followed: int, seed: int
) -> ForecastCost:
    """Return what forecasts of a task take.

    Args:
        task: One that can be forecast.
        forget: The largest of its forget sets, or one like them.
        runs: Every run of every method.
        trial: What was measured of training.
        members: Pretrained members.
        followed: Members that are linearised.
        seed: The study's seed.
    """
    few = trial.ensemble[: min(FEW, followed, len(trial.ensemble))]
    clock, epochs = _Clock(few.device), task.recipe.epochs
    plan = segment_plan(task.recipe, len(task.train)) if _retraced(task) else []
    parts = Parts.of(task, forget, seed)

    def pull(some: Ensemble, steps: int) -> State:
        return unrolled_removal((Segment(some, training_time(task)),), task, forget, steps=steps)

    steps, dimensions = STEPS, DIMENSIONS
    if clock.of(lambda: pull(few[:1], 1)) > SLOW:
        few, steps, dimensions = few[:1], 1, FEWEST

    removal, pulling = clock.grown(partial(pull, steps=steps), few, followed)

    def reduce(some: Ensemble) -> ReducedModel:
        directions = [_rows(removal, len(some))]
        return reduce_model(
            some, task, forget, parts.by_name(), directions=directions, dimensions=dimensions, seed=seed
        )

    def move(some: Ensemble) -> None:
        Linearised(some).margins(task.train.x, task.train.y, _rows(removal, len(some)))

    index = torch.from_numpy(forget.indices)

    def compare(some: Ensemble) -> tuple[Kernel, Task, Tensor]:
        return kernel_beside(some, task, index, members=len(some))

    reduced, reducing = clock.grown(reduce, few, followed)
    _, moving = clock.grown(move, few, followed)
    measured = min(MEASURED, members)
    (kernel, seen, inside), making = clock.grown(compare, few, measured)
    pulling, reducing = pulling * STEPS / steps, reducing * DIMENSIONS / dimensions
    try:
        measuring = clock.of(lambda: measure_dependence(few, seen, inside, kernel=kernel, seed=seed))
    except InputError:  # a forecast leaves out the measures
        measuring = 0.0
    aims = max(1, len(plan)) * pulling + moving
    earlier = sum(epoch for epoch, _ in plan if epoch < epochs)
    following = _paths(task, forget, forecastable(runs, task), few, removal, reduced, parts, members, followed, seed)
    shared = len(forget.retain) <= LARGE  # one kernel serves all forget sets
    return ForecastCost(
        once=trial.alone * earlier / epochs + making * shared,
        each=aims + reducing + making * (not shared) + measuring * measured / len(few) + following,
        aims=aims,
    )


def _rows(state: State, members: int) -> State:
    """Return tensors of so many members, made of those of a few."""
    return {name: tensor[torch.arange(members) % len(tensor)] for name, tensor in state.items()}


def _retraced(task: Task) -> bool:
    return task.fit is None and task.recipe.optimizer == "sgd"


def _paths(
    task: Task,
    forget: ForgetSet,
    runs: Sequence[Method],
    few: Ensemble,
    removal: State,
    reduced: ReducedModel,
    parts: Parts,
    members: int,
    followed: int,
    seed: int,
) -> float:
    """Return what following all runs takes."""
    if not runs:
        return 0.0
    place = torch.arange(members) % len(few)
    linearised = Linearised(few)
    before, oracle = {}, {}
    own = np.random.default_rng(0)
    for name in SPLITS:
        split = parts.splits[name]
        margins, moved = (t.double().numpy()[place.numpy()] for t in linearised.margins(split.x, split.y, removal))
        before[name] = margins + 0.1 * own.normal(size=margins.shape)  # no two members are the same
        oracle[name] = before[name] + moved
    scale, model = MarginScale(before, oracle), _grown(reduced, followed)
    targets = torch.from_numpy(own.normal(size=(followed, len(task.train)))).float()
    groups = by_method(runs)
    seconds, stops = 0.0, 0
    clock = _Clock(torch.device("cpu"))
    with one_thread_each():
        for run in [group[0] for group in groups[:: -(-len(groups) // METHODS)]]:
            seconds += clock.of(partial(follow_path, model, forget, run, seed, scale, targets, 0.0))
            stops += run.planned_stops
    return seconds / max(stops, 1) * sum(run.planned_stops for run in runs)


def _grown(reduced: ReducedModel, followed: int) -> ReducedModel:
    """Return a reduced model of so many members, made of those of a few: only what it takes counts."""
    few = reduced.ensemble
    network = few.network
    assert isinstance(network, TableNetwork)
    rows = torch.arange(followed) % len(few)
    ensemble = Ensemble(
        TableNetwork(network.logits[rows], network.derivatives[rows]),
        {"coordinates": few.params["coordinates"][rows]},
        {"origin": few.buffers["origin"][rows], "member": torch.arange(followed)},
        tuple(range(followed)),
        few.seed,
        {"chunk": followed},
    )
    return dataclasses.replace(reduced, ensemble=ensemble)
