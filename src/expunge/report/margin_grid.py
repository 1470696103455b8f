"""Histograms of margins on the worst forget examples, as SVG paths: rows are ensembles, columns are examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.core.errors import DamagedFileError
from expunge.core.record import ExampleRecord, ForgetRecord
from expunge.report import numbers, wording

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Cell:
    """One histogram: an ensemble's margins on one example, over those of the oracles."""

    oracle: str
    """SVG path of the oracles' histogram, filled."""
    who: str
    """SVG path of the ensemble's histogram, an outline."""
    zero: float | None
    """Where margin 0 lies, horizontally; None outside of the range."""
    shift: str
    """Mean margin minus the oracles' mean, in oracle standard deviations."""
    note: str
    """Members outside of the range, or not finite."""
    broken: bool
    """Whether any member is not finite."""
    title: str
    """What a screen reader says."""


@dataclass(frozen=True)
class MarginGrid:
    """Small multiples: rows are ensembles, columns are examples."""

    examples: list[tuple[str, str]]
    """(heading, second line) of each column."""
    ticks: list[tuple[str, str, str]]
    """Left, middle and right end of each column's margin axis."""
    rows: list[tuple[str, str, list[Cell]]]
    """(label, colour, cells) of each row."""
    missing: list[str]
    """Ensembles whose margins are not in the file."""


CELL_WIDTH, CELL_HEIGHT, BINS = 150.0, 54.0, 28


def margin_grid(
    forget: ForgetRecord, margins: Mapping[str, np.ndarray[Any, Any]], statistic: str = "margin", columns: int = 5
) -> MarginGrid:
    """Return histograms of the forget examples on which the pretrained models differ most from the oracles.

    The range of a column covers all oracle and pretrained margins on that example and a quarter beyond; members
    outside are counted in words, so that a diverged ensemble cannot squeeze the picture.

    Args:
        forget: What was found about one forget set.
        margins: Arrays by `<who>/<split>`, each (members, examples).
        statistic: What the outcome calls the number in them; 0 is marked for margins alone.
        columns: Most examples to show.

    Raises:
        DamagedFileError: If an array does not have the shape that the record implies.
    """
    who: list[tuple[str, str, str]] = [
        ("pretrained", "Pretrained, nothing done", "var(--pretrained)"),
        ("held_out", "Retrained (held-out oracles)", "var(--oracle)"),
    ]
    who += [
        (row.chosen.id, f"{row.label}, chosen ({row.chosen.verdict.name})", f"var(--{row.chosen.verdict.name})")
        for row in wording.rows(forget)
        if row.chosen is not None
    ]
    worst = forget.worst[:columns]
    oracle = _forget_margins(margins, "oracle", forget)
    if oracle is None or not worst:
        return MarginGrid([], [], [], ["oracle"] if oracle is None else [])
    pretrained = _forget_margins(margins, "pretrained", forget)
    edges = [_edges(oracle[:, e.position], None if pretrained is None else pretrained[:, e.position]) for e in worst]
    grid_rows, missing = [], []
    for key, label, colour in who:
        array = _forget_margins(margins, key, forget)
        if array is None:
            missing.append(label)
            continue
        # Doing nothing is the pretrained ensemble itself: one row is enough.
        if pretrained is not None and key != "pretrained" and np.array_equal(array, pretrained):
            continue
        cells = [
            _cell(oracle[:, e.position], array[:, e.position], edge, label, statistic)
            for e, edge in zip(worst, edges, strict=True)
        ]
        grid_rows.append((label, colour, cells))
    return MarginGrid(
        examples=[_named(forget, e) for e in worst],
        ticks=[tuple(numbers.number(v) for v in (e[0], (e[0] + e[-1]) / 2, e[-1])) for e in edges],  # type: ignore[misc]
        rows=grid_rows,
        missing=missing,
    )


def _named(forget: ForgetRecord, example: ExampleRecord) -> tuple[str, str]:
    """Return an example's heading and second line: its id where it has one, its place in the data, and its class."""
    place = f"training example {example.index:,}"
    of_class = [f"class {example.label}"] if len(forget.classes) > 1 else []
    name = forget.names.get(example.index)
    return (place, ", ".join(of_class)) if name is None else (name, ", ".join([place, *of_class]))


def _forget_margins(margins: Mapping[str, np.ndarray[Any, Any]], who: str, forget: ForgetRecord) -> Floats | None:
    array = margins.get(f"{who}/forget")
    if array is None:
        return None
    needed = max((e.position for e in forget.worst), default=-1) + 1
    if array.ndim != 2 or array.shape[1] < needed:
        raise DamagedFileError(
            f"{forget.margins} holds {who}/forget with shape {tuple(array.shape)}, expected (members, examples) "
            f"with at least {needed} examples; run the study again with --resume."
        )
    return array.astype(np.float64)


def _edges(oracle: Floats, pretrained: Floats | None) -> Floats:
    both = oracle if pretrained is None else np.concatenate([oracle, pretrained])
    both = both[np.isfinite(both)]
    if both.size == 0:
        both = np.zeros(1)
    low, high = float(both.min()), float(both.max())
    pad = 0.25 * (high - low) or 1.0
    return np.linspace(low - pad, high + pad, BINS + 1)


def _cell(oracle: Floats, who: Floats, edges: Floats, label: str, statistic: str) -> Cell:
    finite = who[np.isfinite(who)]
    below, above = int((finite < edges[0]).sum()), int((finite > edges[-1]).sum())
    broken = len(who) - len(finite)
    notes = [f"{below} further left"] * (below > 0) + [f"{above} further right"] * (above > 0)
    notes += [f"{broken} not finite"] * (broken > 0)
    reference = oracle[np.isfinite(oracle)]
    spread = float(reference.std(ddof=1)) if len(reference) > 1 else 0.0
    shift = (
        (float(finite.mean()) - float(reference.mean())) / spread
        if len(finite) and len(reference) and spread > 0
        else math.nan
    )
    shift_text = numbers.signed(shift) if math.isfinite(shift) else ""
    away = f"{shift_text} standard deviations of the oracles" if shift_text else "not comparable"
    heights = [_shares(reference, edges, len(oracle)), _shares(finite, edges, len(who))]
    top = max(float(h.max()) for h in heights) or 1.0
    zero = (0.0 - edges[0]) / (edges[-1] - edges[0]) * CELL_WIDTH
    return Cell(
        oracle=_steps(heights[0] / top, close=True),
        who=_steps(heights[1] / top, close=False),
        zero=round(float(zero), 1) if 0 < zero < CELL_WIDTH and statistic == "margin" else None,
        shift=shift_text,
        note=", ".join(notes),
        broken=broken > 0,
        title=f"{label}: mean {statistic} {away} from theirs" + (f"; {', '.join(notes)}" if notes else ""),
    )


def _shares(values: Floats, edges: Floats, members: int) -> Floats:
    """Return the share of members in each bin; members outside of the range are in no bin, but in the total."""
    return np.histogram(values, bins=edges)[0] / max(members, 1)


def _steps(heights: Floats, *, close: bool) -> str:
    """Return the SVG path of a histogram with heights from 0 to 1."""
    width = CELL_WIDTH / len(heights)
    # Runs of empty bins are one segment: half of the path's length goes into them otherwise.
    parts = [f"M0 {CELL_HEIGHT:g}"]
    previous = 0.0
    for i, height in enumerate(heights):
        if height != previous:
            parts.append(f"H{i * width:.1f}V{CELL_HEIGHT - height * (CELL_HEIGHT - 3):.1f}")
            previous = height
    parts.append(f"H{CELL_WIDTH:g}V{CELL_HEIGHT:g}")
    return "".join(parts) + ("Z" if close else "")
