"""What written-out convolutions have in common: names, geometry, and padded memory for their inputs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from expunge.ensembles.layers import Unsupported
from expunge.ensembles.written import Layer, Memory, windows


class Convolution(Layer):
    """A convolution without groups; how it is computed is in `direct.py` (compiled) and `columns.py` (products)."""

    lends = True

    def __init__(self, name: str, module: nn.Conv2d) -> None:
        """Remember the names of the parameters and the geometry."""
        if module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
            raise Unsupported("convolutions with groups or padding by name have no written-out gradient")
        self.weight, self.bias = f"{name}.weight", f"{name}.bias" if module.bias is not None else ""
        self.parameters = (self.weight, self.bias)
        self.outputs, self.kernel = module.out_channels, module.kernel_size
        self.padding, self.stride, self.dilation = module.padding, module.stride, module.dilation
        self.padded, self.y, self.dx = Memory(), Memory(), Memory()
        self.planned: tuple[int, ...] = ()

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Channels become outputs, pixels become windows."""
        height, width = windows(shape[2:4], self.kernel, self.stride, self.padding, self.dilation)
        return (shape[0], self.outputs, height, width, shape[4])

    def place(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Return the inner part of a zero-padded image."""
        if self.planned != tuple(shape):
            members, channels, height, width, batch = shape
            above, left = self.padding
            size = (members, channels, height + 2 * above, width + 2 * left, batch)
            self.image = self.padded.take(size, like).zero_()
            self.inner = self.image.narrow(2, above, height).narrow(3, left, width)
            self.plan(tuple(shape), like)
            self.planned = tuple(shape)
        return self.inner

    def plan(self, shape: tuple[int, ...], like: Tensor) -> None:
        """Prepare what every step with inputs (members, channels, height, width, batch) uses; `image` is there."""
        raise NotImplementedError
