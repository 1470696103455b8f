"""The bench of one forget set: rulers for its three splits, against which every configuration is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from expunge.core import Score
from expunge.core.record import SPLITS, SplitName, VerdictRecord
from expunge.metrics.klom import klom
from expunge.metrics.verdict import Judge
from expunge.studies.run.measure import accuracy_of, margins_of

Margins = Mapping[SplitName, np.ndarray[Any, Any]]

REPLICATES = 100
"""Bootstrap replicates a score: its standard error is then known to 7 %, and an audit reads a thousand scores."""


@dataclass(frozen=True)
class Reading:
    """What the bench says about one ensemble."""

    scores: dict[SplitName, Score]
    means: dict[SplitName, float]
    shifts: dict[SplitName, float]
    public: dict[SplitName, float]
    failed: int
    verdict: VerdictRecord


class Bench:
    """Reads ensembles against the oracles of one forget set.

    Args:
        measured: Measurements (`Parts.measure`) of `oracle`, `held_out` and `pretrained`.
        tolerance: Largest excess over the floor that counts as indistinguishable, in nats.
    """

    def __init__(self, measured: Mapping[str, Mapping[str, Tensor]], tolerance: float) -> None:
        self.tolerance = tolerance
        self._margins = {who: margins_of(values) for who, values in measured.items()}
        self.accuracy = {who: accuracy_of(values) for who, values in measured.items()}
        self._judge = Judge(
            self._margins["oracle"],
            self._margins["held_out"],
            self._margins["pretrained"],
            tolerance=tolerance,
            replicates=REPLICATES,
        )
        self.rulers = self._judge.rulers
        self._pretrained = self.read_margins(self._margins["pretrained"])

    def read(self, measured: Mapping[str, Tensor]) -> Reading:
        """Return scores, shifts, published values and the verdict of a measured ensemble."""
        return self.read_margins(margins_of(measured))

    def read_margins(self, margins: Margins) -> Reading:
        """Return the same for margins by split, each (members, examples)."""
        marked, failed = self._without_failed(margins)
        verdict = self._judge(marked)
        oracle = self._margins["oracle"]
        # The published estimator sees the margins as they came out: marking failures with NaN would empty its bins.
        public = {split: klom(margins[split], oracle[split], variant="easydub") for split in SPLITS}
        return Reading(
            scores=verdict.scores,
            means=verdict.means,
            shifts=verdict.shifts,
            public={split: float(np.percentile(values, 95)) for split, values in public.items()},
            failed=failed,
            verdict=VerdictRecord(name=verdict.name, sentence=verdict.sentence, tolerance=verdict.tolerance),
        )

    def excess(self, measured: Mapping[str, Tensor]) -> dict[SplitName, float]:
        """Return the P95 excess over the floor by split, without intervals: what selection reads."""
        margins, _ = self._without_failed(margins_of(measured))
        scores = {split: self.rulers[split].score(margins[split], intervals=False) for split in SPLITS}
        return {split: score.excess for split, score in scores.items()}

    def _without_failed(self, margins: Margins) -> tuple[dict[SplitName, np.ndarray[Any, Any]], int]:
        """Mark a member that failed on one split as failed on all: its NaN margins then count as the worst outcome."""
        failed = np.any([self.rulers[split].failed(margins[split]) for split in SPLITS], axis=0)
        if not failed.any():
            return dict(margins), 0
        marked = {}
        for split in SPLITS:
            marked[split] = np.array(margins[split], copy=True)
            marked[split][failed] = np.nan
        return marked, int(failed.sum())

    def floors(self) -> dict[SplitName, Score]:
        """Return held-out oracles scored against oracles."""
        held_out = self._margins["held_out"]
        return {split: self.rulers[split].score(held_out[split]) for split in SPLITS}

    def floor_public(self) -> dict[SplitName, float]:
        """Return the floor that the published `easydub` variant reads, P95."""
        oracle, held_out = self._margins["oracle"], self._margins["held_out"]
        return {s: float(np.percentile(klom(held_out[s], oracle[s], variant="easydub"), 95)) for s in SPLITS}

    def pretrained_scores(self) -> dict[SplitName, Score]:
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
        return self._without_failed(self._margins[who])[1]

    def worst(self, number: int) -> list[int]:
        """Return the forget examples on which pretrained and oracles differ most, worst first."""
        shifts = np.abs(self.rulers["forget"].shift_by_example(self._margins["pretrained"]["forget"]))
        return [int(row) for row in np.argsort(-shifts, kind="stable")[:number]]

    def margins(self) -> dict[str, Margins]:
        """Return the margins of `oracle`, `held_out` and `pretrained` by split."""
        return dict(self._margins)
