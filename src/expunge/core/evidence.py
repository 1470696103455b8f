"""What a bundle of evidence holds besides the record of a run: the manifest, the statement, and what a check found."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from expunge.core.schema import Strict
from expunge.core.unlearning import Unlearning

FORMAT = "expunge evidence 1"
"""What the manifest of a bundle says first; raised when an older reader would misread a newer bundle."""

NO_ROOT = "0" * 64
"""What stands for the root digest in the page of which a digest is taken."""


class FileFacts(Strict):
    """One file of a bundle."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(Strict):
    """`manifest.json`: the digest of every other file. Its own SHA-256 is the root digest, which names the bundle."""

    format: Literal["expunge evidence 1"]
    expunge: str
    """Version that wrote the bundle."""
    salt: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of the salt, which says which one it is and nothing about it."""
    files: dict[str, FileFacts]
    """By name; the page is listed as it is with 64 zeros in the place of the root digest, which it shows."""


class Checkpoints(Strict):
    """The files of one ensemble that the audit trained."""

    seed: int | None
    epochs: int | None
    files: dict[str, str]
    """SHA-256 by name."""


class Models(Strict):
    """`checkpoints.json`: digests of the models, none of which is in the bundle."""

    audited: list[Checkpoints]
    """Ensembles that the audit trained and kept."""


class CheckpointVerdict(Strict):
    """`unlearned/verdict.json`: the checkpoint as one model among the oracles of the audit."""

    name: Literal["compatible", "told", "cannot tell"]
    sentence: str
    p_value: float
    level: float
    """Chance that a retrained model is told."""
    oracles: int
    size: float | None
    """How odd the model is; None where that is no number."""
    power: float | None
    """Share of the pretrained models that are told."""
    power_low: float | None
    power_high: float | None
    """Ends of its 95 % interval."""
    pretrained: int
    """Pretrained models that were tried."""
    sees: float | None
    """Least share of the difference between pretrained and retrained that is told 8 times in 10."""
    oracles_needed: int | None


class Checkpoint(Strict):
    """What a bundle says of the checkpoint that was made for the request."""

    record: Unlearning
    verdict: CheckpointVerdict | None = None
    """None where it was not held against the oracles."""


class Statement(Strict):
    """`statement.json`: in plain words, what the numbers show, what they assume, and what they do not show."""

    request: list[str]
    """What was asked."""
    done: list[str]
    """What was done."""
    shown: list[str]
    assumed: list[str]
    not_shown: list[str]


class Difference(Strict):
    """One thing that is not as it was."""

    where: str
    """The file of the bundle, or `archive`."""
    what: str
    """What is wrong with it, in one sentence."""


class Verification(Strict):
    """What a check of a bundle found."""

    bundle: str
    root: str
    """The root digest, which is to be held against the one that was written down or signed."""
    root_expected: str | None = None
    """The one that was given."""
    written_by: str
    """Version of expunge that wrote the bundle."""
    files: int
    bytes: int
    differences: list[Difference] = Field(default_factory=list)
    checked: list[str] = Field(default_factory=list)
    """What was found as it should be, in words."""
    unchecked: list[str] = Field(default_factory=list)
    """What was not looked at or cannot be, in words."""

    @property
    def passed(self) -> bool:
        """Whether nothing differs."""
        return not self.differences
