"""The tests of a verdict that see every row: their oracle side, prepared once, and what they say of members.

    rows        is any row of a split told from the oracles' (`rows`), and is what is told larger than the tolerance
    joint       are all forget rows together (`traces`)
    missed      what would not have been told at this number of members (`missed`)

Oracles and held-out oracles are one sample here: both were retrained, and twice as many see more. Members that failed
are left out; the rule of failures and KLoM count them.

All tests together tell anything of members that follow the oracles' law in at most 4 of 100 verdicts: rows of the
forget set in 2, all of them together in 1, rows of retain and validation in half of one each. With enough members any
difference is told in the end. Against a verdict counts only what is also larger than the tolerance: a row whose shift
is estimated above sqrt(2 tolerance) oracle standard deviations or whose KLoM is more than the tolerance above the
floor's mean, and an accuracy above Phi(sqrt(2 tolerance) / 2), what the tolerance allows whoever holds one model and
knows both laws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from expunge.core.record import MOST_ROWS, SPLITS, JointRecord, MissedRecord, RowRecord, RowsRecord, SplitName
from expunge.metrics.arrays import Array, deviations
from expunge.metrics.missed import POWER, smallest_row, smallest_share
from expunge.metrics.rows import PERMUTATIONS, groups_of_equals, row_test
from expunge.metrics.ruler import Prepared, Ruler
from expunge.metrics.traces import Halves, traces

LEVELS: dict[SplitName, float] = {"forget": 0.02, "retain": 0.005, "validation": 0.005}
"""Chance that any row of a split is told when both sides follow one law."""
JOINT_LEVEL = 0.01
"""The same for all forget rows together."""
DEALT: dict[SplitName, int] = {"forget": PERMUTATIONS, "retain": 399, "validation": 399}
"""Permutations: the fewest that reach the level of the split without loss, on the forget set for small p-values."""
CLEAR = 2.0
"""Standard errors from 0 at which the sign of a shift is believed."""
SIMULATED, SPLITS_DRAWN = 400, 40
"""Simulated tests of a single row, and splits for a share of rows: a power of .9 is known to 1.5 and 5 %. Fewer where
the bootstrap has less than 100 replicates."""


@dataclass(frozen=True)
class Side:
    """The retrained members of one split, and where the pretrained ones lie beside them."""

    reference: Array
    """Margins of oracles and held-out oracles (oracles, examples)."""
    mean: Array
    """(examples,)"""
    spread: Array
    """Standard deviation of each row, never 0, (examples,)."""
    pretrained: Halves | None
    """The pretrained members; None without some of even and some of odd index."""
    before: float
    """1 where pretrained margins are larger than the oracles' on average or where that is not clear, else -1."""
    towards: Array
    """The same for every row, (examples,); `before` where it is not clear."""

    @classmethod
    def of(cls, ruler: Ruler, pretrained: Array | None, odd: NDArray[np.bool_]) -> Side:
        """Return the side of one split from the margins of sound pretrained members, and which of them are odd."""
        reference = ruler.oracle
        if ruler.held_out is not None:
            reference = np.concatenate([reference, ruler.held_out.margins])
        mean, spread = reference.mean(0), deviations(reference)
        if pretrained is None:
            return cls(reference, mean, spread, None, 1.0, np.ones(len(mean)))
        standard = (pretrained - mean) / spread
        gap, members = standard.mean(0), standard.mean(1)
        error = np.sqrt(standard.var(0) / len(standard) + 1 / len(reference))
        before = -1.0 if members.mean() < -CLEAR * members.std() / np.sqrt(len(members)) else 1.0
        towards = np.where(np.abs(gap) > CLEAR * error, np.sign(gap), before)
        halves = Halves.of(pretrained, odd) if 0 < odd.sum() < len(odd) else None
        return cls(reference, mean, spread, halves, before, towards)


class RowJudge:
    """Reads every row of unlearned members.

    Args:
        rulers: Oracles and held-out oracles by split.
        pretrained: Margins of sound pretrained members by split, or None.
        odd: Which of these have an odd index among all pretrained members.
        tolerance: Nats.
        row_tolerance: Shift of a single forget row that must not be missed, oracle standard deviations.
        replicates: Replicates of the bootstrap, which say how much is simulated.
        seed: Seed of permutations and simulations.
    """

    def __init__(
        self,
        rulers: Mapping[SplitName, Ruler],
        pretrained: Mapping[SplitName, Array] | None,
        odd: NDArray[np.bool_],
        tolerance: float,
        row_tolerance: float,
        replicates: int,
        seed: int,
    ) -> None:
        share = min(1.0, replicates / 100)
        self.draws, self.splits = round(SIMULATED * share) + 1, round(SPLITS_DRAWN * share) + 1
        self.rulers, self.tolerance, self.row_tolerance, self.seed = rulers, tolerance, row_tolerance, seed
        self.shift = float(np.sqrt(2 * tolerance))
        self.sides = {s: Side.of(rulers[s], None if pretrained is None else pretrained[s], odd) for s in SPLITS}
        self._missed: dict[int, MissedRecord] = {}

    def rows(self, split: SplitName, ready: Prepared, sound: NDArray[np.bool_]) -> RowsRecord:
        """Return the rows of a split that are told, from its sound members."""
        side, ruler, level = self.sides[split], self.rulers[split], LEVELS[split]
        ours = ready.margins[sound]
        test = row_test(ours, side.reference, permutations=DEALT[split], seed=self.seed)
        told = np.flatnonzero(test.told(level))
        shift = (ours[:, told].mean(0) - side.mean[told]) / side.spread[told]
        above = ready.klom[told] - ruler.floor(len(ready.margins), "mean")[0]
        counts = (np.abs(shift) > self.shift) | (above > self.tolerance)
        clear = np.abs(test.z[told]) > CLEAR
        ahead = np.sign(test.z[told]) * side.towards[told] > 0
        largest = np.lexsort((groups_of_equals(-test.statistic[told]), ~counts))[:MOST_ROWS]
        return RowsRecord(
            examples=len(side.mean),
            told=len(told),
            counted=int(counts.sum()),
            remembered=int((counts & clear & ahead).sum()),
            beyond=int((counts & clear & ~ahead).sum()),
            level=level,
            rows=[
                RowRecord(
                    position=int(told[i]),
                    side="spread" if not clear[i] else "remembered" if ahead[i] else "beyond",
                    shift=float(shift[i]),
                    klom=float(ready.klom[told[i]]),
                    p_value=float(test.p_value[told[i]]),
                    counts=bool(counts[i]),
                )
                for i in largest
            ],
        )

    def joint(self, ready: Prepared, sound: NDArray[np.bool_]) -> JointRecord:
        """Return what all forget rows together say, from the sound members."""
        side = self.sides["forget"]
        odd = (np.arange(len(sound)) % 2 == 1)[sound]
        test = traces(ready.margins[sound], side.reference, side.pretrained, odd, seed=self.seed)
        most, told = float(special.ndtr(self.shift / 2)), test.p_value <= JOINT_LEVEL
        clear = test.along_p_value <= 2 * (1 - special.ndtr(CLEAR))
        return JointRecord(
            p_value=test.p_value,
            accuracy=test.accuracy,
            most=most,
            level=JOINT_LEVEL,
            told=told,
            counts=told and test.accuracy > most,
            side="spread" if not clear else "remembered" if test.along > 0 else "beyond",
        )

    def missed(self, members: int) -> MissedRecord:
        """Return what could have been missed with a number of sound members."""
        if members not in self._missed:
            side = self.sides["forget"]
            row = smallest_row(
                side.reference, side.spread, members, level=LEVELS["forget"], draws=self.draws, seed=self.seed
            )
            share = smallest_share(
                side.reference,
                side.spread,
                members,
                self.shift * side.towards,
                side.pretrained,
                row_level=LEVELS["forget"],
                joint_level=JOINT_LEVEL,
                draws=self.splits,
                seed=self.seed,
            )
            self._missed[members] = MissedRecord(
                row=row, share=share, shift=self.shift, power=POWER, asked=self.row_tolerance
            )
        return self._missed[members]
