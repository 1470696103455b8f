"""Digests: short names for data and specifications, equal exactly when the bytes are equal."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) of names, dtypes, shapes and bytes of tensors, in the order of their names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        sha.update(
            np.ascontiguousarray(tensor.reshape(-1).view(torch.uint8).numpy()).tobytes() if tensor.numel() else b""
        )
    return sha.hexdigest()


def digest_json(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON value, independent of the order of keys.

    >>> digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def own_digest(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a manifest says beside its own `sha256`."""
    return digest_json({key: value for key, value in manifest.items() if key != "sha256"})


def digest_function(function: Callable[..., Any]) -> str:
    """Return the SHA-256 (hex) of what a user's function does: its source, and what it holds on to or calls.

    Covered are closures, defaults, bound objects, and globals of its own file that it names (functions, classes,
    numbers, arrays), and theirs in turn; of libraries only the names. It is the same in every process.
    """
    return digest_json(_written(function, set()))


def _written(value: Any, seen: set[int]) -> Any:
    """Return a value as text, without its address in memory; functions by their source and what they reach."""
    if isinstance(value, list | tuple):
        return [_written(item, seen) for item in value]
    if isinstance(value, dict):
        return [[str(key), _written(item, seen)] for key, item in value.items()]
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if isinstance(value, Tensor | np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(torch.as_tensor(value).detach().cpu().numpy()).tobytes()).hexdigest()
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, functools.partial):
        return [_written(part, seen) for part in (value.func, value.args, value.keywords)]
    if isinstance(value, MethodType):
        return [_written(value.__func__, seen), _written(value.__self__, seen)]
    if isinstance(value, FunctionType | type):
        return _written_code(value, seen)
    written = repr(value)
    if " at 0x" not in written or id(value) in seen:
        return f"{type(value).__qualname__} {written if ' at 0x' not in written else ''}"
    seen.add(id(value))
    if _of_library(type(value)):
        return type(value).__qualname__
    # A user's object that is written with its address: its class, and what it keeps.
    return [_written(type(value), seen), _written(getattr(value, "__dict__", {}), seen)]


def _written_code(value: FunctionType | type, seen: set[int]) -> Any:
    name = f"{value.__module__}.{value.__qualname__}"
    if id(value) in seen or _of_library(value):
        return name
    seen.add(id(value))
    try:
        source = inspect.getsource(value)
    except (OSError, TypeError):  # typed at a prompt
        source = ""
    functions = [value] if isinstance(value, FunctionType) else [f for f in vars(value).values() if _is_function(f)]
    reached: list[Any] = []
    for function in functions:
        codes = _codes(function.__code__)
        if not source or function.__name__ == "<lambda>":  # of which a line of source may hold several
            reached += [
                f"{code.co_code.hex()} {[c for c in code.co_consts if not inspect.iscode(c)]}" for code in codes
            ]
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # a name that has no value yet
                reached.append(cell.cell_contents)
        reached += [*(function.__defaults__ or ()), function.__kwdefaults__ or {}]
        names = sorted({name for code in codes for name in code.co_names if name in function.__globals__})
        named = [function.__globals__[name] for name in names]
        reached += [item for item in named if getattr(item, "__module__", value.__module__) == value.__module__]
    return [source or name, [_written(item, seen) for item in reached]]


def _codes(code: CodeType) -> list[CodeType]:
    """Return the code of a function and of those written inside it."""
    return [code, *(found for inner in code.co_consts if inspect.iscode(inner) for found in _codes(inner))]


def _is_function(value: Any) -> bool:
    return isinstance(value, FunctionType)


def _of_library(value: type | FunctionType) -> bool:
    # Code that `exec` ran under no name has no module.
    return (value.__module__ or "").partition(".")[0] in ("builtins", "expunge", "numpy", "sklearn", "torch")
