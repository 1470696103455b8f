"""Forget sets: at random, part of a class, a tight cluster, planted wrong labels, or a list in a file.

Every kind is a `Chooser` in `names.CHOOSERS`: given a task, a size, a seed and the positions to avoid, it draws a set
and says what it drew. `choose` draws two that do not overlap: the forget set, and a calibration set of the same kind on
which the configuration of a method can be selected without looking at the forget set. To add a chooser, write the
function and add its line there.
"""

from __future__ import annotations

import csv
import re
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from expunge.core import ForgetSet, InputError, Task
from expunge.core.checks import as_path, instance, plain_arguments, seeds, whole
from expunge.core.forget_set import Indices
from expunge.core.reading import as_tensor
from expunge.core.seeds import derive
from expunge.tasks.id_column import read_id_column
from expunge.tasks.names import CHOOSERS, FILES

COMPONENTS = 32
"""Principal components of the default feature space of `cluster`."""

CANDIDATES = 200
"""Centres that `cluster` looks at for a set clear of the positions to avoid."""


class Draw(NamedTuple):
    """What a chooser drew."""

    indices: Indices
    """Positions in the training data, shape (size,)."""
    how: str
    """One sentence on how they were chosen."""
    options: dict[str, Any]
    """The chooser's own options with every choice made, so that another set of the same kind can be drawn."""
    labels: Tensor | None = None
    """New labels of the positions, shape (size,), where the kind of set asks for wrong ones."""


@dataclass(frozen=True)
class Choice:
    """A forget set, a disjoint calibration set of the same kind and size, and the task that both belong to."""

    task: Task
    """The task given, with wrong labels planted where the kind of set asks for them."""
    forget: ForgetSet
    calibration: ForgetSet


def random_forget_set(task: Task, size: int, seed: int = 0) -> ForgetSet:
    """Return training examples chosen uniformly at random, without replacement.

    Args:
        task: The task to choose from.
        size: Number of examples, from 1 to one less than the training examples.
        seed: Another seed gives another set.

    Raises:
        InputError: If the size does not fit.

    Source:
        The random forget sets of "Ascent Fails to Forget" (arXiv 2509.26427), sec. 5.
    """
    return _forget_set(task, "random", size, seed)


def class_part(task: Task, size: int, label: int | None = None, seed: int = 0) -> ForgetSet:
    """Return some of the training examples of one class, chosen at random.

    Args:
        task: The task to choose from.
        size: Number of examples, at least 1, at most the training examples of the class.
        label: The class, from 0 to classes - 1; None lets the seed choose among the classes that have twice the size
            (or the size, if none has).
        seed: Another seed gives another part of the class.

    Raises:
        InputError: If the label is unknown or the class has too few examples.
    """
    return _forget_set(task, "class_part", size, seed, label=label)


def cluster(task: Task, size: int, seed: int = 0, features: Any = None) -> ForgetSet:
    """Return a tight cluster: a training example chosen at random and its nearest neighbours in feature space.

    Such sets resemble what remains less than a random set does; a model that has never seen them errs on them.

    Args:
        task: The task to choose from.
        size: Number of examples with the centre, from 1 to one less than the training examples.
        seed: Chooses the centre.
        features: Where distances (Euclidean) are measured, shape (training examples, ...), such as the penultimate
            layer of a trained model; by default inputs standardised per pixel, reduced to 32 principal components.

    Raises:
        InputError: If the size or the features do not fit.
    """
    instance(Task, "an expunge.Task", task=task)
    options = {} if features is None else {"features": _check_features(task, features)}
    return _forget_set(task, "cluster", size, seed, **options)


@plain_arguments
def mislabelled(task: Task, size: int, seed: int = 0) -> tuple[Task, ForgetSet]:
    """Return a task in which some training labels are wrong, and the set of those examples.

    Args:
        task: The task to choose from; it is not changed.
        size: Number of examples that get a wrong label, from 1 to one less than the training examples.
        seed: Chooses the examples and their wrong labels, each uniform over the other classes.

    Returns:
        The task with the wrong labels, and the forget set that belongs to it.

    Raises:
        InputError: If the size does not fit.
    """
    draw = _draw(task, "mislabelled", size, seed, None, {})
    return _plant(task, [draw]), _named(task, "mislabelled", size, seed, draw)


def from_file(task: Task, path: str | Path, *, id_column: str | None = None) -> ForgetSet:
    """Return the forget set that a file lists.

    Args:
        task: The task whose training examples are meant.
        path: A `.npy` array of positions (one-dimensional, whole numbers), or a `.csv` or `.txt` with one position a
            line; a first line that is no number is taken as the header; empty lines and lines that begin with # are
            skipped.
        id_column: Name of a column of a `.csv` file that holds ids of the task (`Task(ids=...)`) instead of positions.

    Raises:
        InputError: If the file is missing or of another kind, or a line is not a position; the line is named. If ids
            are unknown or repeated; they are named.
    """
    instance(Task, "an expunge.Task", task=task)
    path = as_path(path, "the file of a forget set")
    if path.suffix.lower() not in FILES:
        raise InputError(f"{path} ends in {path.suffix!r}, expected a file of indices: {', '.join(FILES)}.")
    if not path.is_file():
        raise InputError(f"{path} does not exist, expected a file with positions of training examples.")
    values: Any
    if id_column is not None:
        values = read_id_column(task, path, id_column)
    else:
        values = _read_npy(path) if path.suffix.lower() == ".npy" else _read_lines(path, len(task.train))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "file"
    by = "" if id_column is None else f" by {id_column}"
    return ForgetSet.of(task, values, name=name, how=f"listed{by} in {path.name}")


@plain_arguments
def choose(task: Task, spec: str | Path | ForgetSet, seed: int = 0) -> Choice:
    """Return a forget set, a calibration set of the same kind and size that does not overlap it, and their task.

    For a list of indices (a file, or a `ForgetSet` made by hand) the kind is unknown: the calibration set is then drawn
    at random from the retain set with the same number of examples of each class, and its `how` says that this only
    approximates the kind.

    Args:
        task: The task to choose from.
        spec: `"CHOOSER:SIZE"` (`"random:70"`, `"class_part:70"`, `"class_part:70:3"` for class 3, `"cluster:70"`,
            `"mislabelled:70"`), a file of indices, or a forget set of this task.
        seed: Seed of the choice; a forget set that is given keeps its own, and only the calibration set depends on it.

    Raises:
        InputError: If the specification cannot be read, or the data have no room for both sets.

    >>> from expunge.tasks.shipped import digits
    >>> choice = choose(digits(), "class_part:20:3")
    >>> len(choice.forget), len(choice.calibration), set(choice.task.train.y[choice.calibration.indices].tolist())
    (20, 20, {3})
    """
    instance(Task, "an expunge.Task", task=task)
    draws: list[Draw] = []
    if isinstance(spec, ForgetSet):
        spec.check(task)
        _check_planted(task, spec)
        forget = spec
    else:
        parsed = _parse(spec)
        if isinstance(parsed, Path):
            forget = from_file(task, parsed)
        else:
            chooser, size, options = parsed
            draw = _draw(task, chooser, size, seed, None, options)
            draws.append(draw)
            forget = _named(task, chooser, size, seed, draw)
    if 2 * len(forget) >= len(task.train):
        raise InputError(
            f"forget set {forget.name!r} has {len(forget)} of {len(task.train)} training examples, expected fewer than "
            "half: a calibration set of the same size must fit beside it and leave something to train on."
        )
    second = derive(seed, "calibration", forget.name)
    if forget.chooser in CHOOSERS:
        options = {key: value for key, value in forget.options.items() if key not in ("size", "seed", "labels")}
        draw = _draw(task, forget.chooser, len(forget), second, forget.indices, options)
        how = f"{draw.how}; disjoint from {forget.name}"
    else:
        draw = _class_matched(task, forget, second)
        how = draw.how
    draws.append(draw)
    calibration = ForgetSet.of(
        task,
        draw.indices,
        name=f"{forget.name}-calibration",
        how=how,
        chooser=forget.chooser if forget.chooser in CHOOSERS else "random",
        options={"size": len(forget), "seed": second, **draw.options},
    )
    return Choice(_plant(task, draws), forget, calibration)


def _draw_random(task: Task, size: int, seed: int, avoid: Indices) -> Draw:
    pool = _without(np.arange(len(task.train)), avoid)
    indices = _sample(pool, size, seed, "random")
    return Draw(indices, f"{size} training examples chosen uniformly at random", {})


def _draw_class_part(task: Task, size: int, seed: int, avoid: Indices, label: int | None = None) -> Draw:
    labels = task.train.y.numpy()
    counts = np.bincount(labels, minlength=task.classes)
    if label is None:
        room = np.flatnonzero(counts >= 2 * size)
        room = room if len(room) else np.flatnonzero(counts >= size)
        if not len(room):
            raise InputError(
                f"class_part of size {size} fits no class: the largest has {counts.max()} training examples; choose a "
                "smaller size."
            )
        label = int(_sample(room, 1, seed, "label")[0])
    whole(0, label=label)
    if label >= task.classes:
        raise InputError(f"label = {label}, expected 0 to {task.classes - 1}.")
    pool = _without(np.flatnonzero(labels == label), avoid)
    if len(pool) < size:
        already = f" ({counts[label] - len(pool)} of them are in the forget set)" if len(avoid) else ""
        raise InputError(
            f"class {label} has {counts[label]} training examples{already}, expected room for {size} more; choose a "
            "smaller size or another class."
        )
    indices = _sample(pool, size, seed, "class_part")
    how = f"{size} of the {counts[label]} training examples of class {label}, chosen at random"
    return Draw(indices, how, {"label": int(label)})


def _draw_cluster(task: Task, size: int, seed: int, avoid: Indices, features: Any = None) -> Draw:
    space = _default_features(task) if features is None else _check_features(task, features)
    pool = _without(np.arange(len(task.train)), avoid)
    centres = _sample(pool, min(CANDIDATES, len(pool)), seed, "cluster")
    # Neighbours are taken among all examples: a ring around a set to be avoided would not be tight.
    for centre in centres:
        distances = ((space - space[centre]) ** 2).sum(1)
        # Copies of the centre are at distance 0 too; it comes first all the same.
        distances[centre] = -1.0
        nearest = np.argsort(distances, kind="stable")[:size]
        if not np.isin(nearest, avoid).any():
            where = "the features given" if features is not None else "standardised, PCA-reduced inputs"
            how = f"training example {centre} and its {size - 1} nearest neighbours in {where}"
            return Draw(nearest.astype(np.int64), how, {} if features is None else {"features": space})
    raise InputError(
        f"cluster of size {size}: no second cluster of this size is clear of the first ({len(centres)} centres tried); "
        "choose a smaller size."
    )


def _draw_mislabelled(task: Task, size: int, seed: int, avoid: Indices) -> Draw:
    indices = np.sort(_sample(_without(np.arange(len(task.train)), avoid), size, seed, "mislabelled"))
    shift = np.random.default_rng(derive(seed, "wrong label")).integers(1, task.classes, size)
    wrong = (task.train.y[torch.from_numpy(indices)] + torch.from_numpy(shift)) % task.classes
    how = f"{size} training examples chosen at random and given a wrong label, uniform over the other classes"
    return Draw(indices, how, {"labels": wrong.tolist()}, wrong)


def _class_matched(task: Task, forget: ForgetSet, seed: int) -> Draw:
    """Draw as many retain examples of each class as the forget set has; a class that runs out is made up at random."""
    labels = task.outcome.groups(task.train.y).numpy()
    retain = forget.retain
    wanted = np.bincount(labels[forget.indices], minlength=task.classes)
    parts = []
    for label in range(task.classes):
        pool = retain[labels[retain] == label]
        parts.append(_sample(pool, min(int(wanted[label]), len(pool)), seed, "matched", label))
    drawn = np.concatenate(parts)
    missing = len(forget) - len(drawn)
    if missing:
        drawn = np.concatenate([drawn, _sample(_without(retain, drawn), missing, seed, "made up")])
    made_up = f" ({missing} from other classes, where a class had no more)" if missing else ""
    alike = f" with the same number of each class as {forget.name}{made_up}" if task.outcome.has_groups else ""
    how = (
        f"{len(forget)} retain examples chosen at random{alike}; "
        "how that set was chosen is not known, so this only approximates its kind"
    )
    return Draw(drawn, how, {})


@plain_arguments
def _forget_set(task: Task, chooser: str, size: int, seed: int, **options: Any) -> ForgetSet:
    return _named(task, chooser, size, seed, _draw(task, chooser, size, seed, None, options))


def _named(task: Task, chooser: str, size: int, seed: int, draw: Draw) -> ForgetSet:
    label = f"-class-{draw.options['label']}" if "label" in draw.options else ""
    suffix = f"-seed-{seed}" if seed else ""
    options = {"size": size, "seed": seed, **draw.options}
    name = f"{chooser}-{size}{label}{suffix}"
    return ForgetSet.of(task, draw.indices, name=name, how=draw.how, chooser=chooser, options=options)


def _draw(task: Task, chooser: str, size: int, seed: int, avoid: Indices | None, options: Mapping[str, Any]) -> Draw:
    instance(Task, "an expunge.Task", task=task)
    whole(size=size)
    seeds(seed=seed)
    if CHOOSERS[chooser].classes and not task.outcome.has_groups:
        raise InputError(
            f"{chooser} chooses by class, and outcome {task.outcome.name!r} of the task {task.name!r} has no classes; "
            f"expected another kind: {', '.join(name for name, kind in CHOOSERS.items() if not kind.classes)}."
        )
    avoid = np.empty(0, dtype=np.int64) if avoid is None else avoid
    free = len(task.train) - len(avoid)
    if size >= free:
        raise InputError(
            f"{chooser} of size {size} asks for all of the {free} training examples or more, expected fewer: something "
            "must be left to train on."
        )
    drawn: Draw = CHOOSERS[chooser].draw(task, size, seed, avoid, **options)
    return drawn


def _plant(task: Task, draws: list[Draw]) -> Task:
    wrong = [draw for draw in draws if draw.labels is not None]
    if not wrong:
        return task
    indices = np.concatenate([draw.indices for draw in wrong])
    labels = torch.cat([draw.labels for draw in wrong if draw.labels is not None])
    return task.with_labels(indices, labels, f"{task.name}, {len(indices)} wrong labels")


def _check_planted(task: Task, forget: ForgetSet) -> None:
    """Raise if the labels that belong to a set with wrong labels are not those of the task."""
    planted = forget.options.get("labels")
    if planted is not None and task.train.y[torch.from_numpy(forget.indices)].tolist() != list(planted):
        raise InputError(
            f"forget set {forget.name!r} has wrong labels that the task {task.name!r} does not have; pass the "
            "task that mislabelled() returned with it."
        )


def _parse(spec: str | Path) -> Path | tuple[str, int, dict[str, Any]]:
    known = ", ".join(f"{name}:SIZE" for name in CHOOSERS)
    if isinstance(spec, Path):
        return spec
    if not isinstance(spec, str):
        raise InputError(f"forget set is a {type(spec).__name__}, expected a ForgetSet, a file, or one of: {known}.")
    name, *parts = spec.split(":")
    if name not in CHOOSERS:
        if Path(spec).suffix.lower() in FILES or as_path(spec, "forget set").is_file():
            return Path(spec)
        raise InputError(f"forget set {spec!r} is not known, expected one of: {known}, or a file {'|'.join(FILES)}.")
    argument = CHOOSERS[name].argument
    if not 1 <= len(parts) <= (2 if argument else 1):
        form = f"{name}:SIZE" + (f" or {name}:SIZE:{argument.upper()}" if argument else "")
        raise InputError(f"forget set {spec!r} cannot be read, expected {form}, such as {name}:70.")
    numbers = []
    for part in parts:
        if not re.fullmatch(r"[0-9]{1,15}", part.strip()):
            raise InputError(f"forget set {spec!r}: {part!r} is not a whole number, expected something like {name}:70.")
        numbers.append(int(part))
    return name, numbers[0], {argument: numbers[1]} if argument and len(numbers) == 2 else {}


def _read_npy(path: Path) -> np.ndarray[Any, Any]:
    try:
        with open(path, "rb") as file:
            values = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as an array of numbers ({error}); expected numpy.save(path, indices) with whole "
            "numbers."
        ) from error
    return np.asarray(values)


def _read_lines(path: Path, examples: int) -> list[int]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} cannot be read as text ({error}), expected one position a line.") from error
    values: list[int] = []
    header_allowed = True
    for number, line in enumerate(re.split("\r\n|\n|\r", text), start=1):
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        try:
            cells = [cell.strip() for cell in next(csv.reader([content], strict=True)) if cell.strip()]
        except csv.Error as error:
            raise InputError(f"{path}, line {number}: {error}, expected one whole number a line.") from error
        if len(cells) > 1:
            raise InputError(f"{path}, line {number}: {content[:60]!r} has {len(cells)} values, expected one position.")
        cell = cells[0] if cells else content
        if re.fullmatch(r"[+-]?[0-9]{1,18}(\.0*)?", cell):
            value = int(cell.partition(".")[0])
            if not 0 <= value < examples:
                raise InputError(f"{path}, line {number}: position {value}, expected 0 to {examples - 1}.")
            values.append(value)
        elif header_allowed and not re.match(r"[+-]?[0-9.]", cell):
            pass
        else:
            raise InputError(f"{path}, line {number}: {content[:60]!r}, expected one whole number a line.")
        header_allowed = False
    return values


def _check_features(task: Task, features: Any) -> np.ndarray[Any, Any]:
    raw = as_tensor(features, "features").cpu().double().numpy()
    if raw.ndim < 2 or len(raw) != len(task.train):
        raise InputError(
            f"features have shape {raw.shape}, expected (training examples, ...) = ({len(task.train)}, ...)."
        )
    space = raw.reshape(len(raw), -1)
    if not np.isfinite(space).all():
        raise InputError("features hold non-finite values, expected finite numbers.")
    return space


_FEATURES: weakref.WeakKeyDictionary[Task, np.ndarray[Any, Any]] = weakref.WeakKeyDictionary()
# On CIFAR-10 the components take most of a minute, and every choice needs them twice.


def _default_features(task: Task) -> np.ndarray[Any, Any]:
    if task not in _FEATURES:
        _FEATURES[task] = _principal_components(task)
    return _FEATURES[task]


def _principal_components(task: Task) -> np.ndarray[Any, Any]:
    x = task.train.x.numpy().reshape(len(task.train), -1).astype(np.float64)
    x -= x.mean(0)
    scale = x.std(0)
    # A pixel that is always the same carries no distance; dividing by its zero deviation would carry NaN.
    x /= np.where(scale > 0, scale, 1.0)
    if x.shape[1] <= COMPONENTS:
        return x
    _, directions = np.linalg.eigh(x.T @ x)
    reduced: np.ndarray[Any, Any] = x @ directions[:, -COMPONENTS:]
    return reduced


def _sample(pool: np.ndarray[Any, Any], size: int, seed: int, *purpose: object) -> Indices:
    chosen = np.random.default_rng(derive(seed, *purpose)).choice(pool, size, replace=False)
    return chosen.astype(np.int64)


def _without(pool: np.ndarray[Any, Any], avoid: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return pool[~np.isin(pool, avoid)]
