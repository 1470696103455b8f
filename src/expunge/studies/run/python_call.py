"""The Python call that runs a study again, for runs that were not started from the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.core import Ensemble, ForgetSet
from expunge.methods import Method


def python_call(
    study: str,
    task: str,
    forget: Sequence[ForgetSet | str | Path],
    methods: Sequence[str | Method] | None,
    options: Mapping[str, Any],
    function: Callable[..., Any],
) -> str:
    """Return a call with every argument that differs from its default, and what must be there before it.

    Args:
        study: `audit` or `forecast`.
        task: Name of the task; the object itself cannot be written down.
        forget: What was asked for.
        methods: What was asked for; None means the default.
        options: Other arguments, by name.
        function: What was called; its defaults are not written.

    >>> def audit(task, forget, members=100, seed=0): ...
    >>> python_call("audit", "digits", ["random:70"], None, {"members": 20, "seed": 0}, audit)
    "expunge.audit(task, forget=['random:70'], members=20)  # task: digits"
    """
    parameters = inspect.signature(function).parameters
    parts = ["task", f"forget=[{', '.join(_forget(item) for item in forget)}]"]
    if methods is not None:
        parts.append(f"methods=[{', '.join(_method(item) for item in methods)}]")
    changed = {key: value for key, value in options.items() if value != parameters[key].default}
    parts += [f"{key}={_written(key, value)}" for key, value in changed.items()]
    given = [f"task: {task}"]
    given += [f"{_name(item)}: {item.how}" for item in forget if isinstance(item, ForgetSet)]
    return f"expunge.{study}({', '.join(parts)})  # {'; '.join(given)}"


def _written(name: str, value: Any) -> str:
    """Return the value of an argument; an ensemble, which cannot be written down, as a variable of its name."""
    if isinstance(value, Ensemble):
        return name
    if isinstance(value, Mapping):
        inside = (f"{key!r}: {_written(f'{name}_{place}', each)}" for place, (key, each) in enumerate(value.items()))
        return f"{{{', '.join(inside)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_written(name, item) for item in value)}]"
    return repr(str(value) if isinstance(value, Path) else value)


def _forget(item: ForgetSet | str | Path) -> str:
    return _name(item) if isinstance(item, ForgetSet) else repr(str(item))


def _name(forget: ForgetSet) -> str:
    """Return a forget set's name as that of a variable."""
    return "".join(letter if letter.isalnum() else "_" for letter in forget.name)


def _method(item: str | Method) -> str:
    return repr(item) if isinstance(item, str) else f"expunge.methods.{item!r}"
