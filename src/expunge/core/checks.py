"""Checks for the public door: each raises `InputError` with what came, what was expected, what to change.

Inner loops assume checked input. A check takes its arguments by name, so that the message can name them:

    >>> positive(lr=0.1)
    >>> positive(lr=-1)
    Traceback (most recent call last):
    ...
    expunge.core.errors.InputError: lr = -1, expected a finite number above 0.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.core.errors import InputError

LONGEST_TEXT = 60
"""Characters of a text that a message repeats."""


def positive(**values: float) -> None:
    """Raise unless every value is a finite number above 0."""
    for name, value in values.items():
        if not _is_finite(value) or value <= 0:
            raise InputError(f"{name} = {_shown(value)}, expected a finite number above 0.")


def non_negative(**values: float) -> None:
    """Raise unless every value is a finite number of at least 0."""
    for name, value in values.items():
        if not _is_finite(value) or value < 0:
            raise InputError(f"{name} = {_shown(value)}, expected a finite number of at least 0.")


def whole(minimum: int = 1, **values: int) -> None:
    """Raise unless every value is an integer of at least `minimum`."""
    for name, value in values.items():
        if not _is_whole(value):
            raise InputError(f"{name} = {value!r}, expected a whole number of at least {minimum}.")
        if value < minimum:
            raise InputError(f"{name} = {value}, expected a whole number of at least {minimum}.")


def seeds(**values: int) -> None:
    """Raise unless every value is an integer, of either sign."""
    for name, value in values.items():
        if not _is_whole(value):
            raise InputError(f"{name} = {value!r}, expected a whole number.")


def between(low: float, high: float, **values: float) -> None:
    """Raise unless every value lies in the closed range [low, high]."""
    for name, value in values.items():
        if not _is_finite(value) or not low <= value <= high:
            raise InputError(f"{name} = {_shown(value)}, expected a number from {low} to {high}.")


def one_of(allowed: Collection[str], **values: str) -> None:
    """Raise unless every value is one of the allowed words."""
    for name, value in values.items():
        if value not in allowed:
            raise InputError(f"{name} = {value!r}, expected one of: {', '.join(sorted(allowed))}.")


def instance(kind: type | tuple[type, ...], expected: str, **values: Any) -> None:
    """Raise unless every value is of a class, or of one of several.

    Args:
        kind: The class or classes.
        expected: What the message says was expected, such as "an expunge.Task".
        values: What came, by name.
    """
    for name, value in values.items():
        if not isinstance(value, kind):
            raise InputError(f"{name} is {described(value)}, expected {expected}.")


def described(value: Any) -> str:
    """Return how a message calls a value of the wrong kind: its class, and short text as it is.

    >>> described("digits"), described([1, 2]), described(int), described(None)
    ("the text 'digits'", 'a list', 'the class int', 'None')
    """
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, str) and len(value) <= LONGEST_TEXT:
        return f"the text {value!r}"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)


def finite(tensor: Tensor, what: str) -> None:
    """Raise if a floating-point tensor holds NaN or an infinity; the message counts them and names the first row.

    Args:
        tensor: Any shape; rows are along the first axis.
        what: How the message calls the tensor, such as "train.x".
    """
    if not tensor.is_floating_point():
        return
    bad = ~torch.isfinite(tensor)
    if bool(bad.any()):
        rows = torch.nonzero(bad.reshape(len(tensor), -1).any(1)).flatten()
        raise InputError(
            f"{what} has {int(bad.sum())} non-finite values in {len(rows)} rows (first row {int(rows[0])}); "
            "expected finite numbers. Remove or repair these rows."
        )
