"""The verdict: is an unlearned ensemble like a retrained one, and if not, on which side does it miss?

For each split let excess = P95 KLoM of the unlearned members - P95 KLoM of held-out oracles, both against the same
oracles. Both readings share the oracles' noise, so the bootstrap resamples the difference, not the two. Then, in this
order:

    diverged            more than 5 % of the members failed
    damaged             retain or validation excess is above the tolerance, and by more than a tolerance above what the
                        pretrained members have there (if they are given: what was there before is not damage)
    under-forgotten     forget excess is above the tolerance, or single forget rows are told from the oracles', or all
                        together are, and what is told lies on the pretrained side of the oracles; also when only retain
                        or validation are above it, no further than before unlearning
    over-forgotten      the same, but it lies beyond the oracles
    indistinguishable   every excess is within plus or minus the tolerance (two one-sided tests at 5 % on each split),
                        no row is told, not all together, and one row shifted by the row tolerance would not be missed
    undecided           neither, with the number of members that would decide

(`unjudged` is none of them: a setting of an audit that nothing chose, whose scores are read and no more.)

"Above" means that the lower end of the 90 % interval is: a one-sided test at 5 %. Failing to see a difference is never
called indistinguishable; that has to be shown.

A percentile does not see the rows above it: the tests of single rows and of all together do (`row_judge`).

The default tolerances are in `expunge.core.limits`, with the reasons for them.

Source: Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987), for two one-sided tests. That all three splits must pass
needs no correction for three tests (Berger, Technometrics 24, 1982).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge.core import InputError, Result
from expunge.core.checks import plain_arguments, positive
from expunge.core.limits import DEFAULT_ROW_TOLERANCE, DEFAULT_TOLERANCE
from expunge.core.record import SPLITS, JointRecord, MissedRecord, RowsRecord, SplitName, VerdictName
from expunge.metrics.arrays import Array
from expunge.metrics.bootstrap import summarise
from expunge.metrics.copies import Copies, copies_said
from expunge.metrics.failures import FAILED_SHARE
from expunge.metrics.missed import members_for
from expunge.metrics.row_judge import CLEAR, LEVELS, RowJudge
from expunge.metrics.ruler import REPLICATES, Prepared, Ruler

NAMED = 6
"""Rows that a sentence names."""
UNJUDGED = "Unjudged: nothing chose this setting, so its scores have neither intervals nor tests."
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
        row_tolerance: Shift of a single forget row that must not be missed, oracle standard deviations, above 0: where
            the numbers of members would miss it more than once in ten, nothing is indistinguishable.
        replicates: Replicates of the bootstrap.
        seed: Seed of the bootstrap.

    Raises:
        InputError: If a split is missing or an array cannot be used.
    """

    @plain_arguments
    def __init__(
        self,
        oracle: Mapping[SplitName, Any],
        held_out: Mapping[SplitName, Any] | None = None,
        pretrained: Mapping[SplitName, Any] | None = None,
        *,
        tolerance: float = DEFAULT_TOLERANCE,
        row_tolerance: float = DEFAULT_ROW_TOLERANCE,
        replicates: int = REPLICATES,
        seed: int = 0,
    ) -> None:
        positive(tolerance=tolerance, row_tolerance=row_tolerance)
        self.tolerance = float(tolerance)
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
        others = {split: ruler.held_out.margins for split, ruler in self.rulers.items() if ruler.held_out}
        # Members are left out of the split where they failed; without the same members there is no row to compare.
        alike = len(others) == len(SPLITS) and len({len(margins) for margins in others.values()}) == 1
        oracles = _joined({split: self.rulers[split].oracle for split in SPLITS})
        self._copied = Copies(oracles, _joined(others) if alike else None)
        self.pretrained: dict[SplitName, Prepared] | None = None
        kept = np.ones(0, dtype=bool)
        if pretrained is not None:
            _all_splits(pretrained, "pretrained")
            self.pretrained, kept = self._sound(pretrained)
        before = None if self.pretrained is None else {s: ready.margins for s, ready in self.pretrained.items()}
        odd = (np.arange(len(kept)) % 2 == 1)[kept]
        self._every_row = RowJudge(self.rulers, before, odd, self.tolerance, float(row_tolerance), replicates, seed)

    def _sound(self, pretrained: Mapping[SplitName, Any]) -> tuple[dict[SplitName, Prepared], NDArray[np.bool_]]:
        """Return the pretrained members that are sound on every split, and which these are."""
        ready = {split: self.rulers[split].prepare(pretrained[split], f"pretrained {split}") for split in SPLITS}
        counts = {split: len(ready[split].margins) for split in SPLITS}
        members = counts["forget"]
        if len(set(counts.values())) > 1:
            raise InputError(f"pretrained has {counts} members by split, expected the same number.")
        failed = np.logical_or.reduce([ready[split].failed for split in SPLITS])
        count = int(failed.sum())
        if count == 0:
            return ready, ~failed
        if 2 * count > members or members - count < 2:
            raise InputError(
                f"pretrained has {count} of {members} members that are non-finite, collapsed or exploded; expected at "
                "least half of them sound, and at least 2, because they say what was there before unlearning. Retrain "
                "them, or leave pretrained out."
            )
        return {split: self.rulers[split].prepare(ready[split].margins[~failed]) for split in SPLITS}, ~failed

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
        failed = np.logical_or.reduce([ready[split].failed for split in SPLITS])
        verdict = _diverged(Verdict("undecided", "", self.tolerance, splits, members, int(failed.sum()), None))
        if verdict.name == "diverged":
            return verdict
        copies = self._copies(ready)
        if copies:
            return replace(verdict, sentence=f"Undecided: {copies}")
        verdict = replace(
            verdict,
            rows={split: self._every_row.rows(split, ready[split], ~failed) for split in SPLITS},
            joint=self._every_row.joint(ready["forget"], ~failed),
            missed=self._every_row.missed(members - int(failed.sum())),
        )
        name, sentence = self._decide(verdict, ready)
        needed = None
        if name == "undecided":
            needed = self._members_needed(verdict)
            sentence += (
                f" About {needed} members on each side would decide."
                if needed is not None
                else " The excess is so close to the tolerance that no number of members can be named."
            )
        sentence += _tails(verdict)
        return replace(verdict, name=name, sentence=sentence, members_needed=needed)

    def unjudged(self, ready: Mapping[SplitName, Prepared]) -> Verdict:
        """Return the scores of an unlearned ensemble without intervals and tests, and whether it diverged.

        Args:
            ready: Margins by split as the rulers prepare them, the same members in each.
        """
        splits = {split: self._split(split, ready[split], intervals=False) for split in SPLITS}
        failed = np.logical_or.reduce([ready[split].failed for split in SPLITS])
        members = len(ready["forget"].margins)
        return _diverged(Verdict("unjudged", UNJUDGED, self.tolerance, splits, members, int(failed.sum()), None))

    def _split(self, split: SplitName, ready: Prepared, *, intervals: bool = True) -> SplitVerdict:
        ruler = self.rulers[split]
        score = ruler.score(ready, "p95", intervals=intervals)
        mean, shift = float(summarise(ready.klom, "mean")), ruler.shift(ready)
        if not intervals:
            return SplitVerdict(score, mean, shift, score.excess, *(4 * [math.nan]))
        (low90, high90), (low95, high95) = (ruler.excess_interval(ready, "p95", level) for level in (0.90, 0.95))
        return SplitVerdict(score, mean, shift, score.excess, low90, high90, low95, high95)

    def _decide(self, verdict: Verdict, ready: Mapping[SplitName, Prepared]) -> tuple[VerdictName, str]:
        limit, splits, joint, missed = self.tolerance, verdict.splits, verdict.joint, verdict.missed
        assert joint is not None
        assert missed is not None
        above: list[SplitName] = [split for split in SPLITS if splits[split].low90 > limit]
        harmed = [split for split in above if split != "forget" and self._worse_than_before(split, splits[split])]
        if harmed:
            seen = " and ".join(f"{_excess(splits[split])} on {split} examples" for split in harmed)
            return "damaged", f"Damaged: {seen} (tolerance {limit:g} nats above the floor)."
        if "forget" in above:
            return self._side(ready["forget"], splits["forget"], verdict.rows["forget"])
        if verdict.rows["forget"].counted:
            return self._rows(verdict.rows["forget"], splits["forget"])
        if joint.counts:
            return self._joint(joint, verdict.rows["forget"], splits["forget"])
        if above:
            seen = " and ".join(f"{_excess(splits[split])} on {split} examples" for split in above)
            return "under-forgotten", (
                f"Under-forgotten: the forget examples pass, but {seen} remains (tolerance {limit:g}), no more "
                "than in the pretrained members: what the forget set did elsewhere is still there."
            )
        would = _would_have_been_told(missed)
        passing = {split: -limit < seen.low90 and seen.high90 < limit for split, seen in splits.items()}
        reasons = [f"{_excess(splits[split])} on {split} examples" for split in SPLITS if not passing[split]]
        if missed.row is None or missed.row > missed.asked:
            reasons.append(
                f"a single forget row shifted by {missed.asked:g} oracle standard deviations would be missed too often"
            )
        if not reasons:
            most = max(splits.values(), key=lambda split: split.high90)
            return "indistinguishable", (
                f"Indistinguishable from retraining at a tolerance of {limit:g} nats: on forget, retain and validation "
                f"examples the excess over the floor is at most {most.high90:.3f} (upper end of the 90 % interval), "
                f"and {_none_told(verdict.rows['forget'], joint)}. {would}"
            )
        below = [split for split in SPLITS if splits[split].high90 < -limit]
        hint = (
            f" Readings below the floor ({', '.join(below)}) are better than independent oracles give: the members "
            "may not be independent of the oracles."
            if below
            else ""
        )
        return "undecided", f"Undecided: {'; '.join(reasons)}; tolerance {limit:g}.{hint} {would}"

    def _rows(self, rows: RowsRecord, forget: SplitVerdict) -> tuple[VerdictName, str]:
        """Return the verdict of rows that are told while the percentile over all of them is not above the tolerance."""
        counted = [row for row in rows.rows if row.counts]
        ahead = rows.remembered - rows.beyond
        if ahead == 0:
            ahead = sum(row.shift * self._every_row.sides["forget"].towards[row.position] for row in counted)
        name: VerdictName = "under-forgotten" if ahead >= 0 else "over-forgotten"
        listed = ", ".join(str(row.position) for row in sorted(counted[:NAMED], key=lambda row: row.position))
        rest = f" and {rows.counted - NAMED} more" if rows.counted > NAMED else ""
        largest = max(counted, key=lambda row: abs(row.shift))
        p_value, noun = max(row.p_value for row in counted), "row" if rows.counted == 1 else "rows"
        return name, (
            f"{name.capitalize()} ({rows.counted} of {rows.examples} rows): {noun} {listed}{rest} of the forget set "
            f"(counted from 0) told from retraining (p = {p_value:.3f}, adjusted for all rows), shifted by up to "
            f"{largest.shift:+.1f} oracle standard deviations, {_sides(rows)}. The 95th percentile over rows does not "
            f"show it: {_excess(forget)}."
        )

    def _joint(self, joint: JointRecord, rows: RowsRecord, forget: SplitVerdict) -> tuple[VerdictName, str]:
        """Return the verdict of traces that no single row shows."""
        under = joint.side == "remembered"
        if joint.side == "spread":
            under = forget.shift * self._every_row.sides["forget"].before >= 0
        name: VerdictName = "under-forgotten" if under else "over-forgotten"
        where = {
            "remembered": ", on the side of the pretrained members",
            "beyond": ", beyond the oracles, away from the pretrained members",
            "spread": "",
        }[joint.side]
        return name, (
            f"{name.capitalize()} (traces over all {rows.examples} rows): no single forget row is far from retraining, "
            f"but all of them together tell an unlearned model from a retrained one with accuracy {joint.accuracy:.2f} "
            f"(p = {joint.p_value:.3f}; the tolerance allows {joint.most:.2f}, chance is 0.50){where}."
        )

    def _worse_than_before(self, split: SplitName, seen: SplitVerdict) -> bool:
        if self.pretrained is None:
            return True
        # Excesses, not readings: fewer sound members read higher by noise alone.
        before = self.rulers[split].score(self.pretrained[split], "p95", intervals=False).excess
        return seen.excess > before + self.tolerance

    def _side(self, ready: Prepared, split: SplitVerdict, rows: RowsRecord) -> tuple[VerdictName, str]:
        ruler = self.rulers["forget"]
        own = _standard_errors(ruler.shifts(ready))
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
        under = sign * self._every_row.sides["forget"].before >= 0
        name: VerdictName = "under-forgotten" if under else "over-forgotten"
        side = (
            "on the side of the pretrained members" if under else "beyond the oracles, away from the pretrained members"
        )
        head = f"{name.capitalize()} ({rows.counted} of {rows.examples} rows)" if rows.counted else name.capitalize()
        return name, (f"{head}: {_excess(split)} on forget examples (tolerance {self.tolerance:g}); {where}, {side}.")

    def _copies(self, ready: Mapping[SplitName, Prepared]) -> str:
        """Say so when models are copies of others: then nothing here is a sample, and nothing can be found."""
        return copies_said(self._copied, _joined({s: ready[s].margins for s in SPLITS}))

    def _members_needed(self, verdict: Verdict) -> int | None:
        """Intervals and what is missed shrink with the root of the members, cautiously; the excess stays as it is."""
        members, needed, missed = verdict.members, 0.0, verdict.missed
        for split in verdict.splits.values():
            half = (split.high90 - split.low90) / 2
            gap = abs(self.tolerance - abs(split.excess))
            if half < gap:
                continue
            if gap < 0.05 * self.tolerance:
                return None
            needed = max(needed, members * (half / gap) ** 2)
        if missed is not None and missed.row is None:
            ratio = members / len(self._every_row.sides["forget"].reference)
            needed = max(needed, members_for(missed.asked, verdict.rows["forget"].examples, ratio, LEVELS["forget"]))
        elif missed is not None and missed.row is not None and missed.row > missed.asked:
            needed = max(needed, members * (missed.row / missed.asked) ** 2)
        if not 0 < needed <= MOST_MEMBERS:
            return None
        return math.ceil(needed)


@plain_arguments
def judge(
    unlearned: Mapping[SplitName, Any],
    oracle: Mapping[SplitName, Any],
    held_out: Mapping[SplitName, Any] | None = None,
    pretrained: Mapping[SplitName, Any] | None = None,
    *,
    tolerance: float = DEFAULT_TOLERANCE,
    row_tolerance: float = DEFAULT_ROW_TOLERANCE,
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
        row_tolerance: Shift of a single forget row that must not be missed, oracle standard deviations.
        replicates: Replicates of the bootstrap.
        seed: Seed of the bootstrap, the permutations and the simulations.
    """
    options = {"tolerance": tolerance, "row_tolerance": row_tolerance}
    return Judge(oracle, held_out, pretrained, **options, replicates=replicates, seed=seed)(unlearned)


def _diverged(verdict: Verdict) -> Verdict:
    """Return a verdict, turned into `diverged` where too many members failed."""
    if verdict.failed <= FAILED_SHARE * verdict.members:
        return verdict
    return replace(
        verdict,
        name="diverged",
        sentence=f"Diverged: {verdict.failed} of {verdict.members} members are non-finite, collapsed or exploded, "
        f"more than {FAILED_SHARE:.0%}.",
    )


def _all_splits(arrays: Mapping[SplitName, Any], what: str) -> None:
    missing = [split for split in SPLITS if split not in arrays]
    if missing:
        raise InputError(
            f"{what} has splits {sorted(arrays)}, expected {', '.join(SPLITS)}; {', '.join(missing)} is missing."
        )


def _excess(split: SplitVerdict) -> str:
    return f"an excess of {split.excess:.2f} (90 % interval {split.low90:.2f} to {split.high90:.2f})"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _sides(rows: RowsRecord) -> str:
    """Say on which side of the oracles the counted rows lie."""
    parts = {
        "on the side of the pretrained members": rows.remembered,
        "beyond the oracles, away from the pretrained members": rows.beyond,
        "of another spread or shape": rows.counted - rows.remembered - rows.beyond,
    }
    seen = {where: count for where, count in parts.items() if count}
    return next(iter(seen)) if len(seen) == 1 else ", ".join(f"{count} {where}" for where, count in seen.items())


def _none_told(rows: RowsRecord, joint: JointRecord) -> str:
    """Say that rows are not told, or not by more than the tolerance."""
    within = [_plural(rows.told, "row") + " alone"] * (rows.told > 0) + ["all rows together"] * joint.told
    if within:
        return f"what tells {' and '.join(within)} from retraining is within it"
    return f"none of the {rows.examples} forget rows is told from retraining, alone or together with the others"


def _would_have_been_told(missed: MissedRecord) -> str:
    """Say what would have been told at this number of members."""
    seen = [] if missed.row is None else [f"a single row shifted by {missed.row:.2f} oracle standard deviations"]
    if missed.share is not None:
        seen.append(f"{missed.share:.0%} of the rows shifted by {missed.shift:.2f}")
    if not seen:
        return "No shift of a single row, nor one of all rows by the tolerance, would have been told nine times in ten."
    return f"{' or '.join(seen).capitalize()} would have been told nine times in ten."


def _tails(verdict: Verdict) -> str:
    """Say which retain and validation rows are told: shown, for there the percentile is the rule."""
    seen = [
        f"{rows.counted} of {rows.examples} {split} rows"
        for split, rows in verdict.rows.items()
        if split != "forget" and rows.counted
    ]
    return f" One by one, {' and '.join(seen)} are told from retraining; the percentile is the rule there." * bool(seen)


def _standard_errors(shifts: Array) -> float:
    """How many standard errors the mean shift of the members is from 0."""
    if len(shifts) < 2:
        return 0.0
    error = float(shifts.std(ddof=1) / np.sqrt(len(shifts)))
    mean = float(shifts.mean())
    return mean / error if error > 0 else math.copysign(math.inf, mean) if mean else 0.0


def _joined(margins: Mapping[SplitName, Array]) -> Array:
    """Return the margins of each member on all splits, one after the other."""
    return np.concatenate([margins[split] for split in SPLITS], axis=1)
