"""The doors through which strangers' things come in, each with hostile cases made for it.

`made(count)` returns about so many cases for the functions, `commands(count, folder)` for the command line.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from safetensors.numpy import save as to_safetensors
from torch import nn

import expunge as ex
from expunge import metrics
from expunge.core import InputError
from expunge.methods import METHODS
from expunge.studies.score import score_files
from expunge.studies.score.inputs import read_arrays
from expunge.tasks import from_file
from expunge.tasks.plain_pickle import read_plain_pickle
from hostile.given import (
    DRESSED,
    OPTIONS,
    STILL_NUMBERS,
    WORDS,
    Dressed,
    damaged,
    drawn,
    is_count,
    is_fraction,
    npy,
    npz,
    number,
    table,
    zipped,
)
from hostile.runner import Case, Expect

ROWS, COLUMNS, CLASSES, MEMBERS = 48, 4, 3, 8


def _quarters(*shape: int, seed: int = 0) -> np.ndarray:
    """Numbers that every floating-point type holds."""
    return np.random.default_rng(seed).integers(-12, 13, shape) / 4


Y = np.arange(ROWS) % CLASSES
X = _quarters(ROWS, COLUMNS) + 2 * np.eye(CLASSES, COLUMNS)[Y]
VX, VY = X[:12] + 0.125, Y[:12]
RECIPE = {"epochs": 1, "batch_size": 16, "lr": 0.125, "schedule": "constant"}


def task(**changes: Any) -> ex.Task:
    """A task that trains in milliseconds."""
    usual = {
        "name": "t",
        "train": (X, Y),
        "validation": (VX, VY),
        "model": lambda: nn.Linear(COLUMNS, CLASSES),
        "recipe": ex.Recipe(**RECIPE),
    }
    return ex.Task(**{**usual, **changes})


def plainly(result: Any) -> Any:
    """Return a result as nested lists, to be compared."""
    if isinstance(result, torch.Tensor):
        return result.detach().double().tolist() if not result.is_complex() else repr(result)
    if isinstance(result, np.ndarray):
        return result.tolist()
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return {field.name: plainly(getattr(result, field.name)) for field in dataclasses.fields(result)}
    if isinstance(result, dict):
        return {str(key): plainly(value) for key, value in result.items()}
    if isinstance(result, list | tuple):
        return [plainly(value) for value in result]
    if hasattr(result, "model_dump"):
        return plainly(result.model_dump())
    return result


def alike(a: Any, b: Any) -> bool:
    """Whether two plain results are equal to rounding, NaN equal to NaN."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, float | int) and isinstance(b, float | int):
        return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-6)
    return bool(a == b)


# Arrays -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArrayDoor:
    """A function of one array, and the array that it is usually given."""

    name: str
    plain: np.ndarray
    call: Callable[[Any], Any]
    takes: frozenset[str] = frozenset()
    """What would be refused elsewhere and is sound here."""
    words: bool = False
    """Whether words are as good as numbers."""


def _data(t: ex.Task) -> Any:
    return [t.train.x, t.train.y, t.validation.x, t.validation.y]


def array_doors() -> Iterator[ArrayDoor]:
    """Yield every function that takes an array."""
    usual = task()
    forget = ex.ForgetSet.of(usual, np.arange(5), name="f", how="the first")
    ensemble = ex.train(usual, members=2, chunk=1, seed=0)
    matching = ex.methods.MarginMatching(epochs=1)
    u, o, h = (_quarters(MEMBERS, 12, seed=s) for s in (1, 2, 3))
    logits = _quarters(MEMBERS, 12, CLASSES, seed=4)
    labels = np.arange(12) % CLASSES
    yield ArrayDoor("Task(train x)", X, lambda v: _data(task(train=(v, Y))))
    yield ArrayDoor("Task(train y)", Y, lambda v: _data(task(train=(X, v))), words=True)
    yield ArrayDoor("Task(validation x)", VX, lambda v: _data(task(validation=(v, VY))))
    yield ArrayDoor("Task(validation y)", VY, lambda v: _data(task(validation=(VX, v))))
    yield ArrayDoor(
        "Task(named inputs)",
        X,
        lambda v: _data(task(train=({"input": v}, Y), validation=({"input": VX}, VY))),
    )
    real = X[:, 0]
    yield ArrayDoor(
        "Task(real targets)",
        real,
        lambda v: _data(
            task(train=(X, v), validation=(VX, VX[:, 0]), outcome="regression", model=lambda: nn.Linear(COLUMNS, 1))
        ),
    )
    yield ArrayDoor(
        "ForgetSet.of", np.array([3, 1, 7, 9]), lambda v: ex.ForgetSet.of(usual, v, name="f", how="given").indices
    )
    yield ArrayDoor("cluster(features)", X, lambda v: ex.tasks.cluster(usual, 5, features=v).indices)
    yield ArrayDoor("Ensemble.logits", VX, ensemble.logits)
    yield ArrayDoor("Ensemble.margins(x)", VX, lambda v: ensemble.margins(v, VY))
    yield ArrayDoor("Ensemble.margins(y)", VY, lambda v: ensemble.margins(VX, v))
    yield ArrayDoor("Ensemble.accuracy(y)", VY, lambda v: ensemble.accuracy(VX, v))
    targets = _quarters(2, ROWS, seed=5)
    yield ArrayDoor(
        "unlearn(targets)",
        targets,
        lambda v: ex.unlearn(ensemble, usual, forget, matching, targets=v).params["weight"],
        takes=frozenset({"one NaN"}),
    )
    yield ArrayDoor(
        "train(examples)", np.array([[1, 2, 3, 4, 5], [6, 7, 8, 9, 0]]),
        lambda v: ex.train(usual, members=2, chunk=1, examples=v).params["weight"],
    )  # fmt: skip
    both: dict[str, Callable[[Any, Any], Any]] = {
        "klom": metrics.klom,
        "wasserstein": metrics.wasserstein,
        "energy": metrics.energy,
        "kolmogorov_smirnov": metrics.kolmogorov_smirnov,
        "jensen_shannon": metrics.jensen_shannon,
        "gaussian_kl": metrics.gaussian_kl,
        "mmd": metrics.mmd,
        "classifier_two_sample": metrics.classifier_two_sample,
        "ulira": metrics.ulira,
        "challenge_score": metrics.challenge_score,
        "Ruler.klom": lambda a, b: metrics.Ruler(b).klom(a),
        "Ruler": lambda a, b: metrics.Ruler(b).score(a),
        "failed_members": metrics.failed_members,
        "distance_score": lambda a, b: metrics.distance_score("wasserstein", a, b),
        "score": lambda a, b: [plainly(line) for line in ex.score(a, b).lines],
        "judge": lambda a, b: plainly(
            metrics.judge(dict.fromkeys(("forget", "retain", "validation"), a), dict.fromkeys(("forget", "retain",
            "validation"), b))
        ),
    }  # fmt: skip
    for name, read in both.items():
        yield ArrayDoor(f"{name}(unlearned)", u, lambda v, f=read: f(v, o))  # type: ignore[misc]
        yield ArrayDoor(f"{name}(oracle)", o, lambda v, f=read: f(u, v))  # type: ignore[misc]
    yield ArrayDoor(
        "score(held_out)",
        h,
        lambda v: [plainly(line) for line in ex.score(u, o, held_out=v).lines],
        takes=frozenset({"None"}),
    )
    yield ArrayDoor(
        "score(labels)",
        labels,
        lambda v: [plainly(line) for line in ex.score(logits, logits[::-1] + 0.25, labels=v).lines],
    )
    yield ArrayDoor(
        "score(logits)",
        logits,
        lambda v: [plainly(line) for line in ex.score(v, logits[::-1] + 0.25, labels=labels).lines],
    )
    yield ArrayDoor("margins(logits)", logits, lambda v: metrics.margins(v, labels))
    yield ArrayDoor("margins(labels)", labels, lambda v: metrics.margins(logits, v))
    yield ArrayDoor("accuracy(logits)", logits, lambda v: metrics.accuracy(v, labels))
    yield ArrayDoor("accuracy(labels)", labels, lambda v: metrics.accuracy(logits, v))
    yield ArrayDoor("activation_distance", logits, lambda v: metrics.activation_distance(v, logits[::-1]))
    yield ArrayDoor("member_scores(logits)", logits, lambda v: metrics.member_scores(v, labels, "entropy"))
    yield ArrayDoor("population_attack(members)", u, lambda v: metrics.population_attack(v, h, u, o))
    yield ArrayDoor("roc(scores)", u[0], lambda v: metrics.roc(v, o[0]))


def arrays(
    count: int, without: tuple[str, ...] = (), of: Callable[[], Iterator[ArrayDoor]] = array_doors
) -> Iterator[Case]:
    """Yield cases of arrays in other dresses, and of what is none."""
    doors = [door for door in of() if not door.name.startswith(without or "-")]
    dresses: list[Dressed] = drawn(DRESSED, max(1, count // len(doors)), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for door in doors:
            try:
                right = plainly(door.call(door.plain))
            except TypeError as error:
                raise RuntimeError(f"{door.name}: the plain array must be taken") from error
            for dressed in dresses:
                yield _array_case(door, dressed, right)


def _array_case(door: ArrayDoor, dressed: Dressed, right: Any) -> Case:
    expect: Expect = "refused"
    sound: Callable[[Any], bool] = lambda result: alike(plainly(result), right)  # noqa: E731
    if not dressed.spoiled:
        # What is a list of objects of tensors, say, need not be taken; but then it is refused in words.
        expect = "either"
    elif (
        dressed.spoiled in STILL_NUMBERS or dressed.spoiled in door.takes or (door.words and dressed.spoiled == "bytes")
    ):
        expect, sound = "either", lambda result: True
    return Case(door.name, dressed.given, lambda: door.call(dressed.of(door.plain)), expect, sound)


# Options ------------------------------------------------------------------------------------------------------------

POSITIVE = lambda v: is_fraction(v, open_low=True)  # noqa: E731
AT_LEAST_0 = lambda v: is_fraction(v)  # noqa: E731
COUNT = lambda v: is_count(v)  # noqa: E731
COUNT_0 = lambda v: is_count(v, 0)  # noqa: E731
SEED = lambda v: is_count(v, -(2**63))  # type: ignore[arg-type]  # noqa: E731
MOMENTUM = lambda v: is_fraction(v, 0, 0.9999)  # noqa: E731
NEVER = lambda v: False  # noqa: E731


def _or_none(rule: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda v: v is None or rule(v)


FIELDS: dict[str, Callable[[Any], bool]] = {
    "epochs": COUNT, "batch_size": COUNT, "forget_batch_size": COUNT, "lr": AT_LEAST_0, "weight_decay": AT_LEAST_0,
    "momentum": MOMENTUM, "temperature": lambda v: is_fraction(v, 0, 1e15, open_low=True), "gamma": AT_LEAST_0,
    "alpha": AT_LEAST_0,
    "decay": POSITIVE,
}  # fmt: skip
"""What options of methods may be; others are words, or hang together, and are only tried."""
LONG = {"x": "y"}


@dataclass(frozen=True)
class OptionDoor:
    """A function of one option."""

    name: str
    call: Callable[[Any], Any]
    fits: Callable[[Any], bool] | None
    """Whether a value is one of the option's, by the slow reader; None where only the twin tells."""
    kept: bool = False
    """Whether what comes back is the option as it is kept."""


def option_doors() -> Iterator[OptionDoor]:
    """Yield every option of recipes, methods and functions."""
    usual = task()
    forget = ex.ForgetSet.of(usual, np.arange(5), name="f", how="the first")
    ensemble = ex.train(usual, members=2, chunk=1, seed=0)
    u, o = _quarters(MEMBERS, 12, seed=1), _quarters(MEMBERS, 12, seed=2)

    def field(kind: Any, name: str) -> Callable[[Any], Any]:
        def kept(value: Any) -> Any:
            made = kind(**{name: value})
            json.dumps(dataclasses.asdict(made), allow_nan=False)
            return getattr(made, name)

        return kept

    recipe = dict(FIELDS) | {
        "lr": POSITIVE,
        "weight_decay": AT_LEAST_0,
        "momentum": lambda v: is_fraction(v, 0, 1) and number(v) != 1,
    }
    for kind, fits in ((ex.Recipe, recipe), *((method, FIELDS) for method in METHODS.values())):
        for each in dataclasses.fields(kind):
            rule = fits.get(each.name)
            loose = each.name in ("peak_epoch", "msteps", "ascent_epochs", "decay_epochs") or rule is None
            yield OptionDoor(
                f"{kind.__name__}({each.name})", field(kind, each.name), None if loose else rule, not loose
            )
    t = ex.tasks
    yield OptionDoor("Task(classes)", lambda v: task(classes=v).classes, _or_none(lambda v: is_count(v, 3, 3)))
    for name, choose in (("random", t.random_forget_set), ("class_part", t.class_part), ("cluster", t.cluster)):
        most = {"random": ROWS - 1, "class_part": ROWS // CLASSES, "cluster": ROWS - 1}[name]
        yield OptionDoor(f"{name}(size)", lambda v, f=choose: f(usual, v).indices, lambda v, m=most: is_count(v, 1, m))  # type: ignore[misc]
        yield OptionDoor(f"{name}(seed)", lambda v, f=choose: f(usual, 3, seed=v).indices, SEED)  # type: ignore[misc]
    yield OptionDoor(
        "class_part(label)", lambda v: t.class_part(usual, 3, label=v).indices, _or_none(lambda v: is_count(v, 0, 2))
    )
    yield OptionDoor(
        "mislabelled(size)", lambda v: t.mislabelled(usual, v)[1].indices, lambda v: is_count(v, 1, ROWS - 1)
    )
    yield OptionDoor("choose(seed)", lambda v: t.choose(usual, "random:5", seed=v).calibration.indices, SEED)
    weights = lambda e: [e.params["weight"], e.ids]  # noqa: E731
    yield OptionDoor("train(members)", lambda v: weights(ex.train(usual, members=v, chunk=1)), None)
    yield OptionDoor("train(seed)", lambda v: weights(ex.train(usual, members=1, seed=v, chunk=1)), SEED)
    yield OptionDoor("train(first)", lambda v: weights(ex.train(usual, members=1, first=v, chunk=1)), COUNT_0)
    yield OptionDoor(
        "train(epochs)",
        lambda v: weights(ex.train(usual, members=1, epochs=v, chunk=1)),
        _or_none(lambda v: is_count(v, 0, 1)),
    )
    yield OptionDoor("train(chunk)", lambda v: weights(ex.train(usual, members=1, chunk=v)), _or_none(COUNT))
    yield OptionDoor("train(workers)", lambda v: weights(ex.train(usual, members=1, workers=v)), _or_none(COUNT_0))
    ascent = ex.methods.GradientAscent(epochs=1)
    yield OptionDoor("unlearn(seed)", lambda v: weights(ex.unlearn(ensemble, usual, forget, ascent, seed=v)), SEED)
    yield OptionDoor(
        "unlearn(chunk)", lambda v: weights(ex.unlearn(ensemble, usual, forget, ascent, chunk=v)), _or_none(COUNT)
    )
    yield OptionDoor(
        "unlearn(workers)", lambda v: weights(ex.unlearn(ensemble, usual, forget, ascent, workers=v)), _or_none(COUNT_0)
    )
    yield OptionDoor(
        "unlearn(targets_cost)",
        lambda v: weights(ex.unlearn(ensemble, usual, forget, ascent, targets_cost=v)),
        AT_LEAST_0,
    )
    yield OptionDoor("Ensemble.module", lambda v: list(ensemble.module(v).parameters()), None)
    yield OptionDoor("Ensemble[]", lambda v: weights(ensemble[v]), None)
    yield OptionDoor("Ensemble.logits(budget)", lambda v: ensemble.logits(VX, budget=v), COUNT)
    yield OptionDoor("Ensemble.to", lambda v: weights(ensemble.to(v)), NEVER)
    yield OptionDoor("Recipe.rate", lambda v: ex.Recipe(schedule="cosine").rate(v), None)
    yield OptionDoor("Recipe.compressed", lambda v: dataclasses.asdict(ex.Recipe().compressed(v)), COUNT)
    yield OptionDoor("Recipe.steps_per_epoch", lambda v: ex.Recipe().steps_per_epoch(v), None)
    yield OptionDoor("score(tolerance)", lambda v: plainly(ex.score(u, o, tolerance=v).lines), _or_none(POSITIVE))
    yield OptionDoor("score(seed)", lambda v: plainly(ex.score(u, o, seed=v).lines), SEED)
    splits = ("forget", "retain", "validation")
    sides = dict.fromkeys(splits, u), dict.fromkeys(splits, o)
    yield OptionDoor("judge(tolerance)", lambda v: metrics.judge(*sides, tolerance=v), POSITIVE)
    yield OptionDoor("judge(seed)", lambda v: metrics.judge(*sides, seed=v), SEED)
    yield OptionDoor("Ruler(seed)", lambda v: metrics.Ruler(o, seed=v).score(u), SEED)
    yield OptionDoor("klom(bins)", lambda v: metrics.klom(u, o, bins=v), None)
    yield OptionDoor("klom(variant)", lambda v: metrics.klom(u, o, v), NEVER)
    yield OptionDoor("mmd(permutations)", lambda v: metrics.mmd(u, o, permutations=v), None)
    yield OptionDoor("mmd(seed)", lambda v: metrics.mmd(u, o, seed=v), SEED)
    yield OptionDoor("classifier_two_sample(seed)", lambda v: metrics.classifier_two_sample(u, o, seed=v), SEED)
    yield OptionDoor("ulira(seed)", lambda v: metrics.ulira(u, o, seed=v), SEED)
    yield OptionDoor(
        "distance_floor(members)", lambda v: metrics.distance_floor(metrics.wasserstein, o, members=v), None
    )
    yield OptionDoor("gaussian_epsilon(mu)", metrics.gaussian_epsilon, AT_LEAST_0)
    yield OptionDoor("gaussian_epsilon(delta)", lambda v: metrics.gaussian_epsilon(1.0, v), None)
    yield OptionDoor("roc(fpr)", lambda v: metrics.roc(u[0], o[0], fpr=v), None)
    yield OptionDoor("roc(threshold)", lambda v: metrics.roc(u[0], o[0], threshold=v), None)
    yield OptionDoor(
        "one_run_epsilon(correct)", lambda v: metrics.one_run_epsilon(100, 50, v), lambda v: is_count(v, 0, 50)
    )
    yield OptionDoor("mmd(width)", lambda v: metrics.mmd(u, o, width=v), None)
    yield OptionDoor("classifier_two_sample(folds)", lambda v: metrics.classifier_two_sample(u, o, folds=v), None)
    yield OptionDoor("classifier_two_sample(ridge)", lambda v: metrics.classifier_two_sample(u, o, ridge=v), None)
    yield OptionDoor(
        "challenge_score(calibration_examples)", lambda v: metrics.challenge_score(u, o, calibration_examples=v), None
    )
    yield OptionDoor("jensen_shannon(bins)", lambda v: metrics.jensen_shannon(u, o, bins=v), None)


def options(
    count: int, without: tuple[str, ...] = (), of: Callable[[], Iterator[OptionDoor]] = option_doors
) -> Iterator[Case]:
    """Yield cases of options: what fits is taken as the number that it is, all else refused."""
    doors = [door for door in of() if not door.name.startswith(without or "-")]
    for place, door in enumerate(doors):
        for value in drawn(OPTIONS, max(1, count // len(doors)), place):
            yield _option_case(door, value)


def _option_case(door: OptionDoor, value: Any) -> Case:
    expect: Expect = "either"
    if door.fits is not None:
        expect = "taken" if door.fits(value) else "refused"
    own = number(value)

    def sound(result: Any) -> bool:
        if door.kept:
            return type(result) in (int, float) and result == own
        return True

    return Case(door.name, _brief(value), lambda: door.call(value), expect, sound)


def _brief(value: Any) -> str:
    if isinstance(value, int) and abs(value) > 10**20:
        return f"a whole number of {value.bit_length()} bits"
    try:
        return f"{type(value).__name__} {value!a}"[:60]
    except Exception as error:
        return f"{type(value).__name__}, {type(error).__name__}"


# Files --------------------------------------------------------------------------------------------------------------


def files(count: int, folder: Path) -> Iterator[Case]:
    """Yield cases of files after accidents; what is read must be what a plain reader reads, or what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    u = _quarters(MEMBERS, 12, seed=1)
    positions = [3, 1, 7, 9, 11, 4]
    rows = [[str(v) for v in row] for row in u.tolist()]
    usual = task()
    whole: dict[str, bytes] = {
        ".npy": npy(u),
        ".npz": npz(forget=u, retain=u),
        ".safetensors": to_safetensors({"forget": u}),
    }

    def written(name: str, content: bytes) -> Path:
        path = folder / name
        path.write_bytes(content)
        return path

    for start in range(count):
        match start % 6:
            case 0 | 1 | 2:
                suffix = (".npy", ".npz", ".safetensors")[start % 6]
                what, content = damaged(whole[suffix], start)
                yield _file_case(f"read {suffix}", what, written(f"a{start}{suffix}", content), _finite_shapes)
            case 3:
                what, text = table(rows, start)
                path = written(f"a{start}.csv", text.encode("utf-8", "surrogatepass"))
                yield _file_case("read .csv", what, path, lambda found, text=text: _as_written(found[""], text))  # type: ignore[misc]
            case 4:
                what, text = table([[str(p)] for p in positions], start)
                path = written(f"f{start}{('.csv', '.txt')[start // 6 % 2]}", text.encode("utf-8", "surrogatepass"))
                yield Case(
                    "forget file", what, lambda path=path: from_file(usual, path).indices.tolist(), "either",
                    lambda got, text=text: set(got) == _positions(text),
                )  # type: ignore[misc]  # fmt: skip
            case _:
                what, content = damaged(npy(np.array(positions)), start)
                path = written(f"f{start}.npy", content)
                yield Case(
                    "forget .npy",
                    what,
                    lambda path=path: from_file(usual, path).indices,
                    "either",
                    lambda got: len(got) > 0,
                )  # type: ignore[misc]
    import pickle

    batch = {"data": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": [1, 2, 3], b"x": b"y"}
    for start in range(count // 8):
        what, content = damaged(pickle.dumps(batch, start % 6), start)
        yield Case("plain pickle", what, lambda content=content: read_plain_pickle(content, "it"), "either")  # type: ignore[misc]


def _file_case(door: str, what: str, path: Path, sound: Callable[[Any], bool]) -> Case:
    return Case(door, what, lambda: read_arrays(path), "either", sound)


def _finite_shapes(found: Any) -> bool:
    return all(isinstance(a, np.ndarray) and a.size < 10**6 for a in found.values())


def _as_written(found: np.ndarray, text: str) -> bool:
    """Whether numbers are those of the text, read by hand: lines, commas, and at most one line of names."""
    lines = [line for line in text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n") if line]
    cells = [[cell.strip().strip('"').strip() for cell in line.split(",")] for line in lines]

    def as_number(cell: str) -> float | None:
        try:
            return float(cell) if cell.isascii() and "_" not in cell else None
        except ValueError:
            return None

    numbers = [[as_number(cell) for cell in row] for row in cells]
    if all(value is None for value in numbers[0]) or cells[0] == list(map(str, range(len(cells[0])))):
        numbers = numbers[1:]
    if any(value is None for row in numbers for value in row) or len({len(row) for row in numbers}) != 1:
        return False
    return np.array_equal(found, np.array(numbers, float), equal_nan=True)


def _positions(text: str) -> set[int]:
    found = set()
    for line in text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        cell = line.strip().strip('",').strip()
        if re.fullmatch(r"[+-]?[0-9]+\.?0*", cell):
            found.add(int(float(cell)))
    return found


# Names --------------------------------------------------------------------------------------------------------------


def names(count: int) -> Iterator[Case]:
    """Yield cases of words where words are due."""
    usual = task()

    def listed(value: Any) -> Any:
        forget = ex.ForgetSet.of(usual, [1, 2], name=value, how="given")
        forget.name.encode()
        assert ".." not in Path(forget.name).parts
        return forget.name

    doors: dict[str, Callable[[Any], Any]] = {
        "Task(name)": lambda v: (t := task(name=v), t.name.encode(), json.dumps(t.describe()))[0].name,
        "ForgetSet(name)": listed,
        "ForgetSet(how)": lambda v: ex.ForgetSet.of(usual, [1], name="f", how=v).how.encode().decode(),
        "choose": lambda v: ex.tasks.choose(usual, v).forget.name,
        "load_task": ex.tasks.load_task,
        "Ensemble.from_files": lambda v: ex.Ensemble.from_files(v, usual),
        "Ensemble.load": lambda v: ex.Ensemble.load(v, usual),
        "read_arrays": read_arrays,
        "from_file": lambda v: from_file(usual, v),
        "cifar10": ex.tasks.cifar10,
        "train(device)": lambda v: ex.train(usual, members=1, device=v).ids,
        "Recipe(optimizer)": lambda v: ex.Recipe(optimizer=v).optimizer,
        "Task(outcome)": lambda v: task(outcome=v).outcome.name,
    }
    for place, (door, call) in enumerate(doors.items()):
        for word in drawn(st.one_of(WORDS, WORDS, OPTIONS), count // len(doors), place):
            yield Case(
                door,
                _brief(word),
                lambda f=call, v=word: f(v),
                "either",
                lambda got, v=word: got == v or not isinstance(got, str),
            )  # type: ignore[misc]


def made(count: int, folder: Path, without: tuple[str, ...] = ()) -> list[Case]:
    """Return about so many cases for the functions, except those whose names begin with one of these."""
    return [
        *arrays(round(0.4 * count), without),
        *options(round(0.4 * count), without),
        *files(round(0.14 * count), folder),
        *names(round(0.06 * count)),
    ]


# The command line ---------------------------------------------------------------------------------------------------

TASK = """
import numpy as np, torch
from torch import nn
import expunge as ex
Y = np.arange(120) % 3
X = (np.random.default_rng(3).normal(0, 1, (120, 5)) + 2 * np.eye(3, 5)[Y]).astype(np.float32)
recipe = ex.Recipe(epochs=2, batch_size=32, lr=.1, schedule="constant")
held = X[:40] + .1, Y[:40]
task = ex.Task(name="tiny", train=(X, Y), validation=held, model=lambda: nn.Linear(5, 3), recipe=recipe)
"""


def command(*words: str, folder: Path) -> Callable[[], None]:
    """Return a call of the command line with these words, in a folder."""

    def call() -> None:
        from expunge.cli import main

        os.chdir(folder)
        os.environ["COLUMNS"] = "100"
        torch.set_num_threads(1)
        sys.argv = ["expunge", *words]
        main()

    return call


NET = """class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(5, 3)
    def forward(self, x):
        LINE
        return self.l(x)
recipe = """

STATEMENTS = [
    "raise ValueError('my own')", "raise ValueError('x' * 100000)", "raise ValueError('x\\n' * 100)", "1 / 0",
    "assert False",
    "raise KeyboardInterrupt", "raise SystemExit", "raise SystemExit('bye')", "import sys; sys.exit(0)",
    "import sys; sys.exit(3)",
    "raise BaseException('base')", "raise GeneratorExit", "raise StopIteration", "raise MemoryError",
    "raise RecursionError", "import nothing_of_this_name",
    "def f(): return f()\nf()", "open('/nonexistent')", "raise UnicodeDecodeError('utf-8', b'x', 0, 1, 'no')",
    "raise Exception",
    "class E(Exception):\n    def __str__(self): raise ValueError('inner')\nraise E", "raise ValueError('[/x] :x:')",
    "raise ValueError('\\ud800')",
    "task = None", "task = 5", "task = ex.Task", "task = [task]", "task = {}", "del task", "task = lambda x: x",
    "task = lambda: None", "task = lambda: task",
    "def task(): raise SystemExit(0)", "def task():\n    yield 1", "async def task(): pass", "def task(): 1 / 0",
    "task.train = None",
    "print('hello')", "import warnings; warnings.simplefilter('error')", "torch.set_grad_enabled(False)",
    "torch.set_default_dtype(torch.float64)",
    "import os; os.chdir('/')", "np.random.seed(0)", "task.name = 'a' * 500",
    "torch.use_deterministic_algorithms(True)", "np.seterr(all='raise')",
    "import os; os._exit(0)", "import os; os.close(1)", "import sys; sys.stdout = None",
    "import sys; sys.stderr = None",
]  # fmt: skip
"""What a task file may do after, or in place of, defining its task."""

MODULES = {
    "raises in training": "if self.training: raise KeyError('mine')",
    "raises after a while": "self.n = getattr(self, 'n', 0) + 1\n        if self.n > 40: raise RuntimeError('later')",
    "frozen": "self.l.requires_grad_(False)",
    "returns None": "return None",
    "returns NaN": "return self.l(x) * float('nan')",
    "returns whole numbers": "return self.l(x).long()",
    "returns complex numbers": "return self.l(x) + 1j",
    "returns one number": "return self.l(x).sum()",
    "detaches": "return self.l(x).detach()",
    "leaves NumPy": "return torch.from_numpy(self.l(x).detach().numpy())",
    "changes its input": "x.zero_()",
    "branches": "return self.l(x) if x.mean() > 0 else -self.l(x)",
    "exits": "raise SystemExit(0)",
    "interrupts": "raise KeyboardInterrupt",
    "names nothing": "return self.nothing(x)",
    "recurses": "return self(x)",
    "asserts": "assert False, 'no'",
    "depends on the batch": "return self.l(x) - self.l(x).mean(0)",
    "draws": "return self.l(x) + torch.randn(())",
}


def commands(count: int, folder: Path) -> Iterator[Case]:
    """Yield about so many cases for the command line, of every verb."""
    folder.mkdir(parents=True, exist_ok=True)
    u, o = _quarters(MEMBERS, 12, seed=1), _quarters(MEMBERS, 12, seed=2)
    (folder / "tiny.py").write_text(TASK)
    (folder / "u.npy").write_bytes(npy(u))
    (folder / "o.npy").write_bytes(npy(o))
    (folder / "file").write_text("x")
    rows = [[str(v) for v in row] for row in u.tolist()]

    def shell(
        door: str, what: str, *words: str, expect: Expect = "either", sound: Callable[[str], bool] = lambda text: True
    ) -> Case:
        safe = tuple(word.replace("\0", "") for word in words)
        try:
            [word.encode() for word in safe]
        except UnicodeEncodeError:
            safe = tuple(
                word.encode(
                    "utf-8",
                    "surrogateescape"
                    if all(0xDC80 <= ord(c) <= 0xDCFF or not 0xD800 <= ord(c) <= 0xDFFF for c in word)
                    else "replace",
                ).decode("utf-8", "surrogateescape")
                for word in safe
            )
        return Case(door, what, command(*safe, folder=folder), expect, sound, shell=True)

    plain = score_files(folder / "u.npy", folder / "o.npy")
    right = plainly([[line.metric, line.value, line.floor] for line in plain.lines])

    def same_scores(text: str) -> bool:
        lines = json.loads(text[text.index("{") :])["lines"]
        return alike([[line["metric"], line["value"], line["floor"]] for line in lines], right)

    # Files for score.
    whole = {".npy": npy(u), ".npz": npz(forget=u), ".safetensors": to_safetensors({"forget": u})}
    for start in range(count // 5):
        suffix = (".npy", ".npz", ".safetensors", ".csv")[start % 4]
        if suffix == ".csv":
            what, text = table(rows, start + 10**6)
            content = text.encode("utf-8", "surrogatepass")
        else:
            what, content = damaged(whole[suffix], start + 10**6)
        path = folder / f"s{start}{suffix}"
        path.write_bytes(content)
        yield shell(f"score, a {suffix} file", what, "score", "--unlearned", path.name, "--oracle", "o.npy", "--json")
    for what, content in (
        ("a name twice", zipped([("forget.npy", npy(u)), ("forget.npy", npy(o))])),
        ("text in the archive", zipped([("forget.npy", b"hello")])),
        ("a bomb", zipped([("forget.npy", npy(np.zeros((400, 10**6))))])),
        ("a bomb beside", zipped([("forget.npy", npy(u)), ("other.npy", npy(np.zeros((400, 10**6))))])),
    ):
        (folder / f"{what}.npz").write_bytes(content)
        yield shell("score, an archive", what, "score", "--unlearned", f"{what}.npz", "--oracle", "o.npy", "--json",
                    expect="either" if what == "a bomb beside" else "refused")  # fmt: skip
    # Options.
    values = st.one_of(
        WORDS,
        st.integers().map(str),
        st.floats().map(str),
        st.sampled_from(["-1", "0", "1.5", "nan", "1e9", "20_0", "２０", " 20", "1000000000", "9" * 30]),
    )
    for place, (verb, flag) in enumerate(
        [("score", flag) for flag in ("--tolerance", "--seed", "--labels", "--retain", "--held-out-oracle",
        "--pretrained", "--oracle")]
        + [("audit", flag) for flag in ("--members", "--seed", "--tolerance", "--chunk", "--device", "--methods",
        "--forget", "--out", "--pretrained", "--oracles", "--train")]
        + [("forecast", flag) for flag in ("--members", "--followed", "--forget", "--device", "--methods")]
        + [("check", "--members"), ("theory", "--seed"), ("prove-forecast", "--members"), ("prove-forecast",
        "--device"), ("report", "")]
    ):  # fmt: skip
        usual: dict[str, list[str]] = {
            "score": ["score", "--unlearned", "u.npy", "--oracle", "o.npy", "--json"],
            "audit": [
                "audit",
                "tiny.py",
                "--forget",
                "random:5",
                "--members",
                "3",
                "--no-forecast",
                "--out",
                f"runs/{place}",
            ],
            "forecast": [
                "forecast",
                "tiny.py",
                "--forget",
                "random:5",
                "--members",
                "2",
                "--followed",
                "2",
                "--out",
                f"runs/{place}",
            ],
            "check": ["check", "nothing.py"],
            "theory": ["theory", "nothing", "--out", f"runs/{place}"],
            "prove-forecast": ["prove-forecast", "tiny.py", "--out", f"runs/{place}"],
            "report": ["report"],
        }
        for word in drawn(values, max(2, count // 50), place):
            yield shell(f"{verb} {flag}", _brief(word), *usual[verb], *([flag] if flag else []), word)
    # Task files.
    audit = (
        "--forget",
        "random:5",
        "--members",
        "20",
        "--methods",
        "gradient_ascent",
        "--no-forecast",
        "--chunk",
        "10",
    )
    for place, statement in enumerate(STATEMENTS):
        for way in ("after", "before"):
            name = f"t{place}{way}.py"
            (folder / name).write_text(
                TASK + statement + "\n"
                if way == "after"
                else "import torch, numpy as np, expunge as ex\n" + statement + TASK
            )
            ends = any(
                w in statement for w in ("exit", "raise", "1 / 0", "assert", "f()", "nothing", "open(")
            ) and not any(w in statement for w in ("def task", "seterr"))
            yield shell("a task file", f"{way}: {statement[:40]!r}", "audit", name, *audit, "--out",
            f"runs/t{place}{way}",
                        expect="refused" if ends else "either")  # fmt: skip
    for place, (what, line) in enumerate(MODULES.items()):
        text = TASK.replace(
            "recipe = ",
            NET.replace("LINE", line),
            1,
        )
        (folder / f"m{place}.py").write_text(text.replace("lambda: nn.Linear(5, 3)", "Net"))
        yield shell("a model", what, "audit", f"m{place}.py", *audit, "--out", f"runs/m{place}")
    for place, word in enumerate(drawn(WORDS, max(4, count // 40), 77)):
        yield shell("audit --out", _brief(word), "audit", "tiny.py", *audit, "--out", f"runs/o{place} {word}")
        (folder / f"n{place}.py").write_text(TASK.replace('"tiny"', ascii(word)), encoding="utf-8")
        yield shell("a task's name", _brief(word), "audit", f"n{place}.py", *audit, "--out", f"runs/n{place}")


__all__ = ["InputError", "commands", "made"]
