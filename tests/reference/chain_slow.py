"""The slow obvious twins of a chain of requests and of its readings: one model, one row, one replicate at a time."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from expunge.core import Task
from expunge.core.seeds import derive, generator
from expunge.metrics import klom


def left_after(task: Task, removed: Sequence[np.ndarray], request: int) -> np.ndarray:
    """Return the rows that no request up to this one names."""
    gone = {int(row) for block in removed[:request] for row in block}
    return np.array([row for row in range(len(task.train)) if row not in gone])


def fine_tune_request(
    task: Task,
    module: nn.Module,
    member: int,
    removed: Sequence[np.ndarray],
    request: int,
    anchor: set[int],
    *,
    lr: float,
    epochs: int,
    batch: int,
    seed: int,
) -> nn.Module:
    """Return one member after fine-tuning on what is left; rows outside the anchor have labels drawn from the start."""
    own = derive(derive(seed, "request", request), "unlearn", "fine_tune", member)
    x, real = task.train.x, task.train.y
    with torch.no_grad():
        logits = module(x)
    noise = torch.rand(logits.shape, generator=generator(own, "labels"), dtype=torch.float64)
    labels = [
        int(real[row]) if row in anchor else int((logits[row].double() - torch.log(-torch.log(noise[row]))).argmax())
        for row in range(len(real))
    ]
    left = left_after(task, removed, request)
    student = copy.deepcopy(module)
    optimiser = torch.optim.SGD(student.parameters(), lr=lr)
    for epoch in range(1, epochs + 1):
        order = left[torch.randperm(len(left), generator=generator(derive(own, f"retain-{epoch}"), "order", 0)).numpy()]
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            optimiser.zero_grad()
            F.cross_entropy(student(x[part]), torch.tensor([labels[row] for row in part])).backward()
            optimiser.step()
    return student


def readings_slow(
    margins: np.ndarray, oracle: np.ndarray, unit: np.ndarray | None = None, errors: int = 1
) -> dict[str, float]:
    """Return the readings of sound models, row by row, before roots and floor.

    Args:
        margins: Of the models (members, rows).
        oracle: Of the oracles.
        unit: Variances that count as 1; by default those of the oracles.
        errors: How often the errors of both means are taken off.
    """
    shifts, ratios = [], []
    units = oracle.var(0, ddof=1) if unit is None else unit
    for mine, theirs, one in zip(margins.T, oracle.T, units, strict=True):
        noise = mine.var(ddof=1) / len(mine) + theirs.var(ddof=1) / len(theirs)
        shifts.append(((mine.mean() - theirs.mean()) ** 2 - errors * noise) / one)
        ratios.append(mine.var(ddof=1) / one)
    return {
        "klom": float(np.percentile(klom(margins, oracle), 95)),
        "shift": float(np.mean(shifts)),
        "spread": float(np.mean(ratios)),
    }
