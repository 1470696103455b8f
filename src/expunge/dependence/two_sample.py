"""Are F and R drawn from the same law, class by class? MMD, HSIC and a classifier, each against permutations.

    MMD^2      `core.discrepancy`                                                         (unbiased)
    HSIC       [tr(K~ L~) + 1'K~1 1'L~1 / ((n-1)(n-2)) - 2/(n-2) 1'K~ L~ 1] / (n (n-3))   (unbiased; ~: zero diagonal)
    classifier leave-one-out scores of a ridge classifier, area under the ROC curve

A forget set from one class differs from R trivially; "entangled" means something only given the class. `within_class`
therefore compares F and R inside each class, with the Gaussian kernel at the median distance of that class, averages
over classes by the number of examples of F, and permutes membership inside classes. HSIC between features and
membership is the same comparison (a kernel on a binary label), so HSIC is used where rows are paired:
`member_dependence` takes members as rows and asks whether what a member says on F goes along with what it says on R.

Sources: Song et al., "Feature Selection via
Dependence Maximization", JMLR 13 (2012), eq. 5 (unbiased HSIC); Lopez-Paz and Oquab (arXiv 1610.06545) for classifiers
as tests.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy
import torch
from torch import Tensor

from expunge.core import InputError
from expunge.core.checks import positive, whole
from expunge.core.discrepancy import mmd
from expunge.core.seeds import derive
from expunge.dependence.entanglement import random_masks

Array = np.ndarray[Any, Any]

SMALLEST = 2
"""Examples that each side of a class needs to be compared."""


class TwoSample(NamedTuple):
    """A statistic and where it stands among permutations."""

    value: float
    """The statistic; NaN if it has nothing to compare."""
    normalised: float
    """(value - mean) / standard deviation over permutations; about 0 if F and R have the same law."""
    p_value: float
    """Share of permutations with a value at least this one, (1 + count) / (1 + permutations)."""


def gaussian_kernel(x: Tensor, width: float | None = None) -> Tensor:
    """Return exp(-|x_i - x_j|^2 / (2 s^2)), (rows, rows), float64.

    Args:
        x: Rows (rows, features).
        width: s, above 0; None takes the median distance between different rows.
    """
    squares = torch.cdist(x.double(), x.double()) ** 2
    if width is None:
        off = squares[~torch.eye(len(x), dtype=torch.bool)]
        middle = float(off.median()) if len(off) else 1.0
        # Rows that coincide by more than half have median 0; any width tells the others apart.
        width = middle**0.5 if middle > 0 else 1.0
    positive(width=width)
    return torch.exp(-squares / (2 * width**2))


def hsic(kernel: Tensor, other: Tensor, *, unbiased: bool = True) -> float:
    """Return the Hilbert-Schmidt independence criterion of paired rows.

    Args:
        kernel: Gram matrix of one side (rows, rows).
        other: Gram matrix of the other side, rows in the same order.
        unbiased: Whether to use the unbiased estimator (at least 4 rows), whose mean is 0 under independence.
    """
    n = len(kernel)
    if kernel.shape != other.shape or n < 4:
        raise InputError(
            f"kernels have shapes {tuple(kernel.shape)} and {tuple(other.shape)}, expected 4 rows or more."
        )
    k, m = kernel.double(), other.double()
    if not unbiased:
        centre = torch.eye(n, dtype=k.dtype) - 1 / n
        return float(((centre @ k @ centre) * m).sum() / n**2)
    k, m = k - torch.diag(k.diagonal()), m - torch.diag(m.diagonal())
    ones_k, ones_m = k.sum(0), m.sum(0)
    total = (k * m).sum() + ones_k.sum() * ones_m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (ones_k @ ones_m)
    return float(total / (n * (n - 3)))


def member_dependence(forget: Tensor, retain: Tensor, *, permutations: int = 100, seed: int = 0) -> TwoSample:
    """Return normalised HSIC between what members say on F and on R: HSIC / sqrt(HSIC_FF HSIC_RR), linear kernels.

    Args:
        forget: Margins of F (members, examples); at least 4 members.
        retain: Margins of R (members, examples).
        permutations: Of the members of one side against the other, at least 2.
        seed: Of the permutations.
    """
    whole(2, permutations=permutations)
    kernels = [_linear(part) for part in (forget, retain)]
    scale = hsic(kernels[0], kernels[0]) * hsic(kernels[1], kernels[1])
    if scale <= 0:
        return TwoSample(float("nan"), float("nan"), float("nan"))
    rng = np.random.default_rng(derive(seed, "members"))
    orders = [torch.arange(len(forget)), *(torch.from_numpy(rng.permutation(len(forget))) for _ in range(permutations))]
    values = [hsic(kernels[0], kernels[1][order][:, order]) / scale**0.5 for order in orders]
    return _standing(np.asarray(values))


def within_class_mmd(
    features: Tensor, labels: Tensor, index: Tensor, *, permutations: int = 100, seed: int = 0
) -> TwoSample:
    """Return MMD^2 between F and R within class, averaged over classes by the examples of F.

    Args:
        features: Shape (examples, features).
        labels: Classes (examples,).
        index: Positions of the forget set (size,).
        permutations: At least 2.
        seed: Of the permutations.
    """
    whole(2, permutations=permutations)
    masks = _masks(labels, index, permutations, seed)
    total, weight = torch.zeros(len(masks), dtype=torch.float64), 0
    for rows, inside in comparable_classes(labels, index):
        total += inside * mmd(gaussian_kernel(features[rows]), masks[:, rows])
        weight += inside
    if weight == 0:
        return TwoSample(float("nan"), float("nan"), float("nan"))
    return _standing((total / weight).numpy())


def within_class_classifier(
    features: Tensor, labels: Tensor, index: Tensor, *, ridge: float = 1.0, permutations: int = 50, seed: int = 0
) -> TwoSample:
    """Return how well a linear classifier tells F from R within class: the area under its ROC curve.

    One ridge regression of membership on standardised features from which the mean of the class is taken out; every
    example is scored by the fit that leaves it out (in closed form, from the hat matrix), and compared with those of
    its own class only. About 0.5 without a difference, or a little less (leaving out shifts the mean against the
    example); 1 if separable.

    Args:
        features: Shape (examples, features).
        labels: Classes (examples,).
        index: Positions of the forget set (size,).
        ridge: Added to the diagonal of the covariance of the standardised features, times the examples / 100; above 0.
        permutations: At least 2.
        seed: Of the permutations.
    """
    whole(2, permutations=permutations)
    positive(ridge=ridge)
    classes = comparable_classes(labels, index)
    if not classes:
        return TwoSample(float("nan"), float("nan"), float("nan"))
    masks = _masks(labels, index, permutations, seed).double()
    phi = features.double().clone()
    target = masks.clone()
    for rows, _ in classes:
        phi[rows] -= phi[rows].mean(0)
        target[:, rows] -= target[:, rows].mean(1, keepdim=True)
    used = torch.cat([rows for rows, _ in classes])
    phi = phi[used]
    phi = phi / phi.std(0).clamp_min(1e-12) * (phi.std(0) > 1e-12)
    gram = phi.T @ phi
    gram.diagonal().add_(ridge * len(phi) / 100)
    half = torch.linalg.solve_triangular(torch.linalg.cholesky(gram), phi.T, upper=False)
    lever = (half**2).sum(0)
    own = target[:, used]
    scores = torch.zeros_like(masks)
    scores[:, used] = (own @ half.T @ half - lever * own) / (1 - lever).clamp_min(1e-6)
    total, weight = np.zeros(len(masks)), 0
    for rows, inside in classes:
        total += inside * _area(scores[:, rows].numpy(), masks[:, rows].numpy() > 0)
        weight += inside
    return _standing(total / weight)


def comparable_classes(labels: Tensor, index: Tensor) -> list[tuple[Tensor, int]]:
    """Return, for each class with at least 2 examples on either side, its rows and its number of examples in F."""
    inside = torch.zeros(len(labels), dtype=torch.bool)
    inside[index] = True
    found = []
    for label in torch.unique(labels[index]):
        rows = (labels == label).nonzero().flatten()
        count = int(inside[rows].sum())
        if min(count, len(rows) - count) >= SMALLEST:
            found.append((rows, count))
    return found


def _masks(labels: Tensor, index: Tensor, permutations: int, seed: int) -> Tensor:
    own = torch.zeros(1, len(labels), dtype=torch.bool)
    own[0, index] = True
    return torch.cat([own, random_masks(labels, index, permutations, seed)])


def _area(scores: Array, inside: Array) -> Array:
    """Return the area under the ROC curve of each row (rows, examples); ties count one half."""
    ranks = scipy.stats.rankdata(scores, axis=1)
    m = inside.sum(1)
    return np.asarray(((ranks * inside).sum(1) - m * (m + 1) / 2) / (m * (inside.shape[1] - m)))


def _linear(x: Tensor) -> Tensor:
    centred = x.double() - x.double().mean(0)
    return centred @ centred.T


def _standing(values: Array) -> TwoSample:
    value, others = float(values[0]), values[1:]
    spread = float(others.std(ddof=1))
    normalised = (value - float(others.mean())) / spread if spread > 0 else float("nan")
    return TwoSample(value, normalised, float((1 + (others >= value).sum()) / (1 + len(others))))
