"""The forecast of one forget set: what unlearning would have to do, and what each method would do instead.

    1. unrolled influence         predicted oracle margins on F, R and V, and so the way that a method has to go
    2. reduced model              every method, over its whole grid, run on the linearised members
    3. KLoM of 2 against 1        predicted scores of every setting at every stopping time, and the advice

Only the pretrained models, their recipe and the data are used: no oracle, and nothing is unlearned. The members'
earlier states (for 1) are trained again by the same seeds, which costs the recipe's first epochs for a dozen members.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.core import Ensemble, ForgetSet, InputError, Task
from expunge.core.checks import whole
from expunge.core.forecast import ForecastRecord, MeasureRecord, MethodForecast, PathPoint
from expunge.core.objective import objective, outlook
from expunge.core.record import SPLITS, SplitName
from expunge.core.stopping import Pool
from expunge.core.tree import State
from expunge.dependence.kernel import Kernel
from expunge.dependence.linearised import Linearised
from expunge.dependence.measures import MEASURES, kernel_beside, measure_dependence, measure_kernel, trivial
from expunge.dependence.reduced import DIMENSIONS, ReducedModel, reduce_model
from expunge.dependence.representatives import LARGE, SAMPLE, represent
from expunge.dependence.unrolled import STEPS, Segment, segment_plan, unrolled_removal
from expunge.ensembles import train
from expunge.ensembles.chunks import one_thread_each, worker_count
from expunge.methods import Method, Trained, unlearn
from expunge.methods.problem import FORWARD_SHARE
from expunge.metrics.ruler import Ruler
from expunge.studies.run.advice import advise
from expunge.studies.run.grid import run_name
from expunge.studies.run.measure import Parts
from expunge.studies.run.seeds import unlearning_seed

MEASURED = 10
"""Members that the measures of dependence use."""

FOLLOWED = 12
"""Members whose weights are linearised; the movements of the others are those of these in turn."""

LARGEST_CHECKED = 6.0
"""Predicted move of the forget margins, in standard deviations between members, up to which predictions were good.
On digits 70 examples of a class move by 4, 70 or 20 wrong labels by 10 to 15 (`expunge forecast digits --forget
class_part:70 --forget mislabelled:70` says so in its advice), and those are predicted badly:
docs/dependence/forecast-proof.md.
"""

LEAST_COVERED = 0.1
"""Points that cover less of the way to the target are not extrapolated: the direction would be noise."""

Margins = Mapping[SplitName, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Subject:
    """The pretrained members, and those whose training is followed."""

    task: Task
    pretrained: Ensemble
    """All members; their margins are read."""
    segments: tuple[Segment, ...]
    """Training of the followed members in order; only its end where it cannot be retraced."""
    followed: Ensemble
    """The first members of `pretrained`."""
    notes: tuple[str, ...]

    @cached_property
    def kernel(self) -> Kernel:
        """The tangent kernel of some members, which the measures of dependence of every forget set share."""
        return measure_kernel(self.pretrained, self.task, members=min(MEASURED, len(self.pretrained)))

    @classmethod
    def of(
        cls,
        task: Task,
        pretrained: Ensemble,
        *,
        followed: int = FOLLOWED,
        store: Path | str | None = None,
        chunk: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Subject:
        """Retrace the training of some members, where the ensemble says how it was trained.

        Args:
            task: Data and recipe.
            pretrained: Members trained on all of the data; with `expunge.train`, or any others.
            followed: Members to follow, at least 2.
            store: Folder in which their earlier states are kept and found again.
            chunk: As in `expunge.train`.
            progress: Called with member-epochs done and in all.
        """
        whole(minimum=2, followed=followed)
        if len(pretrained) < 2:
            raise InputError(f"the pretrained ensemble has {len(pretrained)} member, expected at least 2.")
        some = pretrained[: min(followed, len(pretrained))]
        reason = _not_retraceable(task, some)
        if reason:
            note = f"Training could not be retraced ({reason}); the predicted oracles are seen from its end alone."
            return cls(task, pretrained, (Segment(some, training_time(task)),), some, (note,))
        plan, segments = segment_plan(task.recipe, len(task.train)), []
        total, done = sum(epoch for epoch, _ in plan if epoch < task.recipe.epochs) * len(some), 0
        for epoch, duration in plan:
            state = some
            if epoch < task.recipe.epochs:
                report = None if progress is None else (lambda n, _, before=done: progress(before + n, total))
                state = train(
                    task,
                    members=len(some),
                    first=some.ids[0],
                    seed=some.seed,
                    epochs=epoch,
                    store=store,
                    device=some.device,
                    chunk=chunk,
                    network=some.network,
                    progress=report,
                )
                done += epoch * len(some)
            segments.append(Segment(state, duration))
        return cls(task, pretrained, tuple(segments), some, ())

    def removal(self, forget: ForgetSet) -> State:
        """Return how the weights of the followed members would differ without the forget set."""
        return unrolled_removal(self.segments, self.task, forget)


@dataclass(frozen=True)
class Forecast:
    """The forecast of one forget set, with the arrays behind it."""

    record: ForecastRecord
    pretrained: Margins
    """Margins of the pretrained members by split, (members, examples)."""
    oracle: Margins
    """Predicted margins of the same members had they never seen the forget set, (members, examples)."""
    targets: Tensor
    """Predicted oracle margins of every member on all training examples, (members, train examples): what
    `margin_matching` aims at; empty where no run needs them."""
    targets_cost: float
    """What these cost a member, relative to retraining it on R (`prediction_cost`)."""


def forecast(
    subject: Subject,
    forget: ForgetSet,
    runs: Sequence[Method],
    *,
    tolerance: float,
    seed: int = 0,
    dimensions: int = DIMENSIONS,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Forecast:
    """Predict what each run would reach on a forget set, from the pretrained models alone.

    Args:
        subject: The pretrained members (`Subject.of`).
        forget: What is to be unlearned.
        runs: Methods with their settings; those that are not forecastable are left out.
        tolerance: Excess over the floor that counts as indistinguishable, nats.
        seed: The study's seed: batch orders of the methods, and the examples that are scored, are those of an audit.
        dimensions: Coordinates of the reduced model.
        workers: Threads; every core by default.
        progress: Called with runs followed and in all; the prediction of the oracles counts as much as all runs.
    """
    began = time.perf_counter()
    task, pretrained, followed = subject.task, subject.pretrained, subject.followed
    parts = Parts.of(task, forget, seed)
    before: dict[SplitName, np.ndarray[Any, Any]] = {
        name: pretrained.margins(split.x, split.y).numpy().astype(np.float64) for name, split in parts.splits.items()
    }
    removal = subject.removal(forget)
    linearised = Linearised(followed)
    moved = {name: linearised.margins(s.x, s.y, removal)[1].double().numpy() for name, s in parts.splits.items()}
    oracle = {name: before[name] + _repeated(moved[name], len(pretrained)) for name in SPLITS}
    scale = Scale(before, oracle)

    reduced = reduce_model(
        followed, task, forget, parts.by_name(), directions=[removal], dimensions=dimensions, seed=seed
    )
    kept = forecastable(runs, task)
    aimed = any("targets" in run.needs for run in runs)
    targets = _targets(task, linearised, removal, pretrained) if aimed else torch.empty(0)
    cost = prediction_cost(subject, forget)
    nothing = scale.point("do_nothing", 0, 0.0, {name: np.zeros_like(moved[name]) for name in SPLITS})
    paths: list[list[PathPoint]] = []
    with one_thread_each(), Pool(worker_count(torch.device("cpu"), workers)) as pool:
        aims = targets[: len(followed)]
        for path in pool.map(lambda run: follow_path(reduced, forget, run, seed, scale, aims, cost), kept):
            paths.append(path)
            if progress is not None:
                progress(len(kept) + len(paths), 2 * len(kept))
    methods = []
    for name in dict.fromkeys(run.name for run in kept):
        group = [(run, path) for run, path in zip(kept, paths, strict=True) if run.name == name]
        methods.append(_summary(group, nothing, tolerance))
    repairing = {run.name for run in kept if run.repairs}
    deviations = {
        name: float((moved[name].mean(0) / before[name].std(0, ddof=1).clip(1e-12)).mean()) for name in SPLITS
    }
    mean_removal = {name: float(moved[name].mean()) for name in SPLITS}
    measured, unmeasured = _measures(subject, forget, seed)
    record = ForecastRecord(
        members=len(pretrained),
        followed=len(followed),
        dimensions=reduced.dimensions,
        segments=_segment_facts(subject),
        retain_in_table=reduced.sampled,
        seconds=time.perf_counter() - began,
        tolerance=tolerance,
        removal=mean_removal,
        removal_in_deviations=deviations,
        nothing=nothing,
        methods=methods,
        measures=measured,
        advice=advise(forget, nothing, methods, repairing, mean_removal, deviations, tolerance),
        notes=[*subject.notes, *_notes(reduced, forget, deviations), *_left_out(runs, task), *unmeasured],
    )
    return Forecast(record, before, oracle, targets, cost)


def predict_targets(subject: Subject, forget: ForgetSet) -> tuple[Tensor, float]:
    """Return what `margin_matching` aims at, and what it cost, without following any method.

    Args:
        subject: The pretrained members.
        forget: What is to be unlearned.

    Returns:
        Predicted oracle margins (members, train examples), and `prediction_cost`.
    """
    removal = subject.removal(forget)
    targets = _targets(subject.task, Linearised(subject.followed), removal, subject.pretrained)
    return targets, prediction_cost(subject, forget)


def prediction_cost(subject: Subject, forget: ForgetSet, *, steps: int = STEPS) -> float:
    """Return what predicted oracle margins cost a member, relative to retraining it on R.

    Counted for each followed member, in examples through forward and backward (a pass forward, or of derivatives along
    a direction, is a third): the epochs that lead to its earlier states; for every segment, a gradient on F and
    products with the curvature of R, or of what stands for it (two passes forward, then forward and backward), `steps`
    of them and, after the first segment, one for what was moved before; and the change of all training margins.
    All members pay for these, and each for its own margins.

    Args:
        subject: The pretrained members, and how their training is followed.
        forget: What is to be unlearned.
        steps: Products with the curvature for each function of it.
    """
    examples, retain, epochs = len(subject.task.train), len(forget.retain), subject.task.recipe.epochs
    segments = len(subject.segments)
    earlier = sum(epoch for epoch, _ in _segment_facts(subject) if epoch < epochs)
    product = 1 + 2 * FORWARD_SHARE
    passed = len(represent(torch.from_numpy(forget.retain)).rows)
    each = earlier * examples + segments * len(forget) + (segments * steps + segments - 1) * product * passed
    each += 2 * FORWARD_SHARE * examples
    return (each * len(subject.followed) / len(subject.pretrained) + FORWARD_SHARE * examples) / (retain * epochs)


class Scale:
    """Reads movements of margins as KLoM against the predicted oracles.

    Both sides are the same members moved differently, so the sampling noise that makes the floor cancels: what is read
    is the excess over the floor.
    """

    def __init__(self, before: Margins, oracle: Margins) -> None:
        self.before = before
        self._rulers = {name: Ruler(oracle[name]) for name in SPLITS}

    def point(self, run: str, epoch: int, cost: float, moved: Mapping[SplitName, np.ndarray[Any, Any]]) -> PathPoint:
        """Return the scores of members moved by so much, by split (followed members, examples)."""
        excess, means, shifts, displacements = {}, {}, {}, {}
        for name in SPLITS:
            ready = self._rulers[name].prepare(
                self.before[name] + _repeated(moved[name], len(self.before[name])), "predicted"
            )
            excess[name] = float(np.percentile(ready.klom, 95))
            means[name] = float(ready.klom.mean())
            away = self._rulers[name].shift_by_example(ready)
            shifts[name] = float(away.mean())
            with np.errstate(invalid="ignore"):  # between two infinite ones the percentile is not a number
                far = np.percentile(np.nan_to_num(np.abs(away), nan=np.inf), 95)
            displacements[name] = float(np.nan_to_num(far, nan=np.inf, posinf=np.inf))
        return PathPoint(
            run=run, epoch=epoch, cost=cost, excess=excess, means=means, shifts=shifts, displacements=displacements
        )


def follow_path(
    reduced: ReducedModel,
    forget: ForgetSet,
    run: Method,
    seed: int,
    scale: Scale,
    targets: Tensor,
    targets_cost: float,
) -> list[PathPoint]:
    """Return where a run leads in the reduced model, at each of its stopping times."""
    start = {name: reduced.margins(reduced.ensemble, name) for name in SPLITS}

    def moved(ensemble: Ensemble) -> dict[str, Tensor]:
        return {name: reduced.margins(ensemble, name) - start[name] for name in SPLITS}

    # The reduced model has no normalisation statistics: those of the pretrained models are in its table, frozen.
    frozen: dict[str, Any] = {"statistics": "frozen"} if isinstance(run, Trained) else {}
    method = dataclasses.replace(run, **frozen)
    done = unlearn(
        reduced.ensemble,
        reduced.task,
        forget,
        method,
        seed=unlearning_seed(seed, forget),
        evaluate=moved,
        workers=1,
        chunk=len(reduced.ensemble),
        targets=targets if "targets" in run.needs else None,
        targets_cost=targets_cost,
    )
    return [
        scale.point(
            run_name(run), stop.epoch, stop.cost, {name: stop.measured[name].double().numpy() for name in SPLITS}
        )
        for stop in done.trace.stops
    ]


def _summary(
    group: Sequence[tuple[Method, Sequence[PathPoint]]], nothing: PathPoint, tolerance: float
) -> MethodForecast:
    first = group[0][0]
    points = [point for _, path in group for point in path]
    # Where KLoM stands still, beyond the oracles' range, many points have the same objective.
    best = min([nothing, *points], key=lambda point: (objective(point.excess), point.displacement, point.cost))
    crossings = [found for _, path in group if (found := crossing([nothing, *path])) is not None]
    damage, at = min(crossings, key=lambda found: found[0]) if crossings else (None, None)
    return MethodForecast(
        method=first.name,
        label=first.label,
        control=first.role == "control",
        outlook=outlook(objective(nothing.excess), objective(best.excess), at is not None, tolerance),
        best=best,
        objective=objective(best.excess),
        at_target=at,
        damage=damage,
        extrapolated=damage if damage is not None else extrapolated_damage(nothing, points),
        path=points,
    )


def crossing(path: Sequence[PathPoint]) -> tuple[float, PathPoint] | None:
    """Return where a path's forget margins first fall to the oracle's mean, or None if they never do.

    Args:
        path: Points in order of time, the first before unlearning.

    Returns:
        Mean KLoM on validation there, interpolated between stopping times, and the first point at or past the target.
    """
    for earlier, later in itertools.pairwise(path):
        above, below = earlier.shifts["forget"], later.shifts["forget"]
        if math.isnan(below):
            return None
        if above <= 0:
            return earlier.means["validation"], earlier
        if below <= 0:
            share = above / (above - below)
            damage = (1 - share) * earlier.means["validation"] + share * later.means["validation"]
            return damage, later
    return None


def extrapolated_damage(nothing: PathPoint, points: Sequence[PathPoint]) -> float | None:
    """Return the damage at the target if the path that is best placed went on straight, or None if none goes there.

    A point that covers a share s of the way with damage d would, at twice the distance, have four times the damage: to
    second order KLoM grows as the square of a displacement. So the target costs d / s^2.

    Args:
        nothing: Before unlearning.
        points: Points short of the target.
    """
    way = nothing.shifts["forget"]
    if way <= 0:
        return nothing.means["validation"]
    covered = [(1 - point.shifts["forget"] / way, point.means["validation"]) for point in points]
    values = [damage / share**2 for share, damage in covered if share >= LEAST_COVERED]
    return min(values) if values else None


def _repeated(rows: np.ndarray[Any, Any], members: int) -> np.ndarray[Any, Any]:
    """Return rows of followed members in turn for all members, (members, examples)."""
    return np.asarray(rows[np.arange(members) % len(rows)])


def _targets(task: Task, linearised: Linearised, removal: State, pretrained: Ensemble) -> Tensor:
    moved = linearised.margins(task.train.x, task.train.y, removal)[1].cpu()
    now = pretrained.margins(task.train.x, task.train.y)
    return now + moved[torch.arange(len(pretrained)) % len(moved)].to(now.dtype)


def _segment_facts(subject: Subject) -> list[tuple[int, float]]:
    if len(subject.segments) == 1:
        return [(subject.task.recipe.epochs, subject.segments[0].time)]
    return [(epoch, duration) for epoch, duration in segment_plan(subject.task.recipe, len(subject.task.train))]


def training_time(task: Task) -> float:
    """Return the training time of the whole recipe; for other optimisers than SGD, that of a damping of 1."""
    if task.fit is not None or task.recipe.optimizer != "sgd":
        return float(len(task.train))
    return task.recipe.training_time(len(task.train))


def _not_retraceable(task: Task, ensemble: Ensemble) -> str:
    specification = ensemble.provenance.get("specification")
    if not isinstance(specification, Mapping):
        return "the ensemble does not say how it was trained"
    if specification.get("task") != task.fingerprint:
        return "the ensemble was trained on other data or with another recipe"
    if task.fit is not None:
        return "it was done by a loop of its own"
    if specification.get("epochs") != task.recipe.epochs or specification.get("recipe") != task.recipe.to_dict():
        return "the ensemble was trained with another recipe"
    if task.recipe.optimizer != "sgd":
        return f"{task.recipe.optimizer} has no training time in the sense of gradient flow"
    if ensemble.ids != tuple(range(ensemble.ids[0], ensemble.ids[0] + len(ensemble))):
        return "its members are not consecutive"
    return ""


def _measures(subject: Subject, forget: ForgetSet, seed: int) -> tuple[list[MeasureRecord], list[str]]:
    """Return the measures of dependence, or why there are none."""
    whole, index = subject.task, torch.from_numpy(forget.indices)
    try:
        if len(forget.retain) > LARGE:
            members = min(MEASURED, len(subject.pretrained))
            kernel, task, inside = kernel_beside(subject.pretrained, whole, index, members=members)
        else:
            kernel, task, inside = subject.kernel, whole, index
        found = measure_dependence(subject.pretrained, task, inside, kernel=kernel, seed=seed)
    except InputError as error:
        return [], [f"Dependence was not measured: {error}"]
    values = {**found.values, **trivial(whole, index)}
    return [
        MeasureRecord(name=name, value=value, description=MEASURES[name].sentence) for name, value in values.items()
    ], []


def forecastable(runs: Sequence[Method], task: Task) -> list[Method]:
    """Return the runs that a forecast follows."""
    return [run for run in runs if run.forecastable and not _rescales(run, task)]


def _rescales(run: Method, task: Task) -> bool:
    """Whether steps are rescaled weight by weight, which steps in the reduced model's few coordinates cannot follow."""
    return isinstance(run, Trained) and run.steps_with(task.recipe) != "sgd"


def _left_out(runs: Sequence[Method], task: Task) -> list[str]:
    names = dict.fromkeys(run.label for run in runs if run.forecastable and _rescales(run, task))
    if not names:
        return []
    return [f"Not followed, since Adam rescales every weight's step by itself: {', '.join(names)}. An audit runs them."]


def _notes(reduced: ReducedModel, forget: ForgetSet, deviations: Mapping[SplitName, float]) -> list[str]:
    notes = []
    moved = abs(deviations["forget"])
    if moved > LARGEST_CHECKED:
        notes.append(
            f"Retraining is predicted to move the forget margins by {moved:.0f} standard deviations. Changes that "
            "large (wrong labels are the usual cause) are predicted badly: trust the direction, not the size."
        )
    if reduced.sampled < len(forget.retain):
        notes.append(
            f"The reduced model holds {reduced.sampled} of {len(forget.retain)} retain examples; the others borrow the "
            "row of one with their label."
        )
    if len(forget.retain) > LARGE:
        notes.append(
            f"Curvature, and the measures of dependence, are those of {SAMPLE:,} random retain examples, which "
            f"stand for all {len(forget.retain):,}: effects of removal come out too large rather than too small."
        )
    return notes
