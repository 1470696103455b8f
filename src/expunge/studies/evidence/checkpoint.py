"""The checkpoint that was made for the request, held against the models of the audit: one model among its oracles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from expunge.core import ForgetSet, InputError, Record, Task
from expunge.core.checkpoints import read
from expunge.core.evidence import CheckpointVerdict
from expunge.core.limits import LEVEL, POWER
from expunge.core.record import SPLITS, ForgetRecord
from expunge.core.unlearning import Unlearning
from expunge.metrics.one_model import one_model
from expunge.studies.run.measure import Parts, margins_of

Arrays = Mapping[str, np.ndarray[Any, Any]]


def its_forget_set(released: Unlearning, record: Record) -> ForgetRecord | None:
    """Return what the audit says of the rows that were unlearned from the checkpoint; None where it has others."""
    names = {name for name, digest in record.asked.items() if digest == released.forget.digest}
    return next((forget for forget in record.forget_sets if forget.name in names), None)


def margins_of_checkpoint(
    path: Path, task: Task, record: Record, forget: ForgetRecord, rows: Arrays
) -> dict[str, np.ndarray[Any, Any]]:
    """Return the margins of a checkpoint by split, each (1, examples), on the rows that the audit scored.

    Raises:
        InputError: If the task is not the audit's, or trained on other labels than it has.
    """
    if task.fingerprint != record.task.get("fingerprint"):
        raise InputError(
            f"task {task.name!r} has other data, another model or another training than that of the audit; expected "
            "the very task."
        )
    if forget.chooser == "mislabelled":
        raise InputError(
            f"the rows of {forget.name} had wrong labels in the audit, which the task does not have; leave --task out."
        )
    placed = ForgetSet.of(task, rows[f"{forget.name}/forget"], name=forget.name, how=forget.how)
    parts = Parts.of(task, placed, record.seed)
    return {
        str(split): array for split, array in margins_of(parts.measure(read(str(path), task, "checkpoint"))).items()
    }


def judge_checkpoint(ours: Arrays, audited: Arrays) -> CheckpointVerdict:
    """Return the verdict on one model among the oracles and held-out oracles of an audit.

    Args:
        ours: Its margins by split, each (1, examples).
        audited: The margins of the audit by `<who>/<split>`.
    """
    oracle = {s: np.concatenate([audited[f"{who}/{s}"] for who in ("oracle", "held_out")]) for s in SPLITS}
    pretrained = {s: audited[f"pretrained/{s}"] for s in SPLITS}
    found = one_model({s: ours[s] for s in SPLITS}, oracle, pretrained, level=LEVEL, power=POWER)
    return CheckpointVerdict(
        name=found.name,
        sentence=found.sentence,
        p_value=found.p_value,
        level=found.level,
        oracles=found.oracles,
        size=_finite(found.size),
        power=_finite(found.power),
        power_low=_finite(found.power_low),
        power_high=_finite(found.power_high),
        pretrained=found.pretrained,
        sees=found.sees,
        oracles_needed=found.oracles_needed,
    )


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
