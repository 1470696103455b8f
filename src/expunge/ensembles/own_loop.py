"""Training by the user's own loop: `fit(model, dataset, seed)`, a member at a time, in as many processes as cores.

Each member is kept on disk as soon as it is trained, so neither memory nor what a killed run loses grows with members.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core import Ensemble, InputError, Network, Task
from expunge.core.checkpoints import Architecture
from expunge.core.checks import described
from expunge.core.errors import told
from expunge.core.examples import Examples
from expunge.core.outputs_alone import read_outputs
from expunge.core.seeds import derive
from expunge.core.task import seeded
from expunge.core.tree import State
from expunge.ensembles.processes import run_each
from expunge.ensembles.runners import Runner
from expunge.ensembles.store import Shelf

FITTER = 1
"""Raised when a change alters what a `fit` is given for the same specification."""


def row_digest(row: Tensor) -> str:
    """Return a short name of a set of rows."""
    return hashlib.sha256(row.numpy().astype("<i8").tobytes()).hexdigest()[:16]


def member_seeds(seed: int, rows: Sequence[Tensor], ids: Sequence[int]) -> list[int]:
    """Return one seed a member, from the study's seed, the member's own rows and its index."""
    return [derive(seed, "member", row_digest(row), member) for row, member in zip(rows, ids, strict=True)]


def fit_seed(seed: int) -> int:
    """Return the seed that `fit` is called with; NumPy and scikit-learn take those below 2^32, some below 2^31."""
    return derive(seed, "fit") % 2**31


def fit_ensemble(
    task: Task,
    network: Network,
    rows: Sequence[Tensor],
    ids: Sequence[int],
    seed: int,
    seeds: Sequence[int],
    *,
    purpose: str = "",
    store: Path | None = None,
    workers: int = 1,
    runner: Runner | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ensemble:
    """Train members by the task's own `fit`, and return them; weights lie in a mapped file, not in memory.

    Args:
        task: Whose `fit`.
        network: Evaluates the members.
        rows: Positions of each member's rows in the training data.
        ids: Index of each member.
        seed: The study's seed, for the specification.
        seeds: One seed a member, from which everything random follows.
        purpose: Tells specifications apart that have their seeds otherwise.
        store: Folder in which finished members are kept and found again; None uses one for the time being.
        workers: Processes at once.
        runner: Trains members elsewhere, into the store.
        progress: Called with members done and in all.

    Raises:
        InputError: If `fit` raises, or returns something else than the trained model.
    """
    digests = [row_digest(row) for row in rows]
    shared = len(set(digests)) == 1
    specification: dict[str, Any] = {
        "trainer": f"fit {FITTER}{purpose and ', ' + purpose}",
        "task": task.fingerprint,
        "task_name": task.name,
        "seed": seed,
        "examples": digests[0] if shared else {str(member): own for member, own in zip(ids, digests, strict=True)},
    }
    with tempfile.TemporaryDirectory(prefix="expunge-") as scratch:
        shelf = Shelf(store or Path(scratch), specification)
        like = Architecture.of(task)
        missing = [place for place, member in enumerate(ids) if member not in shelf.members()]
        if missing:
            shelf.begin(1)
            work = _Work(task, ids, rows, seeds, shelf.folder.parent, specification)
            made: dict[str, int] = {}
            left = missing

            def finished(place: int, result: str) -> None:
                if result in made:
                    raise InputError(_same(task, ids[made[result]], ids[place]))
                if result:
                    made[result] = place
                if progress is not None:
                    progress(len(ids) - len(missing) + len(made), len(ids))

            def read(place: int) -> None:
                shelf.refresh()
                found = shelf.digest(ids[place])
                finished(place, found and found + digests[place])

            while left:
                if runner is None:
                    run_each(work, left, workers, finished, steps=task.model is not None)
                else:
                    runner.run(work, left, name=lambda place: f"member {ids[place]} of {task.name}", finished=read)
                others = shelf.left(ids)  # by another process, which ended
                left = [place for place in left if ids[place] in others]
        params, buffers = shelf.load(ids, mapped=True, like=(like.params, like.buffers))
    provenance = {
        "specification": specification,
        "chunk": 0,
        "network": network.kind,
        "reused": not missing,
        "device": "cpu",
    }
    return Ensemble(network, params, buffers, tuple(ids), seed, provenance)


@dataclass(frozen=True)
class _Work:
    """The training of one member into a store, in this process or in another."""

    task: Task
    ids: Sequence[int]
    rows: Sequence[Tensor]
    seeds: Sequence[int]
    root: Path
    specification: Mapping[str, Any]

    def __call__(self, place: int) -> str:
        """Train the member at a place; return the digest of what is in the store, or nothing where others are at it."""
        task, member, shelf = self.task, self.ids[place], Shelf(self.root, self.specification)
        like = Architecture.of(task)
        with shelf.claim([member]) as mine:
            if not mine:  # another run with this store was faster, or is at it
                return ""
            who = f"member {member}"
            data = Examples(task.train[self.rows[place]], task.interface, self.rows[place].numpy())
            state = fitted(task, like, run_fit(task, data, self.seeds[place], who), who)
            one = {name: tensor.unsqueeze(0) for name, tensor in state.items()}
            buffers = {name: one[name] for name in like.buffers}
            shelf.save([member], {name: one[name] for name in one if name not in buffers}, buffers)
            return shelf.digest(member) + row_digest(self.rows[place])


def _same(task: Task, one: int, other: int) -> str:
    if task.model is None:
        advice = "draw what is random from the seed; for an estimator write from_estimator(..., bootstrap=True)"
    else:
        advice = "draw what is random from the seed, and start from the model that fit is given"
    first, second = sorted((one, other))  # whichever ended first
    return (
        f"members {first} and {second} of task {task.name!r} came out the same, bit by bit, from the same rows and "
        f"other seeds: fit ignores its seed, so an ensemble would be one model. Expected models that differ; {advice}."
    )


def run_fit(task: Task, data: Examples, seed: int, who: str) -> Any:
    """Return what the task's `fit` made of some rows: the trained module or its state, or outputs alone.

    Args:
        task: Whose `fit`.
        data: The rows.
        seed: Of this member: of its initial weights, and of what `fit` draws.
        who: How a message calls it.

    Raises:
        InputError: If `fit` raises; the message names the user's own line.
    """
    if task.fit is None:
        raise InputError(f"task {task.name!r} has neither a model nor a fit, expected one of them.")
    module = None if task.model is None else task.build(derive(seed, "initialisation")).train()
    own = fit_seed(seed)
    try:
        with seeded(own), torch.enable_grad():
            returned = task.fit(module, data, own)
    except InputError as error:
        raise InputError(f"{who}: {error}") from error
    except (Exception, SystemExit) as error:
        raise InputError(
            f"fit failed for {who}, with {len(data)} rows and seed {own}: {told(error, task.fit)}"
        ) from error
    return module if returned is None else returned


def fitted(task: Task, like: Architecture, made: Any, who: str) -> State:
    """Return the tensors of a member by name, from what `fit` made: weights and buffers, or outputs alone.

    Args:
        task: Whose `fit`.
        like: The tensors of its model.
        made: From `run_fit`.
        who: How a message calls the member.

    Raises:
        InputError: If it is something else than the trained model, or of another architecture.
    """
    if task.model is None:
        return read_outputs(made, (len(task.train), len(task.validation)), task.output_shape, who)
    weights = isinstance(made, Mapping) and all(isinstance(value, Tensor) for value in made.values())
    if not weights and not isinstance(made, nn.Module):
        raise InputError(
            f"fit returned {described(made)} for {who}, expected the trained torch.nn.Module, its state_dict, or "
            "None where the model that it was given was trained in place; for outputs alone give the task model=None."
        )
    return like.fit(made, f"what fit returned for {who}", finite=False)
