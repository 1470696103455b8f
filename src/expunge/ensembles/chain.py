"""Many steps of SGD in one call, for chains of linear layers under cross-entropy.

A small model computes so little in a step that what lies between the products decides: calls, losses, and weights that
leave the cache before their next step. In `expunge_chain` of `direct.c` a member takes all its steps before the next
member begins. Everything else takes the same steps one by one, by `Descent.step`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from expunge.core import Split
from expunge.ensembles.by_hand import Flatten, Pass
from expunge.ensembles.dense import DirectLinear, large
from expunge.ensembles.direct import NUMBERS, at, library, numbers, succeeded

MOST_LAYERS = 16
"""As in `direct.c`."""

OPERATIONS = 2_000_000_000
"""Floating-point operations of a call, about: an interrupt waits for its end, some hundredths of a second."""


class Chain:
    """A stack of chains of linear layers in training, its parameters in one block of memory."""

    def __init__(
        self, layers: Sequence[DirectLinear], weights: Tensor, places: Mapping[str, int], members: int
    ) -> None:
        """Lay out what the kernel is told.

        Args:
            layers: In their order.
            weights: The block of all parameters of all members.
            places: Where each parameter (members, ...) begins in it.
            members: How many there are.
        """
        self.layers, self.weights, self.members = layers, weights, members
        sizes = [layers[0].inputs, *(layer.outputs for layer in layers)]
        self.sizes = sizes
        self.described = [
            *_padded(sizes, MOST_LAYERS + 1),
            *_padded([int(layer.clamp) for layer in layers], MOST_LAYERS),
            *_padded([places[layer.weight] for layer in layers], MOST_LAYERS),
            *_padded([places[layer.bias] if layer.bias else -1 for layer in layers], MOST_LAYERS),
        ]

    @classmethod
    def of(cls, written: Pass, weights: Tensor, places: Mapping[str, int], members: int) -> Chain | None:
        """Return the chain of a pass, or None if it is none or there is no compiled kernel."""
        layers = written.layers[1:] if isinstance(written.layers[0], Flatten) else written.layers
        linear = [layer for layer in layers if isinstance(layer, DirectLinear)]
        learning = {name for layer in linear for name in layer.parameters if name}
        if len(linear) < len(layers) or not 0 < len(linear) <= MOST_LAYERS or learning != places.keys():
            return None
        return cls(linear, weights, places, members)

    def takes(self, data: Split, batch_size: int) -> bool:
        """Return whether the kernel reads such data as they are, and no product is better made elsewhere."""
        x, y = data.x, data.y
        return (
            x.dtype == self.weights.dtype
            and x.is_contiguous()
            and x[0].numel() == self.sizes[0]
            and y.dtype == torch.int64
            and y.ndim == 1
            and y.is_contiguous()
            and x.device.type == y.device.type == "cpu"
            and not any(large(layer.inputs, layer.outputs, batch_size) for layer in self.layers)
        )

    def steps_a_call(self, batch_size: int) -> int:
        """Return how many steps a call takes at most."""
        products = sum(one * other for one, other in zip(self.sizes, self.sizes[1:], strict=False))
        return max(1, OPERATIONS // (6 * products * batch_size * self.members))

    def run(
        self,
        data: Split,
        order: Tensor,
        batch_size: int,
        first: int,
        rates: Sequence[float],
        momenta: Tensor | None,
        momentum: float,
        decay: float,
        ascend: bool,
    ) -> None:
        """Take `len(rates)` steps with every member.

        Args:
            data: Inputs (examples, ...) and labels (examples,).
            order: Positions in the data, shape (members, k).
            batch_size: Of a step; the last one takes what is left.
            first: The step to begin with: it reads `order` from `first * batch_size` on.
            rates: Learning rate of each step.
            momenta: The optimiser's buffer, laid out as the weights; None without momentum.
            momentum: Share of the buffer that is kept.
            decay: L2 coefficient.
            ascend: Climb the loss.
        """
        compiled: Any = library()
        order = order.contiguous()
        steps = numbers([self.members, len(self.layers), order.shape[1], first * batch_size, len(rates), batch_size])
        shape = numbers([*steps, *self.described])
        rate = torch.tensor(rates, dtype=torch.float64)
        call = (shape, at(data.x), at(data.y), at(order), at(rate), at(self.weights), at(momenta), momentum, decay)
        kernel = getattr(compiled, f"expunge_chain_{NUMBERS[self.weights.dtype]}")
        succeeded(kernel(*call, ascend, self.layers[0].width))


def _padded(values: Sequence[int], length: int) -> list[int]:
    return [*values, *[0] * (length - len(values))]
