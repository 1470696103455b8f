"""The score: a number with what it takes to read it (interval, floor, members, examples, which way is better)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """One metric on one split, summarised over its examples."""

    metric: str
    """Name of the metric, such as `klom`."""
    summary: str
    """How examples were put together: `p95`, `mean`, or `joint`."""
    value: float
    """The estimate; compare it with `floor`, not with 0."""
    low: float
    """Lower end of the 95 % interval of `value`."""
    high: float
    """Upper end of the 95 % interval of `value`."""
    floor: float
    """What the metric reads when both sides are oracles, at this number of members."""
    floor_low: float
    """Lower end of the 95 % interval of `floor`."""
    floor_high: float
    """Upper end of the 95 % interval of `floor`."""
    members: int
    """Unlearned members behind the number."""
    oracles: int
    """Oracle members behind the number."""
    examples: int
    """Examples behind the number."""
    failed: int = 0
    """Unlearned members that were non-finite or collapsed, counted as the worst outcome."""
    unit: str = "nats"
    """Unit of `value`."""
    ideal: str = "the floor; closer to the oracle is better"
    """What a perfect method would read."""

    @property
    def excess(self) -> float:
        """The value above the floor; 0 means as close to the oracle as another set of oracles."""
        return self.value - self.floor
