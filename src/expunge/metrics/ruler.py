"""The ruler: the oracle side of KLoM prepared once for a split, then read against many unlearned ensembles.

    ruler = Ruler(oracle, held_out)
    ruler.klom(unlearned)             per example
    ruler.score(unlearned)            95th percentile, with its 95 % interval, its floor, and the floor's interval
    ruler.shift(unlearned)            on which side, in oracle standard deviations

The floor is what another, equally large set of oracles would read, never 0. With held-out oracles it is their reading.
When their number differs from the unlearned members', it is scaled as resampling predicts for the two numbers. Without
held-out oracles it is resampled alone: both sides drawn again and again from the oracles, at full size, so nothing has
to be extrapolated from halves. That floor trusts that the oracles are a sample of what the recipe gives; held-out
oracles check it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from expunge.core import InputError, Result
from expunge.core.checks import one_of, plain_arguments, whole
from expunge.metrics.arrays import Array, deviations, pair, to_array
from expunge.metrics.bootstrap import SUMMARIES, Bootstrap, Ranked, Summary, summarise
from expunge.metrics.failures import Reference, failed_members, sound_held_out
from expunge.metrics.intervals import freedom_of, interval, rise_of, spread_of
from expunge.metrics.klom import DIRECTIONS, Cells, Codes, Direction

REPLICATES = 200
"""Replicates of the bootstrap: the standard deviation of an interval is then known to 5 %."""
SAME = 1e-9
"""Readings that differ by no more are the same one, rounded."""


@dataclass(frozen=True)
class Prepared:
    """An unlearned ensemble as the ruler sees it; scoring it again costs nothing."""

    margins: Array
    """Margins (members, examples)."""
    failed: NDArray[np.bool_]
    """Failed members (members,)."""
    codes: Codes
    """Cell of every margin, failures placed where they do most harm (members, examples)."""
    klom: Array
    """KLoM (examples,)."""
    replicates: dict[Summary, Array] = field(default_factory=dict, repr=False)
    """Bootstrap readings made so far, each (replicates,)."""
    ranked: list[Ranked] = field(default_factory=list, repr=False)
    """Its ranks among the oracles, once they were needed."""
    steps: list[tuple[float, float]] = field(default_factory=list, repr=False)
    """How far P95 falls and rises when one member moves, once it was needed."""


class Ruler:
    """Measures unlearned margins of one split against oracles.

    Args:
        oracle: Margins of retrained members (oracles, examples), finite, at least 2.
        held_out: Margins of other retrained members on the same examples, for the floor, sound and at least 2; None
            resamples it.
        bins: Cells; by default floor(sqrt(oracles)), from 3 to 20.
        direction: As in `klom`.
        replicates: Replicates of the bootstrap, at least 2.
        seed: Seed of the bootstrap.
        resample_examples: True when the examples stand for a population, so that intervals allow for other examples
            (retain, validation); False when they are all there is (a forget set).

    Raises:
        InputError: If an array cannot be used; the message says which.
    """

    @plain_arguments
    def __init__(
        self,
        oracle: Any,
        held_out: Any | None = None,
        *,
        bins: int | None = None,
        direction: Direction = "jeffreys",
        replicates: int = REPLICATES,
        seed: int = 0,
        resample_examples: bool = True,
    ) -> None:
        one_of(DIRECTIONS, direction=direction)
        whole(2, replicates=replicates)
        reference = to_array(oracle, "oracle", ndim=2)
        _, self.oracle = pair(reference, reference)
        self.direction, self.replicates, self.seed = direction, replicates, seed
        self.resample_examples = resample_examples
        self.cells = Cells.of(self.oracle, bins)
        self._sound = Reference.of(self.oracle)
        self._floors: dict[tuple[int, Summary], tuple[float, float, float]] = {}
        self._null: dict[tuple[int, Summary, int], Array] = {}
        self._held_out_replicates: dict[tuple[int, Summary], Array] = {}
        self.held_out = None if held_out is None else self.prepare(sound_held_out(held_out, self.oracle), "held_out")

    @cached_property
    def _bootstrap(self) -> Bootstrap:
        return Bootstrap(self.cells, self.oracle, self.replicates, self.seed, self.resample_examples, self.direction)

    def prepare(self, unlearned: Any, what: str = "unlearned") -> Prepared:
        """Return an ensemble ready for every reading; pass it to the other methods instead of the array.

        Args:
            unlearned: Margins (members, examples); may hold NaN and infinities.
            what: How an error calls it.
        """
        if isinstance(unlearned, Prepared):
            return unlearned
        margins = to_array(unlearned, what, ndim=2)
        if margins.shape[1] != self.oracle.shape[1]:
            raise InputError(
                f"{what} has shape {margins.shape} and oracle {self.oracle.shape}; expected the same number of "
                "examples: both sides must be evaluated on the same examples, in the same order."
            )
        if len(margins) < 2:
            raise InputError(f"{what} has 1 member, expected at least 2: a single model has no spread to compare.")
        failed = failed_members(margins, self._sound)
        codes = self.cells.place(self.cells.digitise(margins, failed), self.direction)
        values = self.cells.divergence(self.cells.counts(codes), len(margins), self.direction)
        return Prepared(margins, failed, codes, values)

    def klom(self, unlearned: Any) -> Array:
        """Return KLoM of every example in nats, shape (examples,)."""
        return self.prepare(unlearned).klom

    def failed(self, unlearned: Any) -> NDArray[np.bool_]:
        """Return which members failed, shape (members,); see `failed_members`."""
        return self.prepare(unlearned).failed

    def score(self, unlearned: Any, summary: Summary = "p95", *, intervals: bool = True) -> Result:
        """Return the summary over examples with its 95 % interval and the floor with its own.

        The interval is for the average reading at these numbers of members. The floor's interval is where the reading
        of another set of oracles would lie.

        Args:
            unlearned: Margins (members, examples), or what `prepare` returned.
            summary: `p95` or `mean` over examples.
            intervals: False skips the bootstrap of the value: `low` and `high` are NaN.
        """
        ready = self.prepare(unlearned)
        members, examples = ready.margins.shape
        value = float(summarise(ready.klom, summary))
        low = high = float("nan")
        if intervals:
            low, high = interval(
                value,
                self.replicate(ready, summary),
                self.null(members, summary),
                freedom=self._freedom(ready, members, summary),
                rise=rise_of(self.null(members, summary)),
                step=self._step(ready, summary),
            )
            low = max(0.0, low)
        floor, floor_low, floor_high = self.floor(members, summary)
        return Result(
            metric="klom",
            summary=summary,
            value=value,
            low=low,
            high=high,
            floor=floor,
            floor_low=floor_low,
            floor_high=floor_high,
            members=members,
            oracles=len(self.oracle),
            examples=examples,
            failed=int(ready.failed.sum()),
        )

    def excess_interval(
        self, unlearned: Any, summary: Summary = "p95", confidence: float = 0.95
    ) -> tuple[float, float]:
        """Return the interval of the average excess over the floor; both readings share the oracles' noise.

        Args:
            unlearned: Margins (members, examples), or what `prepare` returned.
            summary: `p95` or `mean` over examples.
            confidence: Coverage, 0.5 to 0.9999.
        """
        ready = self.prepare(unlearned)
        members = len(ready.margins)
        value = float(summarise(ready.klom, summary)) - self.floor(members, summary)[0]
        replicates, null = self.replicate(ready, summary), self.null(members, summary)
        rise, step = rise_of(null), self._step(ready, summary)
        if self.held_out is not None:
            floor = self.replicate_floor(members, summary)
            # A step of the reading and the noise of the floor come together as independent errors do.
            noise = float(scipy.special.ndtri(0.5 + confidence / 2)) * float(floor.std(ddof=1))
            step = (step[0] and float(np.hypot(step[0], noise)), step[1] and float(np.hypot(step[1], noise)))
            replicates = replicates - floor
            null = null - self.null(members, summary, stream=1)
        freedom = self._freedom(ready, members, summary)
        return interval(value, replicates, null, confidence, freedom=freedom, rise=rise, step=step)

    def floor(self, members: int, summary: Summary = "p95") -> tuple[float, float, float]:
        """Return the floor at a number of unlearned members, and the lower and upper end of its 95 % interval.

        Args:
            members: Unlearned members that the floor is for.
            summary: `p95` or `mean` over examples.
        """
        if (members, summary) in self._floors:
            return self._floors[members, summary]
        null = self.null(members, summary)
        expected = float(null.mean())
        if self.held_out is None:
            low, high = spread_of(null)
            reading = expected
        else:
            have = len(self.held_out.margins)
            reading = float(summarise(self.held_out.klom, summary))
            if have != members:
                # Noise scales with the numbers of members; what is above the noise does not.
                noise = float(self.null(have, summary).mean())
                reading = min(reading, noise) * expected / noise + max(0.0, reading - noise)
            freedom = self._freedom(self.held_out, members, summary)
            low, high = interval(reading, self.replicate_floor(members, summary), null, freedom=freedom)
        self._floors[members, summary] = reading, max(0.0, low), high
        return self._floors[members, summary]

    def null(self, members: int, summary: Summary = "p95", stream: int = 0) -> Array:
        """Return readings with both sides drawn from the oracles, (replicates,): the resampled floor.

        Args:
            members: Members on the unlearned side.
            summary: `p95` or `mean` over examples.
            stream: Draws with another number are independent, but for the oracles' noise.
        """
        one_of(SUMMARIES, summary=summary)
        whole(1, members=members)
        if (members, summary, stream) not in self._null:
            values = self._bootstrap.null(members, stream)
            for name in ("p95", "mean"):
                self._null[members, name, stream] = self._bootstrap.readings(values, name)
        return self._null[members, summary, stream]

    def replicate(self, unlearned: Any, summary: Summary = "p95") -> Array:
        """Return bootstrap readings of an ensemble, (replicates,), with the oracle noise that `replicate_floor` has."""
        one_of(SUMMARIES, summary=summary)
        ready = self.prepare(unlearned)
        if summary not in ready.replicates:
            ranked = self._ranked(ready)
            values = self._bootstrap.values(ranked, self._bootstrap.weigh(ranked, summary))
            ready.replicates[summary] = self._bootstrap.readings(values, summary, ready.klom)
        return ready.replicates[summary]

    def replicate_floor(self, members: int, summary: Summary = "p95") -> Array:
        """Return bootstrap readings of the held-out oracles, (replicates,), or of the resampled floor without them.

        They start from no difference, as two sets of oracles do, unless the held-out oracles read more than 97.5 % of
        such sets: then the recipe was not the same, and that difference is resampled as well.
        """
        if self.held_out is None:
            return self.null(members, summary)
        if (members, summary) not in self._held_out_replicates:
            have, weight = len(self.held_out.margins), 0.0
            ranked = self._ranked(self.held_out)
            if float(summarise(self.held_out.klom, summary)) > float(np.percentile(self.null(have, summary), 97.5)):
                weight = self._bootstrap.weigh(ranked, summary, stream=1)
            # A stream of its own: the noise of held-out rows must not move in step with that of the unlearned ones.
            values = self._bootstrap.values(ranked, weight, members, stream=1)
            self._held_out_replicates[members, summary] = self._bootstrap.readings(
                values, summary, self.held_out.klom if weight > 0 else None
            )
        return self._held_out_replicates[members, summary]

    def _freedom(self, ready: Prepared, members: int, summary: Summary) -> float:
        """Degrees of freedom of the spread of readings; see `expunge.metrics.intervals`."""
        # P95 hangs on few examples: that its noise has many directions is not relied on.
        directions = self._ranked(ready).directions if summary == "mean" else 1.0
        return freedom_of(members, len(self.oracle), directions)

    def _step(self, ready: Prepared, summary: Summary) -> tuple[float, float]:
        """Return how far the reading falls and rises when one member moves in the examples between which P95 lies.

        0 where the replicates vary by more than that, and for the mean over examples, of which it is a small part.
        """
        if summary == "mean":
            return 0.0, 0.0
        if not ready.steps:
            ready.steps.append(self._step_of(ready, float(self.replicate(ready, summary).std())))
        return ready.steps[0]

    def _step_of(self, ready: Prepared, spread: float) -> tuple[float, float]:
        place = 0.95 * (len(ready.klom) - 1)
        first, part = int(place), place - int(place)
        order = np.argsort(ready.klom, kind="stable")
        low, high = (self._one_moves(ready, int(order[min(i, len(order) - 1)])) for i in (first, first + 1))
        step = (1 - part) * low + part * high
        return float(step[0] * (step[0] > spread)), float(step[1] * (step[1] > spread))

    def _one_moves(self, ready: Prepared, example: int) -> Array:
        """Return how far KLoM of one example falls and rises when one member moves to the next cell, (2,).

        Means over the members by whose move it falls, and over those by whose move it rises; 0 without any.
        """
        codes = ready.codes[:, example]
        counts = np.bincount(codes, minlength=self.cells.failure + 1)
        here = np.flatnonzero(self.cells.real[example][:-1])
        moves = [(a, b) for way in (here, here[::-1]) for a, b in pairwise(way) if counts[a] > 0]
        moved = np.tile(counts.astype(np.float64), (len(moves), 1))
        for row, (a, b) in enumerate(moves):
            moved[row, [a, b]] += -1, 1
        same = np.full(len(moves), example)
        cells = replace(self.cells, real=self.cells.real[same], oracle_counts=self.cells.oracle_counts[same])
        change = cells.divergence(moved, len(codes), self.direction) - ready.klom[example]
        able = np.array([counts[a] for a, _ in moves], np.float64)
        out = np.zeros(2)
        for side, which in enumerate((change < -SAME, change > SAME)):
            if which.any():
                out[side] = np.average(np.abs(change[which]), weights=able[which])
        return out

    def _ranked(self, ready: Prepared) -> Ranked:
        if not ready.ranked:
            ready.ranked.append(self._bootstrap.rank(ready.margins, ready.codes, ready.failed, ready.klom))
        return ready.ranked[0]

    def shift(self, unlearned: Any) -> float:
        """Return the mean over examples of (mean unlearned margin - mean oracle margin) / oracle standard deviation.

        Failed members are left out (they are counted in `Result.failed`); an example whose oracles do not vary uses the
        median deviation of the others. Positive is above the oracle: for trained examples, still remembered.

        Returns:
            Oracle standard deviations; NaN when every member failed.
        """
        shifts = self.shifts(unlearned)
        return float(shifts.mean()) if shifts.size else float("nan")

    def shifts(self, unlearned: Any) -> Array:
        """Return the standardised shift of each sound member, mean over examples, shape (sound members,)."""
        ready = self.prepare(unlearned)
        sound = ready.margins[~ready.failed]
        return np.asarray(((sound - self._mean) / self._spread).mean(1))

    def shift_by_example(self, unlearned: Any) -> Array:
        """Return the standardised shift of each example, mean over sound members (NaN without any), (examples,)."""
        ready = self.prepare(unlearned)
        sound = ready.margins[~ready.failed]
        if len(sound) == 0:
            return np.full(ready.margins.shape[1], np.nan)
        return np.asarray((sound.mean(0) - self._mean) / self._spread)

    @cached_property
    def _mean(self) -> Array:
        return np.asarray(self.oracle.mean(0))

    @cached_property
    def _spread(self) -> Array:
        return deviations(self.oracle)
