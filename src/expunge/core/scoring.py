"""What `expunge score` says: lines of metrics, the verdict, and what could not be computed."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from expunge.core.errors import InputError
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

    def __getitem__(self, metric: str | tuple[str, SplitName]) -> ScoreLine:
        """Return the line of a metric, on the forget examples or on the split given with it.

        Raises:
            InputError: If it was not computed.
        """
        name, split = (metric, "forget") if isinstance(metric, str) else metric
        for line in self.lines:
            if (line.metric, line.split) == (name, split):
                return line
        there = ", ".join(line.metric for line in self.lines if line.split == split)
        raise InputError(f"{name!r} was not computed on {split} examples, expected one of: {there}.")
