"""Population attacks: does an unlearned model's output on forget examples look like that on its training examples?

One threshold or classifier for all examples of one model. The aim is the oracle's own value, not 0.5 and not 0: forget
examples may be easier or harder than held-out ones for a model that saw neither. A value below the oracle's is
over-forgetting (an attacker sees it as well), and the reading says so. Per-example attacks (`lira`, `ulira`) are
stronger; a population attack that finds nothing proves little (Hayes et al., arXiv 2403.01218).

Intervals are over members, given the examples. The true-positive rate at a low false-positive rate hangs on the few
unseen examples that set the threshold, so that its interval allows for other examples as well.

Sources: Yeom et al. (arXiv 1709.01604) for the loss; Salem et al. (arXiv 1806.01246) for the entropy; Song and Mittal,
"Systematic Evaluation of Privacy Risks" (arXiv 2003.10595), Eq. 8 for the modified entropy; Jia et al. (arXiv
2304.04934), App. C.3 for the SVC protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from expunge.core import InputError, Result
from expunge.core.checks import between, one_of, plain_arguments, whole
from expunge.core.seeds import derive, numpy_seed
from expunge.metrics.arrays import Array, log_complement, log_probabilities, pair, to_array, to_labels
from expunge.metrics.failures import failed_members
from expunge.metrics.outputs import failed_outputs
from expunge.metrics.reading import compare
from expunge.metrics.roc import Interval, auc, balanced_accuracy, tpr_at_fpr

FEATURES = ("loss", "entropy", "modified_entropy", "modified_entropy_published", "confidence", "correctness")
"""Scalar features of outputs; every one is turned so that a higher score says member."""

SVC_FEATURES = (*FEATURES, "probability")
"""Features of the SVC attack; `probability` is the vector of class probabilities."""
GRID_POINTS, GRID_STEP = 1024, 0.05
"""Points at which a classifier of one feature is evaluated, and how far apart they may be (the kernel's width is 1)."""


def loss(logits: Any, labels: Any) -> Array:
    """Return the cross-entropy of each example.

    Args:
        logits: Shape (members, examples, classes).
        labels: Shape (examples,).

    Returns:
        Nats, shape (members, examples); NaN where a logit is not finite.
    """
    logs, y = _logs(logits, labels)
    return -_own(logs, y)


def entropy(logits: Any) -> Array:
    """Return the entropy of the output of each example.

    Args:
        logits: Shape (members, examples, classes).

    Returns:
        Nats, shape (members, examples), from 0 to log(classes); NaN where a logit is not finite.
    """
    logs = log_probabilities(to_array(logits, "logits", ndim=3))
    return np.asarray(-(np.exp(logs) * _floor(logs)).sum(-1))


@plain_arguments
def modified_entropy(logits: Any, labels: Any, *, variant: str = "paper") -> Array:
    """Return the modified entropy `-(1 - p_y) log p_y - sum_{k != y} p_k log(1 - p_k)` of each example.

    It is 0 for a certain correct output and unbounded for a certain wrong one.

    Args:
        logits: Shape (members, examples, classes).
        labels: Shape (examples,).
        variant: `paper` is the formula. `published` is what the code that unlearning papers share computes, for
            comparison with their tables: log p where log(1 - p) belongs, and the change of the true class made in
            every class that occurs in `labels`, so that the value of an example depends on the labels beside it.

    Returns:
        Nats, shape (members, examples); NaN where a logit is not finite.

    Source: Song and Mittal (arXiv 2003.10595), Eq. 8. The defects are in `evaluation/SVC_MIA.py` of
    OPTML-Group/Unlearn-Sparse and Unlearn-Saliency and in copies of it.

    >>> modified_entropy([[[0.0, 0.0]]], [0]).round(4).tolist()
    [[0.6931]]
    """
    one_of(("paper", "published"), variant=variant)
    logs, y = _logs(logits, labels)
    if variant == "published":
        p = np.exp(logs)
        present = np.isin(np.arange(logs.shape[-1]), y)
        clipped = np.where(p > 0, logs, np.log(1e-30))
        return np.asarray(-(np.where(present, 1 - p, p) * clipped).sum(-1))
    complement = _floor(log_complement(logs))
    terms = np.exp(logs) * complement
    own = _own(terms, y)
    correct = np.exp(_own(complement, y)) * _own(_floor(logs), y)
    return np.asarray(-(correct + terms.sum(-1) - own))


@plain_arguments
def member_scores(logits: Any, labels: Any, feature: str = "loss") -> Array:
    """Return attack scores, higher for what looks like a training example.

    Args:
        logits: Shape (members, examples, classes).
        labels: Shape (examples,).
        feature: One of `FEATURES`: minus the loss, minus the entropy, minus the modified entropy (also as published),
            the largest probability, or whether the output is correct.

    Returns:
        Shape (members, examples); NaN where a logit is not finite.
    """
    one_of(FEATURES, feature=feature)
    if feature == "loss":
        return -loss(logits, labels)
    if feature == "entropy":
        return -entropy(logits)
    if feature.startswith("modified_entropy"):
        return -modified_entropy(logits, labels, variant="published" if feature.endswith("published") else "paper")
    logs, y = _logs(logits, labels)
    top = logs.max(-1)
    if feature == "confidence":
        return np.asarray(np.exp(top))
    return np.where(np.isnan(top), np.nan, (np.argmax(logs, -1) == y).astype(np.float64))


@plain_arguments
def population_attack(
    forget: Any,
    other: Any,
    oracle_forget: Any,
    oracle_other: Any,
    *,
    name: str = "loss",
    statistic: str = "auc",
    fpr: float = 0.01,
    seed: int = 0,
) -> Result:
    """Return how well one threshold tells forget from unseen examples, per unlearned member, beside the oracles.

    Args:
        forget: Scores of the unlearned members on forget examples (members, forget examples), higher says member: from
            `member_scores`, or margins themselves, whose order is that of the loss.
        other: Their scores on examples that no model was trained on (members, other examples), of the same
            classes and difficulty as far as possible: class-wise forgetting makes any attack trivial otherwise.
        oracle_forget: Scores of the oracles on the forget examples (oracles, forget examples).
        oracle_other: Scores of the oracles on the other examples (oracles, other examples).
        name: Name of the feature, for the reading.
        statistic: `auc` (ties one half); `balanced_accuracy` (threshold chosen on one half of the examples, read on the
            other, both ways); `tpr` (true-positive rate at a false-positive rate of at most `fpr`).
        fpr: For `tpr`, 0 to 1; below one over the number of other examples it means no false positive.
        seed: Draws the halves.

    Returns:
        The reading; `side` is over-forgotten when the value is below the oracles'. Intervals are over members; those of
        `tpr` are over examples as well, by `tpr_at_fpr`, and the side is still given the examples, which both sides
        share.
    """
    one_of(("auc", "balanced_accuracy", "tpr"), statistic=statistic)
    between(0, 1, fpr=fpr)
    ours_forget, theirs_forget = pair(forget, oracle_forget, minimum=1)
    ours_other, theirs_other = pair(other, oracle_other, minimum=1)
    for what, a, b in (("unlearned", ours_forget, ours_other), ("oracle", theirs_forget, theirs_other)):
        if len(a) != len(b):
            raise InputError(
                f"{what} has {len(a)} members on forget and {len(b)} on other examples, expected the same members."
            )

    # A member that gives every example the same score would pass for private: it has failed, and counts as such.
    failed = failed_members(
        np.concatenate([ours_forget, ours_other], 1), np.concatenate([theirs_forget, theirs_other], 1)
    )
    ours_forget = np.where(failed[:, None], np.nan, ours_forget)

    def one(positives: Array, negatives: Array) -> Interval:
        nothing = float("nan")
        if not (np.isfinite(positives).all() and np.isfinite(negatives).all()):
            return Interval(nothing, nothing, nothing)
        if statistic == "tpr":
            return tpr_at_fpr(positives, negatives, fpr)
        if statistic == "auc":
            return Interval(float(auc(positives, negatives)), nothing, nothing)
        return Interval(_cross_fitted_accuracy(positives, negatives, seed), nothing, nothing)

    ours = [one(a, b) for a, b in zip(ours_forget, ours_other, strict=True)]
    theirs = [one(a, b) for a, b in zip(theirs_forget, theirs_other, strict=True)]
    label = {"auc": "AUC", "balanced_accuracy": "balanced accuracy", "tpr": f"TPR at FPR {fpr:g}"}[statistic]
    reading = compare(
        f"population attack ({name}), {label}",
        [member.value for member in ours],
        [member.value for member in theirs],
        examples=ours_forget.shape[1] + ours_other.shape[1],
        smallest=0,
        largest=1,
        over="below",
        unit=label,
        ideal="the oracle's value; below it is over-forgetting",
    )
    if statistic != "tpr":
        return reading
    low, high = _over_examples(ours, reading.value, reading.high - reading.value)
    floor_low, floor_high = _over_examples(theirs, reading.floor, reading.floor_high - reading.floor)
    return replace(reading, low=low, high=high, floor_low=floor_low, floor_high=floor_high)


def _over_examples(members: Sequence[Interval], mean: float, half: float) -> tuple[float, float]:
    """Return the interval of a mean over members that see the same examples.

    Their errors from the examples may move together, so that the deviation of the mean is bounded by the mean of the
    deviations; the spread over members is independent of it.

    Args:
        members: Rate of each member with its interval over examples; NaN for failed members, which are left out.
        mean: Mean of the rates.
        half: Half width of the interval of the mean over members.
    """
    found = np.array([member for member in members if np.isfinite(member.value)])
    if len(found) == 0:
        return float("nan"), float("nan")
    below, above = (found[:, 0] - found[:, 1]).mean(), (found[:, 2] - found[:, 0]).mean()
    return max(0.0, float(mean - np.hypot(below, half))), min(1.0, float(mean + np.hypot(above, half)))


@plain_arguments
def svc_attack(
    unlearned: tuple[Any, Any, Any],
    oracle: tuple[Any, Any, Any],
    labels: tuple[Any, Any, Any],
    *,
    feature: str = "confidence",
    limit: int = 1000,
    seed: int = 0,
) -> Result:
    """Return the share of forget examples that a support vector classifier takes for non-members ("MIA efficacy").

    For each model a classifier (C = 3, RBF kernel, gamma = 1 / features) is trained on retain examples as members
    against unseen examples as non-members, and applied to the forget examples. A higher share is not better: the
    oracle's share is the aim, above it is over-forgetting.

    Args:
        unlearned: Logits of the unlearned members on retain, unseen and forget examples, each
            (members, examples, classes).
        oracle: The same of the oracles.
        labels: Labels of the retain, unseen and forget examples.
        feature: One of `SVC_FEATURES`.
        limit: Examples at most of each kind to train on, drawn with `seed`; both kinds are cut to the same number.
        seed: Draws the examples.
    """
    one_of(SVC_FEATURES, feature=feature)
    whole(limit=limit, minimum=2)
    sides = [[to_array(part, "logits", ndim=3) for part in side] for side in (unlearned, oracle)]
    for part in range(3):
        pair(sides[0][part], sides[1][part], ndim=3, minimum=1)
    from sklearn.svm import SVC

    y = [to_labels(part, sides[0][i].shape[1], sides[0][i].shape[2]) for i, part in enumerate(labels)]
    count = min(limit, len(y[0]), len(y[1]))
    rng = np.random.default_rng(derive(seed, "svc attack"))
    chosen = [np.sort(rng.permutation(len(y[i]))[:count]) for i in range(2)]

    failed = np.any([failed_outputs(sides[0][i], sides[1][i]) for i in range(3)], axis=0)

    def one(member: int, side: list[Array]) -> float:
        parts = [
            _svc_feature(side[i][member : member + 1, rows], y[i][rows], feature)
            for i, rows in ((0, chosen[0]), (1, chosen[1]), (2, np.arange(len(y[2]))))
        ]
        if not all(np.isfinite(part).all() for part in parts):
            return float("nan")
        classifier = SVC(C=3, gamma="auto", kernel="rbf")
        classifier.fit(np.concatenate(parts[:2]), np.repeat([1, 0], count))
        return float((_predict(classifier, parts[2]) == 0).mean())

    return compare(
        f"SVC attack ({feature}), efficacy",
        [float("nan") if failed[i] else one(i, sides[0]) for i in range(len(sides[0][0]))],
        [one(i, sides[1]) for i in range(len(sides[1][0]))],
        examples=len(y[2]),
        smallest=0,
        largest=1,
        over="above",
        unit="share taken for non-members",
        ideal="the oracle's value; above it is over-forgetting",
    )


def _svc_feature(logits: Array, labels: Any, feature: str) -> Array:
    if feature == "probability":
        return np.asarray(np.exp(log_probabilities(logits))[0])
    # The sign is irrelevant to an RBF kernel, so the scores serve.
    return np.asarray(member_scores(logits, labels, feature)[0][:, None])


def _predict(classifier: Any, features: Array) -> Any:
    """Predict; with one feature only where it can matter, since 100 models times 60,000 examples would take minutes.

    The decision is a smooth function of one number on the scale of the kernel, 1. Between two of many neighbouring
    points where it agrees it is the same; examples between two points where it differs are predicted one by one.
    """
    if features.shape[1] > 1 or len(features) < 4 * GRID_POINTS:
        return classifier.predict(features)
    values = features[:, 0]
    points = np.linspace(values.min(), values.max(), GRID_POINTS)
    if points[1] - points[0] > GRID_STEP:
        return classifier.predict(features)
    at = classifier.predict(points[:, None])
    cell = np.clip(np.searchsorted(points, values, side="right") - 1, 0, len(points) - 2)
    out = at[cell]
    unsure = at[cell] != at[cell + 1]
    if unsure.any():
        out[unsure] = classifier.predict(features[unsure])
    return out


def _cross_fitted_accuracy(positives: Array, negatives: Array, seed: int) -> float:
    if min(len(positives), len(negatives)) < 4:
        raise InputError(
            f"{len(positives)} forget and {len(negatives)} other examples, expected at least 4 of each to choose a "
            "threshold on one half; use statistic='auc'."
        )
    rng = np.random.default_rng(numpy_seed(seed))
    halves = [np.array_split(rng.permutation(x), 2) for x in (positives, negatives)]
    total = 0.0
    for train, test in ((0, 1), (1, 0)):
        p, n = halves[0][train], halves[1][train]
        cuts = np.unique(np.concatenate([p, n]))
        middle = np.concatenate([[cuts[0] - 1], (cuts[1:] + cuts[:-1]) / 2, [cuts[-1] + 1]])
        rate = 1 - np.searchsorted(np.sort(p), middle) / len(p) + np.searchsorted(np.sort(n), middle) / len(n)
        total += balanced_accuracy(halves[0][test], halves[1][test], float(middle[np.argmax(rate)]))
    return total / 2


def _logs(logits: Any, labels: Any) -> tuple[Array, Any]:
    scores = to_array(logits, "logits", ndim=3)
    return log_probabilities(scores), to_labels(labels, scores.shape[1], scores.shape[2])


def _own(values: Array, y: Any) -> Array:
    return np.asarray(np.take_along_axis(values, np.broadcast_to(y, values.shape[:2])[..., None], -1)[..., 0])


def _floor(logs: Array) -> Array:
    """Keep 0 * log 0 at 0: a probability of 0 meets a large finite number instead of infinity."""
    return np.asarray(np.maximum(logs, -1e300))
