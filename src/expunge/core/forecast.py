"""The record of a forecast: what is predicted from the pretrained models alone, before anything is unlearned.

A run is a folder: `forecast.json` (this schema) and `forecast/<forget set>.safetensors`, whose keys are
`<who>/<split>` with `who` one of `pretrained` and `predicted` (oracles) and `split` one of `forget`, `retain`,
`validation`; each is (members, examples), float32. It may share its folder with an audit of the same seed, which then
finds the pretrained ensemble there.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from expunge.core.errors import DamagedFileError, InputError
from expunge.core.schema import RunRecord, SplitName, Strict, inside

FORECAST_SCHEMA = 1
"""Number of the format of a forecast run."""

Outlook = Literal["nothing to unlearn", "can work", "partly", "breaks first", "cannot forget"]
"""What a forecast expects of a method: see `ForecastRecord`."""


class PathPoint(Strict):
    """A method with one setting at one stopping time, as predicted."""

    run: str
    """The run it belongs to, named as in an audit, such as `gradient_ascent/lr=0.02`."""
    epoch: int
    """Stopping time in epochs of the method."""
    cost: float
    """Examples through forward and backward, relative to retraining on R, that the method itself will cost."""
    excess: dict[SplitName, float]
    """Predicted P95 KLoM above the floor, nats."""
    means: dict[SplitName, float]
    """Predicted mean KLoM above the floor, nats."""
    shifts: dict[SplitName, float]
    """Predicted mean margin minus predicted oracle margin, in standard deviations over members."""
    displacements: dict[SplitName, float] = Field(default_factory=dict)
    """95th percentile over examples of the size of that difference, in the same unit; infinite where all failed. It
    does not saturate as KLoM does. Empty in records of earlier versions."""

    @property
    def displacement(self) -> float:
        """The largest displacement of the three splits; NaN in records of earlier versions."""
        return max(self.displacements.values(), default=math.nan)


class MethodForecast(Strict):
    """What one method is predicted to reach over its whole grid."""

    method: str
    label: str
    control: bool
    outlook: Outlook
    best: PathPoint
    """The setting and stopping time with the least predicted objective (worst excess of the three splits)."""
    objective: float
    """That least objective, nats above the floor."""
    at_target: PathPoint | None
    """Where the forget margins first reach the predicted oracle's mean with least damage; None if no setting does."""
    damage: float | None
    """Mean KLoM above the floor on validation there (interpolated between stopping times), nats; None likewise."""
    extrapolated: float | None = None
    """Damage at the target also where no setting reaches it: the path that comes nearest for its damage is followed on
    in a straight line, along which KLoM grows as the square; None if nothing moves towards the target."""
    path: list[PathPoint] = Field(default_factory=list)
    """Every setting and stopping time."""

    @property
    def rank(self) -> tuple[float, float]:
        """What orders forget sets, and methods, by how far from retraining the best setting ends; smaller is nearer.

        The objective as it is printed, and the displacement where that is the same: beyond the range of the oracles'
        margins KLoM stands still.
        """
        away = self.best.displacement
        return round(self.objective, 2), 0.0 if math.isnan(away) else away


class MeasureRecord(Strict):
    """One measure of dependence between the forget set and the rest."""

    name: str
    value: float
    description: str
    """One line: what it measures, its range, and which way is harder."""


class ForecastRecord(Strict):
    """The forecast for one forget set.

    Outlooks: `nothing to unlearn` when doing nothing is predicted within the tolerance; `can work` when a setting is;
    `partly` when the best setting covers at least half of the way; `breaks first` when forgetting is reached only with
    more damage than it mends; `cannot forget` when no setting reaches the forget margins.
    """

    members: int
    """Pretrained members whose margins were read."""
    followed: int
    """Members whose weights were linearised."""
    dimensions: int
    """Coordinates of the reduced model."""
    segments: list[tuple[int, float]]
    """Epoch and training time of each segment of the unrolled influence."""
    retain_in_table: int
    """Retain examples in the reduced model."""
    seconds: float
    tolerance: float
    """Excess over the floor that counts as indistinguishable, nats."""
    removal: dict[SplitName, float]
    """Predicted mean change of margins by retraining without the forget set, in natural-log units."""
    removal_in_deviations: dict[SplitName, float]
    """The same in standard deviations over members, example by example."""
    nothing: PathPoint
    """The pretrained ensemble against the predicted oracles."""
    methods: list[MethodForecast]
    measures: list[MeasureRecord] = Field(default_factory=list)
    advice: list[str]
    """What follows, in sentences; the first says most."""
    notes: list[str] = Field(default_factory=list)
    """Approximations and fallbacks that were taken."""


class ForecastSet(Strict):
    """A forget set and its forecast."""

    name: str
    size: int
    how: str
    classes: list[int]
    """Forget examples of each class."""
    forecast: ForecastRecord
    margins: str
    """Path of the margin arrays, relative to the run's folder."""
    digest: str
    """SHA-256 of that file."""


class ForecastRun(RunRecord):
    """A run of `expunge forecast`: what a report may read."""

    FILE: ClassVar[str] = "forecast.json"
    KIND: ClassVar[str] = "forecast"
    schema_version: int = FORECAST_SCHEMA
    study: Literal["forecast"] = "forecast"
    task: dict[str, Any]
    members: int
    tolerance: float
    """Excess over the floor that counts as indistinguishable, nats."""
    training_seconds: float = 0.0
    """Seconds for the pretrained ensemble and its earlier states; 0 when they were found in the store."""
    forget_sets: list[ForecastSet] = Field(default_factory=list)


def load_forecast_margins(folder: Path, forecast: ForecastSet) -> dict[str, np.ndarray[Any, Any]]:
    """Return the margin arrays of one forecast, by `<who>/<split>`, each (members, examples).

    Raises:
        InputError: If the file does not exist.
        DamagedFileError: If it is not the file that the record describes.
    """
    from safetensors.numpy import load

    path = inside(folder, forecast.margins)
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; the run's folder is incomplete, run the forecast again with --resume."
        )
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != forecast.digest:
        raise DamagedFileError(f"{path} is not the file that was written; delete it and run again with --resume.")
    return dict(load(content))


def settings_of(run: str) -> str:
    """Return the settings in the name of a run, in words; nothing where it has none.

    >>> settings_of("gradient_descent_ascent/lr=0.02,ascent_epochs=3")
    'rate 0.02, ascent epochs 3'
    """
    pairs = [part.partition("=") for part in run.partition("/")[2].split(",") if part]
    return ", ".join(f"{'rate' if name == 'lr' else name.replace('_', ' ')} {value}" for name, _, value in pairs)
