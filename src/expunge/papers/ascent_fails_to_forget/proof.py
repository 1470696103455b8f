"""The record of a proof of forecasts: what was predicted for many forget sets, what happened, and how they rank."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from expunge.core.schema import RunRecord, SplitName, Strict

PROOF_SCHEMA = 1
"""Number of the format of `proof.json`."""

POOLED = "all"
"""Task, or method, of a comparison that is an average over them."""

Half = Literal["development", "judged"]
OutcomeName = Literal["achievable", "achievable_mean", "damage", "illusion_gap"]


class MethodOutcome(Strict):
    """What one method reached on one forget set, and what was forecast of it."""

    method: str
    label: str
    achievable: float
    """Worst P95 KLoM above the floor of the three splits, at the setting and stopping time chosen with one half of the
    oracles and read with the other, nats."""
    achievable_mean: float
    """The same with the mean over examples instead of the 95th percentile."""
    achieved: dict[SplitName, float]
    """P95 KLoM above the floor at that setting, by split."""
    setting: str
    """The setting and stopping time chosen, `run@epoch`."""
    damage: float | None
    """Mean KLoM above the floor on validation where the forget margins first reach the oracles' mean, least over the
    grid; None when no setting reaches it."""
    transferred: float | None
    """Worst P95 KLoM above the floor at the setting that is best on the other forget sets of the same family."""
    illusion_gap: float | None
    """`transferred` minus the best of the grid on the target's own oracles."""
    forecast_setting: str
    """The setting and stopping time that the forecast calls best."""
    at_forecast: float
    """Worst P95 KLoM above the floor there: what somebody without oracles gets who follows the forecast."""
    forecast: dict[OutcomeName, float | None]
    """Predicted outcomes, from the pretrained models alone."""
    damage_by_path: float | None = None
    """What the path in the reduced model predicts of the damage; None when it never comes near the target."""
    within: float
    """Spearman correlation of predicted and measured objective over the settings and stopping times of this method."""


class ForgetSetOutcome(Strict):
    """One forget set: predictors, forecasts, outcomes."""

    task: str
    name: str
    family: str
    """Kind of forget set, such as `random` or `cluster`."""
    half: Half
    """Whether settings of the forecast could be fixed on it, or it only judges them."""
    size: int
    how: str
    dial: float | None = None
    """Position of a dependence dial, where the family has one."""
    predictors: dict[str, float]
    """Measures of dependence and trivial predictors, by name."""
    nothing: float
    """Doing nothing: worst P95 KLoM above the floor."""
    predicted_nothing: float
    removal_correlation: dict[SplitName, float]
    """Pearson correlation over examples of predicted and measured mean margin change by retraining."""
    removal_slope: dict[SplitName, float]
    """Least-squares slope of measured on predicted margin change; 1 is ideal."""
    methods: list[MethodOutcome]
    forecast_seconds: float
    seconds: float


class Correlation(Strict):
    """Rank correlation of one predictor with one outcome over forget sets."""

    task: str
    half: Half | Literal["all"]
    method: str
    outcome: OutcomeName
    predictor: str
    spearman: float
    low: float
    """Lower end of the 95 % interval, bootstrap over forget sets."""
    high: float
    sets: int


class Comparison(Strict):
    """The forecast against the trivial predictor that did best on the development half.

    Rank correlations, and their difference with its 95 % interval, over the forget sets of a task or averaged over
    tasks (`POOLED`).
    """

    task: str
    half: Half | Literal["all"]
    method: str
    outcome: OutcomeName
    trivial: str
    forecast: float
    trivial_spearman: float
    difference: float
    low: float
    high: float
    sets: int


class ProofRecord(RunRecord):
    """A run of the proof."""

    FILE: ClassVar[str] = "proof.json"
    KIND: ClassVar[str] = "proof"
    schema_version: int = PROOF_SCHEMA
    study: Literal["proof"] = "proof"
    forecast_version: int = 0
    """Version of the forecasts in it; those of another one are made again."""
    members: int
    outcomes: list[ForgetSetOutcome] = Field(default_factory=list)
    correlations: list[Correlation] = Field(default_factory=list)
    comparisons: list[Comparison] = Field(default_factory=list)
