"""What a leaderboard found: a row for each method on each forget set of each task, read from the audits' records."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from expunge.core.record import VerdictName
from expunge.core.schema import RunRecord, SplitName, Strict


class BoardRow(Strict):
    """One method on one forget set, at the setting that was chosen for it without the target's oracles."""

    task: str
    forget_set: str
    kind: str
    """Kind of the forget set, such as `random`."""
    method: str
    """Registry name."""
    label: str
    """For people."""
    control: bool
    climbs: bool
    """Whether some step of it is meant to raise a loss or divergence on the forget set."""
    needs: list[str]
    """What it cannot do without."""
    certificate: str | None
    """What it guarantees, in words."""
    setting: str
    """The chosen setting and stopping time."""
    cost: float
    """Relative to retraining on R."""
    verdict: VerdictName
    worst: SplitName
    """The split with the largest excess."""
    excess: float
    """P95 KLoM above the floor on that split, nats."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end."""
    gap: float
    """Illusion gap: how much better the best of the grid on the target's own oracles is, nats."""
    failed_checks: list[str]
    failed_members: int
    at_equal_cost: float | None
    """Excess of early-stopped retraining at the least cost that is no less; None where none costs as much."""


class DialRow(Strict):
    """NegGrad+ with one weight of the climb on one forget set, chosen among rates and epochs on the calibration set."""

    task: str
    forget_set: str
    kind: str
    retain_weight: float
    """Weight `a` of the descent on R; the climb on F has 1 - a. At 1 it is fine-tuning on R."""
    setting: str
    cost: float
    excess: float
    """Worst P95 KLoM above the floor, nats."""
    low: float
    high: float


class LeaderboardRecord(RunRecord):
    """A leaderboard."""

    FILE: ClassVar[str] = "leaderboard.json"
    KIND: ClassVar[str] = "leaderboard"
    schema_version: int = 1
    members: int
    tolerance: float
    """Of the verdicts, nats above the floor."""
    audits: dict[str, str] = Field(default_factory=dict)
    """Folder of each task's audit, relative to this one."""
    rows: list[BoardRow] = Field(default_factory=list)
    dial: list[DialRow] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
