"""The record of one checkpoint unlearned: what was asked, by which setting, what changed, and what this does not show.

A run is a folder: `unlearn.json` (this schema) and the unlearned checkpoint, by the name of the one that came in.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from expunge.core.claim import Claim
from expunge.core.record import CheckRecord
from expunge.core.schema import RunRecord, SplitName, Strict

UNLEARNING_SCHEMA = 1
"""Number of the format."""

Source = Literal["retraining", "defaults", "given", "own function", "audit"]
"""Where a setting comes from: retraining has none; the method's defaults; given with options or in Python; a function
of the user's; the one that an audit chose."""


class CheckpointRecord(Strict):
    """One checkpoint file."""

    path: str
    """As it was given; of the unlearned one its name in the run's folder."""
    format: str
    """`safetensors`, `PyTorch state_dict`, or that under a name."""
    sha256: str
    """Of the file."""
    weights: str
    """Digest of the model's tensors: their names, types and numbers."""


class ForgetRequest(Strict):
    """What was to be forgotten."""

    name: str
    size: int
    how: str
    """One sentence on how the rows were chosen."""
    digest: str
    """Of the positions in the training data."""


class AuditSource(Strict):
    """The audit that a setting comes from."""

    run: str
    """Its folder."""
    sha256: str
    """Of its record."""
    members: int
    tolerance: float
    configuration: str
    """Id of the setting in that record."""
    verdict: str
    """What was found of it, in one sentence."""
    cost: float
    """What it cost there, relative to retraining on R."""


class ChangeRecord(Strict):
    """What changed in one tensor of the model."""

    name: str
    numbers: int
    changed: float
    """Share of its numbers that are others now, 0 to 1."""
    distance: float
    """Euclidean norm of the change."""
    norm: float
    """Euclidean norm before."""
    trained: bool
    """Whether it is a parameter; else a buffer, such as normalisation statistics."""


class BeforeAfter(Strict):
    """How the model behaves on one split, before and after."""

    examples: int
    """Examples that were read: all of F, at most a fixed random sample of R and V."""
    loss: tuple[float, float]
    """Mean training loss, without augmentation."""
    utility: tuple[float, float]
    """The outcome's utility, accuracy for classes."""
    statistic: tuple[float, float]
    """Mean of the number that metrics compare, the margin for classes."""
    moved: float
    """Root mean square change of that number over examples."""
    agreement: float
    """Share of examples on which both decide alike; NaN where outputs are no decisions."""


class Unlearning(RunRecord):
    """One checkpoint unlearned."""

    FILE: ClassVar[str] = "unlearn.json"
    KIND: ClassVar[str] = "unlearning of a checkpoint"
    schema_version: int = UNLEARNING_SCHEMA
    study: Literal["unlearn"] = "unlearn"
    task: dict[str, Any]
    """`Task.describe()`."""
    forget: ForgetRequest
    method: str
    """Registry name, or that of the user's function."""
    label: str
    """Name for people."""
    options: dict[str, Any]
    """All options, defaults included."""
    stop: int | None
    """The epoch after which it was stopped; None where it ran to its end."""
    source: Source
    audit: AuditSource | None = None
    """Where the setting comes from an audit."""
    certificate: str | None = None
    """What the method guarantees of its result, in words."""
    claim: Claim | None = None
    """What is certified, with the assumptions as they were found; None if nothing is."""
    statistics: str
    """What happens to normalisation statistics: `frozen`, `updated`, `recalibrated`, or `retrained`."""
    seed: int
    utility: str
    """What the task's outcome calls the utility."""
    statistic: str
    """What it calls the number that is compared."""
    before: CheckpointRecord
    planned_cost: float
    """Examples through forward and backward, relative to retraining on R, as the method declares."""
    after: CheckpointRecord | None = None
    """None until it is written."""
    left_out: list[str] = Field(default_factory=list)
    """Entries of the file beside the model that hold tensors or objects, and were not written again."""
    cost: float = 0.0
    """What it cost, likewise."""
    method_seconds: float = 0.0
    """Wall-clock seconds of the method alone."""
    checks: list[CheckRecord] = Field(default_factory=list)
    """Runtime checks."""
    changes: list[ChangeRecord] = Field(default_factory=list)
    """One a tensor."""
    splits: dict[SplitName, BeforeAfter] = Field(default_factory=dict)
    advice: list[str] = Field(default_factory=list)
    """What to think of the method, and when retraining is the right answer."""
    notes: list[str] = Field(default_factory=list)
    """What a reader must know."""
    not_shown: list[str] = Field(default_factory=list)
    """What this run does not show."""

    @property
    def failed_checks(self) -> list[CheckRecord]:
        """The runtime checks that failed."""
        return [check for check in self.checks if not check.passed]
