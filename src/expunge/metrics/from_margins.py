"""How metrics that need margins alone are read: KLoM, distances, joint tests, U-LiRA, bounds, public codes."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from expunge.core import Result
from expunge.metrics.arrays import Array
from expunge.metrics.bootstrap import Summary
from expunge.metrics.distances import distance_score
from expunge.metrics.failures import failed_members
from expunge.metrics.joint import classifier_two_sample, mmd
from expunge.metrics.klom import Direction, Variant, klom
from expunge.metrics.metric import Sample, at_equal_counts, with_side
from expunge.metrics.neurips2023 import ChallengeScore, challenge_score
from expunge.metrics.privacy import Split, audit
from expunge.metrics.ulira import ulira

DISTANCE_EXAMPLES = 2000
"""Examples of a split at most for distances, whose intervals take forty readings; they are means over examples."""
CHALLENGE_EXAMPLES = 300
"""Examples at most for the challenge score, which takes tens of milliseconds for each."""
DELTA = 1e-5
"""Slack of the bounds on epsilon."""


def read_klom(sample: Sample, summary: Summary) -> Result:
    """Return KLoM with interval and floor."""
    return sample.once(("klom", summary), lambda: with_side(sample.ruler.score(sample.ready, summary)))


def read_one_direction(sample: Sample, direction: Direction) -> Result:
    """Return one direction of KL alone, on the cells of KLoM."""
    rows = sample.klom_rows
    held_out = None if sample.held_out is None else sample.held_out[:, rows]
    return _p95_at_equal_counts(
        sample, sample.u[:, rows], sample.o[:, rows], held_out, "the floor", "expunge", direction
    )


def read_published(sample: Sample, variant: Variant) -> Result:
    """Return KLoM as a public code computes it."""
    return _p95_at_equal_counts(sample, sample.u, sample.o, sample.held_out, "the floor; can be fooled", variant)


def _p95_at_equal_counts(
    sample: Sample,
    u: Array,
    o: Array,
    h: Array | None,
    ideal: str,
    variant: Variant,
    direction: Direction | None = None,
) -> Result:
    """Return a divergence at the number of held-out oracles, beside theirs."""

    def read(margins: Array) -> list[float]:
        return [float(np.percentile(klom(margins, o, variant, direction), 95))]

    floor = float("nan")
    if h is not None:
        others = h[: len(u)]
        floor = sample.once_of_oracles((variant, direction, len(others)), lambda: read(others)[0])
    return Result(
        metric=f"klom, {variant}",
        summary="p95",
        value=at_equal_counts(u, h, o, read, sample.seed)[0],
        floor=floor,
        members=len(u),
        oracles=len(o),
        examples=u.shape[1],
        failed=sample.failed,
        ideal=ideal,
    )


def read_distance(sample: Sample, name: str) -> Result:
    """Return a distance with interval and floor, which is brought to the number of unlearned members."""
    rows = sample.drawn(sample.split, DISTANCE_EXAMPLES, "distance examples")
    held_out = None if sample.held_out is None else sample.held_out[:, rows]
    # A member may fail on examples that were not drawn.
    found = with_side(distance_score(name, sample.u[:, rows], sample.o[:, rows], held_out))
    return replace(found, failed=sample.failed)


def read_joint(sample: Sample, test: Literal["classifier", "mmd"]) -> Result:
    """Return a joint test over the examples of the split."""
    if test == "mmd":
        return mmd(sample.u, sample.o, seed=sample.seed)
    return classifier_two_sample(sample.u, sample.o, folds=min(5, len(sample.u), len(sample.o)), seed=sample.seed)


def read_ulira(sample: Sample) -> Result:
    """Return the balanced accuracy of U-LiRA."""
    attack = ulira(sample.u, sample.o, held_out=sample.held_out, seed=sample.seed)
    return Result(
        metric="ulira",
        summary="mean",
        value=attack.accuracy,
        low=attack.low,
        high=attack.high,
        floor=attack.floor,
        floor_low=attack.floor_low,
        floor_high=attack.floor_high,
        members=attack.members,
        oracles=attack.oracles,
        examples=attack.examples,
        failed=attack.failed,
        unit="share",
        ideal=attack.ideal,
        side=attack.side,
    )


def read_epsilon(sample: Sample, route: Literal["clopper-pearson", "gaussian-dp"]) -> Result:
    """Return a lower bound on epsilon from one number a member: its mean margin."""
    u, o = sample.u, sample.o
    failed = failed_members(u, o)
    scores = np.where(failed, np.nan, np.where(np.isfinite(u), u, 0).mean(1))
    # The threshold comes from the other half of the members.
    bound = audit(scores, o.mean(1), Split(seed=sample.seed), delta=DELTA, route=route)
    assumed = ", assumes a Gaussian trade-off" if route == "gaussian-dp" else ""
    return Result(
        metric="epsilon",
        summary="joint",
        value=bound.epsilon,
        floor=bound.floor,
        floor_high=bound.largest,
        members=len(u),
        oracles=len(o),
        examples=u.shape[1],
        failed=int(failed.sum()),
        unit=f"nats, 95 % confidence, delta {DELTA:g}{assumed}",
        ideal=f"0: nothing shown; {bound.positives} members could show {bound.largest:.2f} at most",
    )


def read_challenge(sample: Sample, accuracies: tuple[float, float, float, float] | None = None) -> Result:
    """Return the forgetting quality of the challenge, or its score where accuracies are given."""
    rows = sample.drawn(sample.split, CHALLENGE_EXAMPLES, "challenge examples")

    def make() -> ChallengeScore:
        return challenge_score(sample.u[:, rows], sample.o[:, rows], seed=sample.seed)

    found = sample.once("challenge", make)
    value, ratio = found.forgetting, 1.0
    if accuracies is not None:
        retain, oracle_retain, test, oracle_test = accuracies
        value = value * retain / oracle_retain * test / oracle_test
        ratio = value / found.forgetting if found.forgetting > 0 else 0.0
    return Result(
        metric="forgetting quality" if accuracies is None else "challenge score",
        summary="mean",
        value=value,
        low=found.low * ratio,
        high=found.high * ratio,
        # Oracles have their own accuracies: the ratios are 1, and what they earn is the calibration.
        floor=found.calibration,
        floor_low=found.calibration_low,
        floor_high=found.calibration_high,
        members=found.members,
        oracles=found.oracles,
        examples=found.examples,
        failed=found.failed,
        unit="points",
        ideal=found.ideal,
    )
