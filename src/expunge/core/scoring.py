"""What `expunge score` says: lines of metrics, the verdict, and what could not be computed."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from expunge.core.result import Result
from expunge.core.schema import SplitName

GROUPS = ("KLoM", "attacks", "distances", "joint tests", "outputs", "epsilon", "published elsewhere")
"""Kinds of metrics, in the order in which they are printed; others follow."""


class Model(BaseModel):
    """Part of the result; NaN and infinities are written as text, so that the JSON is valid everywhere."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")


@dataclass(frozen=True, kw_only=True)
class ScoreLine(Result):
    """One metric on one split; `metric` is its name in the registry."""

    split: SplitName
    group: str
    """The kind of metric."""
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
