"""Many steps in one call, for chains of linear layers under a loss that the kernel knows.

A small model computes so little in a step that what lies between the products decides: calls, losses, and weights that
leave the cache before their next step. In `expunge_chain` of `direct.c` a member takes all its steps before the next
member begins. Everything else takes the same steps one by one, by `Descent.step`.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from expunge.core import Split
from expunge.ensembles.by_hand import Flatten, Pass
from expunge.ensembles.dense import DirectLinear, Update, large
from expunge.ensembles.direct import NUMBERS, at, library, numbers, succeeded
from expunge.ensembles.written import Layer

MOST_LAYERS = 16
"""As in `direct.c`."""

WEIGHT, BIAS, BARE = 1, 2, 4
"""Of a layer, in sums: its weight learns, its bias learns, it has no bias."""

CROSS_ENTROPY, DISTIL, MATCH = range(3)
"""As in `direct.c`; `dense_kernels.h` says what each is."""

READ = 128
"""Examples that go forward together where nothing is learned: what a layer puts out for them stays in the cache."""

OPERATIONS = 2_000_000_000
"""Floating-point operations of a call, about: an interrupt waits for its end, some hundredths of a second."""


@dataclass(frozen=True)
class Known:
    """A loss that the kernel knows, and what it compares with."""

    loss: int = CROSS_ENTROPY
    """`CROSS_ENTROPY`, `DISTIL` or `MATCH`."""
    aims: Tensor | None = None
    """Of every member and row of the data: logits (members, examples, classes) to distil, margins (members, examples)
    to match; None for cross-entropy."""
    options: tuple[float, ...] = ()
    """gamma, alpha and temperature to distil; delta to match."""


class Chain:
    """A stack of chains of linear layers in training, its parameters in one block of memory."""

    def __init__(
        self,
        layers: Sequence[DirectLinear],
        weights: Tensor,
        places: Mapping[str, int],
        params: Mapping[str, Tensor],
        members: int,
    ) -> None:
        """Lay out what the kernel is told.

        Args:
            layers: In their order.
            weights: The block of all parameters of all members that learn.
            places: Where each of these parameters (members, ...) begins in it.
            params: All parameters, each (members, ...).
            members: How many there are.
        """
        self.layers, self.weights, self.members = layers, weights, members
        self.sizes = _sizes(layers)
        self.params = dict(params)  # where the kernel reads must stay
        self.described = _described(layers, weights, places, params)

    @classmethod
    def of(cls, written: Pass, weights: Tensor, places: Mapping[str, int], members: int) -> Chain | None:
        """Return the chain of a pass, or None if it is none or there is no compiled kernel."""
        linear = linear_layers(written.layers)
        params = _parameters(linear, written.setting.params)
        if not linear or not places.keys() <= params.keys() or not _readable(params):
            return None
        return cls(linear, weights, places, params, members)

    def takes(self, data: Split, batch_size: int, known: Known | None = None) -> bool:
        """Return whether the kernel reads such data and aims as they are, and no product is better made elsewhere."""
        x, y, aims = data.x, data.y, None if known is None else known.aims
        return (
            (aims is None or (aims.dtype == x.dtype and aims.is_contiguous() and aims.device.type == "cpu"))
            and (aims is None or aims.shape[:2] == (self.members, len(x)))
            and x.dtype == self.weights.dtype
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
        x: Tensor,
        labels: Tensor,
        order: Tensor,
        ends: Sequence[int],
        rates: Sequence[float],
        shares: Tensor,
        known: Known,
        update: Update,
    ) -> None:
        """Take `len(rates)` steps with every member.

        Args:
            x: Inputs (examples, ...).
            labels: Of each position, (members, k), without gaps.
            order: Positions in the data, shape (members, k).
            ends: Where the first step begins in the order, and where each ends.
            rates: Learning rate of each step.
            shares: Weight of each position in the sum that its step descends, (members, k).
            known: The loss of an example.
            update: How weights move.
        """
        compiled: Any = library()
        order, shares = order.contiguous(), shares.to(self.weights.dtype).contiguous()
        largest = max(end - begin for begin, end in itertools.pairwise(ends))
        sizes = [self.members, len(self.layers), order.shape[1], len(rates), largest, len(x), known.loss]
        shape = numbers([*sizes, *self.described])
        rate, options = (torch.tensor(values or [0.0], dtype=torch.float64) for values in (rates, known.options))
        read = (
            shape,
            at(x),
            at(labels),
            at(order),
            numbers(ends),
            at(rate),
            at(shares),
            at(known.aims),
            at(options),
        )
        kernel = getattr(compiled, f"expunge_chain_{NUMBERS[self.weights.dtype]}")
        succeeded(kernel(*read, at(self.weights), ctypes.byref(update), self.layers[0].width))


def linear_layers(layers: Sequence[Layer]) -> list[DirectLinear]:
    """Return the layers of a chain that the kernels take, or none.

    Args:
        layers: All of the chain's, those that were joined together as one.
    """
    rest = layers[1:] if layers and isinstance(layers[0], Flatten) else layers
    linear = [layer for layer in rest if isinstance(layer, DirectLinear)]
    return linear if len(linear) == len(rest) and len(linear) <= MOST_LAYERS else []


def outputs(layers: Sequence[DirectLinear], params: Mapping[str, Tensor], x: Tensor) -> Tensor | None:
    """Return the outputs of a chain, without a graph; None where the kernel does not read such numbers.

    Args:
        layers: In their order, at least one.
        params: Each (members, ...).
        x: Inputs (examples, ...) that all members see.

    Returns:
        Shape (members, examples, classes).
    """
    own, base = _parameters(layers, params), params[layers[0].weight]
    kinds = {(tensor.dtype, tensor.device.type) for tensor in (x, *own.values())}
    sizes = _sizes(layers)
    if (
        len(kinds) > 1
        or kinds.isdisjoint({(torch.float32, "cpu"), (torch.float64, "cpu")})
        or not _readable(own)
        or x[0].numel() != sizes[0]
        or any(large(layer.inputs, layer.outputs, READ) for layer in layers)
    ):
        return None
    found = base.new_empty(len(base), sizes[-1], len(x))
    geometry = [len(base), len(layers), 0, 0, READ, len(x), 0, *_described(layers, base, {}, own)]
    kernel = getattr(library(), f"expunge_outputs_{NUMBERS[base.dtype]}")
    rows = x.contiguous()
    succeeded(kernel(numbers(geometry), at(rows), at(base), at(found), layers[0].width))
    return found.transpose(1, 2)


def _sizes(layers: Sequence[DirectLinear]) -> list[int]:
    return [layers[0].inputs, *(layer.outputs for layer in layers)]


def _parameters(layers: Sequence[DirectLinear], params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: params[name] for layer in layers for name in layer.parameters if name}


def _readable(params: Mapping[str, Tensor]) -> bool:
    return all(tensor.is_contiguous() for tensor in params.values())


def _described(
    layers: Sequence[DirectLinear], base: Tensor, places: Mapping[str, int], params: Mapping[str, Tensor]
) -> list[int]:
    """Return the layers as the kernels are told of them.

    Args:
        layers: In their order.
        base: From where on places are counted.
        places: Of the parameters that learn.
        params: All parameters, each (members, ...).
    """
    learns = [
        WEIGHT * (layer.weight in places) + BIAS * (layer.bias in places) + BARE * (not layer.bias) for layer in layers
    ]

    def lies(name: str) -> int:
        if not name or name in places:
            return places.get(name, 0)
        return (params[name].data_ptr() - base.data_ptr()) // base.element_size()

    return [
        next((number for number, flags in enumerate(learns) if flags & (WEIGHT | BIAS)), 0),
        *_padded(_sizes(layers), MOST_LAYERS + 1),
        *_padded([int(layer.clamp) for layer in layers], MOST_LAYERS),
        *_padded([lies(layer.weight) for layer in layers], MOST_LAYERS),
        *_padded([lies(layer.bias) for layer in layers], MOST_LAYERS),
        *_padded(learns, MOST_LAYERS),
    ]


def _padded(values: Sequence[int], length: int) -> list[int]:
    return [*values, *[0] * (length - len(values))]
