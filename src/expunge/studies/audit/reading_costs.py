"""What reading an ensemble takes, measured with few members and rows and followed to more.

    seconds(members, rows) = a + b members + c members^2 + d members (rows - 1000)

The noise of a score is drawn for each member and each forget row (b, d); members are compared with one another, and
equations as large as their number are solved (c: these grow with the cube, and are the smaller part up to some
thousands of members). d counts only where there are more rows than a thousand. What is followed is within 25 % of what
`benchmarks/estimates.py --readings` measures.

Processor time is taken, so that what else the machine does now does not count.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from expunge.core.record import SplitName
from expunge.ensembles.chunks import one_thread_each
from expunge.metrics.arrays import Array
from expunge.studies.audit.judging import Bench

MEMBERS = (20, 100, 400)
"""Numbers of members at which more are measured; up to the last, readings are measured as they are."""
ROWS = (1000, 4000)
"""Forget rows, likewise; the second number with `FEW` members at most."""
FEW = 100


class ReadingCost(NamedTuple):
    """Processor seconds."""

    reading: float
    """Of judging one ensemble."""
    choosing: float
    """Of its scores without intervals."""


def reading_cost(
    measured: Mapping[str, Tensor], labels: Mapping[SplitName, Array], members: int, *, as_it_is: bool = False
) -> ReadingCost:
    """Return what a reading takes.

    Args:
        measured: Measurements (`Parts.measure`) of a few members; more are made of them.
        labels: Labels of the examples by split.
        members: Of an ensemble.
        as_it_is: Whether it is measured at its full size, however long that takes.
    """
    rows = measured["margins/forget"].shape[1]
    with one_thread_each():
        if as_it_is:
            return ReadingCost(*_measure(measured, labels, members, rows))
        counts = (members,) if members <= MEMBERS[-1] else MEMBERS
        times = [np.array(_measure(measured, labels, count, min(rows, ROWS[0]))) for count in counts]
        found = np.maximum(_followed(counts, times, members), times[-1])
        if rows > ROWS[0]:
            few, more = min(members, FEW), min(rows, ROWS[1])
            start, end = (np.array(_measure(measured, labels, few, size)) for size in (ROWS[0], more))
            found += np.maximum(end - start, 0) * (rows - ROWS[0]) / (more - ROWS[0]) * members / few
    return ReadingCost(*found.tolist())


def _followed(at: Sequence[int], values: Sequence[Array], where: int) -> Array:
    """Return the polynomial through values at some points, at another point."""
    weights = [math.prod((where - other) / (one - other) for other in at if other != one) for one in at]
    return np.asarray(sum(weight * value for weight, value in zip(weights, values, strict=True)))


def _measure(
    measured: Mapping[str, Tensor], labels: Mapping[SplitName, Array], members: int, rows: int
) -> tuple[float, float]:
    few = {
        name: values[:, :rows] if values.ndim > 1 and name.endswith("/forget") else values
        for name, values in measured.items()
    }
    sides = {who: _grown(few, members, place) for place, who in enumerate(("oracle", "held_out", "pretrained"))}
    bench = Bench(sides, 1.0, {**labels, "forget": labels["forget"][:rows]})
    other = _grown(few, members, 3)
    begin = time.process_time()
    bench.read(other)
    between = time.process_time()
    bench.read(other, judged=False)
    return between - begin, time.process_time() - between


def _grown(measured: Mapping[str, Tensor], members: int, place: int) -> dict[str, Tensor]:
    """Return measurements of so many members, made of those of a few and a little noise: only what they take counts."""
    own = torch.Generator().manual_seed(place)
    grown = {}
    for name, values in measured.items():
        rows = torch.arange(members) % len(values)
        more = values[rows]
        grown[name] = more + 0.1 * torch.randn(more.shape, generator=own).to(more.dtype)
    return grown
