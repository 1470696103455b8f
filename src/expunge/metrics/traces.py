"""The test over all rows together: traces too small to see in any single row.

Each row's margins are replaced by normal scores of their ranks among all T members (so heavy tails weigh no more than
others), x_i is a member's vector of them, y the labels (centred).

    any difference    y' K (K + c I)^-1 y         K the centred Gaussian kernel of the x_i, c its mean diagonal
    along the way     y' (G + c I)^-1 X m         G = X X', c its mean diagonal, m the pretrained members' mean margin
                                                  minus that of these members, in their standard deviations, 3 at most

The first is Fisher's discriminant in the kernel's space; it sees shifts, spread and dependence between rows in any
direction. The second looks along one direction, the one in which most unlearning stops short or goes too far: with
one degree of freedom it sees traces half as large. Permutations of the labels give exact p-values; twice the smaller
one is the p-value of both.

An unlearned member starts from its pretrained member, and what is random in one is in the other: a direction from the
same members would find their noise. So members of even index are looked at along the direction of the pretrained
members of odd index, and the other way round, each beside half of the oracles, with labels dealt inside the halves. Of
the direction only rows count where the gap is 3 standard errors: else, with nothing to unlearn, both halves would find
the same noise, and agree.

The accuracy is with which a member that the classifier has not seen is told by its sign (leave-one-out from the same
matrix), or along the direction, by Phi(d / 2) at d standard deviations; the larger of the two.

Against the classifier two-sample test (`expunge.metrics.joint`) on the same members: a continuous statistic that is
fitted to all of them tells small traces far more often (`benchmarks/verdict.py --only traces`).

Source: Harchaoui, Bach and Moulines, "Testing for homogeneity with kernel Fisher discriminant analysis" (2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, special

from expunge.metrics.arrays import Array
from expunge.metrics.joint import gaussian_kernel
from expunge.metrics.rows import PERMUTATIONS, Ranks, deal

RIDGE = 1.0
"""Regularisation in units of the mean diagonal: rows that move together must not hide what single ones say."""
MOST = 3.0
"""Standard deviations of the pooled members that one row of the direction counts for at most."""
SHARPNESS = 2.0
"""Width of the kernel: squared, half the median squared distance, which sees spread at little cost for shifts."""


CLEAR_GAP = 3.0
"""Standard errors from which a row's gap between pretrained members and others is part of the direction."""


@dataclass(frozen=True)
class Halves:
    """The pretrained members of even and of odd index."""

    mean: Array
    """Mean margins (2, examples)."""
    members: tuple[int, int]

    @classmethod
    def of(cls, pretrained: Array, odd: NDArray[np.bool_] | None = None) -> Halves:
        """Return the halves of margins (members, examples), by default every second member."""
        odd = np.arange(len(pretrained)) % 2 == 1 if odd is None else odd
        return cls(np.stack([pretrained[~odd].mean(0), pretrained[odd].mean(0)]), (int((~odd).sum()), int(odd.sum())))

    def take(self, rows: NDArray[np.int64]) -> Halves:
        """Return some rows."""
        return Halves(self.mean[:, rows], self.members)


@dataclass(frozen=True)
class TracesTest:
    """What the test says."""

    p_value: float
    accuracy: float
    """Balanced accuracy of saying unlearned or oracle from all margins of a member, 0.5 is ideal."""
    along: float
    """Signed size along the direction, standard deviations of members; positive on the pretrained members' side, NaN
    without them."""
    along_p_value: float
    """Two-sided p-value of `along` alone; NaN without pretrained members."""


def traces(
    unlearned: Array,
    reference: Array,
    pretrained: Halves | None = None,
    odd: NDArray[np.bool_] | None = None,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> TracesTest:
    """Test whether unlearned members as a whole are told from oracles.

    Args:
        unlearned: Margins of sound members (members, examples), at least 2.
        reference: Margins of oracles (oracles, examples), held-out ones included, at least 2.
        pretrained: The pretrained members; None leaves the direction out.
        odd: Which unlearned members have an odd index, (members,); by default every second. With fewer than two of
            them or of the others, or fewer than four oracles, the direction is left out.
        permutations: The smallest p-value is 2 / (permutations + 1) with a direction.
        seed: Deals the permutations.
    """
    pooled = np.concatenate([unlearned, reference])
    x = normal_scores(pooled)
    labels = _labels(len(unlearned), len(reference), permutations, seed)
    kernel = gaussian_kernel(x @ x.T, sharpness=SHARPNESS)
    kernel -= kernel.mean(0)
    kernel -= kernel.mean(1, keepdims=True)
    smoother = ridge_solve(kernel, kernel)
    p_value = _p_value((labels * (smoother @ labels)).sum(0))
    accuracy = _left_out(smoother, labels[:, 0])
    odd = np.arange(len(unlearned)) % 2 == 1 if odd is None else odd
    if pretrained is None or min(odd.sum(), (~odd).sum()) < 2 or len(reference) < 4:
        return TracesTest(p_value, accuracy, float("nan"), float("nan"))
    sums, sizes = np.zeros(1 + permutations), []
    for half, ours in enumerate((unlearned[~odd], unlearned[odd])):
        theirs = reference[half::2]
        score = _along(np.concatenate([ours, theirs]), pretrained.mean[1 - half], pretrained.members[1 - half])
        sums += score @ _labels(len(ours), len(theirs), permutations, seed + 1 + half)
        sizes.append(score[: len(ours)].mean() - score[len(ours) :].mean())
    # Scores have variance 1 in the pooled members; with d between the sides the variance inside them is 1 less d^2 p q.
    share = len(unlearned) / len(pooled)
    gap = float(np.mean(sizes))
    along = gap / float(np.sqrt(max(1 - gap**2 * share * (1 - share), 1e-3)))
    along_p_value = _p_value(np.abs(sums))
    accuracy = max(accuracy, float(special.ndtr(abs(along) / 2)))
    return TracesTest(min(1.0, 2 * min(p_value, along_p_value)), accuracy, along, along_p_value)


def normal_scores(margins: Array) -> Array:
    """Return the normal score of every member's rank in its row, (members, examples)."""
    return np.asarray(Ranks.of(margins.T).scores("normal")[0].T, np.float64)


def _along(members: Array, pretrained: Array, behind: int) -> Array:
    """Return where members lie along the way to the mean of so many pretrained ones: mean 0, variance 1, (members,)."""
    x = normal_scores(members)
    spread, gap = members.std(0), pretrained - members.mean(0)
    varies = spread > 1e-12 * np.maximum(1.0, np.abs(members).max(0))
    clear = varies & (np.abs(gap) > CLEAR_GAP * spread * np.sqrt(1 / behind + 1 / len(members)))
    way = np.clip(np.divide(gap, spread, out=np.zeros_like(gap), where=clear), -MOST, MOST)
    score = ridge_solve(x @ x.T, x @ way)
    score = score - score.mean()
    size = float(score.std())
    return np.asarray(score / size if size > 0 else score)


def _labels(members: int, others: int, permutations: int, seed: int) -> Array:
    """Return centred labels of the unlearned side, as they are and dealt again, (T, 1 + permutations)."""
    labels = deal(members, others, permutations, seed).astype(np.float64)
    return np.asarray(labels - labels.mean(0))


def ridge_solve(matrix: Array, right: Array) -> Array:
    """Return (matrix + c I)^-1 right, c the mean diagonal."""
    penalty = max(RIDGE * float(np.trace(matrix)) / len(matrix), 1e-300)
    # Symmetric and positive: half the steps of any other matrix.
    return np.asarray(linalg.cho_solve(linalg.cho_factor(matrix + penalty * np.eye(len(matrix))), right))


def _p_value(values: Array) -> float:
    # The first is as it is; equal values count as at least as extreme, so that rounding does not decide.
    return float((1 + (values[1:] >= values[0] - 1e-9 * max(1.0, abs(values[0]))).sum()) / len(values))


def _left_out(smoother: Array, side: Array) -> float:
    """Return the balanced accuracy of predicting each label from all the others."""
    own = np.diag(smoother)
    predicted = (smoother @ side - own * side) / np.maximum(1 - own, 1e-12)
    right = np.where(predicted == 0, 0.5, (predicted > 0) == (side > 0))
    return float((right[side > 0].mean() + right[side <= 0].mean()) / 2)
