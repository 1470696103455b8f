"""The task: data in memory, a model factory, a training recipe."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core.checks import finite, whole
from expunge.core.digest import digest_json, digest_tensors
from expunge.core.errors import InputError
from expunge.core.recipe import Recipe
from expunge.core.seeds import derive

_BUILDING = threading.Lock()

Arrays = tuple[Any, Any]
"""Inputs and labels, tensors or NumPy arrays."""


@dataclass(frozen=True)
class Split:
    """Inputs and labels of one part of the data."""

    x: Tensor
    """Inputs, shape (examples, ...)."""
    y: Tensor
    """Labels, shape (examples,), int64, from 0 to classes - 1."""

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Any) -> Split:
        """Return the examples of an index array, a mask or a slice."""
        return Split(self.x[index], self.y[index])


class Task:
    """Data in memory (train, validation), a model factory, a training recipe.

    Args:
        name: A short name; it appears in records and reports.
        train: Inputs (examples, ...) and labels (examples,), tensors or NumPy arrays; floating-point inputs must be
            finite (float64 is stored as float32 unless the recipe says float64).
        validation: The same for examples that no model is trained on.
        model: Called without arguments, returns a fresh `torch.nn.Module` that maps (batch, ...) to
            (batch, classes); it draws its initial weights from PyTorch's global generator.
        recipe: How a model is trained.
        classes: Number of classes K; by default one more than the largest label.

    Raises:
        InputError: If shapes disagree, labels leave the range, data are non-finite or empty, or the model does not
            return (batch, classes).
    """

    def __init__(
        self,
        *,
        name: str,
        train: Arrays,
        validation: Arrays,
        model: Callable[[], nn.Module],
        recipe: Recipe,
        classes: int | None = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise InputError("name is empty or no text, expected a short name for the task.")
        if not isinstance(recipe, Recipe):
            raise InputError(f"recipe is a {type(recipe).__name__}, expected expunge.Recipe(...).")
        if not callable(model) or isinstance(model, nn.Module):
            raise InputError(
                f"model is a {type(model).__name__}, expected a function that returns a fresh torch.nn.Module each "
                "time; write model=lambda: MyNet(...)."
            )
        if classes is not None:
            whole(classes=classes)
        dtype = torch.float64 if recipe.precision == "float64" else torch.float32
        self.name = name
        self.train = _split(train, "train", dtype)
        self.validation = _split(validation, "validation", dtype)
        self.model = model
        self.recipe = recipe
        if self.train.x.shape[1:] != self.validation.x.shape[1:]:
            raise InputError(
                f"train inputs have shape {tuple(self.train.x.shape[1:])} an example, validation inputs "
                f"{tuple(self.validation.x.shape[1:])}; expected the same."
            )
        self.classes = int(self.train.y.max()) + 1 if classes is None else classes
        for part, split in (("train", self.train), ("validation", self.validation)):
            low, high = int(split.y.min()), int(split.y.max())
            if low < 0 or high >= self.classes:
                raise InputError(
                    f"{part} labels run from {low} to {high}, expected 0 to {self.classes - 1} "
                    f"(classes = {self.classes})."
                )
        if self.classes < 2:
            raise InputError(
                "train has one class only, expected at least 2: a margin compares the true class with others."
            )
        self._check_model()

    def _check_model(self) -> None:
        module = self.build(0)
        if not any(True for _ in module.parameters()):
            raise InputError("the model has no parameters, expected something that can be trained.")
        out = self._try(module.eval())
        if not isinstance(out, Tensor) or tuple(out.shape) != (min(2, len(self.train)), self.classes):
            came = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise InputError(
                f"model()(x) for 2 examples returned {came}, expected logits of shape (2, {self.classes}). "
                "Change the last layer, or pass classes=."
            )

    def _try(self, module: nn.Module) -> Any:
        x = self.train.x[:2]
        try:
            with torch.no_grad():
                return module(x)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            said = str(error).strip().partition("\n")[0] or type(error).__name__
            raise InputError(
                f"model()(x) failed for {len(x)} examples, x of shape {tuple(x.shape)} and type {x.dtype} (it said: "
                f"{said}); expected a model that takes one example of shape {tuple(x.shape[1:])} behind a batch axis. "
                "Change its first layer, or the shape or type of the inputs."
            ) from error

    def build(self, seed: int) -> nn.Module:
        """Return a fresh module whose initial weights depend on `seed` and on nothing else."""
        # Layers draw their weights from the global generator, which threads share.
        with _BUILDING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
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
            train=(self.train.x, y),
            validation=(self.validation.x, self.validation.y),
            model=self.model,
            recipe=self.recipe,
            classes=self.classes,
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the data, the model (structure, initial weights, outputs under a fixed seed) and the recipe."""
        module = self.build(derive(0, "fingerprint")).eval()
        with torch.no_grad():
            probe = module(self.train.x[:4])
        data = {"x": self.train.x, "y": self.train.y, "vx": self.validation.x, "vy": self.validation.y}
        parts = {
            "data": digest_tensors(data),
            "structure": repr(module),
            "weights": digest_tensors(dict(module.state_dict())),
            "outputs": [f"{value:.3g}" for value in probe.flatten().tolist()],
            "recipe": self.recipe.to_dict(),
            "classes": self.classes,
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


def _split(arrays: Arrays, part: str, dtype: torch.dtype) -> Split:
    if not isinstance(arrays, tuple) or len(arrays) != 2:
        raise InputError(f"{part} is a {type(arrays).__name__}, expected a pair (x, y) of tensors or NumPy arrays.")
    try:
        x, y = (torch.as_tensor(np.asarray(a) if not isinstance(a, Tensor) else a) for a in arrays)
    except (TypeError, ValueError) as error:
        raise InputError(f"{part} cannot be read as tensors ({error}); expected numeric arrays.") from error
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise InputError(
            f"{part} labels have shape {tuple(y.shape)}, expected (examples,) with class numbers, not one-hot."
        )
    if len(x) != len(y):
        raise InputError(f"{part} has {len(x)} inputs but {len(y)} labels, expected the same number.")
    if len(x) == 0:
        raise InputError(f"{part} is empty, expected at least one example.")
    finite(x, f"{part}.x")
    finite(y, f"{part}.y")
    if y.is_floating_point() and not bool((y == y.round()).all()):
        raise InputError(f"{part} labels are fractional, expected class numbers 0, 1, 2, ...")
    x = x.detach().to(dtype) if x.is_floating_point() else x.detach()
    return Split(x.contiguous(), y.detach().long().contiguous())
