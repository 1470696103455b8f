"""What a study of sequential drift found: curves over requests and how they grow; all that its page reads."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from expunge.core.schema import RunRecord, Strict

ReadingName = Literal["klom", "shift", "spread"]
READINGS: tuple[ReadingName, ...] = ("klom", "shift", "spread")


class CurveRecord(Strict):
    """One reading of one chain over the requests, above the floor."""

    values: list[float]
    """At requests 1, 2, ..."""
    low: list[float]
    """Lower ends of the 95 % intervals."""
    high: list[float]
    """Upper ends."""
    scale: float
    """The reading is about scale * k ** exponent after k requests."""
    exponent: float
    """Slope of the logarithm of the reading on that of the number of requests."""
    exponent_low: float
    exponent_high: float
    growth: str
    """The same in words."""


class ChainRecord(Strict):
    """One method with one share of real labels, request after request."""

    name: str
    """Name of the method."""
    label: str
    """For people."""
    setting: str
    """The method with its options."""
    share: float | None
    """Share of kept rows whose labels are real, from 0 to 1; None for doing nothing, which reads none."""
    curves: dict[ReadingName, CurveRecord]
    removed: list[float]
    """95th percentile of KLoM over all rows removed so far, in nats above the floor, at each request."""
    accuracy: list[float]
    """Mean accuracy on validation at each request."""
    failed: int
    """Models that were not finite, or collapsed, at the last request."""


class DriftRecord(RunRecord):
    """One run of `expunge reproduce sequential-drift`."""

    FILE: ClassVar[str] = "sequential_drift.json"
    KIND: ClassVar[str] = "study of sequential drift"
    schema_version: int = 1
    study: Literal["sequential-drift"] = "sequential-drift"
    task: dict[str, Any] = Field(default_factory=dict)
    """`Task.describe()`."""
    members: int
    requests: int
    size: int
    """Rows of each request."""
    rows: int = 0
    """Rows that are scored: never removed, or of validation."""
    floor: dict[ReadingName, list[float]] = Field(default_factory=dict)
    """What held-out oracles read at each request; what is under the root, for `shift` and `spread`."""
    chains: list[ChainRecord] = Field(default_factory=list)
