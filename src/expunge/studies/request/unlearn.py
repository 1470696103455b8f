"""One checkpoint in, one checkpoint out: the rows of a request are unlearned from a deployed model.

    checkpoint --fit to the task's model--> an ensemble of one --method--> checkpoint of the same form, unlearn.json

The method runs on an ensemble of one, so the model is what member 0 of an ensemble would become at the same seed.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

from rich.console import Console

from expunge.core import DivergedError, Ensemble, ForgetSet, InputError, Task
from expunge.core.checkpoints import Architecture
from expunge.core.checks import as_path, instance, seeds
from expunge.core.passing import AS_DEAR
from expunge.core.record import load_margins
from expunge.core.same_form import Stored, member_state
from expunge.core.schema import inside, write_atomically
from expunge.core.seeds import derive
from expunge.core.unlearning import AuditSource, CheckpointRecord, ForgetRequest, Source, Unlearning
from expunge.ensembles.chunks import pick_device
from expunge.ensembles.plan import TASK_EXPECTED
from expunge.methods import METHODS, DoNothing, Method, Retrain, check_fits, from_function, unlearn
from expunge.methods.own_function import FromFunction
from expunge.studies.request.audited import Audited, audited
from expunge.studies.request.changes import behaviour, no_better, unlike, weight_changes
from expunge.studies.run.forget_specs import is_component
from expunge.studies.run.grid import OWN_EXPECTED, relative_options
from expunge.studies.run.lifecycle import Run
from expunge.studies.run.measure import Parts
from expunge.studies.run.seeds import digest_forget
from expunge.tasks import choose, from_file
from expunge.tasks.names import FILES
from expunge.tasks.user_task import load_object

AUDITED = "audited:"
"""How a method is asked for that an audit found: the folder of the audit stands behind it."""

METHOD_EXPECTED = "a method, or the name of one"

NOT_SHOWN = (
    "That this one model cannot be told from a retrained one: a single model has no distribution of its own, and this "
    "run trained no oracles to compare it with. `expunge judge` compares it with those of an audit.",
    "That nothing of the rows is left: runtime checks say what the method did, and losses and accuracies say how the "
    "model answers, not what could be read from its weights. No attack was run.",
    "Copies: the checkpoint that came in, others of the same training, optimiser states, backups, models that were "
    "trained on this one's outputs, and the rows themselves are where they were.",
    "Rows that equal or nearly equal those to be forgotten, and stay in the retain set; `expunge plan` lists them.",
)
"""What no run of this kind shows."""


@dataclass(frozen=True)
class Setting:
    """A method with one setting, and where it comes from."""

    method: Method
    source: Source
    stop: int | None = None
    found: Audited | None = None

    @property
    def audit(self) -> AuditSource | None:
        """The audit that it comes from."""
        return None if self.found is None else self.found.source


def unlearn_checkpoint(
    task: Task,
    forget: ForgetSet,
    model_path: Path | str,
    method: Method | str = "retrain",
    *,
    out: Path,
    seed: int = 0,
    resume: bool = False,
    device: str = "auto",
    console: Console | None = None,
    command: str | None = None,
) -> tuple[Path, Unlearning]:
    """Unlearn rows from one checkpoint, and write one of the same form with a record; see the verb of `expunge`.

    Returns:
        The folder and the record; the checkpoint is `record.after.path` in the folder.

    Raises:
        InputError: If something given cannot be used; before any work.
        DivergedError: If the unlearned model is not finite; no checkpoint is written then.
    """
    instance(Task, TASK_EXPECTED, task=task)
    instance(ForgetSet, "an expunge.ForgetSet", forget=forget)
    seeds(seed=seed)
    forget.check(task)
    if task.model is None:
        raise InputError(
            f"models of task {task.name!r} are known by their outputs alone, so there are no weights to unlearn; "
            "expected a task with model=..."
        )
    stored, like, where = Stored.read(as_path(model_path, "the checkpoint")), Architecture.of(task), pick_device(device)
    state = like.fit(stored.state, str(stored.path))
    start = like.ensemble([state], [str(stored.path)]).to(where)
    if os.path.realpath(out / stored.path.name) == os.path.realpath(stored.path):
        raise InputError(f"{stored.path} lies in {out}, where its successor would be written; choose another --out.")
    setting = read_setting(method, task, forget)
    _check_setting(setting, task, forget)
    parts = Parts.of(task, forget, seed)
    _check_trained(parts, start, task, stored.path)
    chosen, cost = setting.method, setting.method.cost_of(task, forget)
    before = CheckpointRecord(path=str(stored.path), format=stored.format, sha256=stored.sha256, weights=stored.weights)
    request = {
        "task": task.name,
        "fingerprint": task.fingerprint,
        "forget": digest_forget(forget),
        "model": stored.sha256,
        "method": chosen.describe(),
        "stop": setting.stop,
        "source": setting.source,
        "audit": None if setting.audit is None else setting.audit.sha256,
        "seed": seed,
    }
    with Run.open(
        Unlearning,
        out,
        request,
        resume=resume,
        command=command or _call(task, forget, stored.path, method, out, seed),
        device=where,
        console=console,
        sound=lambda record: _is_there(out, record),
        task=task.describe(),
        forget=ForgetRequest(name=forget.name, size=len(forget), how=forget.how, digest=digest_forget(forget)),
        method=chosen.name,
        label=chosen.label,
        options=relative_options(chosen, task),
        stop=setting.stop,
        source=setting.source,
        audit=setting.audit,
        certificate=chosen.certificate,
        statistics=chosen.statistics,
        seed=seed,
        utility=task.outcome.utility_name,
        statistic=task.outcome.statistic_name,
        before=before,
        planned_cost=cost,
    ) as run:
        if run.finished:
            return out, run.record
        if cost >= AS_DEAR and chosen.statistics != "retrained":
            run.reporter.note(f"{chosen.label} will cost about {cost:.0%} of retraining, which is certain: retrain.")
        run.reporter.step(f"{chosen.label}: unlearning {len(forget)} rows")
        begin = time.monotonic()
        done = unlearn(start, task, forget, chosen, seed=seed, stop=setting.stop)
        record = run.record
        record.method_seconds = time.monotonic() - begin
        if not bool(done.finite().all()):
            raise DivergedError(
                f"{chosen.describe()} made numbers that are not finite; nothing was written. Lower its rate, or "
                f"retrain, into another --out than {out}."
            )
        place = write_atomically(out / stored.path.name, stored.with_weights(member_state(done), like))
        # What is measured is what was written, rounded as the file's types round.
        written = Stored.read(place)
        now = like.fit(written.state, str(place))
        record.after = CheckpointRecord(
            path=place.name, format=written.format, sha256=written.sha256, weights=written.weights
        )
        end, last = like.ensemble([now], [str(place)]).to(where), done.trace.stops[-1]
        record.left_out, record.cost, record.checks = stored.left_out, last.cost, list(last.checks)
        record.claim = last.claim
        record.changes = weight_changes(state, now, set(like.params))
        record.splits = behaviour(parts, start, end)
        record.advice, record.not_shown = _advice(record), list(NOT_SHOWN)
        record.notes = _notes(record, setting, task, forget, start, out)
    return out, run.record


def one_forget_set(task: Task, forget: ForgetSet | str | Path) -> ForgetSet:
    """Return the rows of a request: a forget set, those that a file lists, or those that a chooser draws.

    Raises:
        InputError: If it is none of these, or the rows are not rows of the task.
    """
    instance((ForgetSet, str, Path), "a forget set, or the path of a file of positions", forget=forget)
    if isinstance(forget, ForgetSet):
        return forget
    if Path(forget).suffix.lower() in FILES:
        return from_file(task, forget)
    if is_component(forget) or str(forget).startswith("mislabelled"):
        raise InputError(f"forget = {str(forget)!r}, expected rows of a request: a file of positions, or random:SIZE.")
    return choose(task, forget).forget


def read_setting(method: Method | str, task: Task, forget: ForgetSet) -> Setting:
    """Return the method that was asked for, with where its setting comes from.

    Args:
        method: A method with its options; or the name of one, `path/to/mine.py:function` (or a method object in that
            file), or `audited:FOLDER` for the setting that an audit found.
        task: The task.
        forget: The forget set.

    Raises:
        InputError: If it is none of these, or the audit cannot be used.
    """
    instance((Method, str), METHOD_EXPECTED, method=method)
    if isinstance(method, str):
        if method == AUDITED[:-1]:
            raise InputError("method 'audited' names no audit, expected audited FOLDER with the folder of one.")
        if method.replace(" ", ":", 1).startswith(AUDITED):
            found = audited(method[len(AUDITED) :], task, forget)
            return Setting(found.method, "audit", found.stop, found)
        if method in METHODS:
            made = METHODS[method]()
            return Setting(made, "retraining" if isinstance(made, Retrain) else "defaults")
        if ".py" not in method:
            raise InputError(
                f"method {method!r} is unknown, expected one of: {', '.join(METHODS)}; mine.py:function; or "
                "audited FOLDER with the folder of an audit."
            )
        loaded = load_object(method, (FunctionType, Method), OWN_EXPECTED)
        method = loaded if isinstance(loaded, Method) else from_function(loaded)
    if isinstance(method, FromFunction):
        return Setting(method, "own function")
    return Setting(method, "retraining" if isinstance(method, Retrain) else "given")


def _check_setting(setting: Setting, task: Task, forget: ForgetSet) -> None:
    """Refuse a method that cannot be run on one model."""
    if isinstance(setting.method, DoNothing):
        raise InputError("do_nothing changes nothing, and a copy is no unlearned model; choose another method.")
    if "states" in setting.method.needs:
        raise InputError(
            f"{setting.method.name} goes back to an earlier state of training, and a checkpoint is its end alone; go "
            "on from an earlier checkpoint with your own training, without these rows, or choose another method."
        )
    if "targets" in setting.method.needs:
        raise InputError(
            f"{setting.method.name} aims at margins that a forecast predicts from an ensemble of pretrained models "
            "(20 at least), and here is one model; choose another method, such as retrain."
        )
    check_fits(setting.method, task.network, task, forget)


def _check_trained(parts: Parts, start: Ensemble, task: Task, path: Path) -> None:
    """Refuse a checkpoint that does no better than an untrained model: it belongs to another task."""
    fresh = Ensemble.from_modules([task.build(derive(0, "untrained"))], task).to(start.device)
    losses = no_better(parts, start, fresh)
    if losses is not None:
        raise InputError(
            f"{path} has the shape of the model of task {task.name!r}, but does no better on its training data than an "
            f"untrained model (loss {losses[0]:.3g}, untrained {losses[1]:.3g}); expected a checkpoint that was "
            "trained on these data, with the same order of inputs and classes."
        )


def _is_there(out: Path, record: Unlearning) -> bool:
    """Return whether the checkpoint of a finished run is the one that it wrote."""
    if record.after is None:
        return False
    try:
        return Stored.read(inside(out, record.after.path)).sha256 == record.after.sha256
    except InputError:
        return False


def _advice(record: Unlearning) -> list[str]:
    """Return what to think of the result, the most important first."""
    said = []
    if record.failed_checks:
        names = ", ".join(check.name for check in record.failed_checks)
        said.append(f"Do not use this checkpoint: the method did not do what it says ({names}). Retrain instead.")
    if record.source == "retraining":
        return [
            *said,
            "Retraining is the one method that is certain: nothing here was computed from the forget set.",
        ]
    if record.statistics == "retrained":
        shorter = "" if record.certificate else "; it was trained for less than the task asks"
        said.append(f"Nothing in this checkpoint was computed from the forget set{shorter}.")
    elif record.cost >= AS_DEAR:
        said.append(
            f"{record.label} saved nothing: it cost {record.cost:.0%} of retraining, which is certain and has no "
            "setting to find. Retrain instead (--method retrain)."
        )
    if record.audit is None and record.statistics != "retrained":
        said.append(
            f"No audit says that {record.label} with this setting works on this task, and retraining one model, at "
            f"{1 / max(record.cost, 1e-9):.3g} times the cost, is certain. Retrain (--method retrain), or audit first "
            "(expunge audit) and come back with --method audited RUN."
        )
    if record.audit is not None:
        said.append(
            f"An audit of {record.audit.members} models found this setting indistinguishable from retraining at "
            f"{record.audit.cost:.0%} of its cost (tolerance {record.audit.tolerance:g} nats). That speaks of models "
            "trained as those of the audit were, and of this one as far as it is such a model."
        )
    return said


def _notes(
    record: Unlearning, setting: Setting, task: Task, forget: ForgetSet, start: Ensemble, out: Path
) -> list[str]:
    notes = []
    if record.left_out:
        notes.append(
            f"Left out of the checkpoint, since it may have been computed from the forget set: "
            f"{', '.join(record.left_out)}."
        )
    if setting.found is not None:
        notes += setting.found.notes
        folder = Path(setting.found.source.run)
        pretrained = load_margins(folder.parent if folder.is_file() else folder, setting.found.forget)
        strange = unlike(Parts.of(task, forget, setting.found.seed), start, pretrained)
        if strange:
            notes.append(
                f"The model that came in behaves on {', '.join(strange)} examples like none of the pretrained models "
                "of the audit, so what the audit found need not hold for it."
            )
    rest = len(forget.retain)
    if record.splits["retain"].examples < rest:
        notes.append(f"Of the {rest:,} retain rows {record.splits['retain'].examples:,} were read, drawn at random.")
    return notes


def _call(task: Task, forget: ForgetSet, path: Path, method: Method | str, out: Path, seed: int) -> str:
    """Return the Python call that does the same again."""
    name = repr(method) if isinstance(method, str) else f"expunge.methods.{method!r}"
    given = f"task: {task.name}; forget: {forget.how}"
    return f"expunge.unlearn_checkpoint({str(path)!r}, task, forget, {name}, out={str(out)!r}, seed={seed})  # {given}"
