"""The verdict: is an unlearned ensemble like a retrained one, and if not, on which side does it miss?

For each split let excess = P95 KLoM of the unlearned members - P95 KLoM of held-out oracles, both against the same
oracles. Both readings share the oracles' noise, so the bootstrap resamples the difference, not the two. Then, in this
order:

    diverged            more than 5 % of the members failed
    damaged             retain or validation excess is above the tolerance, and by more than a tolerance above what the
                        pretrained members have there (if they are given: what was there before is not damage)
    under-forgotten     forget excess is above the tolerance, and margins lie on the pretrained side of the oracles';
                        also when only retain or validation are above it, no further than before unlearning
    over-forgotten      forget excess is above the tolerance, and margins lie beyond the oracles'
    indistinguishable   every excess is within plus or minus the tolerance: two one-sided tests at 5 % on each split
    undecided           neither, with the number of members that would decide

"Above" means that the lower end of the 90 % interval is: a one-sided test at 5 %. Failing to see a difference is never
called indistinguishable; that has to be shown.

Default tolerance 0.125 nats. A shift of d oracle standard deviations is a divergence of d^2 / 2, so 0.125 is half a
standard deviation at the 95th percentile of the examples: somebody who holds one model and knows both distributions
exactly tells unlearned from retrained by such an example's margin with accuracy Phi(d / 2) = 0.60 at best, instead of
0.50. As measured, with 100 members on each side, the P95 excess reaches 0.125 when all examples shift by 0.40 standard
deviations, or a tenth of them by 0.70 (`benchmarks/sensitivity.py` prints both).

Source: Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987), for two one-sided tests. That all three splits must pass
needs no correction for three tests (Berger, Technometrics 24, 1982).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from expunge.core import InputError, Result
from expunge.core.checks import positive
from expunge.core.record import SPLITS, JointRecord, MissedRecord, RowsRecord, SplitName, VerdictName
from expunge.metrics.arrays import Array
from expunge.metrics.bootstrap import summarise
from expunge.metrics.failures import FAILED_SHARE
from expunge.metrics.ruler import REPLICATES, Prepared, Ruler

DEFAULT_TOLERANCE = 0.125
"""Nats above the floor that still count as indistinguishable; the module says why."""
CLEAR = 2.0
"""Standard errors from 0 at which the sign of a shift is believed."""
MOST_MEMBERS = 100_000
"""A larger answer to "how many members would decide" is not given."""


@dataclass(frozen=True)
class SplitVerdict:
    """One split of a verdict."""

    score: Result
    """P95 KLoM with its interval and floor."""
    mean: float
    """Mean KLoM over examples."""
    shift: float
    """Mean standardised shift of the margins, oracle standard deviations; NaN when every member failed."""
    excess: float
    """P95 KLoM minus that of held-out oracles (or the resampled floor), nats."""
    low90: float
    """Lower end of the 90 % interval of `excess`, the one that the two one-sided tests at 5 % read."""
    high90: float
    """Upper end of the 90 % interval of `excess`."""
    low95: float
    """Lower end of the 95 % interval of `excess`."""
    high95: float
    """Upper end of the 95 % interval of `excess`."""


@dataclass(frozen=True)
class Verdict:
    """What the equivalence test says about one unlearned ensemble."""

    name: VerdictName
    """The verdict in one word."""
    sentence: str
    """The verdict in one or two sentences with its numbers."""
    tolerance: float
    """Largest excess over the floor that still counts as indistinguishable, nats."""
    splits: dict[SplitName, SplitVerdict]
    """What it rests on, by split."""
    members: int
    """Unlearned members."""
    failed: int
    """Members that failed on at least one split."""
    members_needed: int | None
    """Members on each side that would decide, estimated; None when decided, or when no number can be named."""
    rows: dict[SplitName, RowsRecord] = field(default_factory=dict)
    """Rows that are told from the oracles', by split; only those of the forget set count against the verdict."""
    joint: JointRecord | None = None
    """The test over all forget rows together."""
    missed: MissedRecord | None = None
    """What could have been missed at this number of members."""

    @property
    def scores(self) -> dict[SplitName, Result]:
        """P95 KLoM by split."""
        return {name: split.score for name, split in self.splits.items()}

    @property
    def means(self) -> dict[SplitName, float]:
        """Mean KLoM by split."""
        return {name: split.mean for name, split in self.splits.items()}

    @property
    def shifts(self) -> dict[SplitName, float]:
        """Mean standardised shift by split."""
        return {name: split.shift for name, split in self.splits.items()}


class Judge:
    """The oracle side of a verdict, prepared once; call it with the margins of each unlearned ensemble.

    Args:
        oracle: Oracle margins by split (`forget`, `retain`, `validation`), each (oracles, examples).
        held_out: Margins of other oracles, for the floors; None resamples the floors.
        pretrained: Margins of the pretrained members: the side that under-forgetting lies on, and what retain and
            validation looked like before. Members that failed on a split are left out, half of them at most: they would
            make any damage look like what was there before. None takes higher margins than the oracles' for the
            pretrained side.
        tolerance: Largest excess that counts as indistinguishable, nats, above 0.
        replicates: Replicates of the bootstrap.
        seed: Seed of the bootstrap.

    Raises:
        InputError: If a split is missing or an array cannot be used.
    """

    def __init__(
        self,
        oracle: Mapping[SplitName, Any],
        held_out: Mapping[SplitName, Any] | None = None,
        pretrained: Mapping[SplitName, Any] | None = None,
        *,
        tolerance: float = DEFAULT_TOLERANCE,
        replicates: int = REPLICATES,
        seed: int = 0,
    ) -> None:
        positive(tolerance=tolerance)
        self.tolerance = tolerance
        _all_splits(oracle, "oracle")
        if held_out is not None:
            _all_splits(held_out, "held_out")
        # The forget set is what was asked about; retain and validation examples stand for others like them.
        self.rulers: dict[SplitName, Ruler] = {
            split: Ruler(
                oracle[split],
                None if held_out is None else held_out[split],
                replicates=replicates,
                seed=seed,
                resample_examples=split != "forget",
            )
            for split in SPLITS
        }
        self._oracle_prints = _fingerprints({split: self.rulers[split].oracle for split in SPLITS})
        others = {split: ruler.held_out.margins for split, ruler in self.rulers.items() if ruler.held_out}
        # Members are left out of the split where they failed; without the same members there is no row to compare.
        alike = len(others) == len(SPLITS) and len({len(margins) for margins in others.values()}) == 1
        self._held_out_prints = _fingerprints(others) if alike else []
        self.pretrained: dict[SplitName, Prepared] | None = None
        if pretrained is not None:
            _all_splits(pretrained, "pretrained")
            self.pretrained = self._sound(pretrained)

    def _sound(self, pretrained: Mapping[SplitName, Any]) -> dict[SplitName, Prepared]:
        """Return the pretrained members that are sound on every split."""
        ready = {split: self.rulers[split].prepare(pretrained[split], f"pretrained {split}") for split in SPLITS}
        counts = {split: len(ready[split].margins) for split in SPLITS}
        members = counts["forget"]
        if len(set(counts.values())) > 1:
            raise InputError(f"pretrained has {counts} members by split, expected the same number.")
        failed = np.logical_or.reduce([ready[split].failed for split in SPLITS])
        count = int(failed.sum())
        if count == 0:
            return ready
        if 2 * count > members or members - count < 2:
            raise InputError(
                f"pretrained has {count} of {members} members that are non-finite, collapsed or exploded; expected at "
                "least half of them sound, and at least 2, because they say what was there before unlearning. Retrain "
                "them, or leave pretrained out."
            )
        return {split: self.rulers[split].prepare(ready[split].margins[~failed]) for split in SPLITS}

    def __call__(self, unlearned: Mapping[SplitName, Any]) -> Verdict:
        """Return the verdict on an unlearned ensemble.

        Args:
            unlearned: Margins by split, each (members, examples), the same members in the same order; may hold NaN.

        Raises:
            InputError: If a split is missing, members differ between splits, or there are fewer than 2.
        """
        _all_splits(unlearned, "unlearned")
        ready = {split: self.rulers[split].prepare(unlearned[split], f"unlearned {split}") for split in SPLITS}
        counts = {split: len(ready[split].margins) for split in SPLITS}
        members = counts["forget"]
        if len(set(counts.values())) > 1:
            raise InputError(f"unlearned has {counts} members by split, expected the same number.")
        splits = {split: self._split(split, ready[split]) for split in SPLITS}
        failed = int(np.logical_or.reduce([ready[split].failed for split in SPLITS]).sum())
        copies = self._copies(ready)
        name, sentence = self._decide(ready, splits, failed, members, copies)
        needed = None
        if name == "undecided" and not copies:
            needed = self._members_needed(splits, members)
            sentence += (
                f" About {needed} members on each side would decide."
                if needed is not None
                else " The excess is so close to the tolerance that no number of members can be named."
            )
        return Verdict(name, sentence, self.tolerance, splits, members, failed, needed)

    def _split(self, split: SplitName, ready: Prepared) -> SplitVerdict:
        ruler = self.rulers[split]
        score = ruler.score(ready, "p95")
        low90, high90 = ruler.excess_interval(ready, "p95", 0.90)
        low95, high95 = ruler.excess_interval(ready, "p95", 0.95)
        mean = float(summarise(ready.klom, "mean"))
        return SplitVerdict(score, mean, ruler.shift(ready), score.excess, low90, high90, low95, high95)

    def _decide(
        self,
        ready: Mapping[SplitName, Prepared],
        splits: Mapping[SplitName, SplitVerdict],
        failed: int,
        members: int,
        copies: str,
    ) -> tuple[VerdictName, str]:
        limit = self.tolerance
        above: list[SplitName] = [split for split in SPLITS if splits[split].low90 > limit]
        if failed > FAILED_SHARE * members:
            return "diverged", (
                f"Diverged: {failed} of {members} members are non-finite, collapsed or exploded, "
                f"more than {FAILED_SHARE:.0%}."
            )
        if copies:
            return "undecided", f"Undecided: {copies}"
        harmed = [split for split in above if split != "forget" and self._worse_than_before(split, splits[split])]
        if harmed:
            seen = " and ".join(f"{_excess(splits[split])} on {split} examples" for split in harmed)
            return "damaged", f"Damaged: {seen} (tolerance {limit:g} nats above the floor)."
        if "forget" in above:
            return self._side(ready["forget"], splits["forget"])
        if above:
            seen = " and ".join(f"{_excess(splits[split])} on {split} examples" for split in above)
            return "under-forgotten", (
                f"Under-forgotten: the forget examples pass, but {seen} remains (tolerance {limit:g}), no more "
                "than in the pretrained members: what the forget set did elsewhere is still there."
            )
        if all(-limit < split.low90 and split.high90 < limit for split in splits.values()):
            most = max(splits.values(), key=lambda split: split.high90)
            return "indistinguishable", (
                f"Indistinguishable from retraining at a tolerance of {limit:g} nats: on forget, retain and validation "
                f"examples the excess over the floor is at most {most.high90:.3f} (upper end of the 90 % interval)."
            )
        open_splits = [
            f"{_excess(splits[split])} on {split} examples"
            for split in SPLITS
            if not (-limit < splits[split].low90 and splits[split].high90 < limit)
        ]
        below = [split for split in SPLITS if splits[split].high90 < -limit]
        hint = (
            f" Readings below the floor ({', '.join(below)}) are better than independent oracles give: the members "
            "may not be independent of the oracles."
            if below
            else ""
        )
        return "undecided", f"Undecided: {', '.join(open_splits)}, tolerance {limit:g}.{hint}"

    def _worse_than_before(self, split: SplitName, seen: SplitVerdict) -> bool:
        if self.pretrained is None:
            return True
        # Excesses, not readings: fewer sound members read higher by noise alone.
        before = self.rulers[split].score(self.pretrained[split], "p95", intervals=False).excess
        return seen.excess > before + self.tolerance

    def _side(self, ready: Prepared, split: SplitVerdict) -> tuple[VerdictName, str]:
        ruler = self.rulers["forget"]
        own = _standard_errors(ruler.shifts(ready))
        before = 1.0
        if self.pretrained is not None:
            step = _standard_errors(ruler.shifts(self.pretrained["forget"]))
            before = math.copysign(1.0, step) if abs(step) > CLEAR else 1.0
        where = f"margins lie {split.shift:+.2f} oracle standard deviations from the oracles' on average"
        sign = own
        if not abs(own) > CLEAR:
            # The mean says nothing: take the side of the examples that differ most.
            by_example = np.nan_to_num(ruler.shift_by_example(ready))
            worst = ready.klom >= np.percentile(ready.klom, 95)
            sign = float(by_example[worst].mean())
            where = (
                "the difference is one of spread or of single examples rather than of the mean margin; the examples "
                f"that differ most lie {sign:+.2f} oracle standard deviations from the oracles'"
            )
        under = sign * before >= 0
        name: VerdictName = "under-forgotten" if under else "over-forgotten"
        side = (
            "on the side of the pretrained members" if under else "beyond the oracles, away from the pretrained members"
        )
        return name, (
            f"{name.capitalize()}: {_excess(split)} on forget examples (tolerance {self.tolerance:g}); {where}, {side}."
        )

    def _copies(self, ready: Mapping[SplitName, Prepared]) -> str:
        """Say so when models are copies of others: then nothing here is a sample, and nothing can be found."""
        ours = _fingerprints({split: ready[split].margins for split in SPLITS})
        theirs = set(self._oracle_prints)
        shared = sum(row in theirs for row in ours)
        if shared:
            return f"{shared} of {len(ours)} members are copies of oracles, which says nothing about unlearning."
        sides = {"members": ours, "oracles": self._oracle_prints}
        if self._held_out_prints:
            sides["held-out oracles"] = self._held_out_prints
        for who, rows in sides.items():
            repeated = len(rows) - len(set(rows))
            if repeated:
                return f"{repeated} of {len(rows)} {who} are copies of other {who}, so intervals would be too narrow."
        return ""

    def _members_needed(self, splits: Mapping[SplitName, SplitVerdict], members: int) -> int | None:
        """Intervals narrow with the root of the members, on the cautious assumption; the excess stays as it is."""
        needed = 0.0
        for split in splits.values():
            half = (split.high90 - split.low90) / 2
            gap = abs(self.tolerance - abs(split.excess))
            if half < gap:
                continue
            if gap < 0.05 * self.tolerance:
                return None
            needed = max(needed, members * (half / gap) ** 2)
        if not 0 < needed <= MOST_MEMBERS:
            return None
        return math.ceil(needed)


def judge(
    unlearned: Mapping[SplitName, Any],
    oracle: Mapping[SplitName, Any],
    held_out: Mapping[SplitName, Any] | None = None,
    pretrained: Mapping[SplitName, Any] | None = None,
    *,
    tolerance: float = DEFAULT_TOLERANCE,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Verdict:
    """Return the verdict on one unlearned ensemble; for many against the same oracles keep a `Judge`.

    Args:
        unlearned: Margins by split (`forget`, `retain`, `validation`), each (members, examples).
        oracle: Margins of retrained members.
        held_out: Margins of other retrained members.
        pretrained: Margins of the members before unlearning.
        tolerance: Largest excess over the floor that counts as indistinguishable, nats.
        replicates: Replicates of the bootstrap.
        seed: Seed of the bootstrap.
    """
    return Judge(oracle, held_out, pretrained, tolerance=tolerance, replicates=replicates, seed=seed)(unlearned)


def _all_splits(arrays: Mapping[SplitName, Any], what: str) -> None:
    missing = [split for split in SPLITS if split not in arrays]
    if missing:
        raise InputError(
            f"{what} has splits {sorted(arrays)}, expected {', '.join(SPLITS)}; {', '.join(missing)} is missing."
        )


def _excess(split: SplitVerdict) -> str:
    return f"an excess of {split.excess:.2f} (90 % interval {split.low90:.2f} to {split.high90:.2f})"


def _standard_errors(shifts: Array) -> float:
    """How many standard errors the mean shift of the members is from 0."""
    if len(shifts) < 2:
        return 0.0
    error = float(shifts.std(ddof=1) / np.sqrt(len(shifts)))
    mean = float(shifts.mean())
    return mean / error if error > 0 else math.copysign(math.inf, mean) if mean else 0.0


def _fingerprints(margins: Mapping[SplitName, Array]) -> list[bytes]:
    """Name each finite member by its margins on all splits; failed ones by their position."""
    joined = np.concatenate([margins[split] for split in SPLITS], axis=1)
    return [row.tobytes() if np.isfinite(row).all() else f"failed {place}".encode() for place, row in enumerate(joined)]
