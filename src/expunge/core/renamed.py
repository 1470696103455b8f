"""Old names of options: they still work for one release, and warn."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from expunge.core.errors import InputError

Target = TypeVar("Target", bound=Callable[..., Any])

OLD = {"batch": "batch_size", "forget_batch": "forget_batch_size", "optimiser": "optimizer"}
"""New names by old ones."""


def renamed(*old: str) -> Callable[[Target], Target]:
    """Return a decorator under which a function, or a dataclass and its attributes, takes old names as well.

    Args:
        old: Keys of `OLD` whose new names the function or the dataclass has.
    """

    def decorate(target: Target) -> Target:
        if not isinstance(target, type):
            return _with_keywords(target, old)  # type: ignore[return-value]
        target.__init__ = _with_keywords(target.__init__, old)  # type: ignore[misc]
        for name in old:
            setattr(target, name, property(functools.partial(_read, name)))
        return target

    return decorate


def _with_keywords(function: Callable[..., Any], old: tuple[str, ...]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        for name in old:
            if name in options:
                if OLD[name] in options:
                    raise InputError(f"{name} and {OLD[name]} are the same option, expected {OLD[name]} alone.")
                _warn(name)
                options[OLD[name]] = options.pop(name)
        return function(*args, **options)

    return wrapper


def _read(name: str, owner: Any) -> Any:
    _warn(name)
    return getattr(owner, OLD[name])


def _warn(name: str) -> None:
    warnings.warn(f"{name} is now called {OLD[name]}; the old name goes in the next release.", FutureWarning, 3)
