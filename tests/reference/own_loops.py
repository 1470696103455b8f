"""Training loops as users write them, for tests; each trains a small model in a fraction of a second."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from expunge.core import Recipe, Task

EPOCHS = 3


def loop(model, dataset, seed):
    """Train by SGD over a shuffling DataLoader, as in any tutorial."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(EPOCHS):
        for x, y in DataLoader(dataset, batch_size=16, shuffle=True):
            optimiser.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimiser.step()


def careful_loop(model, dataset, seed):
    """Train with AdamW, warm-up, clipping, dropout, label smoothing, parameter groups, an order drawn by NumPy."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=0.02)
    steps = EPOCHS * -(-len(dataset) // 16)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda n: min(1.0, (n + 1) / 5) * (1 - n / (steps + 1)))
    draw = np.random.default_rng(seed)
    x, y = dataset.x, dataset.y
    for _ in range(EPOCHS):
        order = draw.permutation(len(dataset))
        for start in range(0, len(order), 16):
            part = order[start : start + 16]
            loss = F.cross_entropy(model(x[part]), y[part], label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return model


def net(dropout=0.0):
    """Return a small classifier of 6 numbers."""
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3))


def own_task(fit=loop, model=net, examples=96, **options):
    """Return a task of three blurred clouds in 6 dimensions that trains by a loop of its own."""
    g = torch.Generator().manual_seed(5)
    y = torch.arange(examples + 48) % 3
    x = torch.randn(examples + 48, 6, generator=g) + 1.2 * F.one_hot(y, 6)
    options = {"recipe": Recipe(epochs=EPOCHS, batch_size=16, lr=0.3), **options}
    return Task(
        name="clouds",
        train=(x[:examples], y[:examples]),
        validation=(x[examples:], y[examples:]),
        model=model,
        fit=fit,
        **options,
    )
