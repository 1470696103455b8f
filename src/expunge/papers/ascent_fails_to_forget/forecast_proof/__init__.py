"""The proof of the forecast: over many forget sets, does what it predicts rank what then happens?

For every forget set (`sets`): the forecast and the measures of dependence from the pretrained ensemble alone; then two
independent sets of oracles, every method over the audit's grid, and what it reached (`outcomes`); then rank
correlations over forget sets, with intervals, against trivial predictors (`judge`).

The forecast has no setting that is fitted to outcomes. Its numerical settings (segments, steps, coordinates, members
followed) were fixed on forget sets of the development half before the judged half was run.

Source of the question: "Ascent Fails to Forget" (arXiv 2509.26427), app. A, which asks whether the spectral norm of the
forget-retain cross-influence matrix predicts when descent-ascent fails.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from expunge.core import Ensemble, ForgetSet, InputError, Task
from expunge.core.checks import whole
from expunge.core.digest import digest_tensors
from expunge.core.limits import DEFAULT_TOLERANCE
from expunge.core.objective import objective
from expunge.core.ranks import spearman
from expunge.core.record import SPLITS
from expunge.core.seeds import derive
from expunge.ensembles import train
from expunge.ensembles.chunks import pick_device
from expunge.methods import METHODS as REGISTRY
from expunge.methods import GradientAscent, GradientDescentAscent, Method, Scrub, unlearn
from expunge.papers.ascent_fails_to_forget.forecast_proof.judge import comparisons, correlations
from expunge.papers.ascent_fails_to_forget.forecast_proof.outcomes import Halves, Measured, choose, damage_at_target
from expunge.papers.ascent_fails_to_forget.forecast_proof.pooled import pooled_comparisons
from expunge.papers.ascent_fails_to_forget.forecast_proof.sets import Case, cases, check_size, dial_cases
from expunge.papers.ascent_fails_to_forget.names import DEFAULT_TASKS, DIAL
from expunge.papers.ascent_fails_to_forget.proof import ForgetSetOutcome, MethodOutcome, ProofRecord
from expunge.studies.run.grid import run_name
from expunge.studies.run.lifecycle import Run
from expunge.studies.run.measure import Parts
from expunge.studies.run.parts import PartStore
from expunge.studies.run.prediction import FOLLOWED, MEASURED, Forecast, Subject, forecast
from expunge.studies.run.seeds import unlearning_seed
from expunge.tasks import load_task

METHODS: tuple[type[Method], ...] = (GradientAscent, GradientDescentAscent, Scrub)
CHUNK = 15
"""Members a kernel, fixed so that two runs have identical numbers."""

FORECAST_VERSION = 2
"""Raised when a change alters forecasts: finished forget sets are then forecast again, not measured again."""
STRAIGHT_STEP = "ascent_excess"
"""Measure that forecasts the damage of methods with repair: what one straight step up the loss of F would break."""
NOTHING = "do_nothing@0"
CHOOSING, REPORTING, PREDICTED = range(3)
"""Columns of `Objectives`."""

Objectives = dict[str, tuple[float, float, float]]
"""By setting, the objective on the half that chooses, on the half that reports, and as forecast."""
Table = dict[str, Objectives]
"""Objectives by method."""


@dataclass
class Pretrained:
    """What the forget sets of one task share."""

    task: Task
    ensemble: Ensemble
    subject: Subject


@dataclass(frozen=True)
class Settings:
    """What a proof was asked for."""

    members: int
    seed: int
    out: Path
    device: torch.device
    parts: PartStore


def prove(
    tasks: Sequence[str] = DEFAULT_TASKS,
    *,
    members: int = 60,
    out: Path = Path("runs/proof"),
    seed: int = 0,
    resume: bool = False,
    device: str = "auto",
    console: Console | None = None,
    command: str = "",
) -> tuple[Path, ProofRecord]:
    """Run the proof and write `proof.json`; every forget set is kept as it is finished.

    Args:
        tasks: Tasks by name, as on the command line, or `teacher-mixture` for the dial. The first is the one whose
            development half fixes the trivial predictor to beat.
        members: Members of the pretrained ensemble and of each of two sets of oracles, at least 20.
        out: Folder of the run.
        seed: The study's seed.
        resume: Go on with a run that was interrupted.
        device: `auto`, `cpu` or `cuda`.
        console: Where progress is shown; None is silent.
        command: The shell command that runs this again.

    Raises:
        InputError: If something asked for cannot be used; before any training.
    """
    whole(minimum=20, members=members)
    if not tasks:
        raise InputError("no task was given, expected at least one, such as digits.")
    loaded = {name: None if name == DIAL else load_task(name) for name in tasks}
    for task in loaded.values():
        if task is not None:
            check_size(task)
    where = pick_device(device)
    with Run.open(
        ProofRecord,
        out,
        {"tasks": list(tasks), "members": members, "seed": seed},
        resume=resume,
        command=command,
        device=where,
        console=console,
        work=len(tasks),
        sound=lambda record: record.forecast_version == FORECAST_VERSION,
        keep_parts=True,  # with another forecast, what was measured still holds
        members=members,
        forecast_version=FORECAST_VERSION,
    ) as run:
        if run.finished:
            return out, run.record
        settings = Settings(members, seed, out, where, run.parts)
        tables: dict[tuple[str, str], Table] = {}
        outcomes = run.record.outcomes
        for name, task in loaded.items():
            run.reporter.step(f"{name}: choosing forget sets")
            found = dial_cases(seed) if task is None else cases(task, out / "store", seed)
            shared: dict[str, Pretrained] = {}
            for number, case in enumerate(found, start=1):
                run.reporter.step(f"{name} {number}/{len(found)}: {case.forget.name}")
                outcome, tables[name, case.forget.name] = _examine(settings, name, case, shared)
                outcomes.append(outcome)
                run.reporter.note(f"{name} {number}/{len(found)}  {_line(outcome)}")
                run.reporter.advance(1 / len(found))
        _transfer(outcomes, tables)
        _forecast_repaired_damage(outcomes)
        run.record.correlations = correlations(outcomes, seed)
        run.record.comparisons = comparisons(outcomes, tasks[0], seed)
        run.record.comparisons += pooled_comparisons(outcomes, tasks[0], seed)
    return out, run.record


def _examine(
    settings: Settings, name: str, case: Case, shared: dict[str, Pretrained]
) -> tuple[ForgetSetOutcome, Table]:
    """Return the outcome of a forget set and, by method and setting, the objectives of both halves."""
    key = {
        "task": case.task.fingerprint,
        "forget": digest_tensors({"indices": torch.from_numpy(case.forget.indices)}),
        "name": case.forget.name,
        "half": case.half,
        "members": settings.members,
        "seed": unlearning_seed(settings.seed, case.forget),
        "methods": [run.describe() for run in _runs(case.task)],
        "forecast": [FOLLOWED, MEASURED],
    }
    part = settings.parts.read(key)
    kept = None if part is None else part[1]
    if kept is not None and kept["forecast_version"] == str(FORECAST_VERSION):
        return ForgetSetOutcome.model_validate_json(kept["outcome"]), json.loads(kept["table"])
    began = time.perf_counter()
    if case.task.fingerprint not in shared:
        shared[case.task.fingerprint] = _pretrain(settings, case.task)
    pretrained = shared[case.task.fingerprint]
    foretold = forecast(
        pretrained.subject, case.forget, _runs(case.task), tolerance=DEFAULT_TOLERANCE, seed=settings.seed
    )
    if kept is None:
        outcome, table = _run(settings, name, case, pretrained, foretold)
        outcome.seconds = time.perf_counter() - began
    else:
        # What happened does not depend on how it was forecast; only the forecast is made again.
        outcome, table = _forecast_again(
            ForgetSetOutcome.model_validate_json(kept["outcome"]), json.loads(kept["table"]), foretold
        )
    words = {"outcome": outcome.model_dump_json(), "table": json.dumps(table)}
    settings.parts.write(key, {}, {"forecast_version": str(FORECAST_VERSION), **words})
    return outcome, table


def _pretrain(settings: Settings, task: Task) -> Pretrained:
    ensemble = _train(settings, task, "pretrained", None)
    subject = Subject.of(task, ensemble, followed=FOLLOWED, store=settings.out / "store", chunk=CHUNK)
    return Pretrained(task, ensemble, subject)


def _train(settings: Settings, task: Task, role: str, without: ForgetSet | None) -> Ensemble:
    return train(
        task,
        members=settings.members,
        without=without,
        seed=derive(settings.seed, "proof", role) % 2**31,
        store=settings.out / "store" if without is None else None,
        device=settings.device,
        chunk=CHUNK,
    )


def _run(
    settings: Settings, name: str, case: Case, pretrained: Pretrained, foretold: Forecast
) -> tuple[ForgetSetOutcome, Table]:
    """Return what happened, beside what was forecast."""
    task, forget, runs = case.task, case.forget, _runs(case.task)
    parts = Parts.of(task, forget, settings.seed)
    oracles = [parts.measure(_train(settings, task, role, forget)) for role in ("choosing", "reporting")]
    halves = Halves(*oracles)
    nothing = halves.measure("do_nothing", "do_nothing", 0, 0.0, parts.measure(pretrained.ensemble))
    methods, table = [], {}
    for kind in METHODS:
        measured = []
        for run in (run for run in runs if run.name == kind.name):
            done = unlearn(
                pretrained.ensemble,
                task,
                forget,
                run,
                seed=unlearning_seed(settings.seed, forget),
                evaluate=parts.measure,
                chunk=CHUNK,
            )
            measured += [
                halves.measure(run_name(run), run.name, stop.epoch, stop.cost, stop.measured)
                for stop in done.trace.stops
            ]
        methods.append(_method_outcome(kind, nothing, measured, foretold))
        table[kind.name] = _objectives(nothing, measured, foretold)
    means = {split: np.mean([_mean_margins(oracle, split) for oracle in oracles], axis=0) for split in SPLITS}
    change = {split: means[split] - foretold.pretrained[split].mean(0) for split in SPLITS}
    predicted = {split: foretold.oracle[split].mean(0) - foretold.pretrained[split].mean(0) for split in SPLITS}
    outcome = ForgetSetOutcome(
        task=name,
        name=forget.name,
        family=case.family,
        half=case.half,
        size=len(forget),
        how=forget.how,
        dial=case.dial,
        predictors={measure.name: measure.value for measure in foretold.record.measures},
        nothing=objective(nothing.reported.excess),
        predicted_nothing=objective(foretold.record.nothing.excess),
        removal_correlation={s: _pearson(predicted[s], change[s]) for s in SPLITS},
        removal_slope={s: _slope(predicted[s], change[s]) for s in SPLITS},
        methods=methods,
        forecast_seconds=foretold.record.seconds,
        seconds=0.0,
    )
    return outcome, table


def _method_outcome(
    kind: type[Method], nothing: Measured, measured: Sequence[Measured], foretold: Forecast
) -> MethodOutcome:
    chosen = choose([nothing, *measured])
    outcome = MethodOutcome(
        method=kind.name,
        label=kind.label,
        achievable=objective(chosen.reported.excess),
        achievable_mean=objective(choose([nothing, *measured], by="means").reported.means),
        achieved=chosen.reported.excess,
        setting=chosen.setting,
        damage=damage_at_target(nothing.reported, measured),
        transferred=None,
        illusion_gap=None,
        forecast_setting="",
        at_forecast=float("nan"),
        forecast={},
        within=float("nan"),
    )
    _set_forecast(outcome, _objectives(nothing, measured, foretold), foretold)
    return outcome


def _set_forecast(outcome: MethodOutcome, objectives: Objectives, foretold: Forecast) -> None:
    """Fill in what was forecast of a method, and what its advice reached."""
    mine = next(m for m in foretold.record.methods if m.method == outcome.method)
    best_mean = min([foretold.record.nothing, *mine.path], key=lambda point: objective(point.means))
    outcome.forecast_setting = f"{mine.best.run}@{mine.best.epoch}"
    outcome.at_forecast = objectives[outcome.forecast_setting][REPORTING]
    outcome.forecast = {
        "achievable": mine.objective,
        "achievable_mean": objective(best_mean.means),
        "damage": mine.extrapolated,
        "illusion_gap": None,
    }
    pairs = np.array([row for setting, row in objectives.items() if setting != NOTHING])
    outcome.within = spearman(pairs[:, PREDICTED], pairs[:, REPORTING])


def _forecast_again(outcome: ForgetSetOutcome, table: Table, foretold: Forecast) -> tuple[ForgetSetOutcome, Table]:
    """Return a finished outcome with another forecast of it."""
    outcome.predicted_nothing = objective(foretold.record.nothing.excess)
    outcome.predictors = {measure.name: measure.value for measure in foretold.record.measures}
    outcome.forecast_seconds = foretold.record.seconds
    predicted = _predicted(foretold)
    again: Table = {
        name: {setting: (row[0], row[1], predicted[setting]) for setting, row in objectives.items()}
        for name, objectives in table.items()
    }
    for method in outcome.methods:
        _set_forecast(method, again[method.method], foretold)
    return outcome, again


def _objectives(nothing: Measured, measured: Sequence[Measured], foretold: Forecast) -> Objectives:
    predicted = _predicted(foretold)
    return {
        one.setting: (objective(one.choosing.excess), objective(one.reported.excess), predicted[one.setting])
        for one in [nothing, *measured]
    }


def _predicted(foretold: Forecast) -> dict[str, float]:
    """Return the predicted objective of every setting."""
    predicted = {NOTHING: objective(foretold.record.nothing.excess)}
    for method in foretold.record.methods:
        predicted |= {f"{point.run}@{point.epoch}": objective(point.excess) for point in method.path}
    return predicted


def _transfer(outcomes: Sequence[ForgetSetOutcome], tables: Mapping[tuple[str, str], Table]) -> None:
    """Fill in what the setting that is best on the other forget sets of the family reaches, and the illusion gap.

    The forecast of the gap is the same difference between forecasts.
    """
    for one in outcomes:
        others = [
            tables[other.task, other.name]
            for other in outcomes
            if other.task == one.task and other.family == one.family and other.name != one.name
        ]
        if not others:
            continue
        for method in one.methods:
            own = tables[one.task, one.name][method.method]
            common = [setting for setting in own if all(setting in table[method.method] for table in others)]
            if not common:
                continue

            def best(
                column: int, tables: Sequence[Table] = others, name: str = method.method, settings: list[str] = common
            ) -> str:
                return min(settings, key=lambda s: float(np.mean([table[name][s][column] for table in tables])))

            method.transferred = own[best(CHOOSING)][REPORTING]
            method.illusion_gap = method.transferred - min(row[REPORTING] for row in own.values())
            method.forecast["illusion_gap"] = own[best(PREDICTED)][PREDICTED] - min(
                row[PREDICTED] for row in own.values()
            )


def _forecast_repaired_damage(outcomes: Sequence[ForgetSetOutcome]) -> None:
    """Forecast the damage at the target of methods that climb on F and descend on R from a straight step.

    In the reduced model their descent undoes the ascent before the target, and real runs get there: its paths did not
    rank them. The measure was chosen on the development half of digits.
    """
    for one in outcomes:
        for method in one.methods:
            method.damage_by_path = method.forecast["damage"]
            if REGISTRY[method.method]().repairs:
                method.forecast["damage"] = one.predictors.get(STRAIGHT_STEP)


def _runs(task: Task) -> list[Method]:
    return [run for kind in METHODS for run in kind.grid(task.recipe)]


def _mean_margins(measured: Mapping[str, torch.Tensor], split: str) -> np.ndarray[Any, Any]:
    values = measured[f"margins/{split}"].double()
    return np.asarray(values[torch.isfinite(values).all(1)].mean(0).numpy())


def _pearson(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")


def _slope(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    centred = a - a.mean()
    return float(centred @ b / (centred @ centred)) if a.std() > 0 else float("nan")


def _line(outcome: ForgetSetOutcome) -> str:
    parts = [
        f"{m.method} {m.achievable:.2f} (forecast {m.forecast['achievable']:.2f})"
        for m in outcome.methods
        if m.forecast["achievable"] is not None
    ]
    return f"{outcome.name}: nothing {outcome.nothing:.2f} ({outcome.predicted_nothing:.2f}), " + ", ".join(parts)
