"""Reads the few kinds of value that the CIFAR batches hold out of a pickle, without unpickling it.

Unpickling runs whatever a file says. This reader runs nothing: it walks over the opcodes of a pickle (protocols 0 to 5,
as `pickletools` names them), keeps values on a stack of its own, knows numbers, strings, bytes, lists, tuples and
dictionaries, and recognises the one construction by which NumPy pickles an array of plain numbers. Anything else is
refused by name.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.core import InputError

_RECONSTRUCT = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"}
_NDARRAY = "numpy ndarray"
_DTYPE = "numpy dtype"
_ENCODE = "_codecs encode"
_BYTES = {"__builtin__ bytes", "builtins bytes"}
_PLAIN = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"f4", "f8", "b1"}
_PUSH = {
    "NONE",
    "INT",
    "LONG",
    "LONG1",
    "LONG4",
    "BININT",
    "BININT1",
    "BININT2",
    "BINFLOAT",
    "FLOAT",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
}
_MARK = object()


@dataclass(frozen=True)
class _Name:
    """A global that the pickle refers to; it is never looked up."""

    name: str


@dataclass
class _Array:
    """An array of NumPy before and after its state is known."""

    value: np.ndarray[Any, Any] | None = None


@dataclass
class _Dtype:
    """A plain number type of NumPy, such as `u1`, and its byte order."""

    code: str
    order: str = "|"


def read_plain_pickle(content: bytes, what: str) -> Any:
    """Return the value in a pickle that holds only plain values and NumPy arrays of numbers.

    Args:
        content: The bytes of the pickle.
        what: How messages call it, usually its path.

    Returns:
        Numbers, strings, bytes, lists, tuples, dictionaries and arrays, nested. Byte strings of Python 2 come back as
        text in Latin-1.

    Raises:
        InputError: If the bytes are no pickle, are cut off, or hold anything else; the opcode is named.

    >>> import pickle
    >>> read_plain_pickle(pickle.dumps({"labels": [1, 2]}), "example")
    {'labels': [1, 2]}
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(content):
            name = opcode.name
            if name == "STOP":
                if len(stack) != 1:
                    raise InputError(f"{what} is a damaged pickle ({len(stack)} values at its end, expected 1).")
                # Every value takes a byte at least, unless one list stands in many places.
                return _finished(stack[0], what, iter(range(len(content))))
            _step(name, argument, stack, memo, what)
    except InputError:
        raise
    except Exception as error:
        # Whatever a damaged file does to the reader, the answer is the same.
        raise InputError(f"{what} is not a readable pickle ({type(error).__name__}: {error}).") from error
    raise InputError(f"{what} is a pickle that was cut off.")


def _step(name: str, argument: Any, stack: list[Any], memo: dict[int, Any], what: str) -> None:
    if name in ("PROTO", "FRAME"):
        return
    if name in _PUSH:
        stack.append(argument)
    elif name in ("NEWTRUE", "NEWFALSE"):
        stack.append(name == "NEWTRUE")
    elif name == "EMPTY_DICT":
        stack.append({})
    elif name == "EMPTY_LIST":
        stack.append([])
    elif name == "EMPTY_TUPLE":
        stack.append(())
    elif name == "MARK":
        stack.append(_MARK)
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        count = int(name[-1])
        stack[-count:] = [tuple(stack[-count:])]
    elif name == "TUPLE":
        stack.append(tuple(_to_mark(stack)))
    elif name == "LIST":
        stack.append(_to_mark(stack))
    elif name == "APPEND":
        value = stack.pop()
        _expect(stack[-1], list).append(value)
    elif name == "APPENDS":
        values = _to_mark(stack)
        _expect(stack[-1], list).extend(values)
    elif name == "SETITEM":
        value, key = stack.pop(), stack.pop()
        _expect(stack[-1], dict)[key] = value
    elif name in ("SETITEMS", "DICT"):
        values = _to_mark(stack)
        if name == "DICT":
            stack.append({})
        _expect(stack[-1], dict).update(zip(values[::2], values[1::2], strict=True))
    elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
        memo[int(argument)] = stack[-1]
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET", "GET"):
        stack.append(memo[int(argument)])
    elif name == "GLOBAL":
        stack.append(_global(str(argument), what))
    elif name == "STACK_GLOBAL":
        attribute, module = stack.pop(), stack.pop()
        stack.append(_global(f"{module} {attribute}", what))
    elif name == "REDUCE":
        arguments, function = stack.pop(), stack.pop()
        stack.append(_reduce(_expect(function, _Name), _expect(arguments, tuple), what))
    elif name == "BUILD":
        state = stack.pop()
        _build(stack[-1], state)
    else:
        raise InputError(
            f"{what} holds the pickle opcode {name}, expected plain values and arrays only; it is not read."
        )


def _global(name: str, what: str) -> _Name:
    if name not in {*_RECONSTRUCT, *_BYTES, _NDARRAY, _DTYPE, _ENCODE}:
        raise InputError(
            f"{what} refers to {name.replace(' ', '.')}, expected plain values and arrays; it is not read."
        )
    return _Name(name)


def _reduce(function: _Name, arguments: tuple[Any, ...], what: str) -> Any:
    if function.name in _RECONSTRUCT and arguments[:1] == (_Name(_NDARRAY),):
        return _Array()
    if function.name == _DTYPE and arguments and arguments[0] in _PLAIN:
        return _Dtype(arguments[0])
    if function.name in _BYTES and not arguments:
        # How protocols before 3 write the empty byte string.
        return b""
    if function.name == _ENCODE and len(arguments) == 2 and arguments[1] == "latin1":
        return _expect(arguments[0], str).encode("latin1")
    raise InputError(
        f"{what} calls {function.name.replace(' ', '.')} as plain arrays do not, expected those; it is not read."
    )


def _build(target: Any, state: Any) -> None:
    state = _expect(state, tuple)
    if isinstance(target, _Dtype):
        target.order = state[1]
        return
    version_shape_type = state[1:3]
    shape, dtype = version_shape_type
    fortran, data = state[3:5]
    data = data.encode("latin1") if isinstance(data, str) else _expect(data, bytes)
    values = np.frombuffer(data, np.dtype(_expect(dtype, _Dtype).code).newbyteorder(dtype.order))
    _expect(target, _Array).value = values.reshape(_expect(shape, tuple), order="F" if fortran else "C")


def _to_mark(stack: list[Any]) -> list[Any]:
    values: list[Any] = []
    while stack[-1] is not _MARK:
        values.append(stack.pop())
    stack.pop()
    return values[::-1]


def _expect(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"found a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _finished(value: Any, what: str, left: Iterator[int], depth: int = 0) -> Any:
    """Replace arrays by their values; refuse what was never completed, and lists that hold themselves.

    Args:
        value: What the pickle stands for, or a part of it.
        what: How messages call the pickle.
        left: One item for each value that there may still be.
        depth: How many lists the part lies in.
    """
    if next(left, None) is None:
        raise InputError(f"{what} holds more values than bytes, expected plain values and arrays; it is not read.")
    if depth > 20:
        raise InputError(f"{what} is nested more than 20 levels deep, expected a dictionary of lists and arrays.")
    if isinstance(value, _Array):
        if value.value is None:
            raise InputError(f"{what} holds an array without values.")
        return value.value
    if isinstance(value, dict):
        return {key: _finished(item, what, left, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_finished(item, what, left, depth + 1) for item in value)
    if isinstance(value, _Name | _Dtype) or value is _MARK:
        raise InputError(f"{what} holds a {type(value).__name__.strip('_')}, expected plain values and arrays.")
    return value
