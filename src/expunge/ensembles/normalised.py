"""Batch norm of stacked models with its gradients written out: each channel's numbers lie side by side.

With n numbers of a channel, m and v their mean and variance, z = (x - m) / sqrt(v + e), g the output's gradient:

    y = w z + b      dw = sum g z      db = sum g      dx = w (g - db / n - z dw / n) / sqrt(v + e)

With stored statistics m and v are constants: dx = w g / sqrt(v + e).

Source: S. Ioffe, C. Szegedy, "Batch Normalization" (arXiv 1502.03167), algorithm 1 and sec. 3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.ensembles.direct import NUMBERS, Compiled, at, numbers
from expunge.ensembles.written import Layer, Memory, Setting


class BatchNorm(Layer):
    """Batch norm: with examples last, each channel's numbers lie side by side, and all members go through at once."""

    lends = True

    def __init__(self, name: str, module: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        """Remember names and constants."""
        self.name, self.momentum, self.eps = name, module.momentum, module.eps
        self.parameters = (f"{name}.weight", f"{name}.bias") if module.affine else ()

    def forward(self, setting: Setting, x: Tensor, out: Tensor | None) -> Tensor:
        """Return the normalised values; with `update` the running statistics move."""
        mean, variance = (setting.buffers[f"{self.name}.running_{kind}"].view(-1) for kind in ("mean", "var"))
        share = self._share(setting)
        with torch.enable_grad():
            self.x = x.reshape(1, len(mean), -1).detach().requires_grad_(True)
            self.own = [setting.params[key].detach().flatten().requires_grad_(True) for key in self.parameters]
            weight, bias = self.own if self.parameters else (None, None)
            self.y = F.batch_norm(self.x, mean, variance, weight, bias, setting.update, share, self.eps)
        return self.y.detach().view(x.shape)

    def backward(self, setting: Setting, g: Tensor, inputs: bool) -> Tensor | None:
        """Write the gradients of scale and shift; return that of the input."""
        dx, *own = torch.autograd.grad(self.y, [self.x, *self.own], g.reshape(self.y.shape))
        for key, gradient in zip(self.parameters, own, strict=True):
            if key in setting.gradients:
                setting.gradients[key].copy_(gradient.view_as(setting.gradients[key]))
        del self.x, self.y, self.own
        return dx.view(g.shape)

    def _share(self, setting: Setting) -> float:
        """Return the share of this batch in the running statistics, and count it."""
        if not setting.update:
            return 0.0
        tracked = setting.buffers[f"{self.name}.num_batches_tracked"].add_(1)
        # Without a momentum the layer keeps the plain average of all batches; members have seen equally many.
        return 1.0 / float(tracked[0]) if self.momentum is None else self.momentum


class DirectBatchNorm(BatchNorm, Compiled):
    """By the compiled kernels, a channel at a time: its numbers are in the cache when they are read again."""

    def __init__(self, name: str, module: nn.BatchNorm1d | nn.BatchNorm2d, width: int | None = None) -> None:
        """Remember names and constants, and find the kernels."""
        super().__init__(name, module)
        self.find(width)
        self.normal, self.moments = Memory(), Memory()

    def forward(self, setting: Setting, x: Tensor, out: Tensor | None) -> Tensor:
        """Return the normalised values, cut off below 0 if asked for, where the next layer wants them."""
        count = x[0, 0].numel()
        if setting.update and count < 2:
            raise ValueError("batch norm of one number a channel: it has no variance")
        share = self._share(setting)
        mean, variance = (setting.buffers[f"{self.name}.running_{kind}"] for kind in ("mean", "var"))
        # The inputs of the network have their examples first in memory.
        self.x = x.contiguous()
        self.update = setting.update
        y = self.normal.take(x.shape, x) if out is None else out
        # Of each channel: the mean, one over the standard deviation, and the variance.
        self.found = self.moments.take((3, *mean.shape), x)
        if not self.update:
            self.found[0].copy_(mean)
            torch.rsqrt(variance + self.eps, out=self.found[1])
        self.factors = [setting.params[key].contiguous() if key else None for key in self._pair()]
        self.geometry = _geometry(self.x, y)
        call = (at(self.x), *map(at, self.factors), at(self.found), at(y), float(self.eps))
        self._kernel("normalise", x)(self.geometry, *call, self.update, self.clamp, self.width)
        if self.update:
            # Not lerp_, which makes an infinite variance NaN.
            mean.mul_(1 - share).add_(self.found[0], alpha=share)
            variance.mul_(1 - share).add_(self.found[2], alpha=share * count / (count - 1))
        return y

    def backward(self, setting: Setting, g: Tensor, inputs: bool) -> Tensor | None:
        """Write the gradients of scale and shift; return that of the input."""
        g = g.contiguous()
        own = [setting.gradients.get(key) for key in self._pair()]
        call = (at(self.x), *map(at, self.factors), at(self.found), at(g), *map(at, own))
        self._kernel("denormalise", g)(self.geometry, *call, self.update, self.clamp, self.width)
        return g if inputs else None

    def _pair(self) -> tuple[str, ...]:
        """Return the names of scale and shift, empty where there are none."""
        return self.parameters or ("", "")

    def _kernel(self, name: str, like: Tensor) -> Any:
        return getattr(self.compiled, f"expunge_{name}_{NUMBERS[like.dtype]}")


def _geometry(x: Tensor, y: Tensor) -> Any:
    """Return how many members, channels, rows and numbers of a row there are, and how far apart those of y lie."""
    members, channels, *inner = x.shape
    rows = inner[0] if len(inner) == 3 else 1
    along = y.stride()[:3] if len(inner) == 3 else (*y.stride()[:2], 0)
    return numbers([members, channels, rows, x[0, 0].numel() // rows, *along])
