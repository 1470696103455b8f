"""What comes through the door of this room: which members can be used, which data, which examples to remove.

Members that cannot say anything are left out and named, never guessed: a member with weights or logits that are not
finite, or one whose mean training loss is no better than guessing (log K), has no minimum around which to linearise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.core import DivergedError, Ensemble, ForgetSet, InputError, Task
from expunge.core.checks import non_negative, whole


@dataclass(frozen=True)
class Data:
    """Training examples, and the weight decay that the models were trained with."""

    x: Tensor
    """Inputs (examples, ...)."""
    y: Tensor
    """Labels (examples,), or targets for squared error."""
    decay: float
    """L2 coefficient beside the mean loss, at least 0."""

    def __len__(self) -> int:
        return len(self.y)


def read_data(data: Task | tuple[Any, Any], decay: float | None) -> Data:
    """Return the training examples of a task or of a pair (x, y).

    Args:
        data: A task, or inputs (examples, ...) and labels (examples,).
        decay: Weight decay beside the mean loss; None takes that of the task's recipe, or 0 for a pair.
    """
    if isinstance(data, Task):
        x, y = data.train.x, data.train.y
        decay = data.recipe.weight_decay if decay is None else decay
    elif isinstance(data, tuple) and len(data) == 2:
        x, y = (torch.as_tensor(part) for part in data)
    else:
        raise InputError(f"data is a {type(data).__name__}, expected a Task or a pair (x, y).")
    if len(x) != len(y) or len(x) == 0:
        raise InputError(f"x has {len(x)} examples and y {len(y)}, expected the same number, at least one.")
    decay = 0.0 if decay is None else decay
    non_negative(decay=decay)
    return Data(x, y, decay)


def read_forget(forget: ForgetSet | Any, examples: int) -> Tensor:
    """Return positions of the forget set (size,), checked: not empty, inside, each once, not everything.

    Args:
        forget: A forget set, or positions.
        examples: Number of training examples.
    """
    if isinstance(forget, ForgetSet):
        if forget.examples != examples:
            raise InputError(
                f"forget set {forget.name!r} was made for {forget.examples} training examples, the data have "
                f"{examples}; choose the set again for these data."
            )
        return torch.from_numpy(forget.indices.copy())
    index = np.asarray(forget.cpu() if isinstance(forget, Tensor) else forget)
    if index.ndim != 1 or index.size == 0 or not np.issubdtype(index.dtype, np.integer):
        raise InputError(
            f"forget has shape {index.shape} and dtype {index.dtype}, expected at least one position, whole numbers."
        )
    if index.min() < 0 or index.max() >= examples:
        raise InputError(f"forget runs from {index.min()} to {index.max()}, expected positions 0 to {examples - 1}.")
    if len(np.unique(index)) < len(index):
        raise InputError("forget names a position twice, expected each once; pass numpy.unique(forget).")
    if len(index) == examples:
        raise InputError(f"forget holds all {examples} examples, expected fewer: nothing would be left.")
    return torch.from_numpy(index.astype(np.int64))


def complement(index: Tensor, examples: int) -> Tensor:
    """Return the other positions, sorted, (examples - size,)."""
    keep = torch.ones(examples, dtype=torch.bool)
    keep[index] = False
    return keep.nonzero().flatten()


def usable_members(ensemble: Ensemble, x: Tensor, y: Tensor, *, members: int | None = None) -> tuple[Ensemble, Tensor]:
    """Return the ensemble of the members that can be linearised, and which they are.

    Args:
        ensemble: All members.
        x: Training inputs (examples, ...).
        y: Labels (examples,) of classes, or real targets (then only finite weights and outputs are asked for).
        members: Use the first so many only; None uses all.

    Returns:
        The usable members of the first `members`, and a mask (members,) over those.

    Raises:
        DivergedError: If no member is finite.
        InputError: If no finite member is better than guessing.
    """
    if members is not None:
        whole(members=members)
        ensemble = ensemble[: min(members, len(ensemble))]
    logits = ensemble.logits(x)
    good = ensemble.finite() & torch.isfinite(logits).flatten(1).all(1)
    if not bool(good.any()):
        raise DivergedError(
            f"all {len(ensemble)} members have weights or logits that are not finite, expected at least one that "
            "training left finite; lower the rate of the recipe."
        )
    if not y.is_floating_point():
        classes = logits.shape[-1]
        losses = torch.stack([F.cross_entropy(own.float(), y.cpu().long()) for own in logits])
        better = losses < float(np.log(classes))
        if not bool((good & better).any()):
            raise InputError(
                f"no member is better than guessing on the training examples (lowest mean loss "
                f"{float(losses[good].min()):.3g}, guessing {np.log(classes):.3g}), expected trained models: influence "
                "describes what happens around a minimum."
            )
        good &= better
    if bool(good.all()):
        return ensemble, good
    where = good.nonzero().flatten()
    params = {name: tensor[where.to(tensor.device)] for name, tensor in ensemble.params.items()}
    buffers = {name: tensor[where.to(tensor.device)] for name, tensor in ensemble.buffers.items()}
    ids = tuple(ensemble.ids[position] for position in where.tolist())
    return ensemble.with_state(params, buffers, ids=ids), good


def spread(values: Tensor, good: Tensor) -> Tensor:
    """Return values (usable, ...) as (members, ...), with NaN for members that were left out."""
    if bool(good.all()):
        return values
    out = torch.full((len(good), *values.shape[1:]), float("nan"), dtype=values.dtype)
    out[good] = values.cpu()
    return out
