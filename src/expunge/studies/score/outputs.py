"""The lines of `expunge score` about attackers and outputs: what needs validation examples, or logits with labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from expunge import metrics
from expunge.core.record import SPLITS, SplitName
from expunge.core.scoring import ScoreLine
from expunge.metrics.outputs import failed_outputs
from expunge.metrics.reading import Reading
from expunge.studies.score.inputs import Labels, Side
from expunge.studies.score.lines import Array, from_reading, sample

ATTACK_EXAMPLES = 5000
"""Examples of a split at most for population attacks; the noise of 5000 moves an AUC by less than 0.01."""
SVC_EXAMPLES = 500
"""Examples of a split at most for the SVC attack, which trains a classifier a model."""
FPR = 0.01
"""False-positive rate of the attack that reports a true-positive rate."""
FEATURES = ("entropy", "modified_entropy", "confidence")
"""Features of population attacks beside the loss, whose order margins have as well."""


def attack_lines(unlearned: Side, oracle: Side, labels: Labels, seed: int) -> list[ScoreLine]:
    """Return population attacks on forget against validation examples; empty without validation examples."""
    if "validation" not in unlearned.margins:
        return []
    scores = {"loss": [side.margins[split] for side in (unlearned, oracle) for split in ("forget", "validation")]}
    rows = {
        split: sample(unlearned.margins[split].shape[1], ATTACK_EXAMPLES, seed, f"attack {split}")
        for split in ("forget", "validation")
    }
    order: tuple[SplitName, ...] = ("forget", "validation")
    chosen = [rows[split] for split in order] * 2
    scores["loss"] = [part[:, at] for part, at in zip(scores["loss"], chosen, strict=True)]
    if _have_logits(unlearned, oracle, order):
        for feature in FEATURES:
            scores[feature] = [
                metrics.member_scores(side.logits[split][:, rows[split]], _labels(labels, split)[rows[split]], feature)
                for side in (unlearned, oracle)
                for split in order
            ]
    lines = []
    for feature, parts in scores.items():
        for statistic in ("auc", "balanced_accuracy", "tpr"):
            if statistic == "balanced_accuracy" and min(len(at) for at in chosen) < 8:
                continue  # a threshold from one half needs four examples in it
            reading = metrics.population_attack(
                *parts, name=feature.replace("_", " "), statistic=statistic, fpr=FPR, seed=seed
            )
            lines.append(from_reading("forget", reading, "attacks"))
    return lines


def svc_line(unlearned: Side, oracle: Side, labels: Labels, seed: int) -> ScoreLine | None:
    """Return the SVC attack, or None without logits on all splits."""
    order: tuple[SplitName, ...] = ("retain", "validation", "forget")
    if not _have_logits(unlearned, oracle, order):
        return None
    rows = {s: sample(unlearned.logits[s].shape[1], SVC_EXAMPLES, seed, f"svc {s}") for s in order}

    def parts(side: Side) -> tuple[Array, Array, Array]:
        retain, validation, forget = (side.logits[s][:, rows[s]] for s in order)
        return retain, validation, forget

    y = tuple(_labels(labels, s)[rows[s]] for s in order)
    reading = metrics.svc_attack(parts(unlearned), parts(oracle), (y[0], y[1], y[2]), seed=seed)
    return from_reading("forget", reading, "attacks")


def output_lines(split: SplitName, unlearned: Side, oracle: Side, labels: Labels) -> list[ScoreLine]:
    """Return the metrics of outputs on one split; empty without logits."""
    if not _have_logits(unlearned, oracle, (split,)):
        return []
    u, o = unlearned.logits[split], oracle.logits[split]
    readings: list[Reading] = [
        metrics.accuracy_gap(u, o, labels[split]),
        metrics.activation_distance_reading(u, o),
        metrics.fade_reading(u, o),
    ]
    return [from_reading(split, reading, "outputs") for reading in readings]


def accuracies(unlearned: Side, oracle: Side, labels: Labels) -> tuple[dict[str, Array], dict[str, Array]] | None:
    """Return the accuracy of every member by split, of both sides; None without logits on all splits.

    A member that failed on one split has NaN everywhere: a model that is broken somewhere is not a model.
    """
    if not _have_logits(unlearned, oracle, SPLITS):
        return None
    failed = np.any([failed_outputs(unlearned.logits[s], oracle.logits[s]) for s in SPLITS], axis=0)
    ours = {s: np.where(failed, np.nan, metrics.accuracy(unlearned.logits[s], labels[s])) for s in SPLITS}
    theirs = {s: metrics.accuracy(oracle.logits[s], labels[s]) for s in SPLITS}
    return {str(s): values for s, values in ours.items()}, {str(s): values for s, values in theirs.items()}


def tug_of_war_line(found: tuple[dict[str, Array], dict[str, Array]], examples: int) -> ScoreLine:
    """Return the tug-of-war from the accuracies of both sides."""
    reading = metrics.tug_of_war_reading(*found, examples=examples)
    return from_reading("forget", reading, "outputs")


def challenge_accuracies(unlearned: Side, oracle: Side, labels: Labels) -> tuple[float, float, float, float] | None:
    """Return retain and validation accuracy of members and oracles; None where not known, or where an oracle's is 0.

    A logit that is not finite counts as an error, as in the challenge, where failed members are not left out.
    """
    if not _have_logits(unlearned, oracle, ("retain", "validation")):
        return None
    a, b, c, d = (
        float(metrics.accuracy(side.logits[split], labels[split]).mean())
        for split in ("retain", "validation")
        for side in (unlearned, oracle)
    )
    return (a, b, c, d) if min(b, d) > 0 else None


def _have_logits(unlearned: Side, oracle: Side, splits: tuple[SplitName, ...]) -> bool:
    return all(split in side.logits for split in splits for side in (unlearned, oracle))


def _labels(labels: Labels, split: SplitName) -> Any:
    return np.asarray(labels[split])
