"""The losses that influence is defined for: their first and second derivatives by the outputs of the network.

    cross-entropy    gradient  p - e_y          curvature  diag p - p p^T
    squared error    gradient  z - y            curvature  identity           for sum of (z - y)^2 / 2

Both are convex in the outputs, so the Gauss-Newton matrix built from them is positive semidefinite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F


class Loss(Protocol):
    """A convex loss of the outputs of one example."""

    def gradient(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the derivative by the outputs, (members, examples, classes)."""
        ...

    def curvature(self, logits: Tensor, moved: Tensor) -> Tensor:
        """Return the second derivative times a change of the outputs, (members, examples, classes)."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of the softmax with a class number; what every recipe trains with."""

    def gradient(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return softmax - one-hot.

        Args:
            logits: Shape (members, examples, classes).
            y: Labels (examples,).
        """
        return logits.softmax(-1) - F.one_hot(y.to(logits.device).long(), logits.shape[-1])

    def curvature(self, logits: Tensor, moved: Tensor) -> Tensor:
        """Return (diag p - p p^T) moved, same shapes as `logits`."""
        p = logits.softmax(-1)
        return p * (moved - (p * moved).sum(-1, keepdim=True))


@dataclass(frozen=True)
class SquaredError:
    """Half the squared distance to a target: regression, where influence is exact for a linear model."""

    def gradient(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return outputs - targets.

        Args:
            logits: Outputs (members, examples, outputs).
            y: Targets (examples,) for one output, or (examples, outputs).
        """
        return logits - y.to(logits).reshape(len(y), -1)

    def curvature(self, logits: Tensor, moved: Tensor) -> Tensor:
        """Return `moved`."""
        return moved
