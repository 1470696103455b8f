"""One forget set of an audit: its forecast, its oracles, every method over its grid, scores, verdicts, and the choice.

Everything long is kept as it is made, and found again by what it depends on: ensembles in the store of the run, what
was measured of a method in parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from expunge.core import Ensemble, ForgetSet, Task
from expunge.core.digest import digest_json
from expunge.core.record import (
    SPLITS,
    ConfigurationRecord,
    EnsembleRecord,
    ExampleRecord,
    ForgetRecord,
    SplitName,
    write_atomically,
)
from expunge.core.seeds import derive
from expunge.core.stopping import Pool
from expunge.ensembles import Runner, train
from expunge.ensembles.chunks import one_thread_each, worker_count
from expunge.methods import Method, Stop, unlearn
from expunge.studies.audit.checklist import check_recipe, run_checklist
from expunge.studies.audit.illusion import Halves
from expunge.studies.audit.judging import Bench
from expunge.studies.audit.pictures import names, pictures
from expunge.studies.audit.selection import best_of_runs, select_all
from expunge.studies.run.elsewhere import UnlearningRun, unlearn_elsewhere
from expunge.studies.run.forecasting import (
    AIMS_WORK,
    FORECAST_WORK,
    compact,
    follow,
    kept_forecast,
)
from expunge.studies.run.given import Given
from expunge.studies.run.grid import by_method, calibrated, on_scale, relative_options, run_name, run_work
from expunge.studies.run.measure import Parts, accuracy_of, kinds, margins_of
from expunge.studies.run.parts import PartStore
from expunge.studies.run.prediction import FOLLOWED, Forecast, Subject, predict_targets
from expunge.studies.run.progress import Reporter, Share
from expunge.studies.run.seeds import digest_forget, pretrained_seed, unlearning_seed
from expunge.tasks import Choice

Found = tuple[ConfigurationRecord, Mapping[SplitName, np.ndarray[Any, Any]]]
"""What was found about a stopping time, and its margins by split."""

WORST_EXAMPLES = 6
"""Forget examples whose histograms a report shows."""


@dataclass
class Study:
    """What the steps of an audit share."""

    task: Task
    members: int
    seed: int
    tolerance: float
    row_tolerance: float
    device: torch.device
    chunk: int | None
    folder: Path
    reporter: Reporter
    parts: PartStore
    forecasts: bool
    """Whether each forget set is forecast before its oracles are trained."""
    given: Given
    """Models that are not trained, because they were given."""
    runner: Runner | None = None
    """Where models are trained and unlearned; None is this process."""
    keep: Sequence[int] = ()
    """Epochs after which the state of the pretrained models is kept, for methods that go back to it."""
    notes: list[str] = field(default_factory=list)
    ensembles: list[EnsembleRecord] = field(default_factory=list)
    made: dict[str, Ensemble] = field(default_factory=dict)
    subjects: dict[str, Subject] = field(default_factory=dict)


@dataclass(frozen=True)
class Aims:
    """Predicted oracle margins of all members on the training examples, for methods that need them."""

    margins: Tensor
    cost: float
    """What they cost a member, relative to retraining it on R."""


def audit_forget_set(study: Study, choice: Choice, runs: Sequence[Method]) -> ForgetRecord:
    """Audit one forget set and return what the record says of it; margins that the report draws are written.

    Args:
        study: What the forget sets of an audit share; ensembles that are trained are entered in it.
        choice: The forget set, and the calibration set of the same kind on which settings are chosen.
        runs: Every run of every method.
    """
    task, forget, calibration = choice.task, choice.forget, choice.calibration
    pretrained = _ensemble(study, task, "pretrained", None)
    runs, notes = on_scale(runs, task, pretrained, forget, study.seed)
    study.notes += notes
    predicted, aims = _predict(study, task, pretrained, choice, runs)
    target, parts = _bench(study, task, pretrained, forget, forget.name)
    own, _ = _bench(study, task, pretrained, calibration, f"{forget.name}, calibration")
    if study.runner is not None:
        _elsewhere(study, study.runner, choice, pretrained, runs, aims)

    # What was measured of a setting is read while the next one runs, so that no core waits for the others.
    found: list[Future[Found]] = []
    with one_thread_each(), Pool(worker_count(torch.device("cpu"))) as pool:
        try:
            for group in by_method(runs):
                calibrate = calibrated(group)
                for run in group:
                    if task.fit is not None or "modules" in run.needs:
                        wait(found)  # processes are forked, which only a quiet process may be
                    found += _run(
                        study, task, pretrained, run, (forget, target), (calibration, own), calibrate, aims, pool
                    )
            read = [each.result() for each in found]
            configurations = [configuration for configuration, _ in read]
            margins = {configuration.id: seen for configuration, seen in read}
            sides = target.margins()
            halves = Halves(sides["oracle"], sides["held_out"], margins)
            selections = select_all(configurations, {run.name: run.chosen for run in runs}, halves.gap)
            kept = {name for s in selections for name in (s.chosen, s.best, s.equal_cost)}
            study.reporter.step(f"{forget.name}: judging what was chosen")
            shown = [c for c in configurations if c.id in kept | best_of_runs(configurations)]
            kept |= {c.id for c in configurations if c.control}
            for c, judged in zip(shown, pool.map(lambda c: target.judge(margins[c.id]), shown), strict=True):
                c.scores, c.verdict = judged
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    path = f"margins/{forget.name}.safetensors"
    sides = sides if predicted is None else {**sides, "forecast": predicted.oracle}
    digest = _save_margins(study.folder / path, {**sides, **{key: margins[key] for key in margins if key in kept}})
    floor, pretrained_scores = target.floors(), target.pretrained_scores()
    worst = target.worst(WORST_EXAMPLES)
    told: set[int] = set()
    for c in configurations:
        for row in c.verdict.rows["forget"].rows if "forget" in c.verdict.rows else []:
            row.index = int(forget.indices[row.position])
            told |= {row.position} if c.id in kept else set()
    named = sorted(int(forget.indices[row]) for row in told | set(worst))
    labels = task.outcome.groups(task.train.y[torch.from_numpy(forget.indices)])
    return ForgetRecord(
        name=forget.name,
        size=len(forget),
        how=forget.how,
        chooser=forget.chooser,
        classes=torch.bincount(labels, minlength=task.classes).tolist(),
        calibration_name=calibration.name,
        calibration_how=calibration.how,
        retain_examples=len(parts.splits["retain"]),
        floor=floor,
        pretrained=pretrained_scores,
        pretrained_public=target.pretrained_public(),
        floor_public=target.floor_public(),
        nothing_to_unlearn=target.nothing_to_unlearn(),
        checklist=run_checklist(task, forget, target, floor, pretrained_scores)
        + [check_recipe(own)] * (("pretrained", "") in study.given.models),
        oracle_accuracy=target.accuracy["oracle"],
        pretrained_accuracy=target.accuracy["pretrained"],
        configurations=configurations,
        selections=selections,
        worst=[ExampleRecord(position=row, index=int(forget.indices[row]), label=int(labels[row])) for row in worst],
        pictures=pictures(task, named),
        names=names(task, named),
        margins=path,
        margins_digest=digest,
        forecast=None if predicted is None else compact(predicted.record),
    )


def _predict(
    study: Study, task: Task, pretrained: Ensemble, choice: Choice, runs: Sequence[Method]
) -> tuple[Forecast | None, dict[str, Aims]]:
    """Return the forecast of the forget set, and what methods aim at on it and on its calibration set, by name."""
    if not study.forecasts:
        return None, {}
    if task.fingerprint not in study.subjects:
        study.subjects[task.fingerprint] = follow(task, pretrained, FOLLOWED, study.folder, study.chunk, study.reporter)
    subject = study.subjects[task.fingerprint]
    study.reporter.step(f"forecasting {choice.forget.name}")
    share = Share(study.reporter, FORECAST_WORK)
    found, kept = kept_forecast(
        study.parts, subject, choice.forget, runs, seed=study.seed, tolerance=study.tolerance, progress=share
    )
    share.finish(spent=not kept)
    if not any("targets" in run.needs for run in runs):
        return found, {}
    aims = {choice.forget.name: Aims(found.targets, found.targets_cost)}
    study.reporter.step(f"predicting the oracles of {choice.forget.name}, calibration")
    aims[choice.calibration.name] = Aims(*predict_targets(subject, choice.calibration))
    study.reporter.advance(AIMS_WORK)
    return found, aims


def _bench(study: Study, task: Task, pretrained: Ensemble, forget: ForgetSet, what: str) -> tuple[Bench, Parts]:
    oracle = _ensemble(study, task, f"oracle, {what}", forget)
    held_out = _ensemble(study, task, f"held-out oracle, {what}", forget)
    parts = Parts.of(task, forget, study.seed)
    measured = {
        "oracle": parts.measure(oracle),
        "held_out": parts.measure(held_out),
        "pretrained": parts.measure(pretrained),
    }
    labels = {split: values.y.numpy() for split, values in parts.splits.items()}
    return Bench(measured, study.tolerance, labels, study.row_tolerance), parts


def _ensemble(study: Study, task: Task, role: str, without: ForgetSet | None) -> Ensemble:
    """Train an ensemble or find it; the role decides its seed, and with its rows that of each member."""
    kind = role.partition(",")[0]
    key = f"{task.fingerprint}/{kind}/{'' if without is None else without.name}"
    if key in study.made:
        study.reporter.advance(1.0, spent=False)
        return study.made[key]
    given = study.given.models.get((kind, "" if without is None else without.name))
    if given is not None:
        study.reporter.advance(1.0, spent=False)
        study.made[key] = given.to(study.device)
        study.ensembles.append(_entry(task, role, given, given=True))
        return study.made[key]
    study.reporter.step(f"training {study.members} {role}")
    share = Share(study.reporter)
    path = ["audit", kind]
    if task.voting is not None and without is not None:
        path.append(digest_forget(without))  # voters with the same rows would be the same on two forget sets
    ensemble = train(
        task,
        members=study.members,
        without=without,
        seed=pretrained_seed(study.seed) if kind == "pretrained" else derive(study.seed, *path) % 2**31,
        store=study.folder / "ensembles",
        keep=study.keep if kind == "pretrained" else (),
        device=study.device,
        chunk=study.chunk,
        runner=study.runner,
        progress=share,
    )
    share.finish(spent=not ensemble.provenance["reused"])
    if kind == "pretrained" and study.chunk is None and task.fit is None and not ensemble.provenance["reused"]:
        reason = f"models run as {task.network.kind!r} ({task.network.reason}); " if task.network.reason else ""
        study.reporter.note(
            f"{reason}{ensemble.provenance['chunk']} members at once, which was the fastest when measured"
        )
    study.ensembles.append(_entry(task, role, ensemble))
    if without is None:
        study.made[key] = ensemble
    return ensemble


def _entry(task: Task, role: str, ensemble: Ensemble, *, given: bool = False) -> EnsembleRecord:
    made = ensemble.provenance
    return EnsembleRecord(
        role=role,
        members=len(ensemble),
        seed=ensemble.seed,
        seconds=0.0 if given or made["reused"] else made["seconds"],
        reused=not given and made["reused"],
        given=given,
        chunk=0 if given else made["chunk"],
        network=ensemble.network.kind,
        failed=int((~ensemble.finite()).sum()),
        train_accuracy=float(ensemble.accuracy(task.train.x, task.train.y).mean()),
        validation_accuracy=float(ensemble.accuracy(task.validation.x, task.validation.y).mean()),
    )


def _run(
    study: Study,
    task: Task,
    pretrained: Ensemble,
    method: Method,
    judged_on: tuple[ForgetSet, Bench],
    calibrated_on: tuple[ForgetSet, Bench],
    calibrate: bool,
    aims: Mapping[str, Aims],
    pool: Pool,
) -> list[Future[Found]]:
    """Run one setting on the target, and on the calibration set if asked, and have every stopping time scored."""
    forget, calibration = judged_on[0], calibrated_on[0]
    study.reporter.step(f"{forget.name}: {run_name(method)}")
    stops = _stops(study, task, pretrained, method, forget, aims)
    others = _stops(study, task, pretrained, method, calibration, aims) if calibrate else [None] * len(stops)
    return [
        pool.submit(_scored, task, method, stop, other, judged_on[1], calibrated_on[1])
        for stop, other in zip(stops, others, strict=True)
    ]


def _scored(task: Task, method: Method, stop: Stop, other: Stop | None, target: Bench, own: Bench) -> Found:
    """Score one stopping time, on the calibration set as well if it was run there; what is shown is judged later."""
    name, read = run_name(method), target.read(stop.measured, judged=False)
    configuration = ConfigurationRecord(
        id=f"{name}@{stop.epoch}",
        run=name,
        method=method.name,
        label=method.label,
        options=relative_options(method, task),
        statistics=method.statistics,
        epoch=stop.epoch,
        cost=stop.cost,
        control=method.role == "control",
        certificate=method.certificate,
        claim=stop.claim,
        epsilon=None if stop.claim is None else target.epsilon(stop.measured, stop.claim.delta),
        still="still" in method.checks,
        scores=read.scores,
        means=read.means,
        shifts=read.shifts,
        accuracy=accuracy_of(stop.measured),
        public=read.public,
        others=read.others,
        calibration=None if other is None else own.excess(other.measured),
        failed=read.failed,
        checks=list(stop.checks),
        verdict=read.verdict,
    )
    return configuration, margins_of(stop.measured)


def _elsewhere(
    study: Study,
    runner: Runner,
    choice: Choice,
    pretrained: Ensemble,
    methods: Sequence[Method],
    aims: Mapping[str, Aims],
) -> None:
    """Have the runner do every run on both sets; whoever asks for one afterwards finds it."""
    runs = []
    for group in by_method(methods):
        for forget in (choice.forget, choice.calibration)[: 1 + calibrated(group)]:
            runs += [_unlearning(study, choice.task, pretrained, method, forget, aims) for method in group]
    study.reporter.step(f"{choice.forget.name}: {len(runs)} runs of methods on the cluster")

    def finished(number: int) -> None:
        study.reporter.advance(run_work(runs[number].method, choice.task, runs[number].forget))

    store = study.folder / "ensembles"
    unlearn_elsewhere(runner, runs, pretrained, study.parts, store, study.seed, finished)


def _unlearning(
    study: Study, task: Task, pretrained: Ensemble, method: Method, forget: ForgetSet, aims: Mapping[str, Aims]
) -> UnlearningRun:
    """Return all that a run of a method is made of."""
    seed = unlearning_seed(study.seed, forget)
    key: dict[str, Any] = {
        "task": task.fingerprint,
        "pretrained": digest_json(pretrained.provenance["specification"]),
        "forget": digest_forget(forget),
        "method": method.describe(),
        "members": study.members,
        "seed": seed,
        "measured": kinds(),
    }
    aim = aims[forget.name] if "targets" in method.needs else None
    if aim is None:
        return UnlearningRun(task, forget, method, seed, key)
    key["targets"] = f"forecast, {FOLLOWED} followed"
    return UnlearningRun(task, forget, method, seed, key, aim.margins, aim.cost)


def _stops(
    study: Study, task: Task, pretrained: Ensemble, method: Method, forget: ForgetSet, aims: Mapping[str, Aims]
) -> list[Stop]:
    run = _unlearning(study, task, pretrained, method, forget, aims)
    work = run_work(method, task, forget)
    kept = study.parts.load(run.key)
    if kept is not None:
        study.reporter.advance(work, spent=False)
        return kept
    parts, share = Parts.of(task, forget, study.seed), Share(study.reporter, work)
    evaluate: Callable[[Ensemble], Mapping[str, Tensor]] = parts.measure
    done = unlearn(
        pretrained,
        task,
        forget,
        method,
        seed=run.seed,
        evaluate=evaluate,
        targets=run.targets,
        targets_cost=run.targets_cost,
        store=study.folder / "ensembles",
        progress=share,
    )
    share.finish(spent=True)
    stops = list(done.trace.stops)
    study.parts.save(run.key, stops)
    return stops


def _save_margins(path: Path, margins: Mapping[str, Mapping[SplitName, np.ndarray[Any, Any]]]) -> str:
    """Write the arrays that the report draws, and return the SHA-256 of the file."""
    tensors = {
        f"{who}/{split}": torch.from_numpy(np.ascontiguousarray(by_split[split], dtype=np.float32))
        for who, by_split in margins.items()
        for split in SPLITS
    }
    content = save_tensors(tensors)
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()
