"""Living-17 of BREEDS: 17 kinds of animals, each of four classes of ImageNet, from the user's own folder of images.

Nothing is downloaded: ImageNet (ILSVRC2012) has a licence of its own. The folder is the usual one, a folder a class:

    train/n01631663/*.JPEG    val/n01631663/*.JPEG    and likewise for every class of the domain

The 68 classes are those of BREEDS's own generator (`make_living17`, `split="rand"`), of which the first two of a kind
are its source domain, the others its target domain.

Source: Santurkar, Tsipras, Madry, "BREEDS: Benchmarks for Subpopulation Shift" (arXiv 2008.04859), table of Living-17.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from expunge.core import InputError, Recipe, Task
from expunge.core.checks import as_path, one_of, whole
from expunge.core.reading import available_memory
from expunge.tasks.images import moments, standardised
from expunge.tasks.models import Norm, resnet18

Domain = Literal["source", "target", "both"]

LIVING17: Mapping[str, tuple[str, str, str, str]] = {
    "salamander": ("n01631663", "n01632777", "n01630670", "n01632458"),
    "turtle": ("n01669191", "n01665541", "n01664065", "n01667114"),
    "lizard": ("n01685808", "n01689811", "n01694178", "n01675722"),
    "snake": ("n01740131", "n01735189", "n01751748", "n01742172"),
    "spider": ("n01774750", "n01773157", "n01773797", "n01775062"),
    "grouse": ("n01796340", "n01798484", "n01797886", "n01795545"),
    "parrot": ("n01818515", "n01820546", "n01817953", "n01819313"),
    "crab": ("n01978287", "n01980166", "n01978455", "n01981276"),
    "dog": ("n02088466", "n02086079", "n02111500", "n02086910"),
    "wolf": ("n02114855", "n02114712", "n02114548", "n02114367"),
    "fox": ("n02120505", "n02120079", "n02119022", "n02119789"),
    "domestic cat": ("n02123159", "n02124075", "n02123394", "n02123597"),
    "bear": ("n02134418", "n02133161", "n02134084", "n02132136"),
    "beetle": ("n02172182", "n02174001", "n02167151", "n02168699"),
    "butterfly": ("n02281406", "n02276258", "n02280649", "n02277742"),
    "ape": ("n02483362", "n02480495", "n02480855", "n02481823"),
    "monkey": ("n02490219", "n02493509", "n02493793", "n02492660"),
}
"""Classes of ImageNet by kind, the source domain's two first."""

ENDINGS = (".jpeg", ".jpg", ".png")
FORMATS = ("JPEG", "PNG")
"""What is read, whatever a file is called: one image of ImageNet is a PNG."""


def living17(
    root: str | Path,
    *,
    size: int = 64,
    domain: Domain = "source",
    model: Callable[[], nn.Module] | None = None,
    norm: Norm = "batch",
    per_class: int | None = None,
    **recipe: Any,
) -> Task:
    """Return Living-17, images of 17 kinds of animals, as a task with ResNet-18.

    The shorter side of an image is scaled to `size`, and its middle is kept. Pixels are divided by 255, then
    standardised per channel with the mean and standard deviation of the training pixels; there is no augmentation.
    Rows are in the order of the class folders' names, then of the files' names.

    Args:
        root: Folder with `train/` and `val/`, each with a folder of images a class of ImageNet.
        size: Pixels of a side, at least 8, such as 64 or 224.
        domain: `source` (34 classes of ImageNet, about 44,000 images), `target` (the other 34), or `both`.
        model: A function that returns a fresh network for images of 3 channels and 17 classes; None is `resnet18`.
        norm: Normalisation of ResNet-18, `"batch"` or None; nothing where `model` is given.
        per_class: Keep only the first so many images of each folder, of `train/` and of `val/`; None keeps all.
        **recipe: Fields of `Recipe` that replace the defaults: those of ResNet-9 on CIFAR-10, batch 512, 24 epochs,
            triangular rate that peaks at .4 in epoch 5.

    Raises:
        InputError: If a folder is missing or empty, an image cannot be read (it is named), or they do not fit into
            memory.

    Source:
        S. Santurkar, D. Tsipras, A. Madry, "BREEDS: Benchmarks for Subpopulation Shift" (arXiv 2008.04859).
    """
    one_of(("source", "target", "both"), domain=domain)
    whole(8, size=size)
    if per_class is not None:
        whole(per_class=per_class)
    unknown = set(recipe) - set(Recipe.__dataclass_fields__)
    if unknown:
        known = ", ".join(Recipe.__dataclass_fields__)
        raise InputError(f"living17() got {', '.join(sorted(unknown))}, expected fields of Recipe: {known}.")
    labels = classes_of(domain)
    listed = {part: _files(as_path(root, "root") / part, labels, per_class) for part in ("train", "val")}
    _fits(sum(map(len, listed.values())), size)
    pixels, targets = {}, {}
    for part, files in listed.items():
        pixels[part] = np.stack([_read(path, size) for path, _ in files])
        targets[part] = torch.tensor([label for _, label in files])
    mean, scale = moments(pixels["train"])
    inputs: dict[str, Tensor] = {part: standardised(pixels.pop(part), mean, scale) for part in listed}
    fields = {"batch_size": 512, "epochs": 24, "lr": 0.4, **recipe}
    fields = {"peak_epoch": fields["epochs"] * 5 / 24, **fields}
    return Task(
        name="living17",
        train=(inputs["train"], targets["train"]),
        validation=(inputs["val"], targets["val"]),
        model=partial(resnet18, classes=len(LIVING17), norm=norm) if model is None else model,
        recipe=Recipe(**fields),
        classes=len(LIVING17),
    )


def classes_of(domain: Domain) -> dict[str, int]:
    """Return the number of the kind of each class of ImageNet in a domain, in the order of the folders' names.

    >>> len(classes_of("source")), len(classes_of("both")), classes_of("target")["n02492660"]
    (34, 68, 16)
    """
    part = {"source": slice(0, 2), "target": slice(2, 4), "both": slice(0, 4)}[domain]
    found = {name: kind for kind, names in enumerate(LIVING17.values()) for name in names[part]}
    return dict(sorted(found.items()))


def _files(folder: Path, labels: Mapping[str, int], first: int | None) -> list[tuple[Path, int]]:
    found = []
    for name, label in labels.items():
        place = folder / name
        if not place.is_dir():
            raise InputError(
                f"{place} is not a folder, expected one of images for each of {len(labels)} classes of ImageNet, as "
                "ILSVRC2012 (https://www.image-net.org) is usually unpacked; nothing is downloaded."
            )
        files = sorted(path for path in place.iterdir() if path.suffix.lower() in ENDINGS)
        if not files:
            raise InputError(f"{place} holds no image, expected files that end in {', '.join(ENDINGS)}.")
        found += [(path, label) for path in files[:first]]
    return found


def _fits(images: int, size: int) -> None:
    needed, free = images * 3 * size**2 * 5, available_memory()  # bytes and float32 side by side
    if free is not None and needed > free:
        raise InputError(
            f"{images:,} images of {size} pixels a side take {needed / 2**30:.1f} GB, and {free / 2**30:.1f} GB are "
            "free; choose a smaller size, or per_class."
        )


def _read(path: Path, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return an image (3, size, size): the shorter side scaled, the middle kept."""
    try:
        with Image.open(path, formats=FORMATS) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as an image: {error}. Get it again, or take it out.") from error
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    scaled = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    return np.asarray(scaled, dtype=np.uint8).transpose(2, 0, 1)
