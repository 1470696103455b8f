"""What `expunge plan` says of a request: what it would take, whether the rows can matter, and what to type next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from expunge.core.schema import SplitName

JobName = Literal["retraining", "forecast", "audit"]
JOBS: tuple[JobName, ...] = ("retraining", "forecast", "audit")


class Model(BaseModel):
    """Part of a plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Cost(Model):
    """What one job takes."""

    seconds: float
    """Wall-clock seconds on this machine."""
    memory: int
    """Bytes at most."""
    disk: int
    """Bytes that stay."""
    shared_seconds: float | None = None
    """The same on as many machines like this one as were asked about; readings stay on one."""


class Scale(Model):
    """What the jobs take with a number of members."""

    members: int
    jobs: dict[JobName, Cost]
    """An ensemble retrained without the rows; a forecast; an audit. No forecast where none can be made."""


@dataclass(frozen=True)
class Costs:
    """What jobs take, and what that was measured from."""

    scales: list[Scale]
    alone: float
    """Seconds until one model would be trained, at most."""
    tried: str
    """What was measured."""
    machines: int
    memory_free: int | None
    disk_free: int


class Influence(Model):
    """What retraining is predicted to change, from a few models."""

    models: int
    retraced: bool
    """Whether training was followed; seen from its end alone, changes can come out several times too large."""
    rests_on: str
    """What the prediction was made from, in words."""
    mean: dict[SplitName, float]
    """Predicted mean change of margins by split, natural-log units."""
    spread: float | None = None
    """Standard deviation of a forget margin between models, pooled over rows; None from a single model."""
    row: int
    """Position in the training data of the forget row with the largest change."""
    largest: float
    """Its change."""
    together: float | None = None
    """Root of the summed squared changes of all forget rows, in such deviations: how far apart the laws of a retrained
    and a pretrained model are at most, if rows vary independently."""
    above_validation: float | None = None
    """How far forget margins of the models lie above those of validation rows of the same class, mean over rows; for
    rows drawn at random this is what retraining takes away. None where no row has a validation row of its class."""
    can_matter: bool | None = None
    """Whether a row, or all together, are predicted to move by what an audit calls a difference; None if not known, as
    where training was not retraced."""


class Twin(Model):
    """A forget row and a retain row that are equal or nearly so."""

    row: int
    """Position of the forget row in the training data."""
    twin: int
    """Position of the retain row."""
    distance: float
    """In medians of the distance between a retain row and its nearest neighbour; 0 for equal inputs."""
    same_target: bool


class Deployed(Model):
    """How the deployed model treats the rows."""

    path: str
    median: dict[SplitName, float]
    """Median of the compared number by split."""
    share: float | None
    """Share of pairs of a forget row and a validation row of its class in which the forget row's number is larger."""
    p_value: float | None
    """One-sided, by relabelling within classes."""
    pairs: int
    remembered: bool | None
    """Whether that is at most 0.05; None where no pair could be made."""


class Plan(Model):
    """The answer for one request."""

    task: str
    forget: str
    how: str
    rows: int
    examples: int
    """Training examples."""
    validation: int
    machines: int
    """Machines like this one over which `shared_seconds` are shared."""
    one_model: float
    """Seconds until one model is retrained."""
    scales: list[Scale]
    measured: str
    """What times were measured from."""
    memory_free: int | None
    disk_free: int
    statistic: str
    """What is compared."""
    influence: Influence | None = None
    no_influence: str = ""
    """Why no change is predicted."""
    smallest_gap: float
    """Smallest difference of forget and validation accuracy of a retrained model that is more than chance (95 %)."""
    twins: list[Twin] = Field(default_factory=list)
    """Every pair, the nearest first."""
    twins_limit: float
    """Distance below which rows count as twins, in the same medians."""
    deployed: Deployed | None = None
    advice: list[str]
    """What that means, in sentences."""
    next: list[str]
    """Commands to type, the first before the others."""
