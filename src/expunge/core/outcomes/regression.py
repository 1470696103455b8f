"""Real targets: squared error, and the distance from the target, negated, as the compared number."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.outcomes.outcome import Outcome, numbers, shared


@dataclass(frozen=True, kw_only=True)
class Regression(Outcome):
    """Targets are (examples,) or (examples, targets); outputs have their shape, or one more axis of length 1."""

    scale: float = 1.0
    """Standard deviation of the training targets, the unit of the compared number."""

    name: ClassVar[str] = "regression"
    statistic_name: ClassVar[str] = "fit"
    utility_name: ClassVar[str] = "R squared"

    def read(self, targets: Any, part: str) -> Tensor:
        """Return targets as floating-point numbers, (examples, targets)."""
        y = numbers(targets, part)
        if y.ndim not in (1, 2) or y.is_complex():
            raise InputError(
                f"{part} targets have shape {tuple(y.shape)}, expected (examples,) or (examples, targets)."
            )
        y = y if y.is_floating_point() else y.double()
        return y.reshape(len(y), -1).contiguous()

    def fitted(self, targets: Tensor, outputs: Tensor) -> Regression:
        """Take the scale from the training targets; targets that are all equal keep 1."""
        spread = float(targets.double().std(0, correction=0).square().mean().sqrt())
        return replace(self, scale=spread if spread > 0 else 1.0)

    def output_shape(self, targets: Tensor) -> tuple[int, ...]:
        """Return (targets,)."""
        return tuple(targets.shape[1:])

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        """Refuse outputs of another shape than the targets."""
        if outputs.reshape(len(outputs), -1).shape[1] != targets.shape[1] or outputs.ndim > 2:
            raise InputError(
                f"model()(x) for {len(outputs)} examples returned {tuple(outputs.shape)}, expected one number a "
                f"target: ({len(outputs)}, {targets.shape[1]}). Change the last layer."
            )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the squared error of every example, averaged over its targets, in squared units of the targets."""
        return self._error(outputs, targets).square().mean(-1)

    def statistic(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return minus the distance from the target, root mean square over targets, in units of `scale`."""
        error = self._error(outputs.double(), targets.double())
        # The norm has a gradient where the error is 0; a square root has none.
        distance: Tensor = torch.linalg.vector_norm(error, dim=-1)
        return -distance / (math.sqrt(error.shape[-1]) * self.scale)

    def utility(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the share of the examples' variance that is explained, at most 1; NaN for targets without variance."""
        error = self._error(outputs.double(), targets.double()).square().sum((1, 2))
        y = shared(targets.double(), outputs, 2)
        variance = (y - y.mean(1, keepdim=True)).square().sum((1, 2))
        return torch.where(variance > 0, 1 - error / variance, torch.nan)

    def mean_prediction(self, outputs: Tensor) -> Tensor:
        """Return the mean of the outputs."""
        return outputs.mean(0)

    def _error(self, outputs: Tensor, targets: Tensor) -> Tensor:
        values = outputs.unsqueeze(-1) if outputs.ndim == 2 else outputs
        return values - shared(targets, values, 2).to(values.dtype)
