"""Convolution as a product with the columns of its input, forwards and backwards, examples last.

    y = W cols(x) + b      dW = g cols(x)ᵀ      db = sum g      dx = fold(Wᵀ g)

cols(x) lays the inputs that each output pixel reads under one another (Chellapilla, Puri and Simard, "High performance
convolutional neural networks for document processing", 2006, sec. 3.1). With examples last it copies whole batches, one
pixel after another. fold, its transpose, adds each of them to the pixel that it was read from; positions of the kernel
that lie side by side and never read the same pixel are folded in one call.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from expunge.ensembles.convolution import Convolution
from expunge.ensembles.products import affine, separate
from expunge.ensembles.written import Memory, Setting, parameter_gradients


class ColumnConvolution(Convolution):
    """A convolution as a product with the columns of its input."""

    def __init__(self, name: str, module: nn.Conv2d) -> None:
        """Start without memory for columns."""
        super().__init__(name, module)
        self.columns = Memory()

    def forward(self, setting: Setting, x: Tensor, out: Tensor | None) -> Tensor:
        """Return W cols(x) + b; x lies in its place."""
        self.windowed.copy_(self.windows)
        bias = setting.params[self.bias] if self.bias else None
        affine(setting.params[self.weight].flatten(2), bias, self.flat, self.flat_output)
        return self.output

    def backward(self, setting: Setting, g: Tensor, inputs: bool) -> Tensor | None:
        """Write g cols(x)ᵀ and the sum of g; return fold(Wᵀ g)."""
        g = g.flatten(2)
        parameter_gradients(setting, self.weight, self.bias, g, self.flat)
        if not inputs:
            return None
        if self.clear:
            self.folded.zero_()
        weight = setting.params[self.weight].flatten(2)
        product = separate(weight, g.shape[2])
        if product is None:
            # The columns of the input have been used for the last time: their gradient takes their memory.
            torch.bmm(weight.mT, g, out=self.flat)
            for fold in self.all_folds:
                fold(self.flat)
        else:
            # Folded while it is in the cache.
            for folds, w, columns in zip(self.folds, weight.mT.unbind(), g.mT.unbind(), strict=True):
                gradient = product(w, columns)
                for fold in folds:
                    fold(gradient)
        return self.folded

    def plan(self, shape: tuple[int, ...], like: Tensor) -> None:
        """Lay out the memory for inputs of this shape, and the views of it that every step uses."""
        members, channels, height, width, _ = shape
        above, left = self.padding
        outputs = self.shape(shape)
        member, channel, row, column, example = self.image.stride()
        (down, right), (apart, aside) = self.stride, self.dilation
        self.windows = self.image.as_strided(
            (members, channels, *self.kernel, *outputs[2:]),
            (member, channel, row * apart, column * aside, row * down, column * right, example),
        )
        self.windowed = self.columns.take(self.windows.shape, like)
        self.flat = self.windowed.view(members, -1, math.prod(outputs[2:]))
        self.output = self.y.take(outputs, like)
        self.flat_output = self.output.flatten(2)
        self.folded = self.dx.take(shape, like)
        rows = _reaches(height, outputs[2], self.kernel[0], down, above, apart)
        columns = _reaches(width, outputs[3], self.kernel[1], right, left, aside)
        # Pixels that some positions of the kernel reach first are written rather than added to.
        first = _covering(rows, height), _covering(columns, width)
        self.clear = not (first[0] and first[1])
        folds = [
            Fold(self.folded, self.windowed, r, c, add=self.clear or r not in first[0] or c not in first[1])
            for r in rows
            for c in columns
        ]
        self.all_folds = sorted(folds, key=lambda fold: fold.add)
        self.folds = [[fold.of(member) for fold in self.all_folds] for member in range(members)]


class Reach(NamedTuple):
    """Neighbouring positions of a kernel along one axis, and the pixels that they read, each once; none of the padding.

    Position `kernel + i` reads, for output `output + j`, the pixel `pixel + i * apart + j * stride`.
    """

    kernel: int
    positions: int
    apart: int
    output: int
    outputs: int
    pixel: int
    stride: int

    def pixels(self) -> set[int]:
        """Return all pixels that are read."""
        starts = range(self.pixel, self.pixel + self.positions * self.apart, self.apart)
        return {start + j * self.stride for start in starts for j in range(self.outputs)}


class Fold:
    """A block of a kernel: the pixels that it reads, and where the columns keep their gradient."""

    def __init__(self, folded: Tensor, windowed: Tensor, rows: Reach, columns: Reach, add: bool) -> None:
        """Make a view of the pixels, and the geometry of a view of the columns.

        Args:
            folded: Shape (members, channels, height, width, batch).
            windowed: Shape (members, channels, *kernel, height and width of the output, batch).
            rows: What the block reaches along the height.
            columns: What it reaches along the width.
            add: Whether the pixels have a value already.
        """
        member, channel, row, column, example = folded.stride()
        size = (rows.outputs, rows.positions, columns.outputs, columns.positions)
        strides = (row * rows.stride, row * rows.apart, column * columns.stride, column * columns.apart)
        self.into = folded.as_strided(
            (*folded.shape[:2], *size, folded.shape[-1]),
            (member, channel, *strides, example),
            rows.pixel * row + columns.pixel * column,
        )
        member, channel, down, right, row, column, example = windowed.stride()
        self.size: tuple[int, ...] = tuple(self.into.shape)
        self.strides: tuple[int, ...] = (member, channel, row, down, column, right, example)
        self.offset = down * rows.kernel + right * columns.kernel + row * rows.output + column * columns.output
        self.add = add

    def of(self, member: int) -> Fold:
        """Return the same for one member, whose columns lie at the beginning of their memory."""
        fold = copy.copy(self)
        fold.into, fold.size, fold.strides = self.into[member], self.size[1:], self.strides[1:]
        return fold

    def __call__(self, columns: Tensor) -> None:
        """Write or add columns to the pixels that they were read from."""
        source = columns.as_strided(self.size, self.strides, self.offset)
        if self.add:
            self.into.add_(source)
        else:
            self.into.copy_(source)


def _reaches(pixels: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> list[Reach]:
    """Return what the positions of a kernel read along one axis; fewer and larger blocks are fewer calls."""
    out: list[Reach] = []
    for position in range(kernel):
        shift = position * dilation - padding
        first = max(0, -(shift // stride))
        last = min(outputs - 1, (pixels - 1 - shift) // stride)
        if first > last:
            continue
        new = Reach(position, 1, dilation, first, last + 1 - first, first * stride + shift, stride)
        if out:
            before = out[-1]
            larger = before._replace(positions=before.positions + 1)
            alike = (before.output, before.outputs) == (new.output, new.outputs)
            adjacent = before.kernel + before.positions == position
            if alike and adjacent and len(larger.pixels()) == larger.positions * larger.outputs:
                out[-1] = larger
                continue
        out.append(new)
    return out


def _covering(reaches: list[Reach], pixels: int) -> list[Reach]:
    """Return reaches that together read every pixel exactly once, or none if these are not found."""
    left, chosen = set(range(pixels)), []
    for reach in sorted(reaches, key=lambda one: -len(one.pixels())):
        if reach.pixels() <= left:
            left -= reach.pixels()
            chosen.append(reach)
    return [] if left else chosen
