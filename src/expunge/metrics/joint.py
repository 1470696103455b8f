"""Joint tests: a member is one point in the space of all examples, and two sets of members are compared as laws there.

Per-example scores cannot see that margins move together (members that share a seed, copies of one model). These can.

    classifier two-sample test   a classifier that has not seen a member says which side it is from
    MMD^2                        E k(u, u') + E k(o, o') - 2 E k(u, o), unbiased

Rows are the members' margins, each example standardised with the mean and standard deviation of the pooled members (so
labels play no part), and k is the Gaussian kernel with the median distance as width, or the linear kernel. Everything
runs on the members' Gram matrix, so the cost grows with the examples only once.

A failed member (non-finite, collapsed or exploded) decides by itself: no oracle is like it. The accuracy is then 1,
MMD^2 is 2 (its supremum), and the p-value is the smallest that the permutations allow.

Beside the permutation p-value the classifier has one of the table of its held-out calls: given how many members are
called unlearned, the number of unlearned ones among them is hypergeometric (Fisher's exact test). A binomial test of
the accuracy would take for granted that either call is equally likely, which small sides and their shared fits are
not: with 10 against 60 members it rejects 8 to 10 % at 5 % even when the accuracy's own law is used.

Sources: Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests" (arXiv 1610.06545); Gretton et al., "A Kernel
Two-Sample Test", JMLR 13 (2012), Lemma 6; the p-value (1 + exceedances) / (1 + permutations) is that of Phipson and
Smyth (2010); Fisher, J. R. Stat. Soc. 98 (1935), for the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
import torch
from numpy.typing import NDArray

from expunge.core import InputError, Result, discrepancy
from expunge.core.checks import one_of, plain_arguments, positive, whole
from expunge.core.seeds import numpy_seed
from expunge.metrics.arrays import Array, pair, slices
from expunge.metrics.failures import failed_members


@dataclass(frozen=True, kw_only=True)
class JointTest(Result):
    """Result of a joint two-sample test.

    The value is a balanced accuracy (0.5 is ideal, 1 is worst) or MMD^2 (0 is ideal, 2 is worst), the floor its mean
    over the permutations and `floor_high` its 95 % quantile there. `examples` are those that differ between members.
    """

    p_value: float
    """Share of permutations at least as extreme, valid at any number of members; small means told apart."""
    table_p_value: float
    """Fisher's p-value of the table of held-out calls, which ignores that folds share members; NaN for MMD."""
    permutations: int
    """Permutations behind `p_value`; the smallest possible p-value is 1 / (permutations + 1)."""


@plain_arguments
def classifier_two_sample(
    unlearned: Any,
    oracle: Any,
    *,
    kernel: str = "gaussian",
    folds: int = 5,
    ridge: float = 0.1,
    permutations: int = 999,
    seed: int = 0,
) -> JointTest:
    """Test whether a classifier tells unlearned members from oracles that it has not been trained on.

    Kernel ridge regression on the labels +1 and -1, cross-fitted: each fold holds the same share of both sides, and a
    member is classified by the sign of what the other folds predict. The permutation p-value shuffles labels inside the
    folds and refits, so it is exact; a prediction is linear in the labels, so refitting costs one product.

    Args:
        unlearned: Margins (members, examples), at least `folds` members.
        oracle: Margins (oracles, examples), at least `folds` oracles.
        kernel: `gaussian` sees shifts, spread and dependence between examples; `linear` sees shifts only, earlier.
        folds: At least 2; members are dealt to folds at random.
        ridge: Regularisation in units of the mean diagonal of the Gram matrix, above 0.
        permutations: At least 19.
        seed: Deals the folds and the permutations.

    Returns:
        Balanced accuracy, 0.5 at the ideal; below 0.5 by chance is not better.
    """
    one_of(("gaussian", "linear"), kernel=kernel)
    whole(folds=folds, minimum=2)
    whole(permutations=permutations, minimum=19)
    positive(ridge=ridge)
    ours, theirs = pair(unlearned, oracle)
    if min(len(ours), len(theirs)) < folds:
        raise InputError(
            f"{len(ours)} unlearned members and {len(theirs)} oracles for folds = {folds}, expected at least as many "
            "members a side as folds: give more members, or fewer folds."
        )
    ideal = "0.5: no classifier tells the two apart"
    failed = int(failed_members(ours, theirs).sum())
    if failed:
        return _worst("classifier two-sample test", 1.0, 0.5, ours, theirs, failed, permutations, ideal)
    gram, examples = _gram(ours, theirs, kernel)
    m, n = len(ours), len(theirs)
    side = np.concatenate([np.ones(m), -np.ones(n)])
    rng = np.random.default_rng(numpy_seed(seed))
    fold = np.concatenate([rng.permutation(np.arange(count) % folds) for count in (m, n)])
    smoother = _smoother(gram, fold, folds, ridge)
    shuffled = np.repeat(side[:, None], permutations, 1)
    for i in range(folds):
        rows = np.flatnonzero(fold == i)
        shuffled[rows] = rng.permuted(shuffled[rows], axis=0)
    labels = np.concatenate([side[:, None], shuffled], 1)
    # A positive weight for each side makes the base rate 0 when the numbers of members differ.
    targets = np.where(labels > 0, 1 / m, -1 / n) * (m + n) / 2
    predicted = smoother @ targets
    right = np.where(predicted == 0, 0.5, (predicted > 0) == (labels > 0))
    accuracy = 0.5 * ((right * (labels > 0)).sum(0) / m + (right * (labels < 0)).sum(0) / n)
    null = accuracy[1:]
    return _test(
        metric="classifier two-sample test",
        value=float(accuracy[0]),
        floor=float(null.mean()),
        floor_high=float(np.quantile(null, 0.95)),
        p_value=_p_value(accuracy[0], null),
        table_p_value=_table_p_value(predicted[:, 0] > 0, side > 0),
        permutations=permutations,
        members=m,
        oracles=n,
        examples=examples,
        failed=0,
        ideal=ideal,
    )


@plain_arguments
def mmd(
    unlearned: Any,
    oracle: Any,
    *,
    width: float | None = None,
    standardise: bool = True,
    permutations: int = 999,
    seed: int = 0,
) -> JointTest:
    """Return the unbiased squared maximum mean discrepancy of members, with a permutation p-value.

    Args:
        unlearned: Margins (members, examples), at least 2 members.
        oracle: Margins (oracles, examples), at least 2 oracles.
        width: s of the kernel `exp(-|x - y|^2 / (2 s^2))`; None takes the median distance between pooled members.
        standardise: Whether each example is brought to mean 0 and standard deviation 1 of the pooled members first.
        permutations: At least 19.
        seed: Draws the permutations.

    Returns:
        MMD^2, 0 in expectation when both are one law (it can be slightly negative), 2 at most.
    """
    whole(permutations=permutations, minimum=19)
    if width is not None:
        positive(width=width)
    ours, theirs = pair(unlearned, oracle)
    if len(ours) < 2:
        raise InputError(f"unlearned has {len(ours)} members, expected at least 2.")
    ideal = "0: both sides are one law"
    failed = int(failed_members(ours, theirs).sum())
    if failed:
        return _worst("mmd squared", 2.0, 0.0, ours, theirs, failed, permutations, ideal)
    gram, examples = _gram(ours, theirs, "gaussian", width=width, standardise=standardise)
    m, n = len(ours), len(theirs)
    rng = np.random.default_rng(numpy_seed(seed))
    side = np.arange(m + n) < m
    labels = np.concatenate([side[:, None], rng.permuted(np.repeat(side[:, None], permutations, 1), axis=0)], 1)
    values = discrepancy.mmd(torch.from_numpy(gram), torch.from_numpy(labels.T)).numpy()
    null = values[1:]
    return _test(
        metric="mmd squared",
        value=float(values[0]),
        floor=float(null.mean()),
        floor_high=float(np.quantile(null, 0.95)),
        p_value=_p_value(values[0], null),
        table_p_value=float("nan"),
        permutations=permutations,
        members=m,
        oracles=n,
        examples=examples,
        failed=0,
        ideal=ideal,
    )


def _gram(
    ours: Array, theirs: Array, kernel: str, *, width: float | None = None, standardise: bool = True
) -> tuple[Array, int]:
    """Return the Gram matrix of the pooled members and the number of examples that vary."""
    total = np.zeros((len(ours) + len(theirs),) * 2)
    varying = 0
    for piece in slices(ours.shape[1], len(total)):
        x = np.concatenate([ours[:, piece], theirs[:, piece]])
        x = x - x.mean(0)
        spread = x.std(0)
        keep = spread > 1e-12 * np.maximum(1, np.abs(theirs[:, piece]).max(0))
        varying += int(keep.sum())
        x = x[:, keep] / spread[keep] if standardise else x
        total += x @ x.T
    if kernel == "linear":
        return total / max(1, varying), varying
    return gaussian_kernel(total, width), varying


def gaussian_kernel(gram: Array, width: float | None = None, sharpness: float = 1.0) -> Array:
    """Return exp(-sharpness |x - y|^2 / (2 width^2)) from inner products of members (members, members).

    Args:
        gram: Inner products.
        width: None takes the median distance between members.
        sharpness: Above 1 for a narrower kernel than that.
    """
    norm = np.diag(gram)
    squares = np.maximum(norm[:, None] + norm[None, :] - 2 * gram, 0)
    np.fill_diagonal(squares, 0)
    if width is None:
        distances = squares[np.triu_indices(len(squares), 1)]
        scale = float(np.median(distances)) or float(distances.max())
    else:
        scale = width**2
    return np.exp(-sharpness * squares / (2 * scale)) if scale > 0 else np.ones_like(squares)


def _smoother(gram: Array, fold: NDArray[np.int64], folds: int, ridge: float) -> Array:
    """Return H with H[i, j] the weight of label j in the held-out prediction of member i, 0 inside a fold."""
    smoother = np.zeros_like(gram)
    for i in range(folds):
        test, train = np.flatnonzero(fold == i), np.flatnonzero(fold != i)
        inner = gram[np.ix_(train, train)]
        # Kernels are centred on the training members: an intercept that leaves no base rate in the prediction.
        column, whole_mean = inner.mean(0), inner.mean()
        centred = inner - column[:, None] - column[None, :] + whole_mean
        outer = gram[np.ix_(test, train)]
        outer = outer - outer.mean(1, keepdims=True) - column[None, :] + whole_mean
        penalty = ridge * max(float(np.trace(centred)) / len(train), 1e-300)
        smoother[np.ix_(test, train)] = np.linalg.solve(centred + penalty * np.eye(len(train)), outer.T).T
    return smoother


def _p_value(value: float, null: Array) -> float:
    # Equal values count as at least as extreme; rounding must not decide.
    return float((1 + (null >= value - 1e-12).sum()) / (1 + len(null)))


def _table_p_value(called: NDArray[np.bool_], unlearned: NDArray[np.bool_]) -> float:
    """Return Fisher's one-sided p-value of which members are called unlearned and which are."""
    hits = int((called & unlearned).sum())
    return float(scipy.stats.hypergeom.sf(hits - 1, len(called), int(unlearned.sum()), int(called.sum())))


def _worst(
    metric: str, value: float, floor: float, ours: Array, theirs: Array, failed: int, permutations: int, ideal: str
) -> JointTest:
    side = np.arange(len(ours) + len(theirs)) < len(ours)
    return _test(
        metric=metric,
        value=value,
        floor=floor,
        floor_high=float("nan"),
        p_value=1 / (1 + permutations),
        table_p_value=_table_p_value(side, side) if floor else float("nan"),
        permutations=permutations,
        members=len(ours),
        oracles=len(theirs),
        examples=ours.shape[1],
        failed=failed,
        ideal=ideal,
    )


def _test(**fields: Any) -> JointTest:
    """Return the result of a test, with the side that its p-value at 5 % says."""
    return JointTest(
        summary="joint",
        unit="share" if fields["metric"].startswith("classifier") else "squared kernel distance",
        side="off the oracle" if fields["p_value"] <= 0.05 else "not told from the oracle",
        **fields,
    )
