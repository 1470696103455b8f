"""What `expunge score` says: lines of metrics, the verdict, and what could not be computed."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from expunge.core.schema import SplitName

Group = Literal["KLoM", "attacks", "distances", "joint tests", "outputs", "epsilon", "published elsewhere"]
"""Kinds of metrics, in the order in which they are printed."""


class Model(BaseModel):
    """Part of the result; NaN and infinities are written as text, so that the JSON is valid everywhere."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")


class ScoreLine(Model):
    """One metric on one split."""

    split: SplitName
    group: Group
    """The kind of metric."""
    metric: str
    value: float
    low: float | None = None
    """Lower end of the 95 % interval of `value`; None where the metric has none."""
    high: float | None = None
    """Upper end of it."""
    oracle: float | None = None
    """The floor: what the metric reads for oracles."""
    oracle_low: float | None = None
    oracle_high: float | None = None
    p_value: float | None = None
    unit: str
    ideal: str
    """What a perfect method would read."""
    side: str | None = None
    """Where the value lies beside the oracle's, in words."""
    failed: int = 0
    """Unlearned members that failed."""
    published: bool = False
    """Whether it is somebody else's definition, defects included, for comparison with their tables."""


class Missing(Model):
    """What could not be computed."""

    metric: str
    needs: str
    """The input that would allow it."""


class ScoreResult(Model):
    """All that the given arrays allow."""

    files: dict[str, str]
    """What was given, by argument."""
    shapes: dict[str, list[int]]
    """Shape of each array that was read."""
    lines: list[ScoreLine]
    verdict: str | None = None
    """One word, when retain and validation were given."""
    verdict_sentence: str | None = None
    tolerance: float | None = None
    members_needed: int | None = None
    missing: list[Missing] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    """What a reader has to know, such as few members or a resampled floor."""
