"""A stack whose trainable weights are one row a member, with gradients, directional derivatives and curvature products.

With f(theta) the outputs of a member for some examples and L the sum of their losses,

    gradient    grad L
    risen       J v, J the derivative of f by theta, times the slope of each loss: how fast it changes along v
    product     J^T H J v, H the second derivative of L by the outputs (Gauss-Newton); or the Hessian of L times v

J v is the derivative by u of <J^T u, v>, so that two backward passes give it for any network. Normalisation statistics
are the stored ones, and nothing is dropped.

Source: Martens, "Deep learning via Hessian-free optimization" (ICML 2010) for the products.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from expunge.core import Ensemble
from expunge.core.stopping import check_stopped
from expunge.core.tree import State
from expunge.ensembles.example_gradients import trainable

BATCH = 2**20
"""Numbers that the largest activation of a batch may hold."""


class FlatStack:
    """Derivatives of a stack at its weights; rows are (members, trainable weights).

    Args:
        ensemble: The stack.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble
        names = trainable(ensemble)
        self.params: State = {name: ensemble.params[name].detach() for name in names}
        self.fixed: State = {name: t.detach() for name, t in ensemble.params.items() if name not in self.params}
        self.flat = torch.cat([tensor.flatten(1) for tensor in self.params.values()], dim=1)
        """The weights."""
        self.batch = max(1, BATCH // max(1, ensemble.network.widest * len(ensemble)))

    def unflatten(self, rows: Tensor) -> State:
        """Return rows as tensors by parameter, each (members, ...)."""
        parts = torch.split(rows, [tensor[0].numel() for tensor in self.params.values()], dim=1)
        return {name: part.reshape(own.shape) for (name, own), part in zip(self.params.items(), parts, strict=True)}

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the gradient of the loss summed over examples x with targets y."""
        total = torch.zeros_like(self.flat)
        for leaf, outputs, labels in self._batches(x, y):
            total += torch.autograd.grad(self._loss(outputs, labels), leaf)[0]
        return total

    def product(self, x: Tensor, y: Tensor, v: Tensor, curvature: Literal["ggn", "hessian"]) -> Tensor:
        """Return the curvature of the summed loss times rows v."""
        total = torch.zeros_like(v)
        for leaf, outputs, labels in self._batches(x, y):
            if curvature == "hessian":
                (g,) = torch.autograd.grad(self._loss(outputs, labels), leaf, create_graph=True)
                total += torch.autograd.grad((g * v).sum(), leaf)[0] if g.requires_grad else 0.0
                continue
            slope, z = self._slope(outputs, labels, create_graph=True)
            (bent,) = torch.autograd.grad((slope * _moved(outputs, leaf, v)).sum(), z)
            total += torch.autograd.grad(outputs, leaf, bent)[0]
        return total

    def risen(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Return how fast the loss of each example changes along rows v, (members, examples)."""
        found = []
        for leaf, outputs, labels in self._batches(x, y):
            slope, _ = self._slope(outputs, labels, create_graph=False)
            found.append((slope * _moved(outputs, leaf, v)).flatten(2).sum(2).detach())
        return torch.cat(found, 1)

    def _loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return self.ensemble.network.outcome.loss(outputs, labels).sum()

    def _slope(self, outputs: Tensor, labels: Tensor, *, create_graph: bool) -> tuple[Tensor, Tensor]:
        """Return the derivative of the loss by the outputs, and the outputs that it is a function of."""
        z = outputs.detach().requires_grad_(True)
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self._loss(z, labels), z, create_graph=create_graph)
        return slope, z

    def _batches(self, x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        network, precision = self.ensemble.network, self.flat.dtype
        for begin in range(0, len(x), self.batch):
            check_stopped()
            part = x[begin : begin + self.batch]
            part = part.to(precision) if part.is_floating_point() else part
            leaf = self.flat.detach().requires_grad_(True)
            with torch.enable_grad():
                outputs = network({**self.unflatten(leaf), **self.fixed}, self.ensemble.buffers, part.unsqueeze(0))
                yield leaf, outputs, y[begin : begin + self.batch]


def _moved(outputs: Tensor, leaf: Tensor, v: Tensor) -> Tensor:
    """Return J v, of the shape of the outputs."""
    u = torch.zeros_like(outputs, requires_grad=True)
    (pulled,) = torch.autograd.grad(outputs, leaf, u, create_graph=True)
    return torch.autograd.grad((pulled * v).sum(), u, retain_graph=True)[0]
