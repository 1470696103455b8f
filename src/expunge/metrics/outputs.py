"""Metrics of outputs: accuracy and its gaps, activation distance, ZRF, tug-of-war.

All of them are point metrics: they look at one model at a time and say nothing about the law of the models. Their floor
is what they read between two independent sets of oracles, never 0 or 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from expunge.core import InputError, Result
from expunge.core.checks import one_of, plain_arguments
from expunge.core.margins import margins_from_logits
from expunge.core.reading import as_tensor
from expunge.metrics.arrays import (
    CACHED,
    Array,
    log_probabilities,
    pair,
    slices,
    to_array,
    to_labels,
)
from expunge.metrics.failures import failed_members
from expunge.metrics.reading import compare


def margins(logits: Any, labels: Any) -> Tensor:
    """Return margins: logit of the true class minus log-sum-exp of the others, exact where the softmax saturates.

    Args:
        logits: Shape (..., examples, classes), floating point.
        labels: Shape (examples,), whole numbers from 0 to classes - 1.

    Returns:
        Shape (..., examples), in natural-log units. NaN where a logit is NaN.

    Raises:
        InputError: If shapes disagree or labels leave the range.

    >>> round(float(margins([[2.0, 0.0, -1.0]], [0])), 6)
    1.686738
    """
    scores = as_tensor(logits, "logits")
    if scores.ndim < 2 or not scores.numel():
        raise InputError(f"logits have shape {tuple(scores.shape)}, expected (members, examples, classes).")
    labels = torch.from_numpy(to_labels(labels, scores.shape[-2], scores.shape[-1]))
    return margins_from_logits(scores if scores.is_floating_point() else scores.double(), labels)


def accuracy(logits: Any, labels: Any) -> Array:
    """Return the share of examples that each member classifies correctly.

    Args:
        logits: Shape (members, examples, classes).
        labels: Shape (examples,), whole numbers from 0 to classes - 1.

    Returns:
        Shape (members,), from 0 to 1. An example whose logits are not all finite counts as misclassified.

    Raises:
        InputError: If shapes disagree or labels leave the range.

    >>> accuracy([[[2.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [0.0, 1.0]]], [0, 1]).tolist()
    [1.0, 0.5]
    """
    scores = to_array(logits, "logits", ndim=3)
    y = to_labels(labels, scores.shape[1], scores.shape[2])
    right = (np.argmax(np.where(np.isnan(scores), -np.inf, scores), -1) == y) & np.isfinite(scores).all(-1)
    return np.asarray(right.mean(1))


def failed_outputs(logits: Any, reference: Any) -> NDArray[np.bool_]:
    """Return which members are non-finite, collapsed or exploded, from how sure they are of each example.

    Args:
        logits: Shape (members, examples, classes).
        reference: Logits of sound members on the same examples, (oracles, examples, classes).

    Returns:
        Shape (members,), boolean; the rules are those of `failed_members`, on the largest logit minus the log-sum-exp
        of the others.
    """
    ours, theirs = pair(logits, reference, ndim=3, minimum=1)
    return failed_members(_sureness(ours), _sureness(theirs))


def _sureness(logits: Array) -> Array:
    out = np.empty(logits.shape[:2])
    members = np.arange(len(logits))[:, None]
    for piece in slices(logits.shape[1], logits.shape[0] * logits.shape[2], CACHED):
        # In place of the margin, which needs labels: the largest logit minus the log-sum-exp of the others.
        rest = logits[:, piece].copy()
        at = members, np.arange(rest.shape[1])[None, :], np.argmax(rest, -1)
        top, finite = rest[at], np.isfinite(rest).all(-1)
        rest[at] = -np.inf
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            second = rest.max(-1)
            others = second + np.log(np.exp(rest - second[..., None]).sum(-1))
        out[:, piece] = np.where(finite, top - others, np.nan)
    return out


def accuracy_gap(unlearned: Any, oracle: Any, labels: Any) -> Result:
    """Return the accuracy of the unlearned members beside the oracles'.

    A higher error on the forget set is not better: the oracle's accuracy is the aim, and lower is over-forgetting.

    Args:
        unlearned: Logits (members, examples, classes).
        oracle: Logits (oracles, examples, classes).
        labels: Shape (examples,).

    Source: the point metrics UA, RA, TA of Jia et al. (arXiv 2304.04934) and Fan et al. (arXiv 2310.12508), read as
    a distance from the oracle.
    """
    ours, theirs = pair(unlearned, oracle, ndim=3, minimum=1)
    values = np.where(failed_outputs(ours, theirs), np.nan, accuracy(ours, labels))
    return compare(
        "accuracy",
        values,
        accuracy(theirs, labels),
        examples=ours.shape[1],
        smallest=0,
        largest=1,
        over="below",
        unit="share of examples",
    )


def activation_distance(unlearned: Any, oracle: Any) -> Array:
    """Return the distance between the outputs of each unlearned member and every oracle, averaged.

    The value of a member is the mean over oracles and examples of the Euclidean norm of the difference of softmax
    outputs, accurate to about 1e-8.

    Args:
        unlearned: Logits (members, examples, classes).
        oracle: Logits (oracles, examples, classes).

    Returns:
        Shape (members,), from 0 to sqrt(2); a failed member has sqrt(2).

    Source: Golatkar et al., "Eternal Sunshine of the Spotless Net" (arXiv 1911.04933); the mean over oracles is ours.
    """
    ours, theirs = pair(unlearned, oracle, ndim=3, minimum=1)
    values = _output_distances(ours, theirs).mean(1)
    return np.asarray(np.where(np.isfinite(values), values, np.sqrt(2)))


def activation_distance_reading(unlearned: Any, oracle: Any) -> Result:
    """Return the activation distance beside its floor, the distance of each oracle from the other oracles.

    Args:
        unlearned: Logits (members, examples, classes).
        oracle: Logits (oracles, examples, classes), at least 2 oracles.
    """
    ours, theirs = pair(unlearned, oracle, ndim=3)
    between = _output_distances(theirs, theirs)
    np.fill_diagonal(between, 0.0)
    return compare(
        "activation distance",
        np.where(failed_outputs(ours, theirs), np.nan, _output_distances(ours, theirs).mean(1)),
        between.sum(1) / (len(theirs) - 1),
        examples=ours.shape[1],
        smallest=0,
        largest=float(np.sqrt(2)),
        over="neither",
        unit="Euclidean norm of probabilities",
        ideal="the distance between two oracles; closer is better",
    )


def _output_distances(left: Array, right: Array) -> Array:
    """Return the mean over examples of |p - q| for every pair of members, shape (left members, right members)."""
    total = np.zeros((len(left), len(right)))
    for piece in slices(left.shape[1], len(left) * len(right), 4 * CACHED):
        p = np.exp(log_probabilities(left[:, piece])).transpose(1, 0, 2)
        q = p if right is left else np.exp(log_probabilities(right[:, piece])).transpose(1, 0, 2)
        # |p - q|^2 = |p|^2 + |q|^2 - 2 p.q, as one product of matrices with two more columns.
        ones = np.ones((*p.shape[:2], 1)), np.ones((*q.shape[:2], 1))
        longer = np.concatenate([-2 * p, (p**2).sum(2, keepdims=True), ones[0]], axis=2)
        other = np.concatenate([q, ones[1], (q**2).sum(2, keepdims=True)], axis=2)
        squares = longer @ other.transpose(0, 2, 1)
        np.maximum(squares, 0, out=squares)
        total += np.sqrt(squares, out=squares).sum(0)
    return np.asarray(total / left.shape[1])


def jensen_shannon_outputs(left: Any, right: Any) -> Array:
    """Return the Jensen-Shannon divergence of softmax outputs from logits of one shape.

    Args:
        left: Logits, shape (..., classes).
        right: Logits, the same shape after broadcasting.

    Returns:
        Nats, shape (...), from 0 to log 2; NaN where a logit is not finite.

    >>> round(float(jensen_shannon_outputs([1000.0] + [0.0] * 9, [0.0] * 10)), 7)
    0.5255973
    """
    p, q = log_probabilities(to_array(left, "left")), log_probabilities(to_array(right, "right"))
    middle = _log_mean(p, q)
    return np.asarray(0.5 * (np.exp(p) * (p - middle) + np.exp(q) * (q - middle)).sum(-1))


def _log_mean(p: Array, q: Array) -> Array:
    with np.errstate(invalid="ignore"):  # NaN marks a failed member
        return np.asarray(np.logaddexp(p, q) - np.log(2))


@plain_arguments
def zrf(outputs: Any, incompetent: Any, *, variant: str = "js") -> Array:
    """Return the zero-retrain-forgetting score of each member against a randomly initialised network.

    The ideal is the oracle's own value and not 1: an oracle is often confident on examples it has never seen.

    Args:
        outputs: Logits of the members, shape (members, examples, classes).
        incompetent: Logits of the randomly initialised network on the same examples, shape (examples, classes).
        variant: `js` is `1 - mean JS`. `published` is what the code of the paper computes, for comparison with its
            tables: KL(m || p) in place of KL(p || m), and a mean over examples times classes.

    Returns:
        Shape (members,); at most 1, at least `1 - log 2` in the variant `js`; NaN for a failed member.

    Source: Chundawat et al., "Can Bad Teaching Induce Forgetting?" (arXiv 2205.08096), Section "ZRF metric"; the
    defect is in `metrics.py` of vikram2000b/bad-teaching-unlearning and of repositories that copied it.
    """
    one_of(("js", "published"), variant=variant)
    members, teacher = to_array(outputs, "outputs", ndim=3), to_array(incompetent, "incompetent", ndim=2)
    if members.shape[1:] != teacher.shape:
        raise InputError(
            f"outputs has shape {members.shape}, incompetent {teacher.shape}; expected {members.shape[1:]}."
        )
    if not np.isfinite(teacher).all():
        raise InputError("incompetent has non-finite logits, expected the outputs of a freshly initialised network.")
    total = np.zeros(len(members))
    for piece in slices(members.shape[1], members.shape[0] * members.shape[2], CACHED):
        if variant == "js":
            total += jensen_shannon_outputs(members[:, piece], teacher[None, piece]).sum(1)
        else:
            p, q = log_probabilities(members[:, piece]), log_probabilities(teacher[None, piece])
            middle = _log_mean(p, q)
            divergence = 0.5 * (np.exp(middle) * (2 * middle - p - q)).sum(-1)
            total += divergence.sum(1) / members.shape[2]
    return np.asarray(1 - total / members.shape[1])


def zrf_reading(unlearned: Any, oracle: Any, incompetent: Any) -> Result:
    """Return ZRF of the unlearned members beside the oracles'; above the oracle's value is over-forgetting.

    Args:
        unlearned: Logits (members, examples, classes).
        oracle: Logits (oracles, examples, classes).
        incompetent: Logits of the randomly initialised network, shape (examples, classes).
    """
    ours, theirs = pair(unlearned, oracle, ndim=3, minimum=1)
    return compare(
        "zrf",
        np.where(failed_outputs(ours, theirs), np.nan, zrf(ours, incompetent)),
        zrf(theirs, incompetent),
        examples=ours.shape[1],
        smallest=float(1 - np.log(2)),
        largest=1,
        over="above",
        unit="1 - nats",
        ideal="the oracle's value, not 1; closer is better",
    )


def tug_of_war(unlearned: Mapping[str, Any], oracle: Mapping[str, Any]) -> Array:
    """Return the product over splits of one minus the absolute gap in accuracy.

    Args:
        unlearned: Accuracy on each split (forget, retain, validation), numbers or arrays that broadcast, 0 to 1.
        oracle: The oracle's accuracy on the same splits.

    Returns:
        From 0 to 1, 1 is ideal; 0 where an unlearned accuracy is not finite.

    Source: Zhao et al., "What makes unlearning hard and what to do about it" (arXiv 2406.01257), Eq. 1.

    >>> accuracies = {"forget": 0.7, "retain": 0.99, "validation": 0.9}
    >>> round(float(tug_of_war(accuracies, {"forget": 0.6, "retain": 1.0, "validation": 0.91})), 6)
    0.88209
    """
    if set(unlearned) != set(oracle) or not unlearned:
        raise InputError(
            f"unlearned has splits {sorted(unlearned)}, oracle {sorted(oracle)}; expected the same, at least one."
        )
    product: Array = np.ones(())
    for split in unlearned:
        ours, theirs = to_array(unlearned[split], f"unlearned {split}"), to_array(oracle[split], f"oracle {split}")
        for what, values in (("unlearned", ours), ("oracle", theirs)):
            seen = values[np.isfinite(values)]
            if len(seen) and (seen.min() < 0 or seen.max() > 1):
                raise InputError(
                    f"{what} {split} runs from {seen.min():g} to {seen.max():g}, expected fractions 0 to 1."
                )
        if not np.isfinite(theirs).all():
            raise InputError(f"oracle {split} has non-finite accuracies, expected finite ones.")
        product = product * np.where(np.isfinite(ours), 1 - np.abs(ours - theirs), 0.0)
    return np.asarray(product)


def tug_of_war_reading(unlearned: Mapping[str, Any], oracle: Mapping[str, Any], *, examples: int = 0) -> Result:
    """Return the tug-of-war of each unlearned member against the mean oracle, beside that of each oracle.

    An oracle is scored against the mean of the other oracles, so that the floor contains the noise of seeds.

    Args:
        unlearned: Accuracies of the members on each split, each (members,).
        oracle: Accuracies of the oracles on each split, each (oracles,), at least 2.
        examples: Examples behind the accuracies, for the record.
    """
    theirs = {split: to_array(values, f"oracle {split}", ndim=1) for split, values in oracle.items()}
    count = {len(values) for values in theirs.values()}
    if len(count) != 1 or min(count) < 2:
        raise InputError(f"oracle has {sorted(count)} members by split, expected the same number, at least 2.")
    oracles = count.pop()
    others = {split: (values.sum() - values) / (oracles - 1) for split, values in theirs.items()}
    ours = tug_of_war(unlearned, {split: values.mean() for split, values in theirs.items()})
    finite = np.all([np.isfinite(to_array(values, split, ndim=1)) for split, values in unlearned.items()], axis=0)
    return compare(
        "tug-of-war",
        np.where(finite, ours, np.nan),
        tug_of_war(theirs, others),
        examples=examples,
        smallest=0,
        largest=1,
        over="neither",
        unit="product of shares",
        ideal="the oracle's own value, just below 1; closer is better",
    )
