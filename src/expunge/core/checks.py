"""Checks for the public door: each raises `InputError` with what came, what was expected, what to change.

Inner loops assume checked input. A check takes its arguments by name, so that the message can name them:

    >>> positive(lr=0.1)
    >>> positive(lr=-1)
    Traceback (most recent call last):
    ...
    expunge.core.errors.InputError: lr = -1, expected a finite number above 0.
"""

from __future__ import annotations

import dataclasses
import decimal
import fractions
import functools
import math
from collections.abc import Callable, Collection
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from expunge.core.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")

LONGEST_TEXT = 60
"""Characters of a text that a message repeats."""


def plain(value: Any) -> Any:
    """Return a number of NumPy, PyTorch, `fractions` or `decimal` as Python's own; all else as it is.

    Numbers in a tuple are converted too. Options that went through here can be written into a record.

    >>> plain(np.float64(0.5)), plain(torch.tensor(3)), plain((np.int64(1), "a"))
    (0.5, 3, (1, 'a'))
    """
    if isinstance(value, np.floating | fractions.Fraction | decimal.Decimal):
        return float(value)
    if isinstance(value, np.generic | np.ndarray) or (isinstance(value, Tensor) and not value.is_meta):
        return value.item() if value.ndim == 0 else value
    return tuple(map(plain, value)) if type(value) is tuple else value


def plain_fields(options: Any) -> None:
    """Replace every field of a dataclass, frozen or not, by what `plain` makes of it."""
    for field in dataclasses.fields(options):
        object.__setattr__(options, field.name, plain(getattr(options, field.name)))


def plain_arguments(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function that takes numbers of any library in place of Python's own (see `plain`)."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **options: P.kwargs) -> T:
        return function(*map(plain, args), **{name: plain(value) for name, value in options.items()})

    return wrapper


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
    value = plain(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    value = plain(value)
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond all floating-point numbers
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
