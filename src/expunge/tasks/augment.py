"""Augmentation in the fast path: what happens to a batch of training inputs before a step, each member in its own way.

An augmentation is any function `augment(batch, generator)` from inputs (batch, ...) to changed inputs of the same shape
and type that draws every random number from the generator, which lives on the CPU. Those here work on whole batches.

    Task(..., augment=compose(random_crop(4), random_flip()))
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.core.checks import plain_arguments, positive, whole
from expunge.core.errors import InputError
from expunge.core.task import Augment


@plain_arguments
def random_crop(padding: int = 4) -> Augment:
    """Return an augmentation that moves every image by up to `padding` pixels each way, with zeros from outside.

    Args:
        padding: Most pixels along each of the two last axes, at least 1.
    """
    whole(padding=padding)

    def crop(batch: Tensor, generator: torch.Generator) -> Tensor:
        _check_images(batch, "random_crop")
        height, width = batch.shape[-2:]
        corners = torch.randint(0, 2 * padding + 1, (2, len(batch), 1), generator=generator).to(batch.device)
        rows = corners[0] + torch.arange(height, device=batch.device)
        columns = corners[1] + torch.arange(width, device=batch.device)
        padded = F.pad(batch, (padding,) * 4).movedim(0, -1)  # the batch last: one gather for any channels
        example = torch.arange(len(batch), device=batch.device)[:, None, None]
        taken = padded[..., rows[:, :, None], columns[:, None, :], example]
        return taken.movedim(-3, 0)

    return crop


def random_flip() -> Augment:
    """Return an augmentation that mirrors every image from left to right with probability 1/2."""

    def flip(batch: Tensor, generator: torch.Generator) -> Tensor:
        _check_images(batch, "random_flip")
        mirrored = torch.rand(len(batch), generator=generator).to(batch.device) < 0.5
        return torch.where(mirrored.view(-1, *[1] * (batch.ndim - 1)), batch.flip(-1), batch)

    return flip


@plain_arguments
def noise(std: float) -> Augment:
    """Return an augmentation that adds normal noise to every number.

    Args:
        std: Standard deviation, above 0, in units of the inputs; for uint8 images, whose results are rounded and cut
            to 0 and 255, in units of 255.
    """
    positive(std=std)

    def blur(batch: Tensor, generator: torch.Generator) -> Tensor:
        whole_numbers = batch.dtype == torch.uint8
        if not (batch.is_floating_point() or whole_numbers):
            raise InputError(f"noise was given inputs of type {batch.dtype}, expected fractions or uint8 images.")
        dtype = torch.float32 if whole_numbers else batch.dtype
        drawn = std * torch.randn(batch.shape, generator=generator, dtype=dtype).to(batch.device)
        return (batch + 255 * drawn).round().clamp(0, 255).to(batch.dtype) if whole_numbers else batch + drawn

    return blur


def compose(*parts: Augment) -> Augment:
    """Return the augmentation that does all of these in turn."""

    def all_of_them(batch: Tensor, generator: torch.Generator) -> Tensor:
        for part in parts:
            batch = part(batch, generator)
        return batch

    return all_of_them


def _check_images(batch: Tensor, name: str) -> None:
    if not isinstance(batch, Tensor) or batch.ndim < 3:
        came = tuple(batch.shape) if isinstance(batch, Tensor) else "inputs by name"
        raise InputError(f"{name} was given {came}, expected images (batch, ..., height, width).")
