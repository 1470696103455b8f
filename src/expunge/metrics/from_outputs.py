"""How attackers and metrics of outputs are read: what needs validation examples, or logits with labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge.core import Result
from expunge.core.schema import SPLITS, SplitName
from expunge.metrics.arrays import Array
from expunge.metrics.from_margins import read_challenge
from expunge.metrics.membership import member_scores, population_attack, svc_attack
from expunge.metrics.metric import Sample, Side
from expunge.metrics.outputs import accuracy, accuracy_gap, failed_outputs, tug_of_war_reading

ATTACK_EXAMPLES = 5000
"""Examples of a split at most for population attacks; the noise of 5000 moves an AUC by less than 0.01."""
SVC_EXAMPLES = 500
"""Examples of a split at most for the SVC attack, which trains a classifier a model."""
FPR = 0.01
"""False-positive rate of the attack that reports a true-positive rate."""


def read_attack(sample: Sample, feature: str, statistic: str) -> Result | None:
    """Return a population attack on forget against validation examples; the order of margins is that of the loss."""
    order: tuple[SplitName, ...] = ("forget", "validation")
    rows = {split: sample.drawn(split, ATTACK_EXAMPLES, f"attack {split}") for split in order}
    if statistic == "balanced_accuracy" and min(map(len, rows.values())) < 8:
        return None  # a threshold from one half needs four examples in it

    def make() -> list[Array]:
        sides = (sample.unlearned, sample.oracle)
        if feature == "loss":
            return [side.margins[split][:, rows[split]] for side in sides for split in order]
        return [
            member_scores(side.logits[split][:, rows[split]], _labels(sample, split)[rows[split]], feature)
            for side in sides
            for split in order
        ]

    a, b, c, d = sample.once(("attack", feature), make)
    return population_attack(a, b, c, d, name=feature.replace("_", " "), statistic=statistic, fpr=FPR, seed=sample.seed)


def read_svc(sample: Sample) -> Result:
    """Return the SVC attack."""
    order: tuple[SplitName, ...] = ("retain", "validation", "forget")
    rows = {split: sample.drawn(split, SVC_EXAMPLES, f"svc {split}") for split in order}

    def parts(side: Side) -> tuple[Array, Array, Array]:
        retain, validation, forget = (side.logits[split][:, rows[split]] for split in order)
        return retain, validation, forget

    y = tuple(_labels(sample, split)[rows[split]] for split in order)
    return svc_attack(parts(sample.unlearned), parts(sample.oracle), (y[0], y[1], y[2]), seed=sample.seed)


def read_outputs(sample: Sample, read: Callable[[Any, Any], Result]) -> Result:
    """Return a metric of the logits of both sides."""
    return read(sample.unlearned.logits[sample.split], sample.oracle.logits[sample.split])


def read_accuracy(sample: Sample) -> Result:
    """Return the accuracy beside the oracles'."""
    labels = _labels(sample, sample.split)
    return accuracy_gap(sample.unlearned.logits[sample.split], sample.oracle.logits[sample.split], labels)


def read_tug_of_war(sample: Sample) -> Result:
    """Return the tug-of-war; a member that failed on one split is no model on the others."""
    u, o = sample.unlearned.logits, sample.oracle.logits
    failed = np.any([failed_outputs(u[split], o[split]) for split in SPLITS], axis=0)
    ours = {str(s): np.where(failed, np.nan, accuracy(u[s], _labels(sample, s))) for s in SPLITS}
    theirs = {str(s): accuracy(o[s], _labels(sample, s)) for s in SPLITS}
    return tug_of_war_reading(ours, theirs, examples=sum(u[split].shape[1] for split in SPLITS))


def read_challenge_score(sample: Sample) -> Result | None:
    """Return the score of the challenge with accuracies; None where an oracle's, by which it divides, is 0.

    A logit that is not finite counts as an error, as in the challenge, where failed members are not left out.
    """
    sides, splits = (sample.unlearned, sample.oracle), ("retain", "validation")
    a, b, c, d = (
        float(accuracy(side.logits[split], _labels(sample, split)).mean())  # type: ignore[index,arg-type]
        for split in splits
        for side in sides
    )
    return read_challenge(sample, (a, b, c, d)) if min(b, d) > 0 else None


def _labels(sample: Sample, split: SplitName) -> NDArray[Any]:
    return np.asarray(sample.labels[split])
