"""Validation rows that are training rows: examples held back from training must not be in it."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from expunge.core.errors import InputError

if TYPE_CHECKING:
    from expunge.core.task import Split

CHUNK = 2**20
"""Bytes that are hashed at once."""
NAMED = 5
"""Rows that a message names."""


def check_overlap(train: Split, validation: Split) -> str:
    """Warn when validation examples are training examples; return what was said, or an empty text.

    Args:
        train: The training examples.
        validation: The validation examples, of the same types and shapes.

    Raises:
        InputError: If all of them are, and the training data do not repeat rows themselves.
    """
    rows = shared_rows(validation, train)
    if not len(rows):
        return ""
    first = ", ".join(map(str, rows[:NAMED])) + (", ..." if len(rows) > NAMED else "")
    said = (
        f"{len(rows)} of {len(validation)} validation examples are training examples as well, with equal inputs and "
        f"targets (rows {first})"
    )
    repeated = len(train) - len(np.unique(_hashes(train)))
    if repeated:
        said += f"; the training data repeat {repeated} rows among themselves, so these may be equal by nature."
    elif len(rows) == len(validation):
        raise InputError(f"{said}; expected examples that no model is trained on. Hold some back from training.")
    else:
        said += "; what is read on validation then speaks of trained examples. Leave them out of one of the two."
    warnings.warn(said, UserWarning, stacklevel=3)
    return said


def shared_rows(part: Split, other: Split) -> NDArray[np.int64]:
    """Return the rows of a part whose inputs and targets together are those of some row of the other, in order."""
    ours, theirs = _hashes(part), _hashes(other)
    order = np.argsort(theirs, kind="stable")
    at = np.searchsorted(theirs, ours, sorter=order).clip(max=len(theirs) - 1)
    rows = np.flatnonzero(theirs[order[at]] == ours)
    mine, twin = part[torch.from_numpy(rows)], other[torch.from_numpy(order[at[rows]])]
    same = (_flat(mine.x) == _flat(twin.x)).all(1) & (_flat(mine.y) == _flat(twin.y)).all(1)
    return np.asarray(rows[same.numpy()])


def _hashes(split: Split) -> NDArray[np.uint64]:
    """Return a number for every row, equal for equal rows: its 8-byte words, mixed, summed modulo 2^64."""
    total = np.zeros(len(split), np.uint64)
    for seed, tensor in enumerate((split.x, split.y)):
        flat = _flat(tensor)
        step = max(1, CHUNK // max(1, flat.shape[1] * flat.element_size()))
        for start in range(0, len(flat), step):
            rows = flat[start : start + step]
            # Adding 0 turns -0.0, which equals 0.0, into the bytes of 0.0.
            held = (rows + 0 if rows.is_floating_point() else rows).contiguous().view(torch.uint8).numpy()
            words = np.pad(held, ((0, 0), (0, -held.shape[1] % 8))).view(np.uint64)
            one, two = 2 * np.random.default_rng(seed).integers(0, 2**63, (2, words.shape[1]), dtype=np.uint64) + 1
            # Products keep what differs in the highest bits there (the sign, say), so it is folded down in between.
            words = words * one
            total[start : start + step] += (words ^ (words >> 32)) @ two
    return total


def _flat(tensor: Tensor) -> Tensor:
    return tensor.reshape(len(tensor), math.prod(tensor.shape[1:]))
