"""Pictures are PNG files that any reader understands, and a damaged one is refused with the record."""

from __future__ import annotations

import base64
import io

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


def test_verdicts_of_earlier_records_say_by_which_rule_they_were_judged(record: Record) -> None:
    assert "judged by the 95th percentile over rows alone" in render(record, {})
    for forget in record.forget_sets:
        for c in forget.configurations:
            c.verdict.rule = "every row"
    assert "judged by the 95th percentile over rows alone" not in render(record, {})
