"""Models that are others again, equal or but for rounding: then they are no sample, and nothing can be found.

The distance of two models is the root of the mean squared difference of their margins, each example in oracle standard
deviations. They are copies when it is at most a thousandth of what lies between two oracles (the median). Of p pairs of
independent models about p 1000^-d are as close by chance, where models vary in d directions; d is estimated by
tr(S)^2 / tr(S^2), S the oracles' covariance. With fewer than three only equal models count.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from expunge.metrics.arrays import Array, deviations, failed_rows

CLOSE = 1e-3
"""Distance of copies, in distances between oracles."""
DIRECTIONS = 3.0
"""Directions in which oracles must vary for models that are not equal to be copies."""


class Copies:
    """Tells copies by oracles.

    Args:
        oracle: Margins (oracles, examples), finite.
        held_out: Margins of held-out oracles (models, examples), or None.
    """

    def __init__(self, oracle: Array, held_out: Array | None = None) -> None:
        self._oracle, self._limit, self._held_out = oracle, 0.0, held_out
        if len(oracle) < 2:
            return
        self._mean, self._spread = oracle.mean(0), deviations(oracle)
        points = self._standard(oracle)
        gram = points @ points.T
        total = float((gram**2).sum())
        between = _squares(points, points)[np.triu_indices(len(points), 1)]
        if np.trace(gram) ** 2 >= DIRECTIONS * total > 0:
            self._limit = CLOSE**2 * float(np.median(between))

    def of_oracles(self, models: Array) -> NDArray[np.bool_]:
        """Return which models (models, examples) are copies of oracles; those that are not finite are not."""
        return np.asarray(self._near(models, self._oracle).any(1))

    def among(self, models: Array) -> NDArray[np.bool_]:
        """Return which models (models, examples) are copies of an earlier one; those that are not finite are not."""
        return np.asarray(np.tril(self._near(models, models), -1).any(1))

    def among_oracles(self) -> NDArray[np.bool_]:
        """Return which oracles are copies of an earlier one."""
        return self.among(self._oracle)

    @cached_property
    def known(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Which oracles are copies of an earlier one, and which held-out ones are, and which are copies of oracles."""
        if self._held_out is None:
            return self.among_oracles(), np.zeros(0, bool), np.zeros(0, bool)
        return self.among_oracles(), self.among(self._held_out), self.of_oracles(self._held_out)

    def _near(self, models: Array, others: Array) -> NDArray[np.bool_]:
        near = np.zeros((len(models), len(others)), dtype=bool)
        ours, theirs = np.flatnonzero(~failed_rows(models)), np.flatnonzero(~failed_rows(others))
        known: dict[bytes, list[int]] = {}
        for place in theirs:
            known.setdefault(others[place].tobytes(), []).append(int(place))
        for place in ours:
            near[place, known.get(models[place].tobytes(), [])] = True
        if self._limit > 0:
            squares = _squares(self._standard(models[ours]), self._standard(others[theirs]))
            near[np.ix_(ours, theirs)] |= squares <= self._limit
        return near

    def _standard(self, models: Array) -> Array:
        with np.errstate(over="ignore"):
            return np.asarray((models - self._mean) / self._spread)


def copies_said(copies: Copies, unlearned: Array) -> str:
    """Return a sentence on the copies among members, oracles and held-out oracles; "" where there are none."""
    shared = int(copies.of_oracles(unlearned).sum())
    if shared:
        return f"{shared} of {len(unlearned)} members are copies of oracles, which says nothing about unlearning."
    oracles, held_out, again = copies.known
    if again.any():
        return f"{again.sum()} of {len(again)} held-out oracles are copies of oracles, so the floor would be too low."
    sides = {"members": copies.among(unlearned), "oracles": oracles, "held-out oracles": held_out}
    for who, repeated in sides.items():
        if repeated.any():
            count = f"{repeated.sum()} of {len(repeated)}"
            return f"{count} {who} are copies of other {who}, so intervals would be too narrow."
    return ""


def _squares(a: Array, b: Array) -> Array:
    """Return the mean squared difference of every row of one array and every row of another."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = (a**2).mean(1)[:, None] + (b**2).mean(1)[None] - 2 * (a @ b.T) / a.shape[1]
    return np.asarray(np.maximum(found, 0.0))
