"""The result: what a metric says, with what it takes to read it (interval, floor, members, examples, ideal)."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan


@dataclass(frozen=True)
class Result:
    """One metric of one unlearned ensemble on one split; NaN where a metric has no such number."""

    metric: str
    """Name of the metric, such as `klom`."""
    summary: str
    """How examples or members were put together: `p95`, `mean`, or `joint`."""
    value: float
    """The estimate; compare it with `floor`, not with 0."""
    low: float = nan
    """Lower end of the 95 % interval of `value`."""
    high: float = nan
    """Upper end of the 95 % interval of `value`."""
    floor: float = nan
    """What the metric reads for oracles: when both sides are oracles, at this number of members."""
    floor_low: float = nan
    """Lower end of the 95 % interval of `floor`."""
    floor_high: float = nan
    """Upper end of the 95 % interval of `floor`, or the most that could be shown."""
    members: int = 0
    """Unlearned members behind the number, failed ones included."""
    oracles: int = 0
    """Oracle members behind the number."""
    examples: int = 0
    """Examples behind the number."""
    failed: int = 0
    """Unlearned members that were non-finite or collapsed, counted as the worst outcome."""
    unit: str = "nats"
    """Unit of `value`."""
    ideal: str = "the floor; closer to the oracle is better"
    """What a perfect method would read."""
    distance: float | None = None
    """How far the members are from the oracles, 0 is ideal; a failed member counts as the largest possible distance."""
    side: str | None = None
    """Where the value lies beside the oracles', in words (see `expunge.metrics.reading`); None where none is said."""
    p_value: float | None = None
    """Chance of a value at least as extreme when both sides follow one law; None where it is not tested."""

    @property
    def excess(self) -> float:
        """The value above the floor; 0 means as close to the oracle as another set of oracles."""
        return self.value - self.floor
