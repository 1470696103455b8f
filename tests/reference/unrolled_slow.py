"""Slow twins of unrolled influence and of the reduced model: one member, dense matrices, a loop an example."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from expunge.core import ForgetSet, Task


def flat_logits(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (classes,) of one example and their Jacobian (classes, parameters), by reverse mode."""
    logits = module(x.unsqueeze(0))[0]
    rows = []
    for value in logits:
        grads = torch.autograd.grad(value, list(module.parameters()), retain_graph=True)
        rows.append(torch.cat([grad.reshape(-1) for grad in grads]))
    return logits.detach(), torch.stack(rows).detach()


def sums(module: nn.Module, task: Task, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Gradient and Gauss-Newton matrix of the cross-entropy summed over examples."""
    size = sum(p.numel() for p in module.parameters())
    gradient, matrix = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
    for i in positions:
        logits, jacobian = flat_logits(module, task.train.x[i])
        p = logits.softmax(0)
        one_hot = torch.zeros_like(p)
        one_hot[task.train.y[i]] = 1
        gradient += jacobian.T @ (p - one_hot)
        matrix += jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian
    return gradient, matrix


def unrolled(modules: Sequence[nn.Module], times: Sequence[float], task: Task, forget: ForgetSet) -> Tensor:
    """The recursion of the module docstring with dense matrix exponentials."""
    moved = None
    size, decay = len(forget.retain), task.recipe.weight_decay
    for module, time in zip(modules, times, strict=True):
        _, kept = sums(module, task, forget.retain.tolist())
        pull, _ = sums(module, task, forget.indices.tolist())
        theta = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
        pull = pull + decay * len(forget) * theta
        h = kept / size + decay * torch.eye(len(theta), dtype=torch.float64)
        left = torch.linalg.matrix_exp(-time * h)
        step = torch.linalg.solve(h, (torch.eye(len(theta), dtype=torch.float64) - left) @ pull / size)
        moved = step if moved is None else left @ moved + step
    return moved


def linearised_ascent(
    module: nn.Module, task: Task, batches: Sequence[Sequence[int]], lr: float, decay: float, momentum: float
) -> Tensor:
    """Weights after SGD ascent on the linearised module over given batches, relative to the start."""
    tables = {i: flat_logits(module, task.train.x[i]) for batch in batches for i in batch}
    theta = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
    moved, velocity = torch.zeros_like(theta), None
    for batch in batches:
        gradient = torch.zeros_like(theta)
        for i in batch:
            logits, jacobian = tables[i]
            p = (logits + jacobian @ moved).softmax(0)
            p[task.train.y[i]] -= 1
            gradient -= jacobian.T @ p / len(batch)
        gradient += decay * (theta + moved)
        velocity = gradient if velocity is None else momentum * velocity + gradient
        moved = moved - lr * velocity
    return moved
