"""Figures place what the record holds: histograms against counting by hand, scales at their ends."""

from __future__ import annotations

import math
import re
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge.core.errors import DamagedFileError
from expunge.core.record import Record
from expunge.core.result import Result
from expunge.report import figures, numbers, wording
from expunge.report.axes import Axis
from expunge.report.margin_grid import BINS, CELL_HEIGHT, CELL_WIDTH, Cell, margin_grid
from expunge.report.strip import Strip, strip


def heights_of(path: str) -> list[float]:
    """Read the height of each bin back from an SVG path, 0 to 1 in units of the tallest."""
    width = CELL_WIDTH / BINS
    level, at, found = 0.0, 0.0, []
    for x, y in re.findall(r"H([\d.]+)V([\d.]+)", path):
        found += [level] * (round(float(x) / width) - round(at / width))
        at, level = float(x), (CELL_HEIGHT - float(y)) / (CELL_HEIGHT - 3)
    return found + [level] * (BINS - len(found))


def counted(values: np.ndarray, low: float, high: float) -> list[int]:
    """Count values in equal bins, one by one; the last bin includes its right end."""
    counts = [0] * BINS
    for value in values:
        if math.isfinite(value) and low <= value <= high:
            counts[min(int((value - low) / (high - low) * BINS), BINS - 1)] += 1
    return counts


def check_by_counting(cell: Cell, oracle: np.ndarray, pretrained: np.ndarray, values: np.ndarray) -> None:
    """Both histograms of a cell hold what counting one by one finds, as shares of all members."""
    both = np.concatenate([oracle, pretrained]).astype(float)
    pad = 0.25 * (both.max() - both.min())
    expected = [
        np.array(counted(v.astype(float), both.min() - pad, both.max() + pad)) / len(v) for v in (oracle, values)
    ]
    top = max(h.max() for h in expected)
    for path, heights in zip((cell.oracle, cell.who), expected, strict=True):
        np.testing.assert_allclose(heights_of(path), heights / top, atol=0.003)


def test_histograms_equal_counting(record: Record, example: ModuleType) -> None:
    forget = record.forget_sets[0]
    margins = example.example_margins(record, forget)
    grid = margin_grid(forget, margins)
    assert len(grid.examples) == 5
    assert grid.missing == []
    chosen = [row.chosen.id for row in wording.rows(forget) if row.chosen]
    assert len(grid.rows) == 2 + len(chosen)
    for who, (_, _, cells) in zip(["pretrained", "held_out", *chosen], grid.rows, strict=True):
        for e, cell in zip(forget.worst, cells, strict=False):
            oracle, pretrained, values = (margins[f"{w}/forget"][:, e.position] for w in ("oracle", "pretrained", who))
            check_by_counting(cell, oracle, pretrained, values)
            shift = (values.astype(float).mean() - oracle.astype(float).mean()) / oracle.astype(float).std(ddof=1)
            assert cell.shift == numbers.signed(shift)


def test_outliers_and_broken_members_are_counted_and_do_not_stretch(record: Record, example: ModuleType) -> None:
    forget = record.forget_sets[0]
    margins = example.example_margins(record, forget)
    honest = margin_grid(forget, margins)
    chosen = forget.selections[0].chosen
    margins[f"{chosen}/forget"][0] = np.nan
    margins[f"{chosen}/forget"][1] = np.inf
    margins[f"{chosen}/forget"][2] = 1e8
    margins[f"{chosen}/forget"][3:5] = -1e8
    broken = margin_grid(forget, margins)
    assert broken.ticks == honest.ticks
    assert broken.rows[0] == honest.rows[0]
    cell = broken.rows[2][2][0]
    oracle, pretrained, values = (
        margins[f"{who}/forget"][:, forget.worst[0].position] for who in ("oracle", "pretrained", chosen)
    )
    check_by_counting(cell, oracle, pretrained, values)
    both = np.concatenate([oracle, pretrained]).astype(float)
    pad = 0.25 * (both.max() - both.min())
    left, right = int((values < both.min() - pad).sum()), int((values[2:] > both.max() + pad).sum())
    assert left >= 2
    assert right >= 1
    assert cell.note == f"{left} further left, {right} further right, 2 not finite"
    assert cell.note in cell.title


def test_all_members_broken(record: Record, example: ModuleType) -> None:
    forget = record.forget_sets[0]
    margins = example.example_margins(record, forget)
    margins[f"{forget.selections[0].chosen}/forget"][:] = np.nan
    cell = margin_grid(forget, margins).rows[2][2][0]
    assert cell.shift == ""
    assert cell.note == f"{record.members} not finite"
    assert max(heights_of(cell.who)) == 0


def test_one_member_and_equal_margins(record: Record) -> None:
    forget = record.forget_sets[0]
    margins = {f"{who}/forget": np.full((1, forget.size), 2.0, np.float32) for who in ("oracle", "pretrained")}
    grid = margin_grid(forget, margins)
    assert grid.rows[0][2][0].shift == ""
    assert sum(heights_of(grid.rows[0][2][0].who)) == pytest.approx(1, abs=0.01)
    assert "Retrained (held-out oracles)" in grid.missing


@pytest.mark.parametrize("shape", [(10,), (10, 3), (3, 10, 2)])
def test_margins_of_the_wrong_shape(record: Record, shape: tuple[int, ...]) -> None:
    forget = record.forget_sets[0]
    with pytest.raises(
        DamagedFileError, match=r"oracle/forget with shape .*, expected \(members, examples\) with at least 6"
    ):
        margin_grid(forget, {"oracle/forget": np.zeros(shape, np.float32)})


finite = st.floats(0, 1e6)


@given(st.lists(st.one_of(finite, st.just(math.inf), st.just(math.nan), st.just(-1.0)), max_size=30))
def test_axis_holds_every_value(values: list[float]) -> None:
    axis = Axis.over(values)
    ranges = axis.ranges()
    for value in values:
        at = axis.place(value)
        assert ranges["log"][0] <= math.log10(at) <= ranges["log"][1]
        assert 0 <= at <= ranges["linear"][1]
        if math.isfinite(value) and value >= axis.low:
            assert at == pytest.approx(value, rel=1e-3)
        if not math.isfinite(value):
            assert at >= max([0, *(axis.place(v) for v in values if math.isfinite(v))])


@given(finite, finite, st.floats(0.01, 100))
def test_strip_is_monotone_and_inside(a: float, b: float, top: float) -> None:
    def at(value: float) -> Strip:
        return strip(Result("klom", "p95", value, value, value, 0.1, 0.1, 0.2, 9, 9, 9), 0.1, top)

    low, high = at(min(a, b)), at(max(a, b))
    assert 0 <= low.value <= high.value <= 1
    assert high.beyond == (max(a, b) > top)
    assert at(math.nan).beyond
    assert at(math.nan).value == 1


def test_curves_start_at_the_pretrained_models(record: Record) -> None:
    forget = record.forget_sets[0]
    for split in ("forget", "validation"):
        figure = figures.over_time(forget, split, record.tolerance)
        lines = {trace["name"]: trace for trace in figure["data"] if trace["mode"] == "lines+markers"}
        # Retraining starts from nothing, and doing nothing has no time.
        moving = [c for c in forget.configurations if c.method not in ("retrain_early", "do_nothing")]
        assert set(lines) == {c.run for c in moving}
        for run, line in lines.items():
            own = sorted((c for c in moving if c.run == run), key=lambda c: c.epoch)
            assert line["x"] == [0, *(c.epoch for c in own)]
            assert line["y"][0] == pytest.approx(forget.pretrained[split].value, rel=1e-3)
        assert figure["layout"]["xaxis"]["dtick"] == 1
        rings = [trace for trace in figure["data"] if trace["name"] == "chosen"]
        assert len(rings) == len(forget.selections)


def test_floor_and_tolerance_are_drawn_where_they_are(record: Record) -> None:
    forget = record.forget_sets[0]
    figure = figures.plane(forget, "retain", figures.symbols([forget]), (0.01, 1), record.tolerance)
    target, across, upright = figure["layout"]["shapes"]
    x, y = forget.floor["retain"], forget.floor["forget"]
    assert (target["x1"], target["y1"]) == pytest.approx(
        (x.value + record.tolerance, y.value + record.tolerance), rel=1e-3
    )
    assert (across["y0"], across["y1"]) == pytest.approx((y.floor_low, y.floor_high), rel=1e-3)
    assert (upright["x0"], upright["x1"]) == pytest.approx((x.floor_low, x.floor_high), rel=1e-3)
    star = next(trace for trace in figure["data"] if trace["name"].startswith("oracle"))
    assert (star["x"][0], star["y"][0]) == pytest.approx((x.value, y.value), rel=1e-3)
    circle = next(trace for trace in figure["data"] if trace["name"].startswith("pretrained"))
    assert circle["y"][0] == pytest.approx(forget.pretrained["forget"].value, rel=1e-3)


def test_more_methods_than_shapes(record: Record) -> None:
    forget = record.forget_sets[0]
    for i, c in enumerate(forget.configurations):
        c.method = f"method {i}"
    shapes = figures.symbols([forget])
    assert len(shapes) == len(forget.configurations)
    assert not {"circle", "star"} & set(shapes.values())
