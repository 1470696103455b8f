"""The record: everything that a finished study remembers, and all that a report may read.

A run is a folder: `record.json` (this schema), `rows.safetensors` (digests `train` and `validation` of all rows,
positions `<forget set>/<split>` of those that were scored), and `margins/<forget set>.safetensors`, whose keys are
`<who>/<split>` with `who` one of `pretrained`, `oracle`, `held_out`, `forecast` (predicted oracles) or the id of a
configuration, and `split` one of `forget`, `retain`, `validation`; each is (members, examples), float32.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from expunge.core.claim import Claim, EpsilonRecord
from expunge.core.errors import DamagedFileError, InputError
from expunge.core.forecast import ForecastRecord
from expunge.core.result import Result
from expunge.core.schema import REPAIR, SPLITS, RunRecord, SplitName, Strict, inside, write_atomically

__all__ = [
    "SCHEMA",
    "SPLITS",
    "CheckRecord",
    "ConfigurationRecord",
    "EnsembleRecord",
    "ExampleRecord",
    "ForgetRecord",
    "JointRecord",
    "MissedRecord",
    "PictureRecord",
    "Record",
    "RowRecord",
    "RowsRecord",
    "SelectionRecord",
    "SplitName",
    "Strict",
    "VerdictName",
    "VerdictRecord",
    "inside",
    "load_margins",
    "load_positions",
    "write_atomically",
]

SCHEMA = 1
"""Number of the record format; raised when an older reader would misread a newer record."""

VerdictName = Literal[
    "indistinguishable",
    "under-forgotten",
    "over-forgotten",
    "damaged",
    "diverged",
    "undecided",
    "unjudged",
]
"""`unjudged` is a setting that nothing chose: its scores have no intervals, and no tests were made."""


MOST_ROWS = 20
"""Told rows that a record lists for one split; the others are counted."""

MOVED_ENOUGH = "moved enough"
"""Name of the runtime check that tells a method that did nothing from one that failed."""


class CheckRecord(Strict):
    """One runtime check of a method (property 6): did it do what it says."""

    name: str
    """Short name: `weights moved`, `forget loss rose`, `every forget example visited`, `only statistics moved`."""
    passed: bool
    detail: str
    """What was seen, in words and numbers."""


class RowRecord(Strict):
    """One example whose margins are told from the oracles' by the test over rows."""

    position: int
    """Row in the split's margin arrays."""
    index: int | None = None
    """Index in the data that the split is drawn from, where it is known."""
    side: Literal["remembered", "beyond", "spread"]
    """`remembered` on the pretrained members' side of the oracles, `beyond` on the other, `spread` where the mean does
    not say."""
    shift: float
    """Mean margin of the members minus the oracles' (held-out ones included), in oracle standard deviations."""
    klom: float
    """KLoM of the row, nats."""
    p_value: float
    """Adjusted for all rows of the split: step-down over the largest statistic."""
    counts: bool
    """Whether its size is beyond the tolerance as well, so that it counts against the verdict."""


class RowsRecord(Strict):
    """What the test over the rows of one split says."""

    examples: int
    """Rows that were tested."""
    told: int
    """Rows told from the oracles at `level`, over the whole split."""
    counted: int
    """Those of them that are larger than the tolerance."""
    remembered: int
    """Counted rows on the pretrained members' side."""
    beyond: int
    """Counted rows on the other side."""
    level: float
    """Chance that any row is told when both sides follow one law."""
    rows: list[RowRecord]
    """The told rows, largest first; at most `MOST_ROWS` of them."""


class JointRecord(Strict):
    """What the test over all forget rows together says: traces too small to see in any single row."""

    p_value: float
    accuracy: float
    """Balanced accuracy with which a member is said to be unlearned or an oracle from all its margins, 0.5 is ideal."""
    most: float
    """Balanced accuracy that the tolerance allows."""
    level: float
    """Chance of being told when both sides follow one law."""
    told: bool
    """Whether it is told at `level`."""
    counts: bool
    """Whether the accuracy is above `most` as well, so that it counts against the verdict."""
    side: Literal["remembered", "beyond", "spread"]
    """Where the members lie along the direction in which the pretrained ones do; `spread` where that does not say."""


class MissedRecord(Strict):
    """What could have been missed at this number of members, simulated on the run's own oracles."""

    row: float | None
    """Smallest shift of a single forget row, in oracle standard deviations, that is told with `power`; None where none
    that was tried is."""
    share: float | None
    """Smallest share of forget rows that is told with `power` when each is shifted by `shift`; None where not even all
    of them are."""
    shift: float
    """The tolerance as a shift of one row, oracle standard deviations."""
    power: float
    asked: float
    """Shift of a single row that must not be missed, oracle standard deviations: above it the verdict is undecided."""


class VerdictRecord(Strict):
    """What the tests say about one configuration."""

    name: VerdictName
    sentence: str
    """The verdict in one sentence with its numbers."""
    tolerance: float
    """Largest excess over the floor that still counts as indistinguishable, in the unit of the score."""
    rule: Literal["percentile", "every row"] = "percentile"
    """By what it was judged: the 95th percentile of the forget rows alone, as in records of earlier versions, or every
    row."""
    rows: dict[SplitName, RowsRecord] = Field(default_factory=dict)
    """Rows that are told, by split; on retain and validation they are shown, and the percentile stays the rule."""
    joint: JointRecord | None = None
    """The test over all forget rows together."""
    missed: MissedRecord | None = None
    """What could have been missed."""
    members_needed: int | None = None
    """Members on each side that would decide, where undecided and known."""


class ConfigurationRecord(Strict):
    """One method with one setting, stopped at one epoch."""

    id: str
    """Unique within the forget set, such as `gradient_ascent/lr=0.02,epochs=10@3`."""
    run: str
    """The run it is a stopping time of; configurations with the same `run` are one curve over unlearning time."""
    method: str
    """Registry name, such as `gradient_ascent`."""
    label: str
    """Human name, such as `Gradient ascent`."""
    options: dict[str, Any]
    """All options, defaults included; `lr` is absolute, `relative_lr` is in units of the recipe's peak rate."""
    statistics: str
    """`frozen`, `updated`, `recalibrated`, or `retrained`."""
    epoch: int
    """Stopping time in epochs of the method."""
    cost: float
    """Examples pushed through forward and backward, relative to retraining on R."""
    control: bool
    """Whether it is a control (do-nothing, fine-tuning, retraining), not a candidate."""
    certificate: str | None = None
    """What the method guarantees of its result, in words."""
    claim: Claim | None = None
    """What is certified, with the assumptions as they were found; None if nothing is, and in earlier records."""
    epsilon: EpsilonRecord | None = None
    """The measured lower bound that stands beside a claim."""
    still: bool = False
    """Whether its weights are not meant to move, so that only normalisation statistics can change."""
    scores: dict[SplitName, Result]
    """KLoM (95th percentile, our estimator) by split."""
    means: dict[SplitName, float]
    """Mean KLoM by split."""
    shifts: dict[SplitName, float]
    """Mean over examples of (mean unlearned margin - mean oracle margin) / oracle standard deviation."""
    accuracy: dict[SplitName, float]
    """Mean accuracy of members by split, 0 to 1."""
    public: dict[SplitName, float]
    """P95 of the published `easydub` variant, for comparison with tables elsewhere."""
    others: dict[str, dict[SplitName, Result]] = Field(default_factory=dict)
    """Other metrics that an audit was told to read, by name and split."""
    calibration: dict[SplitName, float] | None = None
    """P95 excess over the floor on the calibration forget set, which selection reads; None for controls without one."""
    failed: int = 0
    """Members that were non-finite or collapsed."""
    checks: list[CheckRecord] = Field(default_factory=list)
    verdict: VerdictRecord


class SelectionRecord(Strict):
    """Which configuration of a method the declared rule chose, and what choosing with the oracles would show."""

    method: str
    rule: str
    """The rule in words."""
    chosen: str
    """Id of the configuration chosen without the target's oracles."""
    best: str
    """Id of the best of the grid on the target's own oracles: biased, shown for contrast."""
    illusion_gap: float
    """How much worse the chosen configuration is than the best of the grid, in nats of the objective. With an interval:
    the best was found on one half of the models and read on the other, so it is 0 on average where settings do not
    differ. Without one (earlier records): `best` read on the oracles that it was picked on, at least 0 by luck."""
    gap_low: float | None = None
    """Lower end of the 95 % interval of the gap."""
    gap_high: float | None = None
    """Upper end."""
    equal_cost: str = ""
    """Id of the configuration of the same method that costs about what the closest candidate does, to be shown beside
    the chosen one; empty where that is the same, or is not asked."""
    objective: str
    """What is minimised, in words."""
    edge: list[str]
    """Options whose chosen value lies on the edge of the grid, such as `lr at its largest value 0.4`."""


class ExampleRecord(Strict):
    """One forget example, for the histograms of the worst."""

    position: int
    """Row in the forget split's margin arrays."""
    index: int
    """Index in the training data."""
    label: int
    """Its class."""


class PictureRecord(Strict):
    """A small picture of an example, as the report shows it."""

    width: int = Field(ge=1, le=256)
    height: int = Field(ge=1, le=256)
    channels: Literal[1, 3]
    """Grey, or red, green and blue."""
    pixels: str
    """8-bit values, row by row from the upper left corner, channels innermost, in base64."""

    @model_validator(mode="after")
    def _has_its_pixels(self) -> PictureRecord:
        expected = self.width * self.height * self.channels
        if len(base64.b64decode(self.pixels, validate=True)) != expected:
            raise ValueError(f"pixels of a picture are not {expected} bytes")
        return self


class ForgetRecord(Strict):
    """All that was found about one forget set."""

    name: str
    size: int
    how: str
    chooser: str
    classes: list[int]
    """Forget examples of each class; one number where the outcome has no classes."""
    calibration_name: str
    calibration_how: str
    retain_examples: int
    """Retain examples that were scored (a sample of R when R is large)."""
    floor: dict[SplitName, Result]
    """Held-out oracles scored against oracles: what perfect looks like at this number of members."""
    pretrained: dict[SplitName, Result]
    """The pretrained ensemble scored against oracles: the distance that a method has to cover."""
    pretrained_public: dict[SplitName, float]
    """The same with the published `easydub` variant, P95."""
    floor_public: dict[SplitName, float]
    nothing_to_unlearn: bool
    """Whether the pretrained ensemble is already indistinguishable from the oracles on the forget set."""
    checklist: list[CheckRecord]
    """Checks before any method: gap on F, R and V against the floor; oracles look like validation for random sets."""
    oracle_accuracy: dict[SplitName, float]
    pretrained_accuracy: dict[SplitName, float]
    configurations: list[ConfigurationRecord]
    selections: list[SelectionRecord]
    worst: list[ExampleRecord]
    """Forget examples on which the pretrained ensemble differs most from the oracles."""
    pictures: dict[int, PictureRecord] = Field(default_factory=dict)
    """Pictures of the examples that the report names, by index in the training data; none unless inputs are images."""
    names: dict[int, str] = Field(default_factory=dict)
    """Ids of the examples that the report names, by index in the training data; none unless the task has ids."""
    margins: str
    """Path of the margin arrays, relative to the run's folder."""
    margins_digest: str = ""
    """SHA-256 of that file; empty in records written before it was kept."""
    forecast: ForecastRecord | None = None
    """What was predicted before any oracle was trained; None where no forecast was made."""


class EnsembleRecord(Strict):
    """How one ensemble was made."""

    role: str
    """`pretrained`, `oracle`, `held-out oracle`, and for which forget set."""
    members: int
    seed: int
    seconds: float
    """Wall-clock seconds; 0 when it was found in the store."""
    reused: bool
    given: bool = False
    """Whether it was given, not trained."""
    chunk: int
    """Members that went through together; 0 where it was given."""
    network: str
    """`layers`, `vmap` or `one`."""
    failed: int
    """Members that are non-finite."""
    train_accuracy: float
    validation_accuracy: float


class Record(RunRecord):
    """One run of a study."""

    FILE: ClassVar[str] = "record.json"
    KIND: ClassVar[str] = "audit"
    schema_version: int = SCHEMA
    study: str
    """`audit`."""
    task: dict[str, Any]
    """`Task.describe()`."""
    members: int
    tolerance: float
    """Tolerance of the verdicts, in nats above the floor."""
    statistic: str = "margin"
    """What the task's outcome calls the number that is compared."""
    utility: str = "accuracy"
    """What it calls the utility; everything named accuracy in a record is this."""
    ensembles: list[EnsembleRecord] = Field(default_factory=list)
    forget_sets: list[ForgetRecord] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    """What a reader must know: fallbacks taken, things skipped."""
    rows: str = ""
    """Path of the file, relative to the run's folder, that says which rows the data were and which of them were
    forgotten and scored; empty in records written before it was kept."""
    rows_digest: str = ""
    """SHA-256 of that file."""

    @property
    def seed(self) -> int:
        """The study's seed.

        Raises:
            DamagedFileError: If the request has none.
        """
        found = self.request.get("seed")
        if type(found) is not int or not -(2**63) <= found < 2**63:
            raise DamagedFileError(f"the audit's record has no seed in its request. {REPAIR}")
        return found

    @property
    def asked(self) -> dict[str, str]:
        """Digest of the rows of each forget set that was asked for, by its name; what is no such pair is left out."""
        listed = self.request.get("forget")
        pairs = [each for each in (listed if isinstance(listed, list) else []) if isinstance(each, dict)]
        named = [(each.get("name"), each.get("digest")) for each in pairs]
        return {name: digest for name, digest in named if isinstance(name, str) and isinstance(digest, str)}


def load_margins(folder: Path, forget: ForgetRecord) -> dict[str, np.ndarray[Any, Any]]:
    """Return the margin arrays of one forget set, by `<who>/<split>`, each (members, examples)."""
    return _arrays(folder, forget.margins, forget.margins_digest)


def load_positions(folder: Path, record: Record, forget: ForgetRecord) -> dict[SplitName, np.ndarray[Any, Any]]:
    """Return where the scored rows of one forget set are, in the training or the validation data, by split.

    Args:
        folder: Of the run.
        record: Whose `rows` is not empty.
        forget: One of its forget sets.
    """
    arrays = _arrays(folder, record.rows, record.rows_digest)
    try:
        return {split: arrays[f"{forget.name}/{split}"] for split in SPLITS}
    except KeyError as error:
        raise DamagedFileError(
            f"{folder / record.rows} lacks {error}; run the study again into another --out."
        ) from None


def _arrays(folder: Path, name: str, digest: str) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays of a file of a run, held against its digest where one was kept."""
    from safetensors.numpy import load

    path = inside(folder, name)
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; the run's folder is incomplete: restore the file, or run the study again into "
            "another --out."
        )
    content = path.read_bytes()
    if digest and hashlib.sha256(content).hexdigest() != digest:
        raise DamagedFileError(f"{path} is not the file that the run wrote; run the study again into another --out.")
    try:
        return dict(load(content))
    except Exception as error:
        raise DamagedFileError(f"{path} cannot be read ({error}); run the study again into another --out.") from error
