"""What is to be trained: members, the rows of each, the recipe; and what is refused before any of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core import ForgetSet, InputError, Network, Recipe, Task
from expunge.core.checks import instance, whole
from expunge.core.reading import as_tensor, check_memory
from expunge.ensembles.own_loop import member_seeds, row_digest

TRAINER = 1
"""Raised when a change alters the weights that the same specification leads to."""

MOST_MEMBERS = 10_000
"""Of one ensemble. Comparisons need some hundred; of many more the first models alone take minutes to draw."""

TASK_EXPECTED = "an expunge.Task, such as expunge.tasks.digits() or expunge.tasks.load_task('digits')"
"""What a message says where something else came for a task."""


@dataclass(frozen=True)
class Plan:
    """Everything that decides what the members will be."""

    task: Task
    recipe: Recipe
    examples: Tensor
    """Positions in the training data, shape (members, k)."""
    ids: tuple[int, ...]
    seed: int
    epochs: int
    """Epochs to run; fewer than the recipe's when training is stopped early."""

    def specification(self) -> dict[str, Any]:
        """Return what the weights depend on, as a JSON value."""
        rows = [row_digest(row) for row in self.examples]
        shared = len(set(rows)) == 1
        form = self.task.network.kind
        return {
            # Before forms were tried in training mode, some of these were trained as another model.
            **({} if form == "layers" else {"form": form}),
            "trainer": TRAINER,
            "task": self.task.fingerprint,
            "task_name": self.task.name,
            "recipe": self.recipe.to_dict(),
            "epochs": self.epochs,
            "seed": self.seed,
            "examples": rows[0] if shared else {str(i): row for i, row in zip(self.ids, rows, strict=True)},
        }

    def state_specification(self, epoch: int) -> dict[str, Any]:
        """Return what the state after an epoch depends on, as a JSON value."""
        return {**self.specification(), "epochs": epoch, "kept": "state of training"}

    def member_seeds(self) -> list[int]:
        """Return one seed a member; see `own_loop.member_seeds`."""
        return member_seeds(self.seed, list(self.examples), self.ids)


def example_sets(task: Task, members: int, without: ForgetSet | None, examples: Any) -> list[Tensor]:
    """Return the positions of each member's rows, in order.

    Args:
        task: The task.
        members: How many.
        without: What no member sees, or None.
        examples: Positions (members, k), or a mask (members, examples), or None.

    Raises:
        InputError: If both are given, or the examples cannot be read.
    """
    n = len(task.train)
    if examples is None:
        if without is not None:
            instance(
                ForgetSet,
                "an expunge.ForgetSet, such as ForgetSet.of(task, [1, 2], name=..., how=...)",
                without=without,
            )
            without.check(task)
        row = torch.arange(n) if without is None else torch.from_numpy(without.retain)
        return [row] * members
    if without is not None:
        raise InputError("both `without` and `examples` were given, expected one of them.")
    try:
        read = as_tensor(examples, "examples").cpu()
    except InputError as error:
        raise InputError(
            f"{error} For members with different numbers give a mask of shape ({members}, {n})."
        ) from error
    array = (read.double() if read.is_floating_point() else read).numpy()
    if array.ndim != 2 or len(array) != members:
        raise InputError(
            f"examples has shape {array.shape}, expected ({members}, k) positions or ({members}, {n}) mask."
        )
    if array.dtype == bool:
        if array.shape[1] != n:
            raise InputError(f"examples is a mask of {array.shape}, expected ({members}, {n}).")
        return [torch.from_numpy(np.flatnonzero(row)) for row in array]
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"examples has dtype {array.dtype}, expected whole numbers or a boolean mask.")
    if array.size and (array.min() < 0 or array.max() >= n):
        raise InputError(f"examples runs from {array.min()} to {array.max()}, expected positions 0 to {n - 1}.")
    ordered = np.sort(array, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        member = int(np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(1))[0])
        raise InputError(f"examples names a position twice for member {member}, expected each example once.")
    return [torch.from_numpy(row.astype(np.int64)) for row in ordered]


def groups(rows: Sequence[Tensor]) -> list[list[tuple[int, Tensor]]]:
    """Return members with equally many rows together, by number and rows: only then do their batches stack."""
    by_size: dict[int, list[tuple[int, Tensor]]] = {}
    for index, own in enumerate(rows):
        by_size.setdefault(len(own), []).append((index, own))
    return list(by_size.values())


def check_members(members: int, fewest: int = 1) -> None:
    """Refuse numbers of members that no ensemble has; checked before anything is made for each of them."""
    whole(fewest, members=members)
    if members > MOST_MEMBERS:
        raise InputError(
            f"members = {members:,}, expected at most {MOST_MEMBERS:,} in one ensemble; train more of them in several, "
            "with train(first=...)."
        )


def check_size(task: Task, network: Network, members: int) -> None:
    """Refuse, with the sizes, an ensemble whose weights and example sets do not fit into memory."""
    numbers = sum(tensor.numel() for tensor in network.template.state_dict().values())
    each = numbers * task.interface.dtype.itemsize + 8 * len(task.train)
    check_memory(members * each, f"an ensemble of {members:,} members")


def check_trainable(plan: Plan, network: Network) -> None:
    """Refuse plans that would fail in the middle of an epoch: no full batch, or a batch of one under batch norm."""
    for rows in {row_digest(row): row for row in plan.examples}.values():
        check_rows(plan.task, plan.recipe, network, rows)


def check_rows(task: Task, recipe: Recipe, network: Network, rows: Tensor) -> None:
    """Refuse a recipe that cannot be carried out on some rows (positions) by a model, or by each of its voters."""
    if task.voting is None:
        check_recipe(recipe, network, len(rows))
        return
    for voter in range(task.voting.voters):
        try:
            check_recipe(recipe, task.voting.task.network, len(task.voting.rows(voter, rows)))
        except InputError as error:
            raise InputError(f"voter {voter} of {task.name}: {error}") from None


def check_recipe(recipe: Recipe, network: Network, examples: int) -> None:
    """Refuse a recipe that cannot be carried out on so many examples: no full batch, or a batch of one."""
    if examples == 0:
        raise InputError("a member has no examples, expected at least one.")
    if recipe.steps_per_epoch(examples) == 0:
        raise InputError(
            f"a member has {examples} examples and the recipe drops incomplete batches of {recipe.batch_size}, so no "
            "step is ever taken; expected a smaller batch or last_batch='keep'."
        )
    check_batch_norm(network, examples, recipe.batch_size, recipe.last_batch == "drop")


def check_batch_norm(network: Network, examples: int, batch: int, drop_last: bool = False) -> None:
    """Refuse a batch of one example for a network that normalises with the statistics of the batch."""
    single = batch == 1 or (examples % batch == 1 and not drop_last)
    if single and any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.template.modules()):
        raise InputError(
            f"{examples} examples in batches of {batch} leave a batch of 1, of which batch norm has no statistics; "
            f"choose another batch size (such as {batch + 1}) or last_batch='drop'."
        )
