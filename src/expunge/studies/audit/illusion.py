"""The illusion gap: what a study would gain that picks a method's setting with the target's oracles at hand.

Picked and read on the same oracles, the best of 40 equal settings beats any of them by luck alone. So members and
oracles of one forget set are cut in halves A and B (even and odd indices), which share no model:

    gap  =  mean of  L_B(chosen) - L_B(best on A)   and   L_A(chosen) - L_A(best on B)

L is the objective, the worst excess over the floor among the splits, read with half of the members against half of the
oracles. Its floor is higher than with all of them, and the same on both sides of a difference. What was best on A was
found without B, so the mean gap is 0 where the settings do not differ: it may come out negative.

Interval: members and oracles of the half that is read are drawn again, with the choices as they are; the same members
of both settings, since they started from the same pretrained ones. Drawing again adds noise to noise, so near the floor
the interval is about twice as wide as the gap varies, and rather calls a small gap noise than noise a gap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy

from expunge.core.objective import objective
from expunge.core.record import SPLITS, SplitName
from expunge.metrics.bootstrap import summarise
from expunge.metrics.ruler import Prepared, Ruler

Margins = Mapping[SplitName, np.ndarray[Any, Any]]

REPLICATES = 50
"""Draws behind an interval: its half width is then known to 10 %."""


@dataclass(frozen=True)
class Gap:
    """An illusion gap in nats, with its 95 % interval."""

    value: float
    low: float
    high: float


class Halves:
    """Reads the settings of a method on either half of the models of one forget set.

    Args:
        oracle: Margins of the oracles by split, each (members, examples).
        held_out: Of the held-out oracles, for the floors.
        margins: Of the unlearned members of each configuration, by its id; may hold NaN and infinities.
    """

    def __init__(self, oracle: Margins, held_out: Margins, margins: Mapping[str, Margins]) -> None:
        self._rulers = [
            {s: Ruler(oracle[s][half::2], held_out[s][half::2], replicates=REPLICATES) for s in SPLITS}
            for half in (0, 1)
        ]
        self._margins = margins
        self._read: dict[str, tuple[float, float]] = {}

    def gap(self, chosen: str, tried: Sequence[str]) -> Gap:
        """Return the gap between the chosen configuration and the best of those tried."""
        read = {name: self._objectives(name) for name in tried}
        values, spreads = [], []
        for half in (0, 1):
            best = min(tried, key=lambda name: read[name][1 - half])
            values.append(read[chosen][half] - read[best][half] if best != chosen else 0.0)
            spreads.append(self._spread(chosen, best, half) if best != chosen else 0.0)
        value = float(np.mean(values))
        members = len(self._margins[chosen]["forget"])
        reach = float(scipy.stats.t.ppf(0.975, max(members - 2, 1))) * math.hypot(*spreads) / 2
        return Gap(value, value - reach, value + reach)

    def _objectives(self, name: str) -> tuple[float, float]:
        if name not in self._read:
            first, second = (self._objective(half, self._prepare(name, half)) for half in (0, 1))
            self._read[name] = first, second
        return self._read[name]

    def _prepare(self, name: str, half: int) -> dict[SplitName, Prepared]:
        """A member that failed on one split counts as failed on all."""
        rulers, own = self._rulers[half], {split: self._margins[name][split][half::2] for split in SPLITS}
        ready = {split: rulers[split].prepare(own[split]) for split in SPLITS}
        failed = np.logical_or.reduce([each.failed for each in ready.values()])
        if failed.any():
            ready = {s: rulers[s].prepare(np.where(failed[:, None], np.nan, own[s])) for s in SPLITS}
        return ready

    def _objective(self, half: int, ready: Mapping[SplitName, Prepared]) -> float:
        return objective({s: float(summarise(ready[s].klom, "p95")) - self._floors[half][s] for s in SPLITS})

    @cached_property
    def _floors(self) -> list[dict[SplitName, float]]:
        found = []
        for rulers in self._rulers:
            held_out = {split: ruler.held_out for split, ruler in rulers.items()}
            found.append({s: float(summarise(ready.klom, "p95")) for s, ready in held_out.items() if ready is not None})
        return found

    def _spread(self, chosen: str, best: str, half: int) -> float:
        """Return the standard error of the difference between two configurations on a half."""
        both = [self._prepare(name, half) for name in (chosen, best)]
        members, oracles = len(both[0]["forget"].codes), len(self._rulers[half]["forget"].oracle)
        draws = np.random.default_rng(half)
        differences = []
        for _ in range(REPLICATES):
            ours, theirs = draws.integers(members, size=members), draws.integers(oracles, size=oracles)
            excess: list[dict[SplitName, float]] = [{}, {}]
            for split in SPLITS:
                cells = self._rulers[half][split].cells
                drawn = replace(cells, oracle_counts=cells.counts(cells.oracle_codes[theirs]))
                for found, ready in zip(excess, both, strict=True):
                    klom = drawn.divergence(drawn.counts(ready[split].codes[ours]), members, "jeffreys")
                    found[split] = float(summarise(klom, "p95")) - self._floors[half][split]
            differences.append(objective(excess[0]) - objective(excess[1]))
        return float(np.std(differences, ddof=1) * np.sqrt(members / max(members - 1, 1)))


Gaps = Callable[[str, Sequence[str]], Gap]
"""Returns the gap between a chosen configuration and the best of those tried, all by id."""
