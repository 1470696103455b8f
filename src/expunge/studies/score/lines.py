"""What the parts of `expunge score` share: lines from results, equal numbers of members, samples of examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from expunge import metrics
from expunge.core import Score
from expunge.core.record import SplitName
from expunge.core.scoring import Group, ScoreLine
from expunge.core.seeds import derive
from expunge.metrics.joint import JointTest
from expunge.metrics.reading import Reading

Array = NDArray[np.float64]

SUBSAMPLES = 8
"""Draws over which a reading at fewer members is averaged."""


def at_equal_counts(
    unlearned: Array, held_out: Array | None, oracle: Array, read: Callable[[Array], Sequence[float]], seed: int
) -> tuple[float, ...]:
    """Return readings of the unlearned members at the number of held-out oracles, if these are fewer.

    A divergence of few members is larger, whatever they are: a value is comparable with a floor at equal numbers only.
    Where there are more unlearned members, several subsets of them are read and averaged. Failed members are in each,
    so that leaving members out never improves a reading.

    Args:
        unlearned: Margins (members, examples).
        held_out: Margins of the held-out oracles on the same examples; None reads all members.
        oracle: Margins of the oracles, to tell failed members by.
        read: Returns numbers from margins (members, examples).
        seed: Draws the subsets.
    """
    if held_out is None or len(held_out) >= len(unlearned):
        return tuple(read(unlearned))
    rng = np.random.default_rng(derive(seed, "equal counts"))
    failed = metrics.failed_members(unlearned, oracle)
    drawn = []
    for _ in range(SUBSAMPLES):
        order = rng.permutation(len(unlearned))
        first = np.argsort(~failed[order], kind="stable")
        drawn.append(tuple(read(unlearned[np.sort(order[first][: len(held_out)])])))
    return tuple(float(np.mean(values)) for values in zip(*drawn, strict=True))


def sample(examples: int, most: int, seed: int, what: str) -> NDArray[np.int64]:
    """Return which examples to use: all, or `most` of them at random, in order."""
    if examples <= most:
        return np.arange(examples)
    return np.sort(np.random.default_rng(derive(seed, what)).permutation(examples)[:most])


def from_score(split: SplitName, score: Score, name: str, group: Group) -> ScoreLine:
    """Return the line of a score with interval and floor."""
    if not np.isfinite(score.value):
        side = "failed"
    elif np.isnan([score.low, score.floor_high]).any():
        side = "undecided"
    elif score.low > score.floor_high:
        side = "off the oracle"
    else:
        side = "not told from the oracle"
    return ScoreLine(
        split=split,
        group=group,
        metric=name,
        value=score.value,
        low=score.low,
        high=score.high,
        oracle=score.floor,
        oracle_low=score.floor_low,
        oracle_high=score.floor_high,
        unit=score.unit,
        ideal=score.ideal,
        side=side,
        failed=score.failed,
    )


def from_reading(split: SplitName, reading: Reading, group: Group) -> ScoreLine:
    """Return the line of a reading beside the oracles'."""
    return ScoreLine(
        split=split,
        group=group,
        metric=reading.metric,
        value=reading.value,
        low=reading.low,
        high=reading.high,
        oracle=reading.oracle,
        oracle_low=reading.oracle_low,
        oracle_high=reading.oracle_high,
        unit=reading.unit,
        ideal=reading.ideal,
        side=reading.side,
        failed=reading.failed,
    )


def from_joint(split: SplitName, test: JointTest) -> ScoreLine:
    """Return the line of a joint test, whose side is that of its p-value at 5 %."""
    return ScoreLine(
        split=split,
        group="joint tests",
        metric=test.metric,
        value=test.value,
        oracle=test.floor,
        oracle_high=test.floor_high,
        p_value=test.p_value,
        unit="share" if test.metric.startswith("classifier") else "squared kernel distance",
        ideal=test.ideal,
        side="off the oracle" if test.p_value <= 0.05 else "not told from the oracle",
        failed=test.failed,
    )
