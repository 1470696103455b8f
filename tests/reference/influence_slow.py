"""Slow obvious twins of the dependence room: one module at a time, whole Jacobians by autograd, dense matrices."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.core import margins_from_logits


def parameters_of(module: nn.Module) -> list[Tensor]:
    return [p for p in module.parameters() if p.requires_grad]


def row(values: list[Tensor]) -> Tensor:
    return torch.cat([value.reshape(-1) for value in values])


def jacobian(module: nn.Module, x: Tensor) -> Tensor:
    """Derivative of every output by every parameter, (examples, classes, parameters), one entry at a time."""
    params = parameters_of(module)
    out = []
    for one in x:
        logits = module(one[None])[0]
        out.append(torch.stack([row(list(torch.autograd.grad(z, params, retain_graph=True))) for z in logits]))
    return torch.stack(out)


def margin_gradients(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Gradient of every margin, (examples, parameters)."""
    params = parameters_of(module)
    return torch.stack(
        [
            row(list(torch.autograd.grad(margins_from_logits(module(x[i : i + 1]), y[i : i + 1])[0], params)))
            for i in range(len(x))
        ]
    )


def loss_gradients(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Gradient of every cross-entropy, (examples, parameters)."""
    params = parameters_of(module)
    return torch.stack(
        [
            row(list(torch.autograd.grad(F.cross_entropy(module(x[i : i + 1]), y[i : i + 1]), params)))
            for i in range(len(x))
        ]
    )


def gauss_newton(module: nn.Module, x: Tensor) -> Tensor:
    """Sum over examples of J^T (diag p - p p^T) J, (parameters, parameters)."""
    total = 0
    for j, z in zip(jacobian(module, x), module(x).detach(), strict=True):
        p = z.softmax(0)
        total = total + j.T @ (torch.diag(p) - torch.outer(p, p)) @ j
    return total


def margin_curvature(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Sum over examples of p (1 - p) times the outer product of the margin's gradient, (parameters, parameters)."""
    total = 0
    for g, z, label in zip(margin_gradients(module, x, y), module(x).detach(), y, strict=True):
        p = z.softmax(0)[label]
        total = total + p * (1 - p) * torch.outer(g, g)
    return total


def removal_slow(
    module: nn.Module, x: Tensor, y: Tensor, forget: Tensor, ridge: float, order: str, curvature: Tensor, own: Tensor
) -> Tensor:
    """The move (parameters,) from curvatures of D and of F that the caller formed."""
    eye = torch.eye(len(curvature), dtype=curvature.dtype)
    matrix = curvature + ridge * eye
    if order == "newton":
        matrix = matrix - own
    return torch.linalg.solve(matrix, loss_gradients(module, x[forget], y[forget]).sum(0))
