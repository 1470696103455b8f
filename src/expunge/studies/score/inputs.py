"""What `expunge score` reads: arrays of margins or logits, from files of any source.

Nothing in a file is ever executed: NumPy files with pickled objects are refused.

A file is one array (`.npy`, `.csv` with a row a member), or several (`.npz`, `.safetensors`) under the names `forget`,
`retain`, `validation` and, for logits, `labels`, `labels_retain`, `labels_validation`. `FILE:NAME` takes the arrays
under `NAME/forget` and so on, or the single array `NAME`: the margins of an audit are read as
`runs/digits/margins/random-70.safetensors:oracle`.
"""

from __future__ import annotations

import csv
import itertools
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

from expunge import metrics
from expunge.core import Ensemble, InputError, Split
from expunge.core.checks import as_path
from expunge.core.errors import told
from expunge.core.outcomes import Classes
from expunge.core.reading import check_memory
from expunge.core.record import SPLITS, SplitName
from expunge.metrics.arrays import refuse_probabilities, to_array, to_labels
from expunge.studies.run.measure import Parts

FEWEST = 5
"""Members of either side below which nothing is computed: floors then exceed what could be found."""

MAGIC = {".npy": b"\x93NUMPY", ".npz": b"PK"}
"""How the files of NumPy begin."""

PICKLES = {bytes([0x80, protocol]) for protocol in range(2, 6)}
"""How pickles begin."""

PICKLED = (
    "holds Python objects (a pickle), which could run code when read, so it is refused; save a plain array of numbers "
    "with numpy.save(path, array.astype('float32'))."
)

Path_ = str | Path
Labels = Mapping[SplitName, NDArray[Any] | None]


@dataclass
class Side(metrics.Side):
    """The arrays of one set of models, and what they were made of."""

    raw: dict[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """Everything that was given, checked to fit together."""

    sides: dict[str, Side]
    """By `unlearned`, `oracle` and, where given, `held_out`, `pretrained`."""
    labels: dict[SplitName, NDArray[Any] | None]
    """Labels of each split, where given."""
    files: dict[str, str]
    """What was read, by argument."""

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Shape of each array that was read."""
        return {
            f"{who} {split}": list(array.shape) for who, side in self.sides.items() for split, array in side.raw.items()
        }


def read_inputs(
    given: Mapping[str, Path_ | None],
    more: Mapping[str, Mapping[str, Path_] | None],
    labels: Mapping[SplitName, Path_ | None],
) -> Inputs:
    """Read every file and check that all of them speak of the same members and examples.

    Args:
        given: Files by side; `unlearned` and `oracle` are needed.
        more: Files of single arrays by split (`retain`, `validation`), then by side.
        labels: Files of labels by split; needed with logits.

    Raises:
        InputError: If a file cannot be read or holds objects, shapes disagree, or a side has fewer than 5 members: the
            floor of every metric is then above what could be found.
    """
    files = {who: str(path) for who, path in given.items() if path is not None}
    sides = {who: Side(raw=_read_splits(path, who)) for who, path in given.items() if path is not None}
    for split, paths in more.items():
        for who, path in (paths or {}).items():
            if who not in sides:
                raise InputError(f"{split} is given for {who!r}, but the forget set is not; give --{who} as well.")
            if split in sides[who].raw:
                raise InputError(f"{who} has {split} examples in {files[who]} and in {path}, expected one of them.")
            sides[who].raw[split] = _one_array(path, f"{who} {split}")
            files[f"{who} {split}"] = str(path)
    return _checked(sides, {split: _labels(labels.get(split), sides, split) for split in SPLITS}, files)


def take_inputs(given: Mapping[str, Any], labels: Any, parts: Parts | None) -> Inputs:
    """Take arrays or ensembles and check that all of them speak of the same members and examples.

    Args:
        given: By side an array on the forget examples, a mapping of arrays by split, or an ensemble; None is left out.
        labels: Labels of the forget examples, or a mapping by split; needed with logits.
        parts: The examples on which ensembles are evaluated.

    Raises:
        InputError: As `read_inputs`, or if an ensemble comes without the examples.
    """
    sides, files = {}, {}
    for who, value in given.items():
        if value is None:
            continue
        files[who] = f"{type(value).__name__} in memory"
        if isinstance(value, Ensemble):
            if parts is None:
                raise InputError(f"{who} is an ensemble, and task or forget is missing; give both, or arrays.")
            sides[who] = Side(raw={split: _outputs(value, part) for split, part in parts.splits.items()})
        else:
            sides[who] = Side(raw={split: to_array(part, f"{who} {split}") for split, part in _splits(value, who)})
    answers: dict[SplitName, NDArray[Any] | None] = dict.fromkeys(SPLITS)
    if parts is not None:
        answers |= {split: part.y.numpy() for split, part in parts.splits.items()}
    if labels is not None:
        answers |= {
            split: to_array(part, f"labels {split}", ndim=1, flags=True) for split, part in _splits(labels, "labels")
        }
    return _checked(sides, answers, files)


def _splits(value: Any, what: str) -> list[tuple[SplitName, Any]]:
    by_split = value if isinstance(value, Mapping) else {"forget": value}
    if "forget" not in by_split or not set(by_split) <= set(SPLITS):
        raise InputError(f"{what} has {list(by_split)}, expected forget and, if there are, retain and validation.")
    return [(split, by_split[split]) for split in SPLITS if split in by_split]


def _outputs(ensemble: Ensemble, part: Split) -> NDArray[Any]:
    """Return logits where they are classes', which more metrics read, and the compared statistic otherwise."""
    logits, outcome = ensemble.logits(part.x).cpu(), ensemble.network.outcome
    return (logits if isinstance(outcome, Classes) else outcome.statistic(logits, part.y)).numpy()


def _checked(sides: dict[str, Side], answers: dict[SplitName, NDArray[Any] | None], files: dict[str, str]) -> Inputs:
    for who, side in sides.items():
        _as_margins(side, who, answers)
    _check_shapes(sides)
    return Inputs(sides, answers, files)


def read_arrays(path: Path_) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file by name; a single array has the name "" (empty).

    Args:
        path: `.npy`, `.npz`, `.safetensors` or `.csv`.

    Raises:
        InputError: If the file is missing, of another kind, damaged, or holds Python objects.
    """
    file = as_path(path, "the file")
    if not file.is_file():
        raise InputError(f"{file} is not a file, expected .npy, .npz, .safetensors or .csv.")
    try:
        if file.suffix in MAGIC:
            _check_magic(file)
        if file.suffix == ".npy":
            return {"": np.load(file, allow_pickle=False)}
        if file.suffix == ".npz":
            return _read_npz(file)
        if file.suffix == ".safetensors":
            return _read_safetensors(file)
        if file.suffix == ".csv":
            return {"": _read_csv(file)}
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file does to a reader, the answer is the same
        if str(error).startswith("Object arrays"):
            raise InputError(f"{file} {PICKLED}") from error
        damaged = "is damaged or cut short" if file.suffix in MAGIC else "cannot be read"
        raise InputError(f"{file} {damaged} ({told(error)}); save it again as {file.suffix}.") from error
    raise InputError(f"{file} ends in {file.suffix or 'nothing'!r}, expected .npy, .npz, .safetensors or .csv.")


def _check_magic(file: Path) -> None:
    """Refuse what NumPy did not write, before NumPy sees it: it takes anything that it does not know for a pickle."""
    with file.open("rb") as handle:
        begin = handle.read(8)
    if begin.startswith(MAGIC[file.suffix]):
        return
    if begin[:2] in PICKLES:
        raise InputError(f"{file} {PICKLED}")
    for suffix, magic in MAGIC.items():
        if begin.startswith(magic):
            raise InputError(f"{file} holds what numpy writes as {suffix}; rename it to end in {suffix}.")
    came = f"it begins with {begin!r}" if begin else "it is empty"
    raise InputError(
        f"{file} is damaged, cut short or no {file.suffix} file ({came}, expected {MAGIC[file.suffix]!r}); save it "
        f"again with numpy.{'save' if file.suffix == '.npy' else 'savez'}."
    )


def _read_npz(file: Path) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    names = [entry.filename.removesuffix(".npy") for entry in entries]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise InputError(f"{file} holds {double!r} twice, expected each name once; save it again with numpy.savez.")
    if any(entry.flag_bits & 1 for entry in entries):
        raise InputError(f"{file} is encrypted, expected an archive that anybody can read; save it with numpy.savez.")
    check_memory(2 * sum(entry.file_size for entry in entries), f"{file}, unpacked,")
    with file.open("rb") as handle, np.load(handle, allow_pickle=False) as loaded:
        arrays = {name: loaded[name] for name in loaded.files}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise InputError(f"{file} holds {name!r}, which is no array; save it again with numpy.savez.")
    return arrays


def _read_safetensors(file: Path) -> dict[str, NDArray[Any]]:
    try:
        return dict(load_file(file))
    except (TypeError, KeyError, AttributeError):
        # bfloat16 has no NumPy type.
        return {name: tensor.to(torch.float32).numpy() for name, tensor in load_torch(file).items()}


def _read_csv(file: Path) -> NDArray[np.float64]:
    """Return a table of numbers, a row a member; a first row of names, and one of 0, 1, 2, ..., is a header."""
    with file.open(newline="", encoding="utf-8-sig") as handle:
        rows = [(number, row) for number, row in enumerate(csv.reader(handle, strict=True), 1) if row]
    header: list[str] = []
    # A row with some numbers is a mistake, not a header.
    if rows and rows[0][0] == 1 and not any(_is_number(cell) for cell in rows[0][1]):
        header = rows.pop(0)[1]
    values: list[list[float]] = []
    for number, row in rows:
        if len(row) != len(rows[0][1]):
            raise InputError(
                f"{file}, row {number} has {len(row)} values, the first has {len(rows[0][1])}; expected as many."
            )
        strange = next((cell for cell in row if not _is_number(cell)), None)
        if strange is not None:
            raise InputError(f"{file}, row {number}: {strange[:40]!r}, expected numbers such as 1.5 between commas.")
        values.append([float(cell) for cell in row])
    if header and values and len(header) != len(values[0]):
        raise InputError(
            f"{file}: the header has {len(header)} names, the rows {len(values[0])} values; expected as many."
        )
    if any("\n" in name or "\r" in name for name in header):
        raise InputError(f'{file}: a quote opens in row 1 and closes in another, expected it closed; write "name".')
    if len(values) > 1 and _numbers_columns(file, rows[0][1], values[1:]):
        del values[0]
    if not values:
        raise InputError(f"{file} has no rows of numbers, expected one row a member, one column an example.")
    return np.asarray(values)


def _numbers_columns(file: Path, first: list[str], others: list[list[float]]) -> bool:
    """Return whether the first row is the numbers 0, 1, 2, ... by which pandas heads columns that have no names.

    Raises:
        InputError: If it may be other numbers of columns, and whether it is only the user can tell.
    """
    if len(first) > 2 and first == [str(column) for column in range(len(first))]:
        return True
    whole = [int(cell) for cell in first if re.fullmatch(r" *[0-9]{1,15} *", cell)]
    rising = len(whole) == len(first) > 2 and all(a < b for a, b in itertools.pairwise(whole))
    if rising and not np.equal(np.mod(others, 1), 0).all():
        raise InputError(
            f"{file}: the first row counts up in whole numbers ({first[0]}, {first[1]}, ...) and the others do not; "
            f"remove it where it numbers the columns, or write {first[0].strip()}.0 where it is a member."
        )
    return False


def _is_number(cell: str) -> bool:
    """Return whether a cell is a number as other programs write it: not 1_000, which Python would read."""
    try:
        float(cell)
    except ValueError:
        return False
    return cell.isascii() and "_" not in cell


def _select(path: Path_) -> tuple[dict[str, NDArray[Any]], str]:
    """Return the arrays of FILE or FILE:NAME, with NAME stripped, and the path."""
    text = str(path)
    if ":" in text[2:] and not as_path(text, "the file").exists():
        name_at = text.rindex(":")
        file, name = text[:name_at], text[name_at + 1 :]
        arrays = read_arrays(file)
        under = {key[len(name) + 1 :]: array for key, array in arrays.items() if key.startswith(name + "/")}
        if under:
            return under, file
        if name in arrays:
            return {"": arrays[name]}, file
        raise InputError(f"{file} has no {name!r}, expected one of: {', '.join(sorted(arrays))}.")
    return read_arrays(path), text


def _read_splits(path: Path_, who: str) -> dict[str, NDArray[Any]]:
    arrays, file = _select(path)
    if len(arrays) == 1 and next(iter(arrays)) not in SPLITS:
        return {"forget": next(iter(arrays.values()))}
    known = (*SPLITS, "labels", "labels_retain", "labels_validation")
    if "forget" not in arrays:
        raise InputError(
            f"{who}: {file} has {', '.join(sorted(arrays))}, expected an array named forget (and retain, validation); "
            f"or pick one with {file}:NAME."
        )
    return {name: array for name, array in arrays.items() if name in known}


def _one_array(path: Path_, what: str) -> NDArray[Any]:
    arrays, file = _select(path)
    if len(arrays) != 1:
        raise InputError(f"{what}: {file} holds {len(arrays)} arrays, expected one; pick it with {file}:NAME.")
    return next(iter(arrays.values()))


def _labels(path: Path_ | None, sides: Mapping[str, Side], split: str) -> NDArray[Any] | None:
    name = "labels" if split == "forget" else f"labels_{split}"
    inside = [side.raw.pop(name) for side in sides.values() if name in side.raw]
    if path is not None:
        array = _one_array(path, name)
        # A .csv of labels is a row or a column.
        return array.reshape(-1) if array.ndim == 2 and 1 in array.shape else array
    for other in inside[1:]:
        if not np.array_equal(inside[0], other):
            raise InputError(
                f"{name} differ between the files: the examples or their order is not the same; write all files "
                "from the same examples in one order."
            )
    return inside[0] if inside else None


def _as_margins(side: Side, who: str, answers: Mapping[SplitName, NDArray[Any] | None]) -> None:
    for split in SPLITS:
        if split not in side.raw:
            continue
        array = to_array(side.raw[split], f"{who} {split}")
        if array.ndim == 2:
            side.margins[split] = array
        elif array.ndim == 3:
            answer = answers[split]
            if answer is None:
                name = "labels" if split == "forget" else f"labels_{split}"
                raise InputError(f"{who} {split} holds logits {array.shape}; give {name} to turn them into margins.")
            y = to_labels(answer, array.shape[1], array.shape[2])
            refuse_probabilities(array, f"{who} {split}")
            side.logits[split] = array
            side.margins[split] = metrics.margins(array, y).numpy()
        else:
            raise InputError(
                f"{who} {split} has shape {array.shape}, expected margins (members, examples) or logits (members, "
                "examples, classes)."
            )
        if len(array) < FEWEST:
            raise InputError(
                f"{who} {split} has {len(array)} members, expected at least {FEWEST}: with fewer, the floor of every "
                "metric is above what could be found. Train more members; 100 a side decide most cases."
            )


def _check_shapes(sides: Mapping[str, Side]) -> None:
    reference = sides["oracle"]
    for who, side in sides.items():
        for split, array in side.raw.items():
            if split not in reference.raw:
                raise InputError(f"{who} has {split} examples but oracle has none; give the oracles on them as well.")
            if array.shape[1:] != reference.raw[split].shape[1:]:
                raise InputError(
                    f"{who} {split} has shape {array.shape}, oracle {split} {reference.raw[split].shape}; expected the "
                    "same examples (and classes): rows are members, columns examples."
                )
        if len({len(array) for array in side.raw.values()}) > 1:
            counts = {split: len(array) for split, array in side.raw.items()}
            raise InputError(f"{who} has {counts} members by split, expected the same members everywhere.")
