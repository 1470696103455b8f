"""Slow obvious twins of the unlearning methods: one model, a plain PyTorch loop, its own optimiser.

Batch orders follow the rule in words: a member's seed comes from the run's seed, the method's name and the member's
index; the order of every pass comes from that seed and the pass's name.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.core import Task
from expunge.core.seeds import derive, generator


def passes(positions: np.ndarray, seed: int, method: str, member: int, what: str, batch: int) -> Iterator[np.ndarray]:
    own = derive(derive(seed, "unlearn", method, member), what)
    order = positions[torch.randperm(len(positions), generator=generator(own, "order", 0)).numpy()]
    for start in range(0, len(order), batch):
        yield order[start : start + batch]


def sgd(module: nn.Module, method) -> torch.optim.Optimizer:
    momentum, decay = method.momentum, method.weight_decay
    return torch.optim.SGD(module.parameters(), lr=method.lr, momentum=momentum, weight_decay=decay, foreach=False)


def normalise(module: nn.Module, statistics: str) -> None:
    module.train(statistics == "updated")


def update(module: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def gradient_ascent(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> nn.Module:
    module = copy.deepcopy(module)
    normalise(module, method.statistics)
    optimiser = sgd(module, method)
    for epoch in range(1, method.epochs + 1):
        for part in passes(forget.indices, seed, "gradient_ascent", member, f"forget-{epoch}", method.batch):
            update(module, optimiser, -F.cross_entropy(module(task.train.x[part]), task.train.y[part]))
    return module.eval()


def fine_tune(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> nn.Module:
    module = copy.deepcopy(module)
    normalise(module, method.statistics)
    optimiser = sgd(module, method)
    for epoch in range(1, method.epochs + 1):
        for part in passes(forget.retain, seed, "fine_tune", member, f"retain-{epoch}", method.batch):
            update(module, optimiser, F.cross_entropy(module(task.train.x[part]), task.train.y[part]))
    return module.eval()


def gradient_descent_ascent(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> nn.Module:
    module, name = copy.deepcopy(module), "gradient_descent_ascent"
    normalise(module, method.statistics)
    optimiser = sgd(module, method)
    for epoch in range(1, method.epochs + 1):
        if epoch <= method.ascent_epochs:
            for part in passes(forget.indices, seed, name, member, f"forget-{epoch}", method.forget_batch):
                update(module, optimiser, -F.cross_entropy(module(task.train.x[part]), task.train.y[part]))
        for part in passes(forget.retain, seed, name, member, f"retain-{epoch}", method.batch):
            update(module, optimiser, F.cross_entropy(module(task.train.x[part]), task.train.y[part]))
    return module.eval()


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The loss of the official SCRUB code: KL of softened outputs, averaged over the batch, times T squared."""
    return (
        F.kl_div(F.log_softmax(student / temperature, 1), F.softmax(teacher / temperature, 1), reduction="batchmean")
        * temperature**2
    )


def scrub(module: nn.Module, task: Task, forget, method, seed: int, member: int) -> nn.Module:
    teacher = copy.deepcopy(module).eval()
    student = copy.deepcopy(module)
    normalise(student, method.statistics)
    optimiser = sgd(student, method)  # of the student: the teacher must not move
    x, y = task.train.x, task.train.y
    for epoch in range(1, method.epochs + 1):
        for group in optimiser.param_groups:
            group["lr"] = method.lr * method.decay ** sum(epoch >= e for e in method.decay_epochs)
        if epoch <= method.msteps:
            for part in passes(forget.indices, seed, "scrub", member, f"forget-{epoch}", method.forget_batch):
                with torch.no_grad():
                    target = teacher(x[part])
                update(student, optimiser, -distillation(student(x[part]), target, method.temperature))
        for part in passes(forget.retain, seed, "scrub", member, f"retain-{epoch}", method.batch):
            with torch.no_grad():
                target = teacher(x[part])
            logits = student(x[part])
            near = distillation(logits, target, method.temperature)
            update(student, optimiser, method.gamma * F.cross_entropy(logits, y[part]) + method.alpha * near)
    return student.eval()


TWINS = {
    "gradient_ascent": gradient_ascent,
    "fine_tune": fine_tune,
    "gradient_descent_ascent": gradient_descent_ascent,
    "scrub": scrub,
}
