"""A deletion request for one deployed model: plan it, unlearn the checkpoint, judge one model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from expunge import studies
from expunge.api.asked import (
    ForgetItem,
    check_request,
    method_list,
)
from expunge.core import ForgetSet, InputError, Task
from expunge.core.checks import instance, plain_arguments, seeds, whole
from expunge.core.limits import FEWEST_MEMBERS, LEVEL, POWER
from expunge.core.plan import Plan
from expunge.core.reading import as_tensor
from expunge.core.unlearning import Unlearning
from expunge.ensembles.plan import TASK_EXPECTED, check_members
from expunge.methods import Method
from expunge.metrics.one_model import OneModel
from expunge.report.plan import plan_text
from expunge.report.unlearning import unlearning_text
from expunge.studies.audit.plan_costs import plan_costs
from expunge.studies.request.judge import judge_by_models, judge_by_run
from expunge.studies.request.plan import plan_request
from expunge.studies.request.unlearn import one_forget_set


@dataclass(frozen=True)
class Unlearned:
    """One checkpoint unlearned."""

    folder: Path
    """Where everything was written."""
    record: Unlearning
    """What was done, and what changed."""
    model: Path
    """The unlearned checkpoint."""

    def __str__(self) -> str:
        """Return the table of `expunge unlearn`."""
        return unlearning_text(self.record)


class RequestPlan(Plan):
    """What `plan` found; printed, it is the text of `expunge plan`."""

    def __str__(self) -> str:
        """Return the text."""
        return plan_text(self)


@plain_arguments
def unlearn_checkpoint(
    model: str | Path,
    task: Task,
    forget: ForgetItem,
    method: str | Method = "retrain",
    *,
    out: Path | str = "runs/unlearn",
    seed: int = 0,
    resume: bool = False,
    device: str = "auto",
    console: Console | None = None,
    command: str | None = None,
) -> Unlearned:
    """Unlearn rows from one checkpoint file, and write one of the same form with a record of what was done.

    Args:
        model: A checkpoint of the task's model, `.safetensors` or a PyTorch file that holds tensors alone.
        task: Its task.
        forget: The rows: a `ForgetSet`, or a file of positions.
        method: A method with its options, its name, a function of one's own (`methods.from_function(fn)`, or
            `"mine.py:fn"`), or `"audited:FOLDER"`: the cheapest setting that an audit of this task and forget set found
            indistinguishable from retraining.
        out: Folder of the run.
        seed: Decides all that is random; the result is that of member 0 of an ensemble.
        resume: Return what a finished run found, or do an interrupted one again.
        device: `auto`, `cpu` or `cuda`.
        console: Where progress is shown; None is silent.
        command: The shell command to put into the record; None writes the Python call.

    Returns:
        The run, with `record` and the path of the checkpoint in `model`.

    Raises:
        InputError: If something given cannot be used; before any work.
        DivergedError: If the unlearned model is not finite.
    """
    check_request(task, out, seed, None)
    folder, record = studies.unlearn_checkpoint(
        task,
        one_forget_set(task, forget),
        model,
        method,
        out=Path(out),
        seed=seed,
        resume=resume,
        device=device,
        console=console,
        command=command,
    )
    assert record.after is not None
    return Unlearned(folder, record, folder / record.after.path)


@plain_arguments
def plan(
    task: Task,
    *,
    forget: ForgetItem,
    checkpoint: Path | str | None = None,
    members: Sequence[int] = (20, 50, 100),
    workers: int = 1,
    methods: str | Method | Sequence[str | Method] | None = None,
    seed: int = 0,
    device: str = "auto",
    typed: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> RequestPlan:
    """Say what a request would take, before anything long: costs, whether its rows can matter, their twins, what next.

    Two models are trained where that takes minutes, and nothing is written.

    Args:
        task: The task.
        forget: The rows: a `ForgetSet`, or a file of positions.
        checkpoint: The deployed model, to be looked at: does it fit the task, does it look trained on the rows?
        members: Numbers of models for which costs are told, each at least 20.
        workers: Machines like this one on which times are told as well.
        methods: What an audit would try; None for its default.
        seed: The study's seed.
        device: `auto`, `cpu` or `cuda`.
        typed: The words that say task and rows in a command, for the commands that are named.
        progress: Called with what is done next.

    Returns:
        The plan; printed, it is what `expunge plan` says.

    Raises:
        InputError: If something given cannot be used, or the checkpoint is not one of the task's models.
    """
    instance(Task, TASK_EXPECTED, task=task)
    seeds(seed=seed)
    whole(workers=workers)
    counts = _counts(members)
    rows = one_forget_set(task, forget)
    found = plan_request(
        task,
        rows,
        lambda: plan_costs(
            task, rows, counts, methods=method_list(methods), machines=workers, seed=seed, device=device
        ),
        checkpoint=checkpoint,
        typed=typed,
        seed=seed,
        device=device,
        progress=progress,
    )
    return RequestPlan(**dict(found))


def _counts(members: Any) -> list[int]:
    """Return numbers of members in order, each once."""
    given = as_tensor(members, "members")
    if given.is_floating_point() or given.dtype == torch.bool or given.ndim > 1 or not given.numel():
        raise InputError(
            f"members holds {given.dtype} in shape {tuple(given.shape)}, expected whole numbers of at least "
            f"{FEWEST_MEMBERS}, such as [20, 50]."
        )
    counts = sorted(set(given.reshape(-1).tolist()))
    for count in counts:
        check_members(count, FEWEST_MEMBERS)
    return counts


@plain_arguments
def judge(
    model: Any,
    *,
    task: Task | None = None,
    run: Path | str | None = None,
    forget: ForgetItem | None = None,
    oracle: Any = None,
    pretrained: Any = None,
    level: float = LEVEL,
    power: float = POWER,
    seed: int = 0,
) -> OneModel:
    """Judge one model: compatible with retraining, told from it, or more than these oracles can say.

    Args:
        model: The path of a checkpoint, a `torch.nn.Module`, an ensemble of one, or margins: a mapping by split
            (`forget`, `retain`, `validation`), each (examples,), or those of the forget set alone.
        task: Its task; without one everything that is given is margins.
        run: Folder of an audit of the task, whose retrained and pretrained models are taken.
        forget: The forget set: with a run its name in the audit, or the rows in any form (None: its only one); without
            a run a `ForgetSet`.
        oracle: Retrained models instead of a run: an ensemble, checkpoints, or margins, each (oracles, examples).
        pretrained: Models trained on everything, likewise; without them nothing is compatible, since no power is shown.
        level: Chance that a retrained model is told, 0.001 to 0.5; it takes 1 / level - 1 oracles.
        power: Share of the pretrained models that must be shown to be told before a model is compatible, 0.5 to 0.99.
        seed: Draws the examples that are scored, without a run.

    Returns:
        The verdict: `name`, `sentence` (also by `print`), `p_value`, `rows`, `power` with its interval, and
        `oracles_needed`.

    Raises:
        InputError: If something given cannot be used, or models come without task and forget set.

    >>> import numpy as np
    >>> draw = np.random.default_rng(0)
    >>> oracle, pretrained = draw.normal(0, 1, (40, 30)), draw.normal(1, 1, (40, 30))
    >>> judge(draw.normal(0, 1, 30), oracle=oracle, pretrained=pretrained).name
    'compatible'
    """
    if (run is None) == (oracle is None):
        raise InputError("expected one of run (the folder of an audit) and oracle (retrained models).")
    if run is None:
        instance((ForgetSet, type(None)), "a forget set, as tasks.random_forget_set makes", forget=forget)
        return judge_by_models(
            model,
            oracle,
            pretrained,
            task=task,
            forget=forget if isinstance(forget, ForgetSet) else None,
            level=level,
            power=power,
            seed=seed,
        )
    if pretrained is not None:
        raise InputError("run and pretrained were given, expected one of them: the audit has pretrained models.")
    instance(Task, TASK_EXPECTED, task=task)
    assert task is not None
    return judge_by_run(model, task, run, forget, level=level, power=power)
