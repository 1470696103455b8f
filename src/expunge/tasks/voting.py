"""Tasks whose models vote: every row is shown to one voter alone, so that a deletion touches few of them (SISA)."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from expunge.core import InputError, Split, Task
from expunge.core.checks import instance, plain_arguments, whole
from expunge.core.row_digests import digest_rows
from expunge.core.voting import Vote, Voting
from expunge.tasks.shipped import digits

MOST_VOTERS = 1000


@plain_arguments
def sisa(task: Task, voters: int = 5) -> Task:
    """Return a task whose models are several networks that vote, each trained on rows of its own.

    A row belongs to the voter that the SHA-256 of its inputs names: no row is dropped, equal rows are together, and
    taking rows away moves no other. So voters have about equally many rows, not exactly. Each is trained by the task's
    recipe on its rows, from initial weights and with batch orders of its own. What a model puts out is the mean of the
    voters' probabilities (as log-probabilities, or log-odds); for real targets the mean of their outputs.

    The method `sisa` retrains the voters that held rows of the forget set. What the source calls a shard is a voter
    here; slices, its checkpoints within a shard, are left out, and so is the majority vote, which has no margin.

    Args:
        task: One that trains by a recipe: the data, and what each voter is.
        voters: How many, from 2 to 1,000; each should have several batches.

    Raises:
        InputError: If the task has no model or a `fit` of its own, its models vote already, its outcome says not what
            several models predict together, or a voter has no rows.

    Source:
        Bourtoule et al., "Machine Unlearning" (arXiv 1912.03817).

    >>> import expunge as ex
    >>> task = ex.tasks.sisa(ex.tasks.digits(), voters=5)
    >>> task.voting.place.bincount().tolist()
    [277, 289, 279, 271, 321]
    """
    instance(Task, "an expunge.Task, such as expunge.tasks.digits()", task=task)
    whole(2, voters=voters)
    if voters > MOST_VOTERS:
        raise InputError(f"voters = {voters}, expected at most {MOST_VOTERS}.")
    if task.model is None or task.fit is not None:
        raise InputError(
            f"task {task.name!r} trains by a fit of its own, expected one that trains by a recipe: voters are trained "
            "as stacks. Give it a model and a recipe."
        )
    if task.voting is not None:
        raise InputError(f"the models of task {task.name!r} vote already, expected the task that they were made of.")
    with torch.no_grad():
        outputs = task.interface.run(task.build(0).eval(), task.train.x[:2])
    task.outcome.mean_prediction(torch.stack([outputs, outputs]))  # refuses an outcome that does not say it
    place = _places(task.train.x, voters)
    sizes = place.bincount(minlength=voters)
    if int(sizes.min()) == 0:
        raise InputError(
            f"voters = {voters}: voter {int(sizes.argmin())} has none of the {len(place)} rows of {task.name}, "
            "expected rows for each; choose fewer voters."
        )
    model = partial(Vote, task.model, voters, task.outcome)
    return task.with_voting(Voting(task, voters, place), model, f"{task.name}-sisa-{voters}")


def sisa_digits() -> Task:
    """Return digits with five voters."""
    return sisa(digits())


def _places(x: Tensor, voters: int) -> Tensor:
    digests = digest_rows(Split(x, torch.zeros(len(x), 0)))
    numbers = np.ascontiguousarray(digests[:, :8]).view(">u8")[:, 0]
    return torch.from_numpy((numbers % np.uint64(voters)).astype(np.int64))
