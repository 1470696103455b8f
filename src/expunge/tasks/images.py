"""MNIST, Fashion-MNIST and CIFAR-10 from local files in their original formats; nothing is downloaded.

Files may lie as torchvision leaves them, or directly in the folder given; each may be plain or compressed (`.gz`,
`.xz`).
What was read is compared with the checksum of the original release, whatever the container. No file is unpickled: the
CIFAR batches, which are pickles, go through a reader that runs nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import math
import struct
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core import InputError, Recipe, Task
from expunge.core.checks import as_path, whole
from expunge.core.renamed import renamed
from expunge.tasks.models import Norm, resnet9, small_cnn
from expunge.tasks.plain_pickle import read_plain_pickle

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

# SHA-256 of the values (pixels, or labels, one byte each) of the original releases, computed from files whose own
# checksums are the published ones.
CHECKSUMS: dict[str, dict[str, str]] = {
    "mnist": {
        "train-images-idx3-ubyte": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "train-labels-idx1-ubyte": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
        "t10k-images-idx3-ubyte": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "t10k-labels-idx1-ubyte": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
        "train-labels-idx1-ubyte": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
        "t10k-images-idx3-ubyte": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        "t10k-labels-idx1-ubyte": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
    },
    "cifar10": {
        "data_batch_1": "0d577ad18df43575d9a4604e9439c975ed0458e62fedce31bf342584486095b4",
        "data_batch_2": "119fc42c082d4eb9075f4be2ad8ead34f73523fd07bfa1e6eb72e4c0a9f4e234",
        "data_batch_3": "3920cc990b250c9f5858706bfdfa42e5916a3fb9c650076857c0eaeeb9ba22e9",
        "data_batch_4": "63d48826df4236930951424843f0f1f3e5fd6af00eecd863db9d08cc1c9cafb9",
        "data_batch_5": "ab505a476be12050fcd964679bf4f83ef3382722a31273e2d1c592fd7e312d11",
        "test_batch": "ecc0a6ddb5cb58330ce4f06c1825ec8c68baeade5baaacbb3cbdf8f385599213",
    },
}

LARGEST = 2**28
"""Bytes of a file, unpacked; the largest of the original ones has 47 million."""

CIFAR_PARTS = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


@renamed("batch", "optimiser")
def mnist(
    root: str | Path,
    *,
    model: Callable[[], nn.Module] | None = None,
    norm: Norm = None,
    train: int | None = None,
    validation: int | None = None,
    verify: bool = True,
    **recipe: Any,
) -> Task:
    """Return MNIST (60,000 and 10,000 grey 28x28 images of digits) as a task with a small convolutional network.

    Pixels are divided by 255, then standardised with the mean and standard deviation of all training pixels.

    Args:
        root: Folder that holds `MNIST/raw/`, `raw/` or the four IDX files themselves (`train-images-idx3-ubyte`, ...).
        model: A function that returns a fresh network for 1x28x28 images; None takes `small_cnn`.
        norm: Normalisation of `small_cnn`, `"batch"` or None.
        train: Keep only the first so many training examples; None keeps all.
        validation: Keep only the first so many test examples; None keeps all.
        verify: Compare with the checksums of the original release; False reads other data in the same format.
        **recipe: Fields of `Recipe` that replace the defaults: batch 128, 10 epochs, triangular rate that peaks at .1
            after a fifth of the epochs; the other defaults are those of `Recipe`.

    Raises:
        InputError: If a file is missing (it is named), damaged, or not the original one.

    Source:
        Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits, 1998.
    """
    return _idx_task("mnist", "MNIST", as_path(root, "root"), model, norm, train, validation, verify, recipe)


@renamed("batch", "optimiser")
def fashion_mnist(
    root: str | Path,
    *,
    model: Callable[[], nn.Module] | None = None,
    norm: Norm = None,
    train: int | None = None,
    validation: int | None = None,
    verify: bool = True,
    **recipe: Any,
) -> Task:
    """Return Fashion-MNIST (60,000 and 10,000 grey 28x28 images of clothes) as a task; arguments as in `mnist`.

    Source:
        H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST" (arXiv 1708.07747).
    """
    return _idx_task(
        "fashion_mnist", "FashionMNIST", as_path(root, "root"), model, norm, train, validation, verify, recipe
    )


@renamed("batch", "optimiser")
def cifar10(
    root: str | Path,
    *,
    model: Callable[[], nn.Module] | None = None,
    norm: Norm = "batch",
    train: int | None = None,
    validation: int | None = None,
    verify: bool = True,
    **recipe: Any,
) -> Task:
    """Return CIFAR-10 (50,000 and 10,000 colour 32x32 images) as a task with ResNet-9 and the recipe of the paper.

    Pixels are divided by 255, then standardised per channel with the mean and standard deviation of the training
    pixels; there is no augmentation.

    Args:
        root: Folder that holds `cifar-10-batches-py/` (the python version) or `cifar-10-batches-bin/` (the binary
            version), or one of these folders itself.
        model: Makes the network; None is `resnet9`. Two for two cores: `functools.partial(resnet9, width=8)` and
            `functools.partial(small_cnn, 32, 3, norm="batch")`.
        norm: Normalisation of ResNet-9, `"batch"` or None; nothing where `model` is given.
        train: Keep only the first so many training examples; None keeps all.
        validation: Keep only the first so many test examples; None keeps all.
        verify: Compare with the checksums of the original release; False reads other data in the same format.
        **recipe: Fields of `Recipe` that replace the defaults: batch 512, 24 epochs, triangular rate that peaks at .4
            in epoch 5 ("Ascent Fails to Forget", arXiv 2509.26427, sec. 5).

    Raises:
        InputError: If a file is missing (it is named), damaged, or not the original one.

    Source:
        A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    root = as_path(root, "root")
    parts = {name: _read_cifar(root, name, verify) for name in CIFAR_PARTS}
    kept = [parts[name] for name in CIFAR_PARTS[:-1]]
    x, y = np.concatenate([p[0] for p in kept]), np.concatenate([p[1] for p in kept])
    fields = {"batch_size": 512, "epochs": 24, "lr": 0.4, **recipe}
    fields = {"peak_epoch": fields["epochs"] * 5 / 24, **fields}
    factory = partial(resnet9, norm=norm) if model is None else model
    return _image_task("cifar10", (x, y), parts["test_batch"], train, validation, factory, fields)


def _idx_task(
    name: str,
    folder: str,
    root: Path,
    model: Callable[[], nn.Module] | None,
    norm: Norm,
    train: int | None,
    validation: int | None,
    verify: bool,
    recipe: dict[str, Any],
) -> Task:
    splits = []
    for part in ("train", "t10k"):
        images = _read_idx(root, folder, f"{part}-images-idx3-ubyte", 3, name, verify)
        labels = _read_idx(root, folder, f"{part}-labels-idx1-ubyte", 1, name, verify)
        if len(images) != len(labels):
            raise InputError(f"{root}: {part} has {len(images)} images but {len(labels)} labels, expected as many.")
        splits.append((images[:, None], labels))
    if splits[0][0].shape[2] != splits[0][0].shape[3]:
        raise InputError(f"{root}: images have shape {splits[0][0].shape[2:]}, expected square ones.")
    fields = {"batch_size": 128, "epochs": 10, "lr": 0.1, **recipe}
    fields = {"peak_epoch": fields["epochs"] / 5, **fields}
    factory = partial(small_cnn, size=splits[0][0].shape[3], norm=norm)
    return _image_task(name, splits[0], splits[1], train, validation, model or factory, fields)


def _image_task(
    name: str,
    train: tuple[Bytes, Bytes],
    test: tuple[Bytes, Bytes],
    first_train: int | None,
    first_test: int | None,
    model: Callable[[], nn.Module],
    fields: dict[str, Any],
) -> Task:
    pairs = []
    for (x, y), first, what in ((train, first_train, "train"), (test, first_test, "validation")):
        if first is not None:
            whole(**{what: first})
            if first > len(y):
                raise InputError(f"{what} = {first}, expected at most {len(y)}: {name} has no more.")
        pairs.append((x[:first], y[:first]))
    unknown = set(fields) - set(Recipe.__dataclass_fields__)
    if unknown:
        known = ", ".join(Recipe.__dataclass_fields__)
        raise InputError(f"{name}() got {', '.join(sorted(unknown))}, expected fields of Recipe: {known}.")
    mean, scale = moments(pairs[0][0])
    inputs = [(standardised(x, mean, scale), torch.from_numpy(y.astype(np.int64))) for x, y in pairs]
    return Task(name=name, train=inputs[0], validation=inputs[1], model=model, recipe=Recipe(**fields), classes=10)


def moments(x: Bytes) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel, both (channels, 1, 1), from counts of the 256 values."""
    means, scales = [], []
    for channel in range(x.shape[1]):
        counts = np.bincount(x[:, channel].ravel(), minlength=256).astype(np.float64)
        values = np.arange(256) / 255.0
        mean = (counts @ values) / counts.sum()
        means.append(mean)
        # A channel that is constant is left as it is.
        scales.append(math.sqrt((counts @ (values - mean) ** 2) / counts.sum()) or 1.0)
    return torch.tensor(means).view(-1, 1, 1), torch.tensor(scales).view(-1, 1, 1)


def standardised(x: Bytes, mean: Tensor, scale: Tensor) -> Tensor:
    """Return pixels from 0 to 255 divided by 255, less the mean, in units of the scale, each of a channel."""
    # In place, because CIFAR-10 takes 0.6 GB as float32.
    return torch.from_numpy(x.astype(np.float32)).div_(255.0).sub_(mean).div_(scale)


def _read_idx(root: Path, folder: str, file: str, axes: int, name: str, verify: bool) -> Bytes:
    path = _find(root, (f"{folder}/raw", "raw", folder, "."), file)
    content = _content(path)
    if len(content) < 4 + 4 * axes or content[:4] != bytes((0, 0, 8, axes)):
        raise InputError(
            f"{path} begins with {content[:4].hex(' ')}, expected 00 00 08 0{axes} (IDX, bytes, {axes} axes)."
        )
    shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    if len(content) != 4 + 4 * axes + math.prod(shape):
        raise InputError(
            f"{path} holds {len(content) - 4 - 4 * axes} values, its header says {' x '.join(map(str, shape))}; "
            "the file is damaged, get it again."
        )
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
    _check(path, name, file, [values], verify)
    if axes == 1 and len(values) and values.max() > 9:
        raise InputError(f"{path} has the label {values.max()}, expected 0 to 9.")
    return values


def _read_cifar(root: Path, part: str, verify: bool) -> tuple[Bytes, Bytes]:
    places = ("cifar-10-batches-py", "cifar-10-batches-bin", ".")
    path = _find(root, places, part, f"{part}.bin")
    content = _content(path)
    if path.name.startswith(f"{part}.bin"):
        if len(content) % 3073:
            raise InputError(f"{path} has {len(content)} bytes, expected a multiple of 3,073; the file is damaged.")
        rows = np.frombuffer(content, np.uint8).reshape(-1, 3073)
        labels, pixels = rows[:, 0].copy(), rows[:, 1:].copy()
    else:
        batch = read_plain_pickle(content, str(path))
        try:
            # The Python 2 release has text keys; files written again by Python 3 may have bytes.
            batch = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
            pixels, labels = batch["data"], np.asarray(batch["labels"])
            if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3072:
                raise ValueError(f"data has type {pixels.dtype} and shape {pixels.shape}")
            if labels.shape != (len(pixels),) or not np.issubdtype(labels.dtype, np.integer):
                raise ValueError(f"labels have shape {labels.shape}")
        except (KeyError, AttributeError, ValueError) as error:
            raise InputError(
                f"{path} is no CIFAR-10 batch ({error}); expected 'data', bytes of shape (images, 3072), and 'labels'."
            ) from error
        if len(labels) and not 0 <= labels.min() <= labels.max() <= 9:
            raise InputError(f"{path} has labels from {labels.min()} to {labels.max()}, expected 0 to 9.")
        labels = labels.astype(np.uint8)
    if len(labels) and labels.max() > 9:
        raise InputError(f"{path} has the label {labels.max()}, expected 0 to 9.")
    _check(path, "cifar10", part, [labels, pixels], verify)
    return pixels.reshape(-1, 3, 32, 32), labels


def _find(root: Path, folders: Sequence[str], *names: str) -> Path:
    if not root.is_dir():
        raise InputError(f"{root} is not a folder, expected the folder that holds the data.")
    for folder in folders:
        for name in names:
            for suffix in ("", ".gz", ".xz"):
                path = root / folder / f"{name}{suffix}"
                if path.is_file():
                    return path
    raise InputError(
        f"{root} holds no {names[0]} (plain, .gz or .xz), looked for in {', '.join(folders)}; "
        "expected the original files."
    )


def _content(path: Path) -> bytes:
    try:
        opened: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
        with opened(path, "rb") as file:
            content: bytes = file.read(LARGEST + 1)
    except (OSError, EOFError, lzma.LZMAError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); the file is damaged, get it again.") from error
    except Exception as error:
        # zlib's error has no public base class of its own.
        raise InputError(f"{path} cannot be decompressed ({error}); the file is damaged, get it again.") from error
    if len(content) > LARGEST:
        raise InputError(f"{path} holds more than {LARGEST >> 20} MiB, expected the original file; get it again.")
    return content


def _check(path: Path, name: str, part: str, arrays: Sequence[Bytes], verify: bool) -> None:
    if not verify:
        return
    found = _digest(arrays)
    if found != CHECKSUMS[name][part]:
        raise InputError(
            f"{path} is not the original file (SHA-256 of its values begins {found[:12]}, expected "
            f"{CHECKSUMS[name][part][:12]}); get it again, or pass verify=False to use other data in this format."
        )


def _digest(arrays: Sequence[Bytes]) -> str:
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
