"""How a report shows the examples it names: by a small picture where inputs are images, by their id where known."""

from __future__ import annotations

import base64
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from expunge.core import Task
from expunge.core.record import PictureRecord

MOST_PIXELS = 32
"""Longest side that is kept; a larger image is averaged over squares."""

LEAST_SIDE = 8
"""Shortest side of a grey image without an axis of channels: smaller tables are measurements, not pictures."""

COLOURS = (1, 3)


def pictures(task: Task, indices: Iterable[int]) -> dict[int, PictureRecord]:
    """Return pictures of training examples by index; none unless inputs are images.

    Images are (1 or 3, height, width), (height, width, 1 or 3), (height, width), or flat where `task.picture` says
    their height and width (three times as many values are red, green and blue, one after the other). Values are
    stretched, for each channel, from the smallest to the largest of the training data; bytes stay as they are.

    Args:
        task: The task.
        indices: Training examples.
    """
    inputs = task.train.x
    first = _image(inputs[0], task.picture)
    if first is None:
        return {}
    if inputs.dtype == torch.uint8:
        low, high = torch.zeros(len(first), 1, 1), torch.full((len(first), 1, 1), 255.0)
    else:
        ends = [_ends(inputs, task.picture, largest=largest) for largest in (False, True)]
        low, high = (end.double().view(-1, 1, 1) for end in ends)
    step = -(-max(first.shape[1:]) // MOST_PIXELS)
    height, width = (-(-side // step) for side in first.shape[1:])
    found = {}
    for index in indices:
        image = _image(inputs[index], task.picture)
        assert image is not None
        small = image.double() if step == 1 else adaptive_avg_pool2d(image.double(), (height, width))
        share = (small - low) / torch.where(high > low, high - low, 1.0)
        bytes_ = (share * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
        channels = bytes_.shape[2]
        text = base64.b64encode(bytes_.numpy().tobytes()).decode()
        found[index] = PictureRecord(width=width, height=height, channels=channels, pixels=text)
    return found


def names(task: Task, indices: Iterable[int]) -> dict[int, str]:
    """Return the ids of training examples by index; none where the task has none.

    Args:
        task: The task.
        indices: Training examples.
    """
    if task.ids is None:
        return {}
    asked = set(indices)
    return {index: name for name, index in task.ids.items() if index in asked}


def _image(x: Tensor, picture: tuple[int, int] | None) -> Tensor | None:
    """Return an example as (channels, height, width), a view; None where it is no image."""
    shape = tuple(x.shape)
    if picture is not None:
        height, width = picture
        channels, rest = divmod(x.numel(), height * width)
        return x.reshape(channels, height, width) if channels in COLOURS and not rest else None
    if len(shape) == 2 and min(shape) >= LEAST_SIDE:
        return x.unsqueeze(0)
    if len(shape) == 3 and shape[0] in COLOURS and min(shape[1:]) > 1:
        return x
    if len(shape) == 3 and shape[2] in COLOURS and min(shape[:2]) > 1:
        return x.permute(2, 0, 1)
    return None


def _ends(inputs: Tensor, picture: tuple[int, int] | None, *, largest: bool) -> Tensor:
    """Return the smallest or largest value of each channel over all training examples, (channels,)."""
    extreme = _image(inputs.amax(0) if largest else inputs.amin(0), picture)
    assert extreme is not None
    return extreme.amax((1, 2)) if largest else extreme.amin((1, 2))
