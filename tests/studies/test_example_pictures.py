"""Pictures are made of images, whole or laid out flat, and of nothing else."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from torch import nn

import expunge as ex
from expunge.studies.audit.pictures import MOST_PIXELS, pictures


def decoded(found):
    shape = found.height, found.width, found.channels
    return np.frombuffer(base64.b64decode(found.pixels), np.uint8).reshape(shape)


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_digits_are_the_same_picture_flat_or_not(model):
    task = ex.tasks.digits(model=model)
    found = pictures(task, [3, 5])
    assert list(found) == [3, 5]
    assert np.array_equal(decoded(found[5])[:, :, 0], np.round(task.train.x[5].reshape(8, 8).numpy() * 255))


def test_tables_have_none():
    assert pictures(ex.tasks.tabular(), [0]) == {}


def test_colour_and_size():
    """Channels go last, values are stretched over 0 to 255, and of a large image every other pixel is kept."""
    noise = np.random.default_rng(0)
    x = noise.normal(size=(12, 3, MOST_PIXELS + 2, 20)).astype(np.float32)
    y = np.arange(12) % 2

    task = ex.Task(
        name="colour",
        train=(x[:8], y[:8]),
        validation=(x[8:], y[8:]),
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(x[0].size, 2)),
    )
    seen = decoded(pictures(task, [2])[2])
    low, high = x[:8].min(), x[:8].max()
    wanted = np.round((x[2, :, ::2, ::2].astype(np.float64) - low) / (high - low) * 255)
    assert np.abs(seen.transpose(2, 0, 1).astype(float) - wanted).max() <= 1
