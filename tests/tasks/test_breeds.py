"""Living-17 from a folder of images: which classes, which labels, which pixels, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from expunge.core import InputError
from expunge.tasks import breeds, living17
from expunge.tasks.breeds import LIVING17, classes_of


def folder(root: Path, domain: str = "source") -> Path:
    """Write images of one grey each, 12 wide and 8 high, whose outer columns are white."""
    for number_of_folder, name in enumerate(classes_of(domain)):  # type: ignore[arg-type]
        for part, count in (("train", 2), ("val", 1)):
            place = root / part / name
            place.mkdir(parents=True)
            for number in range(count):
                grey = 2 * number_of_folder + number if part == "train" else 100 + number_of_folder
                pixels = np.full((8, 12), grey, np.uint8)
                pixels[:, [0, 1, -2, -1]] = 255
                Image.fromarray(pixels).save(place / f"{name}_{number}.JPEG", format="PNG")
    return root


def test_seventeen_kinds_of_four_classes_each() -> None:
    every = [name for names in LIVING17.values() for name in names]
    assert (len(LIVING17), len(every), len(set(every))) == (17, 68, 68)
    assert set(classes_of("source")) | set(classes_of("target")) == set(classes_of("both")) == set(every)
    assert list(classes_of("both")) == sorted(every)
    for domain in ("source", "target", "both"):
        counts = np.bincount(list(classes_of(domain).values()), minlength=17)  # type: ignore[arg-type]
        assert len(set(counts)) == 1
    # Those that a table of the source names.
    assert LIVING17["dog"] == ("n02088466", "n02086079", "n02111500", "n02086910")
    assert classes_of("source")["n02088466"] == 8


def test_rows_labels_and_pixels_are_those_of_the_files(tmp_path: Path) -> None:
    task = living17(folder(tmp_path), size=8, epochs=3)
    assert task.train.x.shape == (68, 3, 8, 8)
    assert task.validation.x.shape == (34, 3, 8, 8)
    kinds = torch.tensor(list(classes_of("source").values()))
    torch.testing.assert_close(task.train.y, kinds.repeat_interleave(2))
    torch.testing.assert_close(task.validation.y, kinds)
    # The middle is kept, so that no white is left, and standardising is undone by hand.
    grey = torch.arange(68.0).view(-1, 1, 1, 1).expand(task.train.x.shape)
    expected = (grey - grey.mean((0, 2, 3), keepdim=True)) / grey.std((0, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(task.train.x, expected, rtol=1e-5, atol=1e-5)
    assert task.recipe.peak_epoch == pytest.approx(3 * 5 / 24)
    fewer = living17(tmp_path, size=8, per_class=1)
    assert len(fewer.train) == 34
    assert task.build(0)(task.train.x[:2]).shape == (2, 17)


def test_colour_and_print_colours_become_three_channels(tmp_path: Path) -> None:
    root = folder(tmp_path)
    first = next(iter(classes_of("source")))
    Image.new("CMYK", (9, 9), (0, 255, 255, 0)).save(root / "train" / first / "a.jpg")
    Image.new("RGBA", (9, 9), (0, 0, 255, 128)).save(root / "train" / first / "b.png")
    task = living17(root, size=9)
    red, blue = task.train.x[0], task.train.x[1]
    assert red[0].mean() > red[2].mean()
    assert blue[2].mean() > blue[0].mean()


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path)
    with pytest.raises(InputError, match="size"):
        living17(root, size=4)
    with pytest.raises(InputError, match="domain"):
        living17(root, domain="all")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"living17.. got bach_size, expected fields of Recipe"):
        living17(root, bach_size=3)
    with pytest.raises(InputError, match=r"train.n01630670 is not a folder, expected .* 34 classes of ImageNet"):
        living17(root, domain="target")
    with monkeypatch.context() as little:
        little.setattr(breeds, "available_memory", lambda: 100_000)
        with pytest.raises(InputError, match=r"102 images of 32 pixels a side take .* GB"):
            living17(root, size=32)
    broken = next((root / "val" / "n02493509").iterdir())
    content = broken.read_bytes()
    for wrong in (content[: len(content) // 2], b"", b"GIF89a" + content):
        broken.write_bytes(wrong)
        with pytest.raises(InputError, match=r"n02493509_0.JPEG cannot be read as an image"):
            living17(root, size=8)
    broken.unlink()
    with pytest.raises(InputError, match="n02493509 holds no image"):
        living17(root, size=8)
