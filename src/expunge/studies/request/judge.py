"""One model, judged by the oracles of an audit or by others: compatible with retraining, told from it, or neither.

    checkpoint --margins on the examples that the audit scored--> rank among its oracles --> OneModel

An audit has two sets of retrained models, oracles and held-out ones; the rank is among both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from expunge.core import Ensemble, ForgetSet, InputError, Record, Task
from expunge.core.checkpoints import read
from expunge.core.checks import as_path, instance
from expunge.core.record import SPLITS, ForgetRecord, SplitName, load_margins, load_positions
from expunge.metrics.one_model import OneModel, one_model
from expunge.studies.run.measure import Parts, margins_of
from expunge.studies.run.seeds import digest_forget
from expunge.tasks import CHOOSERS, Choice, choose

MODEL_EXPECTED = "the path of a checkpoint, a torch.nn.Module, or margins by split"


def judge_by_run(
    model: Any,
    task: Task,
    run: Path | str,
    forget: ForgetSet | str | Path | None = None,
    *,
    level: float,
    power: float,
) -> OneModel:
    """Return the verdict on one model by the retrained and pretrained models of an audit.

    Args:
        model: A checkpoint of the task's model, a module, an ensemble of one, or margins by split on the examples that
            the audit scored.
        task: The task of the audit.
        run: Folder of the audit.
        forget: Which of its forget sets: its name in the audit, or the rows in any form; None for its only one.
        level: As in `one_model`.
        power: As in `one_model`.

    Raises:
        InputError: If the audit is not finished, is of another task, or does not have the forget set; or if the model
            is not one of the task's.
    """
    instance(Task, "an expunge.Task", task=task)
    folder = as_path(run, "run").expanduser()
    record = Record.load(folder)
    if record.status != "complete":
        raise InputError(f"{folder} holds an audit that is not finished; go on with it: {record.command} --resume")
    if record.request.get("fingerprint") != task.fingerprint:
        raise InputError(
            f"{folder} is an audit of task {record.task.get('name')!r} with other data, another model or another "
            f"training than task {task.name!r} has here; expected an audit of this very task."
        )
    folder = folder.parent if folder.is_file() else folder
    found, choice = _forget_set(record, folder, task, forget)
    arrays = load_margins(folder, found)
    oracle, pretrained = _side(arrays, "oracle", "held_out"), _side(arrays, "pretrained")
    ours = margins_of_model(model, choice.task, Parts.of(choice.task, choice.forget, record.seed))
    return one_model(ours, oracle, pretrained, level=level, power=power)


def judge_by_models(
    model: Any,
    oracle: Any,
    pretrained: Any = None,
    *,
    task: Task | None,
    forget: ForgetSet | None,
    level: float,
    power: float,
    seed: int = 0,
) -> OneModel:
    """Return the verdict on one model by retrained ones: margins, or models of a task with a forget set."""
    if (task is None) != (forget is None):
        raise InputError("one of task and forget was given, expected both, with models, or none, with margins.")
    if task is None or forget is None:
        for what, given in (("model", model), ("oracle", oracle), ("pretrained", pretrained)):
            if isinstance(given, str | os.PathLike | nn.Module | Ensemble):
                raise InputError(f"{what} is a model, not its margins, and task and forget are missing; give both.")
        return one_model(model, oracle, pretrained, level=level, power=power, seed=seed)
    instance(Task, "an expunge.Task", task=task)
    instance(ForgetSet, "a forget set, as tasks.random_forget_set makes", forget=forget)
    forget.check(task)
    parts = Parts.of(task, forget, seed)

    def side(models: Any, what: str) -> Any:
        known = models is None or isinstance(models, Mapping)
        return models if known else margins_of(parts.measure(read(models, task, what)))

    ours = margins_of_model(model, task, parts)
    return one_model(ours, side(oracle, "oracle"), side(pretrained, "pretrained"), level=level, power=power, seed=seed)


def margins_of_model(model: Any, task: Task, parts: Parts) -> Mapping[SplitName, Any]:
    """Return the margins of one model by split, each (1, examples); margins that were given as they are.

    Raises:
        InputError: If it is no model, not one of the task's, or more than one.
    """
    if isinstance(model, Mapping):
        return model
    if isinstance(model, nn.Module):
        ensemble = Ensemble.from_modules([model], task)
    else:
        instance((str, os.PathLike, Ensemble), MODEL_EXPECTED, model=model)
        ensemble = read(model if isinstance(model, Ensemble) else os.fspath(model), task, "model")
    if len(ensemble) != 1:
        raise InputError(f"model has {len(ensemble)} members, expected one model; ensembles are judged by an audit.")
    return margins_of(parts.measure(ensemble))


def _forget_set(
    record: Record, folder: Path, task: Task, forget: ForgetSet | str | Path | None
) -> tuple[ForgetRecord, Choice]:
    """Return what an audit says of a forget set, and the set with its task, held against the audit's digest."""
    names = [each.name for each in record.forget_sets]
    digests = {digest: name for name, digest in record.asked.items() if name in names}
    if forget is None:
        if len(names) != 1:
            raise InputError(
                f"{folder} has the forget sets {', '.join(names) or '(none)'}, expected the name of one (--forget)."
            )
        forget = names[0]
    if forget in names:
        forget = _again(record, folder, task, next(each for each in record.forget_sets if each.name == forget))
    choice = choose(task, forget, seed=record.seed)
    name = digests.get(digest_forget(choice.forget))
    if name is None:
        raise InputError(
            f"{folder} is an audit of other rows ({', '.join(names)}) than the {len(choice.forget)} of "
            f"{choice.forget.name}; expected the forget set of the audit, by a file of its rows (--forget FILE)."
        )
    return next(each for each in record.forget_sets if each.name == name), choice


def _again(record: Record, folder: Path, task: Task, known: ForgetRecord) -> ForgetSet | str:
    """Return a forget set of an audit from the rows that its record holds, or how it is drawn again."""
    if known.chooser in CHOOSERS:
        label = re.search(r"-class-(\d+)", known.name)
        return f"{known.chooser}:{known.size}" + (f":{label[1]}" if label else "")
    if record.rows:
        rows = load_positions(folder, record, known)["forget"]
        return ForgetSet.of(task, rows, name=known.name, how=known.how)
    raise InputError(
        f"the record of the audit does not hold the rows of {known.name}; expected the file that lists them, as in the "
        "audit (--forget FILE)."
    )


def _side(arrays: Mapping[str, np.ndarray[Any, Any]], *names: str) -> dict[SplitName, np.ndarray[Any, Any]]:
    return {split: np.concatenate([arrays[f"{name}/{split}"] for name in names]) for split in SPLITS}
