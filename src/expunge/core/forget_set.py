"""The forget set: which training examples must go, and how they were chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from expunge.core.checks import instance, of_kind
from expunge.core.errors import InputError
from expunge.core.reading import as_tensor
from expunge.core.task import Task

Indices = np.ndarray[tuple[int], np.dtype[np.int64]]


LONGEST_NAME = 120
"""Bytes of the name of a forget set."""


@dataclass(frozen=True)
class ForgetSet:
    """Indices into the training examples of a task, with their provenance.

    Build it with one of the choosers in `expunge.tasks`, or with `ForgetSet.of(task, indices, ...)`, which checks.
    """

    name: str
    """Short name, such as `random-70`."""
    indices: Indices
    """Positions in the training data, sorted, without repetition, shape (size,), int64."""
    examples: int
    """Number of training examples of the task that the indices refer to."""
    how: str
    """One sentence that says how the examples were chosen."""
    chooser: str = "given"
    """Which chooser made it (`random`, `class_part`, `cluster`, `mislabelled`), or `given` for a list of indices."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The chooser's arguments, so that another set of the same kind can be drawn."""
    gone: Indices = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Positions that were forgotten before, sorted, shape (any,), int64: they are in neither set."""

    def __post_init__(self) -> None:
        """Check the name, which becomes part of the names of files."""
        words = self.name if isinstance(self.name, str) else ""
        if not (words.strip() and words.isprintable() and len(words.encode()) <= LONGEST_NAME) or any(
            part in ("", ".", "..") for part in words.replace("\\", "/").split("/")
        ):
            raise InputError(
                f"a forget set is named {self.name!r}, expected at most {LONGEST_NAME} letters that can be part of the "
                "name of a file, such as 'random-70'."
            )
        of_kind((str,), how=self.how, chooser=self.chooser)
        instance(Mapping, "a mapping from the names of the chooser's arguments to their values", options=self.options)

    @classmethod
    def of(
        cls,
        task: Task,
        indices: Any,
        *,
        name: str,
        how: str,
        chooser: str = "given",
        options: Mapping[str, Any] | None = None,
        gone: Any = (),
    ) -> ForgetSet:
        """Return a checked forget set.

        Args:
            task: The task whose training examples are meant.
            indices: Positions in the training data: a one-dimensional array, list or tensor of whole numbers.
            name: Short name.
            how: One sentence on how the examples were chosen.
            chooser: Which chooser made it.
            options: The chooser's arguments.
            gone: Positions that were forgotten before, and must not be kept or forgotten again.

        Raises:
            InputError: If there are no indices, if one repeats, is out of range, fractional or gone, or if nothing is
                left to retrain on.
        """
        instance(Task, "an expunge.Task", task=task)
        values = cls._read(indices, name, len(task.train))
        none_gone = isinstance(gone, Sized) and len(gone) == 0
        before = np.empty(0, dtype=np.int64) if none_gone else cls._read(gone, f"{name}: gone", len(task.train))
        again = np.intersect1d(values, before)
        if len(again):
            raise InputError(
                f"forget set {name!r} names {len(again)} positions that are gone (first: {again[0]}), expected others."
            )
        options = {} if options is None else options
        n = len(task.train)
        if len(values) + len(before) == n:
            raise InputError(
                f"forget set {name!r} is the whole training set ({n} examples), expected fewer: nothing is left to "
                "retrain on."
            )
        return cls(name=name, indices=values, examples=n, how=how, chooser=chooser, options=options, gone=before)

    @staticmethod
    def _read(indices: Any, name: str, n: int) -> Indices:
        """Return positions sorted, or raise `InputError` if they are none."""
        read = as_tensor(indices, f"forget set {name!r}").cpu()
        raw = (read.double() if read.is_floating_point() else read).numpy()
        if raw.dtype == bool:
            raise InputError(
                f"forget set {name!r} is a mask of {raw.shape}, expected positions; pass numpy.flatnonzero(mask)."
            )
        if raw.ndim != 1:
            raise InputError(f"forget set {name!r} has shape {raw.shape}, expected one list of positions.")
        if raw.size == 0:
            raise InputError(f"forget set {name!r} is empty, expected at least one training example.")
        if not np.all(np.isfinite(raw)) or np.any(raw != np.floor(raw)) or np.any(np.abs(raw.astype(float)) > 2**53):
            raise InputError(
                f"forget set {name!r} holds values that are not whole numbers, expected positions 0 to {n - 1}."
            )
        whole = raw.astype(np.int64)
        outside = whole[(whole < 0) | (whole >= n)]
        if outside.size:
            raise InputError(
                f"forget set {name!r} has {outside.size} positions outside the training data (first: {outside[0]}), "
                f"expected 0 to {n - 1}."
            )
        values, counts = np.unique(whole, return_counts=True)
        if len(values) < len(whole):
            raise InputError(
                f"forget set {name!r} names position {values[counts > 1][0]} {counts[counts > 1][0]} times "
                f"({len(whole) - len(values)} repetitions in all), expected each once; pass numpy.unique(indices)."
            )
        return values

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def retain(self) -> Indices:
        """Positions of the retain set, all that is neither to be forgotten nor gone, sorted, shape (any,)."""
        keep = np.ones(self.examples, dtype=bool)
        keep[self.indices] = keep[self.gone] = False
        return np.flatnonzero(keep).astype(np.int64)

    def check(self, task: Task) -> None:
        """Raise `InputError` if the set was made for a task with another number of training examples."""
        instance(Task, "an expunge.Task", task=task)
        if self.examples != len(task.train):
            raise InputError(
                f"forget set {self.name!r} was made for {self.examples} training examples, the task {task.name!r} has "
                f"{len(task.train)}; choose the set again for this task."
            )
