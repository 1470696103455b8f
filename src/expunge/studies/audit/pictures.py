"""Pictures of examples, small and in 8 bits, as a record keeps them for its report; none unless inputs are images."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable

import torch

from expunge.core import Task
from expunge.core.record import PictureRecord

MOST_PIXELS = 32
"""Longest side that is kept; of a larger image every second, third, ... pixel."""


def pictures(task: Task, indices: Iterable[int]) -> dict[int, PictureRecord]:
    """Return pictures of training examples by index.

    Inputs are images when they are (1 or 3, height, width), or flat and `task.picture` says their height and width.
    Values are stretched from the smallest to the largest of the training data.

    Args:
        task: The task.
        indices: Training examples.
    """
    inputs = task.train.x
    shape = tuple(inputs.shape[1:]) if task.picture is None else (1, *task.picture)
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape[1:]) < 2 or math.prod(shape) != inputs[0].numel():
        return {}
    low, high = float(inputs.min()), float(inputs.max())
    step = -(-max(shape[1:]) // MOST_PIXELS)
    found = {}
    for index in indices:
        image = inputs[index].reshape(shape).double()[:, ::step, ::step]
        bytes_ = ((image - low) / ((high - low) or 1.0) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
        height, width, channels = bytes_.shape
        text = base64.b64encode(bytes_.numpy().tobytes()).decode()
        found[index] = PictureRecord(width=width, height=height, channels=channels, pixels=text)
    return found
