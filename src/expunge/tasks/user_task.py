"""Tasks by name, for the command line: a built-in one, or an object in a user's Python file."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from expunge.core import InputError, Task
from expunge.core.checks import as_path, described, of_kind
from expunge.core.digest import digest_json
from expunge.core.errors import said
from expunge.core.task import Split
from expunge.tasks.names import BUILT_IN, FROM_FOLDER


def load_task(spec: str) -> Task:
    """Return the task that a specification names.

    A Python file is run as it is, with the rights of whoever calls: give only files that you trust. Its folder is on
    the import path while it runs, so that it can import what lies beside it.

    Args:
        spec: One of `names.BUILT_IN`, or `NAME:FOLDER` with a name of `names.FROM_FOLDER`, or `path/to/task.py` (its
            object `task`), or `path/to/task.py:name`; the object is an `expunge.Task`, or a function without required
            arguments that returns one.

    Raises:
        InputError: If there is no such task, file or object, if the object is no task, or if running the file fails;
            the message then names the user's own line.

    >>> load_task("digits").classes
    10
    """
    of_kind((str,), task=spec)
    if spec in BUILT_IN:
        shipped: Task = BUILT_IN[spec]()
        return shipped
    kind, _, folder = spec.partition(":")
    if kind in FROM_FOLDER:
        if not folder:
            raise InputError(f"task {spec!r} names no folder, expected {kind}:FOLDER with the original files.")
        read: Task = FROM_FOLDER[kind](folder)
        return read
    if not _FILE.match(spec):
        as_path(spec, "task")
        known = ", ".join([*BUILT_IN, *(f"{key}:FOLDER" for key in FROM_FOLDER)])
        raise InputError(f"task {spec!r} is not known, expected one of: {known}, or path/to/task.py[:name].")
    path, name, found = _load(spec, "task", Task, "task = expunge.Task(...), or a function {name}()")
    if callable(found) and not isinstance(found, Task):
        found = _call(path, name, found)
    if not isinstance(found, Task):
        raise InputError(
            f"{path}:{name} is a {type(found).__name__}, expected an expunge.Task, or a function that returns one."
        )
    for split in ("train", "validation"):
        if not isinstance(getattr(found, split, None), Split):
            raise InputError(
                f"{path}:{name} is a task whose {split} was taken away after it was made; make a new task instead."
            )
    return found


def load_object(spec: str, kind: type | tuple[type, ...], expected: str) -> Any:
    """Return what `path/to/file.py:name` names; the file is run as `load_task` runs one.

    Args:
        spec: The file and the name of the object in it.
        kind: The class of the object, or several; other objects of it are suggested where the name is not there.
        expected: What a message says was expected, such as "a function".

    Raises:
        InputError: If there is no such file or object, it is of another kind, or running the file fails.
    """
    match = _FILE.match(spec)
    if not match or not match["name"]:
        raise InputError(f"{spec!r} names no object in a Python file, expected path/to/file.py:name.")
    path, name, found = _load(spec, "", kind, expected)
    if not isinstance(found, kind):
        raise InputError(f"{path}:{name} is {described(found)}, expected {expected}.")
    return found


_FILE = re.compile(r"(?P<file>.*\.py)(?::(?P<name>[^:]*))?$")
"""A Python file, and the name of an object in it."""


def _load(spec: str, default: str, kind: type | tuple[type, ...], expected: str) -> tuple[Path, str, Any]:
    """Run a file and return its path, and the name and the object that were asked for."""
    match = _FILE.match(spec)
    assert match
    path = Path(os.path.expanduser(as_path(match["file"], "task")))  # a home that there is not stays as it is
    name = default if match["name"] is None else match["name"]
    if not path.is_file():
        raise InputError(f"{path} does not exist, expected a Python file that defines {name or default}.")
    if not name.isidentifier():
        raise InputError(f"{spec!r}: {name!r} is no Python name, expected {path}:name.")
    module = _run(path)
    if not hasattr(module, name):
        others = [key for key, value in vars(module).items() if isinstance(value, kind) and not key.startswith("_")]
        hint = f"; it defines {', '.join(others)}, so write {path}:{others[0]}" if others else ""
        raise InputError(f"{path} defines no {name!r}{hint}. Expected {expected.format(name=name)}.")
    return path, name, getattr(module, name)


def _run(path: Path) -> ModuleType:
    path = path.resolve()
    # The name depends on the place, so that two files called task.py are two modules.
    unique = f"expunge_user_file_{digest_json(str(path))[:12]}"
    found = importlib.util.spec_from_file_location(unique, path)
    if found is None or found.loader is None:
        raise InputError(f"{path} cannot be imported, expected a Python file.")
    module = importlib.util.module_from_spec(found)
    folder = str(path.parent)
    sys.modules[unique] = module
    sys.path.insert(0, folder)
    try:
        found.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[unique]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise InputError(_describe(path, error, "running it")) from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return module


def _call(path: Path, name: str, function: Callable[[], object]) -> object:
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise InputError(f"{path}:{name} cannot be called without arguments ({error}); give each a default.") from error
    except ValueError:
        # Some built-in callables have no signature; calling them tells.
        pass
    try:
        return function()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise InputError(_describe(path.resolve(), error, f"calling {name}()")) from error


def _describe(path: Path, error: BaseException, doing: str) -> str:
    """Return what went wrong, at the last line of the user's own file."""
    if isinstance(error, SystemExit):
        return f"{path} called sys.exit({error.code!r:.80}) where it should define its task; remove that call."
    what = said(error)
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}, line {error.lineno}: {what}\n    {(error.text or '').strip()[:200]}"
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if not own:
        return f"{path}: {doing} failed with {what}; expected a file that runs."
    return f"{path}, line {own[-1].lineno}: {doing} failed with {what}; change this:\n    {own[-1].line or ''}"
