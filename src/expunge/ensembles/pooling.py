"""The mean of each channel with a written-out gradient; other pooling is left to autograd."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from expunge.ensembles.layers import Unsupported
from expunge.ensembles.written import Layer, Setting


class GlobalAverage(Layer):
    """The mean of each channel over the whole image (`AdaptiveAvgPool2d(1)`)."""

    def __init__(self, module: nn.AdaptiveAvgPool2d) -> None:
        """Check that one number is left of each channel."""
        if module.output_size not in (1, (1, 1)):
            raise Unsupported("adaptive pooling to more than one pixel has no written-out gradient")

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """One pixel is left."""
        return (*shape[:2], 1, 1, shape[4])

    def forward(self, setting: Setting, x: Tensor, out: Tensor | None) -> Tensor:
        """Return the means."""
        self.received = x.shape
        return x.mean((2, 3), keepdim=True)

    def backward(self, setting: Setting, g: Tensor, inputs: bool) -> Tensor | None:
        """Return an equal share of g at every pixel."""
        return (g / math.prod(self.received[2:4])).expand(self.received).contiguous() if inputs else None
