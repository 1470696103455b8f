"""Training by the user's own loop: `fit(model, dataset, seed)`, a member at a time, in as many processes as cores.

Each member is kept on disk as soon as it is trained, so neither memory nor what a killed run loses grows with members.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from expunge.core import Ensemble, InputError, Network, Task
from expunge.core.blame import blame
from expunge.core.checkpoints import Architecture, state_of
from expunge.core.checks import described
from expunge.core.seeds import derive
from expunge.core.task import seeded
from expunge.core.tree import State
from expunge.ensembles.processes import run_each
from expunge.ensembles.store import Shelf

FITTER = 1
"""Raised when a change alters what a `fit` is given for the same specification."""


class MemberData(Dataset[tuple[Any, Tensor]]):
    """The rows of one member, as a `fit` gets them; a map-style data set for a `DataLoader`.

    Items are (x, y): x as the model takes it (a tensor, or a mapping of named inputs), y as the outcome reads it. A
    slice or an array of places gives several at once.
    """

    def __init__(self, task: Task, rows: Tensor) -> None:
        self._task = task
        self._rows = rows
        self.given = 0
        """Items given out so far, each as often as it was."""

    @property
    def rows(self) -> np.ndarray[Any, Any]:
        """Positions of the rows in the task's training data, (examples,), rising."""
        return self._rows.numpy()

    @property
    def x(self) -> Any:
        """All inputs, (examples, ...), or a mapping of named ones."""
        return self[:][0]

    @property
    def y(self) -> Tensor:
        """All targets, (examples, ...)."""
        return self[:][1]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: Any) -> tuple[Any, Tensor]:
        if isinstance(place, int | np.integer) or (isinstance(place, Tensor) and place.ndim == 0):
            if not -len(self) <= int(place) < len(self):
                raise IndexError(f"{int(place)} of {len(self)} rows")
            return self.__getitems__([int(place)])[0]
        rows = self._rows[place]
        self.given += len(rows)
        return self._task.interface.unpack(self._task.train.x[rows]), self._task.train.y[rows]

    def __getitems__(self, places: list[int]) -> list[tuple[Any, Tensor]]:
        """Return several items; a `DataLoader` fetches its batches by this."""
        x, y = self[torch.tensor(places)]
        if isinstance(x, dict):
            return [({name: tensor[n] for name, tensor in x.items()}, y[n]) for n in range(len(places))]
        return list(zip(x, y, strict=True))


def row_digest(row: Tensor) -> str:
    """Return a short name of a set of rows."""
    return hashlib.sha256(row.numpy().astype("<i8").tobytes()).hexdigest()[:16]


def member_seeds(seed: int, rows: Sequence[Tensor], ids: Sequence[int]) -> list[int]:
    """Return one seed a member, from the study's seed, the member's own rows and its index."""
    return [derive(seed, "member", row_digest(row), member) for row, member in zip(rows, ids, strict=True)]


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
        progress: Called with members done and in all.

    Raises:
        InputError: If `fit` raises, or returns something else than the trained model.
    """
    assert task.fit is not None
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
        missing = [place for place, member in enumerate(ids) if member not in shelf.members()]
        if missing:
            shelf.begin(1)
            done = len(ids) - len(missing)
            like = Architecture.of(task)

            def work(place: int) -> None:
                member = ids[place]
                if member not in shelf.refresh():
                    params, buffers = fit_one(task, like, rows[place], seeds[place], f"member {member}")
                    shelf.save([member], params, buffers)

            def finished(_place: int, _result: None) -> None:
                nonlocal done
                done += 1
                if progress is not None:
                    progress(done, len(ids))

            run_each(work, missing, workers, finished)
            shelf.refresh()
        params, buffers = shelf.load(ids, mapped=True)
    provenance = {
        "specification": specification,
        "chunk": 1,
        "network": network.kind,
        "reused": not missing,
        "device": "cpu",
    }
    return Ensemble(network, params, buffers, tuple(ids), seed, provenance)


def fit_one(task: Task, like: Architecture, rows: Tensor, seed: int, who: str) -> tuple[State, State]:
    """Return the parameters and buffers, each (1, ...), of a model that the task's `fit` trained on some rows.

    Args:
        task: Whose `fit`.
        like: The tensors of its model.
        rows: Positions in the training data.
        seed: Of this member: of its initial weights, and of what `fit` draws.
        who: How a message calls it.
    """
    data = MemberData(task, rows)
    state = like.fit(state_of(run_fit(task, data, seed, who)), f"what fit returned for {who}", finite=False)
    one = {name: tensor.unsqueeze(0) for name, tensor in state.items()}
    return {name: one[name] for name in like.params}, {name: one[name] for name in like.buffers}


def run_fit(task: Task, data: MemberData, seed: int, who: str) -> nn.Module:
    """Return the module that the task's `fit` trained; the arguments are those of `fit_one`."""
    assert task.fit is not None
    module = task.build(derive(seed, "initialisation")).train()
    # NumPy and scikit-learn take seeds below 2^32, some below 2^31.
    own = derive(seed, "fit") % 2**31
    try:
        with seeded(own), torch.enable_grad():
            returned = task.fit(module, data, own)
    except InputError as error:
        raise InputError(f"{who}: {error}") from error
    except (Exception, SystemExit) as error:
        raise InputError(
            f"fit failed for {who}, with {len(data)} rows and seed {own}: {blame(error, task.fit)}"
        ) from error
    if returned is None:
        return module
    if not isinstance(returned, nn.Module):
        raise InputError(
            f"fit returned {described(returned)} for {who}, expected the trained torch.nn.Module, or None where the "
            "model that it was given was trained in place."
        )
    return returned
