"""The tasks of a preset: digits of scikit-learn, or the real images from the user's folder; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from expunge.core import InputError, Recipe, Split, Task
from expunge.papers.ascent_fails_to_forget.reproduction.presets import Data, Images
from expunge.tasks import digits
from expunge.tasks.images import cifar10, fashion_mnist, mnist
from expunge.tasks.models import resnet9, small_cnn


@dataclass(frozen=True)
class Source:
    """Where a data set comes from, and where it is looked for."""

    title: str
    load: Any
    """Reads it from a folder, checking the published checksums."""
    folders: tuple[str, ...]
    """Of which one must be in the folder given, or in a folder of the data's name there."""
    download: str
    """What to download, and from where."""
    channels: int
    size: int
    """Pixels of a side."""


def _idx(folder: str) -> tuple[str, str]:
    return f"{folder}/raw", folder


_FILES = "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz"

SOURCES: Mapping[Data, Source] = {
    "mnist": Source(
        "MNIST",
        mnist,
        _idx("MNIST"),
        f"{_FILES} of http://yann.lecun.com/exdb/mnist/ (MD5 of the first: f68b3c2dcbeaaa9fbdd348bbdeb94873)",
        1,
        28,
    ),
    "fashion_mnist": Source(
        "Fashion-MNIST",
        fashion_mnist,
        _idx("FashionMNIST"),
        f"{_FILES} of https://github.com/zalandoresearch/fashion-mnist (MD5 of the first: "
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d)",
        1,
        28,
    ),
    "cifar10": Source(
        "CIFAR-10",
        cifar10,
        ("cifar-10-batches-py", "cifar-10-batches-bin"),
        "cifar-10-python.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html, unpacked (MD5 of the archive: "
        "c58f30108f718f92721af3b95e74349a)",
        3,
        32,
    ),
}
"""By the name that a preset uses."""


def title(images: Images) -> str:
    """Return how a page calls the data.

    >>> title(Images("fashion_mnist", "small_cnn", (8, 16), 5, 128, 0.1))
    'Fashion-MNIST'
    """
    return "digits (8x8)" if images.data == "digits" else SOURCES[images.data].title


def network(images: Images) -> str:
    """Return how a page calls the network.

    >>> network(Images("cifar10", "resnet9", (8,), 5, 128, 0.1))
    'ResNet-9 of width 8, batch norm'
    """
    norm = "batch norm" if images.norm else "no norm"
    if images.network == "resnet9":
        return f"ResNet-9 of width {images.widths[0]}, {norm}"
    return f"small CNN {'-'.join(map(str, images.widths))}, {norm}"


def describe(images: Images) -> str:
    """Return an experiment in a line.

    >>> describe(Images("mnist", "small_cnn", (8, 16), 5, 128, 0.1, norm=None))
    'MNIST, small CNN 8-16, no norm, 5 epochs, batch 128, peak rate 0.1'
    """
    rows = "" if images.train is None else f"the first {images.train:,} of "
    return (
        f"{rows}{title(images)}, {network(images)}, {images.epochs} epochs, batch {images.batch_size}, peak rate "
        f"{images.lr:g}"
    )


def find(root: Path | None, data: Data) -> Path:
    """Return the folder from which a loader reads a data set.

    Args:
        root: The user's folder; None where none was given.
        data: The data set.

    Raises:
        InputError: If it is not there; the message says what to download, and where to put it.
    """
    source = SOURCES[data]
    if root is not None:
        for place in (root, root / data, root / data.replace("_", "-")):
            if any((place / folder).is_dir() for folder in source.folders):
                return place
    where = root or Path("data")
    raise InputError(
        f"{'no folder with data was given' if root is None else f'{root} holds no {source.title}'}, expected "
        f"{where / source.folders[0]}. Download {source.download}, put the files there, and add --data {where}; "
        "nothing is downloaded by itself. The preset tiny needs no files."
    )


def load(images: Images, root: Path | None) -> Task:
    """Return the task of an experiment.

    Raises:
        InputError: If its files are missing, damaged, or not the original ones; the message names them.
    """
    recipe: dict[str, Any] = {"epochs": images.epochs, "batch_size": images.batch_size, "lr": images.lr}
    recipe["peak_epoch"] = images.epochs * 5 / 24  # the paper's share
    if images.data != "digits":
        source = SOURCES[images.data]
        model = _factory(images, source.size, source.channels)
        task: Task = source.load(find(root, images.data), model=model, train=images.train, **recipe)
        return task
    shipped = digits("cnn")
    sides, size = (shipped.train, shipped.validation), 8
    if images.network == "resnet9":  # whose last convolutions need 16 pixels
        sides = Split(_doubled(sides[0].x), sides[0].y), Split(_doubled(sides[1].x), sides[1].y)
        size = 16
    (train, validation), kept = sides, slice(images.train)
    return Task(
        name=images.data,
        train=(train.x[kept], train.y[kept]),
        validation=(validation.x, validation.y),
        model=_factory(images, size, 1),
        recipe=Recipe(**recipe),
        classes=10,
    )


def _factory(images: Images, size: int, channels: int) -> Callable[[], nn.Module]:
    if images.network == "resnet9":
        return partial(resnet9, channels=channels, norm=images.norm, width=images.widths[0])
    return partial(small_cnn, size=size, channels=channels, widths=images.widths, norm=images.norm)


def _doubled(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, -1).repeat_interleave(2, -2)
