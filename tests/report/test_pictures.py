"""Pictures are PNG files that any reader understands, and a damaged one is refused with the record."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from pydantic import ValidationError

from expunge.core.record import PictureRecord, Record, RowRecord, RowsRecord
from expunge.report import render
from expunge.report.pictures import png


def picture(pixels: np.ndarray) -> PictureRecord:
    height, width, channels = pixels.shape
    text = base64.b64encode(pixels.astype(np.uint8).tobytes()).decode()
    return PictureRecord(width=width, height=height, channels=channels, pixels=text)  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_pixels(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels))
    head, _, content = png(picture(pixels)).partition(",")
    read = imread(io.BytesIO(base64.b64decode(content)), format="png")
    assert head == "data:image/png;base64"
    assert np.array_equal(np.round(255 * read).reshape(5, 7, -1)[:, :, :channels], pixels)


@pytest.mark.parametrize("pixels", ["AAAA", "not base64!", ""])
def test_a_picture_without_its_pixels_is_refused(pixels: str) -> None:
    with pytest.raises(ValidationError):
        PictureRecord(width=2, height=2, channels=1, pixels=pixels)


def test_rows_that_count_are_listed_with_their_pictures(record: Record) -> None:
    forget = record.forget_sets[0]
    record.forget_sets = [forget]
    chosen = next(c for c in forget.configurations if c.id == forget.selections[0].chosen)
    rows = [
        RowRecord(position=i, index=40 + i, side="remembered", shift=9.0 - i, klom=1.0, p_value=0.001, counts=i != 1)
        for i in range(9)
    ]
    told = RowsRecord(examples=70, told=9, counted=8, remembered=8, beyond=0, level=0.02, rows=rows)
    chosen.verdict.rows, chosen.verdict.rule, chosen.verdict.name = {"forget": told}, "every row", "under-forgotten"
    forget.pictures = {42: picture(np.zeros((2, 2, 1)))}
    page = render(record, {})
    assert "under-forgotten (8 of 70 rows)" in page
    assert page.count("remembered, +") == 6
    assert "training row 41" not in page
    assert "and 2 more rows" in page
    assert page.count(png(forget.pictures[42])) == 1


def test_without_pictures_the_page_says_how_examples_are_named(record: Record, example: Any) -> None:
    record.forget_sets = record.forget_sets[:1]
    forget = record.forget_sets[0]
    margins = {forget.name: example.example_margins(record, forget)}
    page = " ".join(render(record, margins).split())
    assert "each is named by its place in the training data, with its class." in page
    first = forget.worst[0]
    forget.names = {first.index: "c-<17>"}
    page = " ".join(render(record, margins).split())
    assert "each is named by its id and its place in the training data" in page
    assert f"c-&lt;17&gt;<small>training example {first.index:,}, class {first.label}</small>" in page
    forget.pictures = {first.index: picture(np.zeros((2, 2, 3)))}
    page = render(record, margins)
    assert "No pictures of the examples" not in page
    assert page.count(png(forget.pictures[first.index])) >= 1


def test_verdicts_of_earlier_records_say_by_which_rule_they_were_judged(record: Record) -> None:
    assert "judged by the 95th percentile over rows alone" in render(record, {})
    for forget in record.forget_sets:
        for c in forget.configurations:
            c.verdict.rule = "every row"
    assert "judged by the 95th percentile over rows alone" not in render(record, {})
