"""Trained small ensembles, each made once."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from expunge.core import Ensemble, Task
from expunge.ensembles import build_network, train
from expunge.ensembles.network import VmapNetwork
from reference.problems import small_task


@cache
def trained(name: str, kind: str = "auto", members: int = 3) -> tuple[Task, Ensemble]:
    task = small_task(name, epochs=12, lr=0.05)
    return task, train(task, members=members, seed=5, network=build_network(task, kind))


def modules(ensemble: Ensemble) -> list[nn.Module]:
    return [ensemble.module(member) for member in range(len(ensemble))]


def random_direction(linearised, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {n: torch.randn(t.shape, generator=g, dtype=t.dtype) for n, t in linearised.params.items()}


class LinearRegression(nn.Module):
    """One output, no bias: the model of a ridge problem."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1, bias=False)

    def forward(self, x):
        return self.linear(x)


class LogisticRegression(nn.Module):
    """Logits (0, w.x): the model of a logistic problem with labels 0 and 1."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1, bias=False)

    def forward(self, x):
        z = self.linear(x)
        return torch.cat([torch.zeros_like(z), z], dim=1)


def of_weights(module: nn.Module, weights) -> Ensemble:
    """An ensemble of linear models with given weights (members, features)."""
    rows = torch.as_tensor(weights)
    network = VmapNetwork(module.double(), torch.zeros(1, rows.shape[1], dtype=torch.float64))
    return Ensemble(network, {"linear.weight": rows[:, None, :]}, {}, tuple(range(len(rows))), 0)
