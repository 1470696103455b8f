"""The setting that an audit of the same task, data and forget set found to work, for one model.

Of the configurations that the audit chose without the target's oracles, the cheapest that cannot be told from
retraining and passed its own runtime checks; controls count.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.core import DamagedFileError, ForgetSet, InputError, Record, Task
from expunge.core.passing import failed_checks, passes, working
from expunge.core.record import ConfigurationRecord, ForgetRecord
from expunge.core.unlearning import AuditSource
from expunge.methods import METHODS, DoNothing, Method
from expunge.studies.run.seeds import digest_forget

RETRAIN = "retrain (--method retrain), or audit other methods"


@dataclass(frozen=True)
class Audited:
    """A setting with the audit that it comes from."""

    method: Method
    stop: int | None
    source: AuditSource
    forget: ForgetRecord
    """What the audit found on the forget set."""
    seed: int
    """The audit's."""
    notes: tuple[str, ...]
    """What was cheaper and cannot be used."""


def audited(run: Path | str, task: Task, forget: ForgetSet) -> Audited:
    """Return the setting that an audit found for a task and a forget set.

    Args:
        run: Folder of the audit.
        task: The task; its fingerprint must be that of the audit.
        forget: The forget set; its rows must be those of the audit.

    Raises:
        InputError: If the audit is not complete, is of another task or forget set, or found no setting that cannot be
            told from retraining, passed its checks, and can be used on one model.
        DamagedFileError: If its record cannot be read.
    """
    folder = Path(run).expanduser()
    record = Record.load(folder)
    file = folder if folder.is_file() else folder / Record.FILE
    if record.status != "complete":
        raise InputError(f"{folder} holds an audit that is not complete; finish it first ({record.command} --resume).")
    found = _same(record, folder, task, forget)
    if found.nothing_to_unlearn:
        raise InputError(
            f"the audit in {folder} found nothing to unlearn in {found.name}: models behave on these rows as if they "
            "had never seen them, and no method could be told from an idle one. If the rows must leave the weights as "
            f"well, {RETRAIN}."
        )
    notes = []
    for each in working(found):
        if each.method == DoNothing.name or failed_checks(each):
            continue
        if each.method not in METHODS:
            raise InputError(
                f"the cheapest that passed in {folder} is {each.label}, a function of your own, which a record does "
                f"not hold; give it as --method mine.py:{each.method}."
            )
        if "targets" in METHODS[each.method].needs:
            notes.append(
                f"{each.label} passed at {each.cost:.0%} of retraining, and was not used: it aims at margins that are "
                "predicted from an ensemble of pretrained models, and here is one."
            )
            continue
        if "states" in METHODS[each.method].needs:
            notes.append(
                f"{each.label} passed at {each.cost:.0%} of retraining, and was not used: it goes back to an earlier "
                "state of training, and here is its end alone."
            )
            continue
        method = _rebuilt(each, folder)
        source = AuditSource(
            run=str(folder),
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            members=record.members,
            tolerance=record.tolerance,
            configuration=each.id,
            verdict=each.verdict.sentence,
            cost=each.cost,
        )
        stop = each.epoch if method.planned_stops > 1 else None
        return Audited(method, stop, source, found, record.seed, tuple(notes))
    raise InputError(f"the audit in {folder} found nothing to use on {found.name}: {_why(found)}; {RETRAIN}.")


def _same(record: Record, folder: Path, task: Task, forget: ForgetSet) -> ForgetRecord:
    """Return what an audit found on a forget set, or refuse one of other data."""
    if record.request.get("fingerprint") != task.fingerprint:
        raise InputError(
            f"{folder} is an audit of task {record.task.get('name')!r} with other data, another model or another "
            f"training than task {task.name!r} has here; expected an audit of this very task."
        )
    names = {name for name, digest in record.asked.items() if digest == digest_forget(forget)}
    found = [each for each in record.forget_sets if each.name in names]
    if not found:
        others = ", ".join(f"{each.name} ({each.size} rows)" for each in record.forget_sets) or "none"
        raise InputError(
            f"{folder} is an audit of other forget sets ({others}) than the {len(forget)} rows of {forget.name}; "
            "expected one of these very rows: what works on one set need not work on another."
        )
    if found[0].chooser == "mislabelled":
        raise InputError(
            f"{folder} audited {found[0].name} on data in which wrong labels were planted, which are not the data of "
            f"task {task.name!r} here."
        )
    return found[0]


def _why(found: ForgetRecord) -> str:
    """Return in words why no configuration can be used."""
    passing = working(found)
    if not passing:
        by_id = {each.id: each for each in found.configurations}
        chosen = [by_id[each.chosen] for each in found.selections if each.chosen in by_id]
        said = ", ".join(f"{each.label} is {each.verdict.name}" for each in chosen if not passes(each))
        more = "; more members may decide" * any(each.verdict.name == "undecided" for each in chosen)
        return f"none was indistinguishable ({said}){more}"
    said = ", ".join(
        f"{each.label} failed: {', '.join(failed_checks(each))}" if failed_checks(each) else f"{each.label} needs more"
        for each in passing
    )
    return f"what was indistinguishable cannot be used ({said})"


def _rebuilt(configuration: ConfigurationRecord, folder: Path) -> Method:
    """Return the method of a configuration with its options."""
    kind = METHODS[configuration.method]
    options: dict[str, Any] = {key: v for key, v in configuration.options.items() if key != "relative_lr"}
    if set(options) != {field.name for field in dataclasses.fields(kind)}:
        raise DamagedFileError(f"{folder} holds options of {kind.name} that this version of expunge does not have.")
    try:
        return kind(**options)
    except InputError as error:
        raise DamagedFileError(f"{folder} holds options of {kind.name} that it cannot have: {error}") from error
