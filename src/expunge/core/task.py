"""The task: data in memory, a model factory, a training recipe."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core.checks import described, finite, instance, one_of, whole
from expunge.core.digest import digest_json, digest_tensors
from expunge.core.errors import InputError
from expunge.core.interface import Interface
from expunge.core.outcomes import OUTCOMES, Classes, Outcome
from expunge.core.recipe import Recipe
from expunge.core.seeds import derive

_BUILDING = threading.Lock()

Arrays = Any
"""Inputs and targets: a pair of tensors, arrays or columns."""

Fit = Callable[[nn.Module, Any, int], nn.Module | None]
"""The user's own training: from a fresh model, a data set of the member's rows and a seed to the trained model."""

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""From a batch of inputs (batch, ...) and a member's generator to changed inputs of the same shape."""


@dataclass(frozen=True)
class Split:
    """Inputs and labels of one part of the data."""

    x: Tensor
    """Inputs, shape (examples, ...)."""
    y: Tensor
    """Targets as the task's outcome reads them: class numbers (examples,), int64, for outcome `classes`."""

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Any) -> Split:
        """Return the examples of an index array, a mask or a slice."""
        return Split(self.x[index], self.y[index])


class Task:
    """Data in memory (train, validation), a model factory, and how a model is trained.

    Args:
        name: A short name; it appears in records and reports.
        train: Inputs (examples, ...) and targets, as tensors, NumPy arrays or pandas columns; inputs may be a mapping
            from names to arrays, which the model then takes as keywords. Floating-point inputs must be finite (float64
            is stored as float32 unless the recipe says float64).
        validation: The same for examples that no model is trained on.
        model: Called without arguments, returns a fresh `torch.nn.Module`; it draws its initial weights from PyTorch's,
            NumPy's or Python's global generator, which are all seeded. Its outputs are a tensor, a tuple that begins
            with one, or a mapping or an object with `logits`.
        recipe: How a model is trained; left out, the default recipe, which a `fit` does not read.
        outcome: What outputs mean: a name in `expunge.core.outcomes.OUTCOMES` (`classes`, `binary`, `labels`,
            `regression`, `sequences`) or an outcome.
        classes: Number of classes K of outcome `classes`; by default the model's outputs tell.
        fit: The user's own training: `fit(model, dataset, seed)` trains a fresh model on a member's rows and returns
            it, or None when trained in place.
        augment: Called with a batch of training inputs (batch, ...) and a `torch.Generator` of the member; returns
            inputs of the same shape. Not called by a `fit`, nor in prediction.

    Raises:
        InputError: If shapes disagree, targets do not fit the outcome, data are non-finite or empty, or the model's
            outputs do not fit the targets.
    """

    network_builder: ClassVar[Callable[[Task], Any] | None] = None
    """Set by `expunge.ensembles`: from a task to the `Network` that evaluates its models."""

    def __init__(
        self,
        *,
        name: str,
        train: Arrays,
        validation: Arrays,
        model: Callable[[], nn.Module],
        recipe: Recipe | None = None,
        outcome: str | Outcome = "classes",
        classes: int | None = None,
        fit: Fit | None = None,
        augment: Augment | None = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise InputError("name is empty or no text, expected a short name for the task.")
        if recipe is None:
            recipe = Recipe()
        if not isinstance(recipe, Recipe):
            raise InputError(f"recipe is a {type(recipe).__name__}, expected expunge.Recipe(...).")
        if not callable(model) or isinstance(model, nn.Module):
            raise InputError(
                f"model is a {type(model).__name__}, expected a function that returns a fresh torch.nn.Module each "
                "time; write model=lambda: MyNet(...)."
            )
        for what, function, expected in (
            ("fit", fit, "a function fit(model, dataset, seed)"),
            ("augment", augment, "a function augment(batch, generator)"),
        ):
            if function is not None and not callable(function):
                raise InputError(f"{what} is {described(function)}, expected {expected}.")
        dtype = torch.float64 if recipe.precision == "float64" else torch.float32
        self.name = name
        self.model = model
        self.recipe = recipe
        self.fit = fit
        self.augment = augment
        train, validation = _pair(train, "train"), _pair(validation, "validation")
        self.interface = Interface.of(train[0])
        meaning = _outcome(outcome, classes)
        if isinstance(meaning, Classes):
            meaning = meaning.named(train[1])
        self.train = _split(train, "train", dtype, self.interface, meaning)
        self.validation = _split(validation, "validation", dtype, self.interface, meaning)
        if self.train.x.shape[1:] != self.validation.x.shape[1:]:
            raise InputError(
                f"train inputs have shape {tuple(self.train.x.shape[1:])} an example, validation inputs "
                f"{tuple(self.validation.x.shape[1:])}; expected the same."
            )
        outputs = self._probe()
        self.outcome = meaning.fitted(self.train.y, outputs)
        for part, split in (("train", self.train), ("validation", self.validation)):
            try:
                self.outcome.check(outputs, split.y)
            except InputError as error:
                raise InputError(f"{part}: {error}") from None

    @property
    def classes(self) -> int:
        """Number of classes of the examples; 1 for outcomes that have none."""
        if isinstance(self.outcome, Classes):
            assert self.outcome.classes is not None
            return self.outcome.classes
        return int(self.outcome.groups(self.train.y).max()) + 1

    @cached_property
    def network(self) -> Any:
        """The `Network` that evaluates stacks of the task's models, chosen once (see `expunge.ensembles.network`)."""
        assert Task.network_builder is not None
        return Task.network_builder(self)

    def _probe(self) -> Tensor:
        """Return a fresh model's outputs for the first two training examples."""
        module = self.build(0)
        if not any(True for _ in module.parameters()):
            raise InputError("the model has no parameters, expected something that can be trained.")
        x = self.train.x[:2]
        try:
            with torch.no_grad():
                return self.interface.run(module.eval(), x)
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
            said = str(error).strip().partition("\n")[0] or type(error).__name__
            raise InputError(
                f"model()(x) failed for {len(x)} examples, x of shape {tuple(x.shape)} and type {x.dtype} (it said: "
                f"{said}); expected a model that takes one example of shape {tuple(x.shape[1:])} behind a batch axis. "
                "Change its first layer, or the shape or type of the inputs."
            ) from error

    def build(self, seed: int) -> nn.Module:
        """Return a fresh module whose initial weights depend on `seed` and on nothing else."""
        with seeded(seed):
            module = self.model()
        if not isinstance(module, nn.Module):
            raise InputError(f"model() returned a {type(module).__name__}, expected a torch.nn.Module.")
        return module.to(self.train.x.dtype if self.train.x.is_floating_point() else torch.float32)

    def with_labels(self, indices: np.ndarray[Any, Any], labels: Tensor, name: str) -> Task:
        """Return a copy of the task in which some training labels are replaced (used to plant wrong labels)."""
        y = self.train.y.clone()
        y[torch.as_tensor(indices)] = labels
        return Task(
            name=name,
            train=(self.interface.unpack(self.train.x), y),
            validation=(self.interface.unpack(self.validation.x), self.validation.y),
            model=self.model,
            recipe=self.recipe,
            outcome=self.outcome,
            fit=self.fit,
            augment=self.augment,
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the data, the model (structure, initial weights, outputs under a fixed seed) and the recipe."""
        module = self.build(derive(0, "fingerprint")).eval()
        with torch.no_grad():
            probe = self.interface.run(module, self.train.x[:4])
        data = {"x": self.train.x, "y": self.train.y, "vx": self.validation.x, "vy": self.validation.y}
        parts = {
            "data": digest_tensors(data),
            "structure": repr(module),
            "weights": digest_tensors(dict(module.state_dict())),
            "outputs": [f"{value:.3g}" for value in probe.flatten().tolist()],
            "recipe": self.recipe.to_dict(),
            "outcome": [self.outcome.name, repr(self.outcome)],
        }
        return digest_json(parts)

    def describe(self) -> dict[str, Any]:
        """Return the facts about the task that a record keeps."""
        module = self.build(0)
        return {
            "name": self.name,
            "train": len(self.train),
            "validation": len(self.validation),
            "input_shape": list(self.train.x.shape[1:]),
            "classes": self.classes,
            "model": type(module).__name__,
            "architecture": repr(module),
            "parameters": sum(p.numel() for p in module.parameters()),
            "has_statistics": has_statistics(module),
            "recipe": self.recipe.to_dict(),
            "fingerprint": self.fingerprint,
        }


def has_statistics(module: nn.Module) -> bool:
    """Return whether the module keeps running normalisation statistics (batch norm and its relatives)."""
    return any(getattr(layer, "running_mean", None) is not None for layer in module.modules())


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of PyTorch, NumPy and Python, which models draw from, and restore them afterwards."""
    # They are shared by all threads.
    with _BUILDING, torch.random.fork_rng(devices=[]):
        words, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
        finally:
            random.setstate(words)
            np.random.set_state(numbers)  # noqa: NPY002


def _outcome(outcome: str | Outcome, classes: int | None) -> Outcome:
    if isinstance(outcome, str):
        one_of(OUTCOMES, outcome=outcome)
        outcome = OUTCOMES[outcome]()
    instance(Outcome, f"one of {', '.join(OUTCOMES)}, or an expunge outcome", outcome=outcome)
    if classes is None:
        return outcome
    whole(classes=classes)
    if not isinstance(outcome, Classes):
        raise InputError(f"classes = {classes} was given for outcome {outcome.name!r}, expected outcome='classes'.")
    return replace(outcome, classes=classes)


def _pair(arrays: Any, part: str) -> tuple[Any, Any]:
    if not isinstance(arrays, tuple | list) or len(arrays) != 2:
        raise InputError(f"{part} is {described(arrays)}, expected a pair (x, y) of tensors, NumPy arrays or columns.")
    return arrays[0], arrays[1]


def _split(pair: tuple[Any, Any], part: str, dtype: torch.dtype, interface: Interface, outcome: Outcome) -> Split:
    try:
        x = interface.pack(pair[0])
    except InputError as error:
        raise InputError(f"{part}: {error}") from None
    y = outcome.read(pair[1], part)
    if x.ndim == 0 or len(x) != len(y):
        raise InputError(f"{part} has {len(x) if x.ndim else 0} inputs but {len(y)} labels, expected the same number.")
    finite(x, f"{part}.x")
    x = x.to(dtype) if x.is_floating_point() else x
    return Split(x.contiguous(), y.to(dtype) if y.is_floating_point() else y)
