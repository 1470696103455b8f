"""The slow obvious twin of `expunge.train`: plain PyTorch, one model at a time, one optimiser each.

Seeds follow the rule in words: a member's seed comes from the study's seed, its own examples and its index; its initial
weights and the order of every epoch come from that seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.core import Recipe, Task
from expunge.core.seeds import derive, generator


def member_seed(seed: int, examples: np.ndarray, member: int) -> int:
    digest = hashlib.sha256(np.asarray(examples, dtype="<i8").tobytes()).hexdigest()[:16]
    return derive(seed, "member", digest, member)


def optimiser_of(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            module.parameters(), lr=1.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay, foreach=False
        )
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return kind(
        module.parameters(), lr=1.0, betas=(recipe.momentum, 0.999), weight_decay=recipe.weight_decay, foreach=False
    )


def train_one(
    task: Task, examples: np.ndarray, member: int, seed: int, recipe: Recipe | None = None, epochs: int | None = None
) -> nn.Module:
    """Train one member on `examples` (sorted positions) and return it in evaluation mode."""
    recipe = recipe or task.recipe
    own = member_seed(seed, examples, member)
    return train_with_seed(task, examples, own, recipe, recipe.epochs if epochs is None else epochs)


def train_with_seed(task: Task, examples: np.ndarray, own: int, recipe: Recipe, epochs: int) -> nn.Module:
    torch.manual_seed(derive(own, "initialisation"))
    module = task.model().to(task.train.x.dtype).train()
    optimiser = optimiser_of(module, recipe)
    x, y, k = task.train.x, task.train.y, len(examples)
    for epoch in range(epochs):
        order = examples[torch.randperm(k, generator=generator(own, "order", epoch)).numpy()]
        parts = [order[start : start + recipe.batch_size] for start in range(0, k, recipe.batch_size)]
        if recipe.last_batch == "drop":
            parts = [part for part in parts if len(part) == recipe.batch_size]
        for number, part in enumerate(parts):
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(epoch + (number + 0.5) / len(parts))
            optimiser.zero_grad()
            F.cross_entropy(module(x[part]), y[part]).backward()
            optimiser.step()
    return module.eval()


def stack(modules: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Parameters and buffers of modules, stacked along a new leading axis."""
    states = [module.state_dict() for module in modules]
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def train_in_turn(
    task: Task, parts: Sequence[tuple[np.ndarray, int]], own: int, recipe: Recipe | None = None
) -> nn.Module:
    """Train one model on some rows until an epoch, then on others until another; what steps remember goes on."""
    recipe = recipe or task.recipe
    torch.manual_seed(derive(own, "initialisation"))
    module = task.model().to(task.train.x.dtype).train()
    optimiser, first = optimiser_of(module, recipe), 0
    for rows, last in parts:
        for epoch in range(first, last):
            order = rows[torch.randperm(len(rows), generator=generator(own, "order", epoch)).numpy()]
            batches = [order[start : start + recipe.batch_size] for start in range(0, len(rows), recipe.batch_size)]
            if recipe.last_batch == "drop":
                batches = [batch for batch in batches if len(batch) == recipe.batch_size]
            for number, batch in enumerate(batches):
                for group in optimiser.param_groups:
                    group["lr"] = recipe.rate(epoch + (number + 0.5) / len(batches))
                optimiser.zero_grad()
                F.cross_entropy(module(task.train.x[batch]), task.train.y[batch]).backward()
                optimiser.step()
        first = last
    return module.eval()
