"""What happened: every method on one forget set, scored against two halves of the oracles.

Settings are chosen with one half of the oracles and read with the other, so that the best of a grid is not flattered
by the noise it was chosen with. The floor is one half read against the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from expunge.core.forecast import PathPoint
from expunge.core.objective import objective
from expunge.core.record import SPLITS, SplitName
from expunge.metrics.ruler import Ruler
from expunge.studies.run.measure import margins_of
from expunge.studies.run.prediction import crossing


@dataclass(frozen=True)
class Measured:
    """One setting at one stopping time, read with both halves of the oracles."""

    run: str
    method: str
    epoch: int
    choosing: PathPoint
    """P95 and mean KLoM above the floor, and shifts, by split, read with the half that chooses."""
    reported: PathPoint
    """The same, read with the half that reports."""

    @property
    def setting(self) -> str:
        """Its name, `run@epoch`."""
        return f"{self.run}@{self.epoch}"


class Halves:
    """Two rulers for one forget set, from two independent sets of oracles.

    Args:
        choosing: Measurements (`Parts.measure`) of the oracles that choose.
        reporting: Of those that report.
    """

    def __init__(self, choosing: Mapping[str, Tensor], reporting: Mapping[str, Tensor]) -> None:
        a, b = margins_of(choosing), margins_of(reporting)
        self._choosing = {name: Ruler(a[name], b[name]) for name in SPLITS}
        self._reporting = {name: Ruler(b[name], a[name]) for name in SPLITS}

    def measure(self, run: str, method: str, epoch: int, cost: float, measured: Mapping[str, Tensor]) -> Measured:
        """Read one ensemble with both halves."""
        margins = margins_of(measured)
        choosing, reporting = (_point(r, run, epoch, cost, margins) for r in (self._choosing, self._reporting))
        return Measured(run, method, epoch, choosing, reporting)


def _point(
    rulers: Mapping[SplitName, Ruler],
    run: str,
    epoch: int,
    cost: float,
    margins: Mapping[SplitName, np.ndarray[Any, Any]],
) -> PathPoint:
    failed = np.any([rulers[name].failed(margins[name]) for name in SPLITS], axis=0)
    excess, means, shifts = {}, {}, {}
    for name in SPLITS:
        own = np.array(margins[name], dtype=np.float64)
        own[failed] = np.nan
        ready = rulers[name].prepare(own)
        floors = {summary: rulers[name].floor(len(own), summary)[0] for summary in ("p95", "mean")}
        excess[name] = float(np.percentile(ready.klom, 95)) - floors["p95"]
        means[name] = float(ready.klom.mean()) - floors["mean"]
        shifts[name] = rulers[name].shift(ready)
    return PathPoint(run=run, epoch=epoch, cost=cost, excess=excess, means=means, shifts=shifts)


def choose(measured: Sequence[Measured], by: Literal["excess", "means"] = "excess") -> Measured:
    """Return the setting with the least objective (P95 or mean) on the half that chooses."""
    return min(measured, key=lambda one: (objective(getattr(one.choosing, by)), one.reported.cost))


def damage_at_target(nothing: PathPoint, measured: Sequence[Measured]) -> float | None:
    """Return the least damage at which a run's forget margins reach the oracles' mean, or None if none does."""
    runs: dict[str, list[PathPoint]] = {}
    for one in measured:
        runs.setdefault(one.run, []).append(one.reported)
    found = [crossing([nothing, *path]) for path in runs.values()]
    values = [hit[0] for hit in found if hit is not None and not math.isnan(hit[0])]
    return min(values) if values else None
