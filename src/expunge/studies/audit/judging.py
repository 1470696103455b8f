"""The bench of one forget set: rulers for its three splits, against which every configuration is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from expunge.core import Result
from expunge.core.claim import EpsilonRecord
from expunge.core.limits import DEFAULT_ROW_TOLERANCE
from expunge.core.record import SPLITS, SplitName, VerdictRecord
from expunge.metrics.from_margins import read_published
from expunge.metrics.metric import Sample, Side
from expunge.metrics.privacy import audit_margins
from expunge.metrics.registry import KLOM, METRICS, PUBLIC
from expunge.metrics.ruler import Prepared
from expunge.metrics.verdict import Judge, Verdict
from expunge.studies.run.measure import accuracy_of, margins_of

Margins = Mapping[SplitName, np.ndarray[Any, Any]]

REPLICATES = 100
"""Bootstrap replicates a score: its standard error is then known to 7 %, and an audit reads a thousand scores."""


@dataclass(frozen=True)
class Reading:
    """What the bench says about one ensemble."""

    scores: dict[SplitName, Result]
    means: dict[SplitName, float]
    shifts: dict[SplitName, float]
    public: dict[SplitName, float]
    others: dict[str, dict[SplitName, Result]]
    failed: int
    verdict: VerdictRecord


class Bench:
    """Reads ensembles against the oracles of one forget set.

    Args:
        measured: Measurements (`Parts.measure`) of `oracle`, `held_out` and `pretrained`.
        tolerance: Largest excess over the floor that counts as indistinguishable, in nats.
        labels: Labels of the examples by split, for metrics of logits.
        row_tolerance: Shift of a single forget row that must not be missed, oracle standard deviations.
    """

    def __init__(
        self,
        measured: Mapping[str, Mapping[str, Tensor]],
        tolerance: float,
        labels: Mapping[SplitName, np.ndarray[Any, Any]] | None = None,
        row_tolerance: float = DEFAULT_ROW_TOLERANCE,
    ) -> None:
        self.tolerance = tolerance
        self._margins = {who: margins_of(values) for who, values in measured.items()}
        self._oracle, self._labels = _side(measured["oracle"]), labels or {}
        self.accuracy = {who: accuracy_of(values) for who, values in measured.items()}
        self._judge = Judge(
            self._margins["oracle"],
            self._margins["held_out"],
            self._margins["pretrained"],
            tolerance=tolerance,
            row_tolerance=row_tolerance,
            replicates=REPLICATES,
        )
        self.rulers = self._judge.rulers
        # What metrics make of the oracles is made once, for all ensembles that are read.
        self._shared: dict[SplitName, dict[Any, Any]] = {split: {"ruler": self.rulers[split]} for split in SPLITS}
        self._pretrained = self.read(measured["pretrained"])

    def read(self, measured: Mapping[str, Tensor], *, judged: bool = True) -> Reading:
        """Return what every audited metric of the registry reads of a measured ensemble, and its verdict.

        Args:
            measured: From `Parts.measure`.
            judged: Whether there is a verdict; without one, scores have no intervals, which are most of the work.
        """
        side = _side(measured)
        ready, failed = self._prepared(side.margins)
        verdict = self._judge(ready) if judged else self._judge.unjudged(ready)
        found: dict[str, dict[SplitName, Result]] = {}
        for split in SPLITS:
            # A published estimator sees the margins as they came out: marking failures with NaN would empty its bins.
            made = {"ready": ready[split], ("klom", "p95"): verdict.scores[split]}
            held_out = self._margins["held_out"][split]
            sample = Sample(split, side, self._oracle, held_out, self._labels, 0, made, self._shared[split])
            for metric in METRICS.values():
                result = metric.measured(sample) if metric.audited else None
                if result is not None:
                    found.setdefault(metric.name, {})[split] = replace(result, metric=metric.name)
        return Reading(
            scores=verdict.scores,
            means=verdict.means,
            shifts=verdict.shifts,
            public={split: result.value for split, result in found[PUBLIC].items()},
            others={name: results for name, results in found.items() if name not in (KLOM, PUBLIC)},
            failed=failed,
            verdict=_recorded(verdict),
        )

    def judge(self, margins: Margins) -> tuple[dict[SplitName, Result], VerdictRecord]:
        """Return the scores of an ensemble with their intervals, and its verdict, from its margins by split."""
        verdict = self._judge(self._prepared(margins)[0])
        return verdict.scores, _recorded(verdict)

    def excess(self, measured: Mapping[str, Tensor]) -> dict[SplitName, float]:
        """Return the P95 excess over the floor by split, without intervals: what selection reads."""
        ready, _ = self._prepared(margins_of(measured))
        scores = {split: self.rulers[split].score(ready[split], intervals=False) for split in SPLITS}
        return {split: score.excess for split, score in scores.items()}

    def epsilon(self, measured: Mapping[str, Tensor], delta: float) -> EpsilonRecord:
        """Return the lower bound on epsilon that stands beside a claim, from the forget margins.

        Args:
            measured: Of the unlearned ensemble.
            delta: Of the claim.
        """
        ours, oracle = margins_of(measured)["forget"], self._margins["oracle"]["forget"]
        found = audit_margins(ours, oracle, delta=delta)
        return EpsilonRecord(
            epsilon=found.epsilon,
            delta=found.delta,
            significance=found.significance,
            largest=found.largest,
            members=found.positives,
            oracles=found.negatives,
        )

    def _prepared(self, margins: Margins) -> tuple[dict[SplitName, Prepared], int]:
        """Return margins as the rulers see them, a member that failed on one split as failed on all, and their number.

        Its margins are NaN then, and count as the worst outcome.
        """
        ready = {split: self.rulers[split].prepare(margins[split], f"unlearned {split}") for split in SPLITS}
        failed = np.any([ready[split].failed for split in SPLITS], axis=0)
        for split in SPLITS if failed.any() else ():
            marked = np.array(margins[split], copy=True)
            marked[failed] = np.nan
            ready[split] = self.rulers[split].prepare(marked)
        return ready, int(failed.sum())

    def floors(self) -> dict[SplitName, Result]:
        """Return held-out oracles scored against oracles."""
        held_out = self._margins["held_out"]
        return {split: self.rulers[split].score(held_out[split]) for split in SPLITS}

    def floor_public(self) -> dict[SplitName, float]:
        """Return the floor that the published `easydub` variant reads, P95."""
        samples = {s: Sample(s, Side(self._margins["held_out"]), self._oracle) for s in SPLITS}
        return {split: read_published(sample, "easydub").value for split, sample in samples.items()}

    def pretrained_scores(self) -> dict[SplitName, Result]:
        """Return the pretrained ensemble scored against oracles: how far there is to go."""
        return self._pretrained.scores

    def pretrained_public(self) -> dict[SplitName, float]:
        """Return the same with the published `easydub` variant, P95."""
        return self._pretrained.public

    def nothing_to_unlearn(self) -> bool:
        """Return whether the pretrained ensemble is indistinguishable from the oracles already."""
        return self._pretrained.verdict.name == "indistinguishable"

    def failed(self, who: str) -> int:
        """Return how many members of `oracle`, `held_out` or `pretrained` failed."""
        return self._prepared(self._margins[who])[1]

    def worst(self, number: int) -> list[int]:
        """Return the forget examples on which pretrained and oracles differ most, worst first."""
        shifts = np.abs(self.rulers["forget"].shift_by_example(self._margins["pretrained"]["forget"]))
        return [int(row) for row in np.argsort(-shifts, kind="stable")[:number]]

    def margins(self) -> dict[str, Margins]:
        """Return the margins of `oracle`, `held_out` and `pretrained` by split."""
        return dict(self._margins)


def _recorded(verdict: Verdict) -> VerdictRecord:
    return VerdictRecord(
        name=verdict.name,
        sentence=verdict.sentence,
        tolerance=verdict.tolerance,
        rule="every row",
        rows=verdict.rows,
        joint=verdict.joint,
        missed=verdict.missed,
        members_needed=verdict.members_needed,
    )


def _side(measured: Mapping[str, Tensor]) -> Side:
    logits = {split: measured[f"logits/{split}"].double().numpy() for split in SPLITS if f"logits/{split}" in measured}
    return Side(margins_of(measured), logits)
