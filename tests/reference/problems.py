"""Small tasks for the tests: real enough to train, small enough for a second."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.core import ForgetSet, InputError, Recipe, Task


class SmallResNet(nn.Module):
    """Convolutions, batch norm, residual adds, pooling: everything a ResNet has, with few weights."""

    def __init__(self, channels: int = 4, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(2 * channels)
        self.shortcut = nn.Conv2d(channels, 2 * channels, 1, stride=2, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2 * channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = x + F.relu(self.first_norm(self.first(x)))
        x = F.relu(self.second_norm(self.second(x)) + self.shortcut(x))
        return self.head(torch.flatten(self.pool(x), 1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def mlp_norm() -> nn.Module:
    # Without a bias: batch norm takes it out again, so its gradient is pure rounding, which Adam blows up to 1e-9.
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def logistic() -> nn.Module:
    return nn.Linear(6, 3)


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6 * 2 * 2, 3),
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "logistic": (logistic, (6,)),
    "mlp": (mlp, (6,)),
    "mlp_norm": (mlp_norm, (6,)),
    "cnn": (cnn, (1, 8, 8)),
    "resnet": (SmallResNet, (1, 8, 8)),
}


def blobs(shape: tuple[int, ...], n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three overlapping classes, float64."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (n,), generator=g)
    centres = torch.randn(3, *shape, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    return centres[y] + 1.5 * torch.randn(n, *shape, generator=g, dtype=torch.float64), y


def small_task(name: str = "mlp", n: int = 50, model: Callable[[], nn.Module] | None = None, **recipe: Any) -> Task:
    """A task of `n` training examples in three classes; float64 unless the recipe says otherwise."""
    return copy.copy(_tried(name, n, model, **recipe))


@cache
def _tried(name: str, n: int, model: Callable[[], nn.Module] | None, **recipe: Any) -> Task:
    """The task, for which it was tried how its models are computed: that takes longer than training them."""
    factory, shape = MODELS[name]
    options: dict[str, Any] = {
        "epochs": 3,
        "batch_size": 16,
        "lr": 0.1,
        "peak_epoch": 1.0,
        "precision": "float64",
        "weight_decay": 1e-2,
    }
    train, validation = blobs(shape, n, 1), blobs(shape, 20, 2)
    task = Task(
        name=f"small-{name}",
        train=train,
        validation=validation,
        model=model or factory,
        recipe=Recipe(**{**options, **recipe}),
        classes=3,
    )
    with contextlib.suppress(InputError):
        assert task.network
    return task


def forget_set(task: Task, size: int = 7, seed: int = 0) -> ForgetSet:
    chosen = np.random.default_rng(seed).choice(len(task.train), size, replace=False)
    return ForgetSet.of(task, chosen, name=f"some-{size}", how="drawn for a test")


def poisoned(task: Task, positions: Sequence[int] | np.ndarray, value: float) -> Task:
    """The same task with a value in place of every feature of some training examples."""
    x = task.train.x.clone()
    x[torch.as_tensor(positions)] = value
    return Task(
        name=task.name,
        train=(x, task.train.y),
        validation=(task.validation.x, task.validation.y),
        model=task.model,
        recipe=task.recipe,
        classes=task.classes,
    )
