"""Data as users have them: tensors, arrays, columns, frames and data sets of PyTorch become tensors in memory."""

from __future__ import annotations

import numbers
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from expunge.core.checks import dense, described
from expunge.core.errors import InputError

LABELS = ("labels", "label", "targets", "target")
"""Names under which the items of a data set hold their target, beside named inputs."""

PAIR_EXPECTED = (
    "a pair (x, y) of tensors, arrays or columns, or a map-style torch.utils.data.Dataset of items (x, y) or of "
    'mappings with "label"'
)


def read_pair(given: Any, part: str) -> tuple[Any, Any]:
    """Return inputs and targets as users give them together.

    Args:
        given: A pair (x, y), or a map-style data set, which is read once.
        part: How a message calls them, such as "train".

    Raises:
        InputError: If it is neither, or a data set's items differ in shape, change between readings, or need more
            memory than there is.
    """
    if isinstance(given, tuple | list):
        if len(given) == 2:
            return given[0], given[1]
    elif isinstance(given, DataLoader):
        raise InputError(f"{part} is a DataLoader, expected its data set; pass loader.dataset.")
    elif isinstance(given, IterableDataset) or (hasattr(given, "__iter__") and not hasattr(given, "__getitem__")):
        raise InputError(f"{part} is {described(given)}, which can only be read in order; expected {PAIR_EXPECTED}.")
    elif hasattr(given, "__getitem__") and not (isinstance(given, Mapping | str) or hasattr(given, "__array__")):
        return _read_items(given, part)
    raise InputError(f"{part} is {described(given)}, expected {PAIR_EXPECTED}.")


def _read_items(dataset: Any, part: str) -> tuple[Any, Any]:
    """Read every item of a data set into one tensor for the inputs (or one a name) and one for the targets."""
    if not hasattr(dataset, "__len__"):
        raise InputError(f"{part} is {described(dataset)} without a length, expected {PAIR_EXPECTED}.")
    if len(dataset) == 0:
        raise InputError(f"{part} is empty, expected at least one example.")
    first, again = _columns(dataset[0], part, 0), _columns(dataset[0], part, 0)
    if any(not torch.equal(first[name], again[name]) for name in first if isinstance(first[name], Tensor)):
        raise InputError(
            f"{part}[0] differs from one reading to the next, expected a data set without random changes; take them "
            "out of it and give Task(augment=...), which draws them anew for every batch."
        )
    tensors = {name: value for name, value in first.items() if isinstance(value, Tensor)}
    check_memory(len(dataset) * sum(value.nbytes for value in tensors.values()), part)
    whole = {name: value.new_empty(len(dataset), *value.shape) for name, value in tensors.items()}
    words: list[Any] = []
    for place in range(len(dataset)):
        item = first if place == 0 else _columns(dataset[place], part, place)
        if set(item) != set(first):
            raise InputError(f"{part}[{place}] has the names {sorted(item)}, {part}[0] {sorted(first)}; expected one.")
        for name, value in item.items():
            if name not in whole:
                words.append(value)
                continue
            if not isinstance(value, Tensor) or value.shape != whole[name].shape[1:]:
                came = tuple(value.shape) if isinstance(value, Tensor) else value
                raise InputError(
                    f"{part}[{place}] has {came} for {name or 'x'}, {part}[0] has {tuple(whole[name].shape[1:])}; "
                    "expected examples of one shape: resize, cut or pad them."
                )
            # The first item decides the type; what does not fit it (a fraction among whole numbers) is made room for.
            if torch.promote_types(whole[name].dtype, value.dtype) != whole[name].dtype:
                whole[name] = whole[name].to(torch.promote_types(whole[name].dtype, value.dtype))
            whole[name][place] = value
    target = words if TARGET not in whole else whole.pop(TARGET)
    return whole.get("", whole), target


TARGET = "the target"
"""Under this name an item's target is kept; no argument of a model can have it."""


def _columns(item: Any, part: str, place: int) -> dict[str, Any]:
    """Return the tensors of one item by name ("" for the one input), and its target, which may be a word."""
    if isinstance(item, Mapping):
        found = [name for name in LABELS if name in item]
        if len(found) != 1 or len(item) < 2:
            raise InputError(
                f"{part}[{place}] has the names {list(item)}, expected the inputs and one of {', '.join(LABELS)}."
            )
        target = item[found[0]]
        inputs: Mapping[Any, Any] = {name: value for name, value in item.items() if name != found[0]}
    elif isinstance(item, tuple | list) and len(item) == 2:
        inputs, target = (item[0] if isinstance(item[0], Mapping) else {"": item[0]}), item[1]
    else:
        raise InputError(f"{part}[{place}] is {described(item)}, expected (x, y) or a mapping with a label.")
    columns: dict[str, Any] = {
        name: as_tensor(value, f"{part}[{place}]" + (f"[{name!r}]" if name else "")) for name, value in inputs.items()
    }
    columns[TARGET] = target if isinstance(target, str) else as_tensor(target, f"the target of {part}[{place}]")
    return columns


def as_tensor(values: Any, name: str) -> Tensor:
    """Return an array, a list, a pandas column or frame, or a tensor as a tensor, which may share its memory.

    Raises:
        InputError: If it holds anything else than real numbers, or hides some of them (a masked array).
    """
    if isinstance(values, Tensor):
        tensor = values.detach()
        dense(tensor, name)
        tensor = tensor.resolve_neg()  # else the view of a conjugate's imaginary part has no numbers of its own
    else:
        tensor = _from_array(values, name)
    if tensor.is_complex():
        raise InputError(f"{name} holds complex numbers ({tensor.dtype}), expected real ones.")
    return tensor


def _from_array(values: Any, name: str) -> Tensor:
    hidden = int(np.ma.getmaskarray(values).sum()) if isinstance(values, np.ma.MaskedArray) else 0
    if hidden:
        raise InputError(
            f"{name} is a masked array with {hidden} masked values, expected an array without gaps; fill them "
            "(x.filled(0)) or leave these rows out."
        )
    try:
        array = np.asarray(values)
        if array.dtype == object and (isinstance(values, list | tuple) or hasattr(values, "__array__")):
            array = _from_objects(array, name)
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:
            if array.size and int(array.max()) >= 2**63:
                raise InputError(f"{name} holds {array.max()}, expected whole numbers below 2^63.")
            array = array.astype(np.int64)
        if array.dtype.kind == "f" and array.dtype.itemsize > 8:
            array = array.astype(np.float64)
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        if any(stride < 0 for stride in array.strides):
            array = array.copy()
        with warnings.catch_warnings():
            # A task copies what it keeps and writes into nothing else.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return torch.from_numpy(array)
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{name} is {described(values)}, expected a tensor or an array of numbers.") from error


def _from_objects(array: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """Return an array of objects, such as a frame with columns of several types, as numbers."""
    kinds = numbers.Real | np.bool_
    strange = next((value for value in array.flat if not isinstance(value, kinds)), None)
    if array.size == 0 or strange is not None or not all(isinstance(value, kinds) for value in array.flat):
        raise InputError(
            f"{name} holds {described(strange)} among its values, expected numbers alone; turn words into numbers "
            "(pandas.get_dummies) and fill in or leave out what is missing."
        )
    whole = all(isinstance(value, numbers.Integral | np.bool_) for value in array.flat)
    return array.astype(np.int64 if whole else np.float64)


def check_memory(needed: float, what: str) -> None:
    """Raise, with both sizes, if something needs more bytes than there are.

    Args:
        needed: Bytes.
        what: How the message calls it, such as "train" or "an ensemble of 100 members".
    """
    there = available_memory()
    if there is not None and needed > there:
        raise InputError(
            f"{what} needs {_size(needed)} of memory and {_size(there)} are free; expected less: "
            "fewer examples or members, images as uint8 with normalise=(mean, std), or a machine with more memory."
        )


def _size(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB" if count > 2**26 else f"{count:,.0f} bytes"


def available_memory() -> int | None:
    """Return the bytes that this process may still take, the least of what the system and its limits say; or None."""
    found = [_unused(), _below_own_limit(), *(_below_limit(*files) for files in LIMITS)]
    return min((value for value in found if value is not None), default=None)


LIMITS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""Where a container says how much memory it may use and uses: a folder, and two files in it."""


def _unused() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text()
        found = re.search(r"^MemAvailable:\s*(\d+) kB", text, re.MULTILINE)
        return int(found[1]) * 1024 if found else os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):  # Windows says it in no such way
        return None


def _below_own_limit() -> int | None:
    """What `ulimit -v` leaves to this process."""
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError, ValueError):  # other systems
        return None
    return None if most == resource.RLIM_INFINITY else max(0, most - used)


def _below_limit(folder: str, most: str, used: str) -> int | None:
    try:
        limit, now = (int(Path(folder, file).read_text()) for file in (most, used))
        # What is kept of files is given back when memory is asked for.
        kept = re.search(r"^(?:total_)?inactive_file (\d+)", Path(folder, "memory.stat").read_text(), re.MULTILINE)
        return max(0, limit - now + (int(kept[1]) if kept else 0))
    except (OSError, ValueError):  # no such file, or "max": no limit
        return None


def fitting(x: Tensor, like: torch.dtype, name: str) -> Tensor:
    """Return a copy of inputs in a type, refusing whatever would become another number.

    Args:
        x: Finite inputs, shape (examples, ...).
        like: The type in which the task keeps its inputs.
        name: How a message calls them, such as "validation.x".
    """
    if x.dtype == like:
        return x.clone(memory_format=torch.contiguous_format)
    own = x.to(like, memory_format=torch.contiguous_format)
    if like.is_floating_point:
        over = int(torch.isinf(own).sum())
        if over:
            raise InputError(
                f"{name} has {over} numbers that {like} cannot hold (the largest is {float(x.abs().max()):.3g}); "
                "rescale the inputs, or write Recipe(precision='float64')."
            )
    elif not bool((own.to(x.dtype) == x).all()):
        changed = int((own.to(x.dtype) != x).sum())
        raise InputError(
            f"{name} is {x.dtype} and {changed} of its numbers cannot be {like}, which train.x is; expected the same "
            "type in both."
        )
    return own
