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
import inspect
import math
import os
import stat
import sys
import types
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

import numpy as np
import torch
from torch import Tensor

from expunge.core.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")

LEAST, MOST = sys.float_info.min, float(np.finfo(np.float32).max)
"""Sizes of options: below, workers take a number for 0; above, single precision has none."""
LONGEST_TEXT = 60
"""Characters of a text that a message repeats."""


def plain(value: Any) -> Any:
    """Return a number of NumPy, PyTorch, `fractions` or `decimal` as Python's own; all else as it is.

    Numbers in a tuple are converted too. Options that went through here can be written into a record.

    >>> plain(np.float64(0.5)), plain(torch.tensor(3)), plain((np.int64(1), "a"))
    (0.5, 3, (1, 'a'))
    """
    if isinstance(value, np.floating | fractions.Fraction | decimal.Decimal):
        try:
            return float(value)
        except (OverflowError, ValueError):  # beyond all floating-point numbers, or a signalling NaN
            return value
    if np.ma.isMaskedArray(value):
        return value
    if isinstance(value, np.generic | np.ndarray) or (isinstance(value, Tensor) and not value.is_meta):
        return value.item() if value.ndim == 0 else value
    return tuple(map(plain, value)) if type(value) is tuple else value


def plain_fields(options: Any) -> None:
    """Replace every field of a dataclass, frozen or not, by what `plain` makes of it."""
    for field in dataclasses.fields(options):
        object.__setattr__(options, field.name, plain(getattr(options, field.name)))


def typed_fields(options: Any) -> None:
    """Raise unless every field of a dataclass is of the kind that it is declared with, of a size that can be used.

    Args:
        options: Methods, recipes; see `of_kind` for the kinds.
    """
    # A field that is inherited is declared in the words of the module that declares it.
    names = {
        field: vars(sys.modules[kind.__module__])
        for kind in reversed(type(options).__mro__)
        for field in vars(kind).get("__annotations__", ())
    }
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        of_kind(kinds_of(field.type, names[field.name]), **{field.name: value})
        if isinstance(value, int | float) and 0 < abs(value) < math.inf and not LEAST <= abs(value) <= MOST:
            raise InputError(
                f"{field.name} = {_shown(value)}, expected 0 or a number of a size from {LEAST:.2g} to {MOST:.2g}, "
                "with which weights can be computed."
            )


def plain_arguments(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function that takes numbers of any library in place of Python's own, and no option of another kind.

    What is declared as a number, a truth value, a text or a word of several is checked to be one (see `of_kind`) before
    the function sees it; what else may be asked of it, such as a range, the function checks.
    """
    signature = inspect.signature(function)

    @functools.cache
    def kinds() -> dict[str, tuple[Any, ...]]:
        names = function.__globals__
        return {name: kinds_of(parameter.annotation, names) for name, parameter in signature.parameters.items()}

    @functools.wraps(function)
    def wrapper(*args: P.args, **options: P.kwargs) -> T:
        came = [plain(value) for value in args]
        named = {name: plain(value) for name, value in options.items()}
        for name, value in (*zip(signature.parameters, came, strict=False), *named.items()):
            of_kind(kinds().get(name, ()), **{name: value})
        return function(*came, **named)

    return wrapper


def kinds_of(annotation: Any, names: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the kinds of option that an annotation allows: numbers, texts, None's, functions, consoles, and words.

    Args:
        annotation: As it is written, such as `"int | None"` or the name of a `Literal`.
        names: What the names in it mean.

    Returns:
        The classes, and the words themselves; empty where it allows something else as well, which is not checked.

    >>> kinds_of("int | Literal['auto'] | None", {"Literal": Literal})
    (<class 'int'>, 'auto', <class 'NoneType'>)
    """
    try:
        declared = eval(annotation, dict(names)) if isinstance(annotation, str) else annotation
    except Exception:  # a name that only type checkers see
        return ()
    found: list[Any] = []
    for part in get_args(declared) if get_origin(declared) in (Union, types.UnionType) else (declared,):
        if get_origin(part) is Literal:
            found += get_args(part)
        elif part in (int, float, bool, str, type(None)) or getattr(part, "__module__", "") == "rich.console":
            found.append(part)
        elif part is Callable or get_origin(part) is Callable:
            found.append(Callable)
        else:
            return ()
    return tuple(found)


def of_kind(kinds: tuple[Any, ...], **values: Any) -> None:
    """Raise unless every value is of one of the kinds that `kinds_of` returns; no kinds allow anything.

    A whole number is a number, a truth value is none, and texts can be written: they hold no lone surrogates.
    """
    tests: dict[Any, tuple[Callable[[Any], bool], str]] = {
        int: (_is_whole, "a whole number (of at most 63 bits)"),
        float: (_is_number, "a number"),
        bool: (lambda value: isinstance(value, bool), "True or False"),
        str: (_is_text, "a text"),
        Callable: (callable, "a function"),
        type(None): (lambda value: value is None, "None"),
    }
    for kind in kinds:
        if isinstance(kind, type) and kind not in tests:
            tests[kind] = (functools.partial(_is_a, kind), f"a {kind.__module__}.{kind.__name__}")
    words = [kind for kind in kinds if isinstance(kind, str)]
    for name, value in values.items():
        if not kinds or (isinstance(value, str) and value in words):
            continue
        if any(test(value) for kind, (test, _) in tests.items() if kind in kinds):
            continue
        expected = [said for kind, (_, said) in tests.items() if kind in kinds and kind is not type(None)]
        if words:
            expected.append(f"one of: {', '.join(sorted(words))}")
        none = ", or None" if type(None) in kinds else ""
        raise InputError(f"{name} = {_shown(value, repr)}, expected {' or '.join(expected)}{none}.")


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
            raise InputError(f"{name} = {_shown(value, repr)}, expected a whole number of at least {minimum}.")
        if value < minimum:
            raise InputError(f"{name} = {_shown(value)}, expected a whole number of at least {minimum}.")


def seeds(**values: int) -> None:
    """Raise unless every value is an integer, of either sign."""
    for name, value in values.items():
        if not _is_whole(value):
            raise InputError(f"{name} = {_shown(value, repr)}, expected a whole number.")


def between(low: float, high: float, **values: float) -> None:
    """Raise unless every value lies in the closed range [low, high]."""
    for name, value in values.items():
        if not _is_finite(value) or not low <= value <= high:
            raise InputError(f"{name} = {_shown(value)}, expected a number from {low} to {high}.")


def one_of(allowed: Collection[str], **values: str) -> None:
    """Raise unless every value is one of the allowed words."""
    for name, value in values.items():
        if not isinstance(value, str) or value not in allowed:
            raise InputError(f"{name} = {_shown(value, repr)}, expected one of: {', '.join(sorted(allowed))}.")


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


def as_path(given: Any, what: str) -> Path:
    """Return a path that can be looked up, whether or not something is there.

    Args:
        given: A text or a path.
        what: How the message calls it, such as "out".

    Raises:
        InputError: If it is of another kind, empty, a pipe or a device, or no file system could have it: too long, with
            a NUL, or links in a circle.
    """
    if not isinstance(given, str | os.PathLike):
        raise InputError(f"{what} is {described(given)}, expected the path of a file or a folder.")
    path = Path(given)
    try:
        if not str(given):
            raise OSError(0, "it is empty")
        str(path).encode()
        kind = path.stat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise OSError(0, "it is a pipe or a device, not a file")  # to read one may take for ever
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
            return path
        said = getattr(error, "strerror", None) or error
        raise InputError(f"{what} is {_shown(str(given))}, which is no path ({said}); choose another.") from error
    return path


def described(value: Any) -> str:
    """Return how a message calls a value of the wrong kind: its class, and short text as it is.

    >>> described("digits"), described([1, 2]), described(int), described(None)
    ("the text 'digits'", 'a list', 'the class int', 'None')
    """
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= LONGEST_TEXT else f"a text of {len(value):,} letters"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _is_a(kind: type, value: Any) -> bool:
    return isinstance(value, kind)


def _is_whole(value: Any) -> bool:
    value = plain(value)
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _is_number(value: Any) -> bool:
    value = plain(value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    value = plain(value)
    try:
        return _is_number(value) and math.isfinite(value)
    except OverflowError:  # a whole number beyond all floating-point numbers
        return False


def _is_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


def _shown(value: Any, form: Callable[[Any], str] = str) -> str:
    """Return a value as a message repeats it: short, and never an error of its own."""
    if isinstance(value, int) and abs(value) > 10**LONGEST_TEXT:  # Python prints no more than some thousand digits
        return f"a number of {value.bit_length()} bits"
    try:
        text = repr(value) if isinstance(value, str) else form(value)
    except Exception:
        return described(value)
    return text if len(text) <= LONGEST_TEXT and text.isprintable() else described(value)


def dense(tensor: Tensor, what: str) -> None:
    """Raise unless a tensor holds its numbers one by one: not one on the meta device, a sparse or a quantized one.

    Args:
        tensor: Any shape.
        what: How the message calls the tensor, such as "train.x".
    """
    if tensor.is_meta:
        raise InputError(f"{what} is a meta tensor, without numbers, expected a dense one; make it on the CPU.")
    if tensor.layout != torch.strided or tensor.is_quantized:
        kind = "quantized" if tensor.is_quantized else "sparse"
        cure = "dequantize" if tensor.is_quantized else "to_dense"
        raise InputError(f"{what} is a {kind} tensor, expected a dense one with values; write x.{cure}().")


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
