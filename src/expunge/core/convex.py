"""L2-regularised softmax regression, the model for which certificates have proofs: solved to its optimum, or descended.

For rows S of the task, n_S of them, a weight matrix W (classes, inputs) without a bias, and rows with |x| <= 1,

    L_S(W) = sum_{i in S} [ l(W x_i, y_i) + l2/2 |W|^2 ] + <B, W>        W_S = argmin L_S,  published W_S + Z

with B, Z of independent N(0, perturbation^2) and N(0, noise^2) drawn from the member's seed. With `steps` it is not W_S
that is published, but where so many steps of gradient descent on L_S / n_S lead from 0. Constants that follow,
for the loss l of one row (cross-entropy of softmax p, one-hot y):

    |p - y| <= sqrt 2                                   so each regularised row is M-Lipschitz, M = sqrt 2 + l2 |W|
    diag p - p p^T <= 1/2                               L = 1/2 + l2 is the smoothness, m = l2 the strong convexity
    third derivative <= (sqrt 2)^3 / (6 sqrt 3)         the Lipschitz constant of the Hessian by the outputs

The first two are the diameters of the simplex and of its variances (at most a quarter of the squared range of a
direction's entries, which is at most sqrt 2 times its length); the third is the largest third central moment of a
variable of that range. Without B, l2 |W_S| <= sqrt 2, since the mean gradient is 0 there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.core.checks import non_negative, plain_fields, positive, whole
from expunge.core.errors import InputError
from expunge.core.seeds import generator

LOSS_LIPSCHITZ = math.sqrt(2)
LOSS_SMOOTH = 0.5
HESSIAN_LIPSCHITZ = math.sqrt(8) / (6 * math.sqrt(3))
STEPS = 60
"""Newton steps at most; about ten are taken."""
CONVERGED = 1e-9
"""Norm of the mean gradient at which training ends."""


@dataclass(frozen=True, kw_only=True)
class ConvexFit:
    """A task's `fit`: softmax regression trained with the noise that certificates need."""

    l2: float
    """Strong convexity of the loss of each row, above 0."""
    perturbation: float = 0.0
    """Standard deviation of the random linear term B, in units of the summed loss."""
    noise: float = 0.0
    """Standard deviation of the noise Z on the published weights."""
    steps: int | None = None
    """Steps of gradient descent on all rows, from 0, at least 1; None solves for the optimum."""
    rate: float | None = None
    """Size of each step, above 0; None is 2 / (L + m), the largest for which every step contracts."""

    def __post_init__(self) -> None:
        """Check the options."""
        plain_fields(self)
        positive(l2=self.l2)
        non_negative(perturbation=self.perturbation, noise=self.noise)
        if self.steps is not None:
            whole(steps=self.steps)
        if self.rate is not None:
            positive(rate=self.rate)
            if self.steps is None:
                raise InputError(f"rate = {self.rate:g} was given without steps, expected both, or neither.")
        if not self.perturbation and not self.noise:
            raise InputError(
                "perturbation and noise are both 0, expected one of them above 0: all models would be one, and nothing "
                "would hide the difference that a removed row makes."
            )

    def __call__(self, model: Any, dataset: Any, seed: int) -> None:
        """Train a linear model in place."""
        weight = model.weight
        linear, noise = self.drawn(seed, weight)
        with torch.no_grad():
            if self.steps is None:
                found = self.solve(weight, dataset.x, dataset.y, linear)
            else:
                found = self.descended(torch.zeros_like(weight), dataset.x, dataset.y, linear, self.steps)
            weight.copy_(found + noise)

    def drawn(self, seed: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return what follows from a member's seed: the linear term B and the noise Z, each of the shape of `like`.

        Args:
            seed: That `fit` was called with.
            like: Weights (classes, inputs).
        """
        found = []
        for scale, name in ((self.perturbation, "perturbation"), (self.noise, "published noise")):
            draw = torch.randn(like.shape, generator=generator(seed, name), dtype=torch.float64)
            found.append((scale * draw).to(like))
        return found[0], found[1]

    def solve(self, start: Tensor, x: Tensor, y: Tensor, linear: Tensor) -> Tensor:
        """Return the optimum on some rows, by Newton steps that are halved until the objective falls.

        Args:
            start: Weights (classes, inputs) to begin at, float64.
            x: Inputs (rows, inputs).
            y: Classes (rows,).
            linear: B (classes, inputs).

        Raises:
            InputError: If the mean gradient does not fall below `CONVERGED`.
        """
        w = start.detach().clone()
        for _ in range(STEPS):
            g = self.gradient(w, x, y, linear)
            if float(g.norm()) <= CONVERGED * len(x):
                return w
            step = torch.linalg.solve(self.hessian(w, x), g.flatten()).view_as(w)
            size, now, slope = 1.0, self.objective(w, x, y, linear), float((g * step).sum())
            while size > 1e-6 and self.objective(w - size * step, x, y, linear) > now - 1e-4 * size * slope:
                size /= 2
            w = w - size * step
        raise InputError(
            f"the optimum was not reached: after {STEPS} Newton steps the mean gradient is "
            f"{float(g.norm()) / len(x):.2g}, expected {CONVERGED:g}; raise l2 (it is {self.l2:g})."
        )

    @property
    def step_size(self) -> float:
        """Size of each step of gradient descent."""
        return 2 / (self.smoothness() + self.l2) if self.rate is None else self.rate

    def descended(self, w: Tensor, x: Tensor, y: Tensor, linear: Tensor, steps: int) -> Tensor:
        """Return where steps of gradient descent on the mean loss of some rows lead.

        Args:
            w: Weights (classes, inputs) to begin at.
            x: Inputs (rows, inputs).
            y: Classes (rows,).
            linear: B (classes, inputs).
            steps: How many.
        """
        for _ in range(steps):
            w = w - self.step_size * self.gradient(w, x, y, linear) / len(x)
        return w

    def objective(self, w: Tensor, x: Tensor, y: Tensor, linear: Tensor) -> float:
        """Return L_S(W); see `solve` for the arguments."""
        loss = F.cross_entropy(x @ w.T, y, reduction="sum")
        return float(loss + 0.5 * self.l2 * len(x) * w.square().sum() + (linear * w).sum())

    def gradient(self, w: Tensor, x: Tensor, y: Tensor, linear: Tensor | None = None) -> Tensor:
        """Return the gradient of L_S (classes, inputs), without B where `linear` is None; see `solve`."""
        p = (x @ w.T).softmax(1) - F.one_hot(y, len(w)).to(w)
        found = p.T @ x + self.l2 * len(x) * w
        return found if linear is None else found + linear

    def hessian(self, w: Tensor, x: Tensor) -> Tensor:
        """Return the second derivative of L_S, (classes * inputs, classes * inputs)."""
        p = (x @ w.T).softmax(1)
        k, d = w.shape
        found = w.new_empty(k, d, k, d)
        for a in range(k):
            for b in range(a, k):
                found[a, :, b] = (x * (p[:, a] * (float(a == b) - p[:, b]))[:, None]).T @ x
                found[b, :, a] = found[a, :, b].T
        flat = found.view(k * d, k * d)
        flat.diagonal().add_(self.l2 * len(x))
        return flat

    def smoothness(self) -> float:
        """Return L, the smoothness of the loss of each row."""
        return LOSS_SMOOTH + self.l2

    def lipschitz(self, weight_norm: float) -> float:
        """Return M, the Lipschitz constant of the loss of each row within a ball of that radius."""
        return LOSS_LIPSCHITZ + self.l2 * weight_norm


def plain_linear(module: nn.Module) -> bool:
    """Return whether a module is one linear layer without a bias, which `ConvexFit` trains."""
    return type(module) is nn.Linear and module.bias is None
