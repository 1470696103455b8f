"""Pictures are made of images, whole or laid out flat, and of nothing else."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from torch import nn

import expunge as ex
from expunge.studies.audit.pictures import MOST_PIXELS, names, pictures


def decoded(found):
    shape = found.height, found.width, found.channels
    return np.frombuffer(base64.b64decode(found.pixels), np.uint8).reshape(shape)


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_digits_are_the_same_picture_flat_or_not(model):
    task = ex.tasks.digits(model=model)
    found = pictures(task, [3, 5])
    assert list(found) == [3, 5]
    assert np.array_equal(decoded(found[5])[:, :, 0], np.round(task.train.x[5].reshape(8, 8).numpy() * 255))


def classified(x, **options):
    x, y = np.asarray(x), np.arange(len(x)) % 2
    return ex.Task(
        name="shown",
        train=(x[:8], y[:8]),
        validation=(x[8:], y[8:]),
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(x[0].size, 2)),
        **options,
    )


def test_tables_have_none():
    assert pictures(ex.tasks.tabular(), [0]) == {}
    assert pictures(classified(np.random.default_rng(0).normal(size=(12, 30, 4)).astype(np.float32)), [0]) == {}


def test_a_channel_is_stretched_over_the_training_data():
    """So colours come back from standardised channels, whatever their means and deviations were."""
    bytes_ = np.random.default_rng(0).integers(0, 256, size=(12, 3, 6, 5))
    bytes_[0, :, 0, :2] = 0, 255
    scale, mean = np.array([0.2, 0.3, 1.0]).reshape(3, 1, 1), np.array([0.5, 0.4, 0.0]).reshape(3, 1, 1)
    x = ((bytes_ / 255 - mean) / scale).astype(np.float32)
    for shaped in (x, x.transpose(0, 2, 3, 1)):
        found = pictures(classified(shaped), [2])[2]
        assert np.array_equal(decoded(found).transpose(2, 0, 1), bytes_[2])


def test_grey_images_without_channels_bytes_and_flat_colours():
    bytes_ = np.random.default_rng(0).integers(0, 200, size=(12, 9, 8)).astype(np.uint8)
    seen = pictures(classified(bytes_[:, None], normalise=(0.5, 0.5)), [3])[3]
    assert np.array_equal(decoded(seen)[:, :, 0], bytes_[3])
    grey = classified(bytes_ / np.float32(200))
    low, high = (float(grey.train.x.amin()), float(grey.train.x.amax()))
    wanted = np.round((grey.train.x[3].double().numpy() - low) / (high - low) * 255)
    assert np.array_equal(decoded(pictures(grey, [3])[3])[:, :, 0], wanted)

    flat = classified(np.random.default_rng(0).random((12, 18)).astype(np.float32))
    flat.picture = (2, 3)
    assert decoded(pictures(flat, [0])[0]).shape == (2, 3, 3)
    flat.picture = (4, 3)
    assert pictures(flat, [0]) == {}


def test_a_large_image_is_averaged():
    x = np.random.default_rng(0).random((12, 1, 2 * MOST_PIXELS, MOST_PIXELS)).astype(np.float32)
    found = decoded(pictures(classified(x), [1])[1])[:, :, 0]
    low, high = x[:8].min(), x[:8].max()
    means = x[1, 0].astype(np.float64).reshape(MOST_PIXELS, 2, MOST_PIXELS // 2, 2).mean((1, 3))
    assert np.abs(found - (means - low) / (high - low) * 255).max() <= 0.51


def test_ids_are_kept_of_what_is_asked():
    x = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    assert names(classified(x), [0, 2]) == {}
    assert names(classified(x, ids=[f"c-{i}" for i in range(8)]), [0, 2]) == {0: "c-0", 2: "c-2"}
