"""Datamodels by LASSO, the regression of the source: few examples matter to a target, and the others get weight 0.

    beta_i = argmin  |m_i - c_i - Z beta|^2 / (2 K) + strength |beta|_1

The strength of a target is a share of the smallest one at which all its weights are 0. One share is chosen for all, by
K-fold cross-validation over subsets on a sample of the targets.

Source: Ilyas et al., "Datamodels" (arXiv 2202.00622), sec. 2 and app. B (LASSO, strength by validation).
Differs from the source: one share for all targets instead of one strength for each; coordinate descent of scikit-learn.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso

from expunge.core import ForgetSet, InputError
from expunge.core.checks import between, whole
from expunge.core.seeds import derive
from expunge.dependence.datamodels import Array, Datamodel, Law, Removal, check_full, check_subsets
from expunge.dependence.subsets import SubsetEnsemble

SHARES = (0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03)
"""Strengths that are tried, as shares of the one at which all weights are 0."""

SAMPLE = 12
"""Targets on which the share is chosen."""

ITERATIONS = 2000
"""Passes of coordinate descent at most."""


@dataclass(frozen=True)
class LassoDatamodel(Datamodel):
    """A datamodel whose weights are mostly 0."""

    coefficients: Array
    """Shape (examples, targets)."""

    def weights(self, targets: slice | Array = slice(None)) -> Array:
        """Return the effect of each example's membership on the margins, shape (examples, targets), at size alpha n."""
        return np.asarray(self.coefficients[:, targets])

    def removal(self, forget: ForgetSet | Sequence[int] | Array, *, law: Law = "inverse") -> Removal:
        """Return the predicted change of all margins when a forget set is removed from the full training set.

        The sum is as LASSO shrinks it, and by how much is not known: the standard error is NaN, the share kept too.

        Args:
            forget: What is removed; a `ForgetSet` or positions.
            law: `inverse`: effects fall as 1 / (examples), from alpha n to n; `constant`: they do not depend on size.
        """
        indices = self._forget(forget)
        summed = self.coefficients[indices].sum(0)
        common = self.common(self.coefficients.sum(0), law)
        unknown = np.full(self.targets, np.nan)
        factor = self.size_factor(len(indices), law)
        return Removal(-(summed + len(indices) * common) * factor, unknown, unknown)


def fit_lasso(
    subsets: SubsetEnsemble,
    *,
    full: Any = None,
    shares: Sequence[float] = SHARES,
    folds: int = 5,
    seed: int = 0,
) -> LassoDatamodel:
    """Regress margins on membership by LASSO, one target after another.

    Takes about a tenth of a second a target at 1,000 subsets of 1,437 examples, where `fit_ridge` takes milliseconds.

    Args:
        subsets: Masks and margins; models that are not finite are left out.
        full: As in `fit_ridge`.
        shares: Penalties to choose from, as shares of the one at which all weights are 0, each above 0 and at most 1.
        folds: Folds of the cross-validation, at least 2.
        seed: Decides the folds and the targets on which the share is chosen.

    Returns:
        The datamodel; `r2` is known for the targets on which the share was chosen and NaN for the others.

    Raises:
        InputError: If there are too few subsets, no example's membership varies, or shapes disagree.
    """
    sound = check_subsets(subsets)
    whole(2, folds=folds)
    if len(shares) == 0:
        raise InputError("shares is empty, expected at least one penalty above 0 and at most 1.")
    for value in shares:
        between(1e-9, 1.0, share=value)
    shares = sorted(shares, reverse=True)
    membership, intercept = sound.masks.mean(0), sound.margins.mean(0, dtype=np.float64)
    z, m = sound.masks - membership, sound.margins - intercept
    rng = np.random.default_rng(derive(seed, "lasso"))
    sample = np.sort(rng.choice(m.shape[1], min(SAMPLE, m.shape[1]), replace=False))
    fold = rng.permutation(len(z)) % folds
    residual = np.zeros((len(shares), len(z), len(sample)))
    for number in range(folds):
        out = fold == number
        path = _paths(z[~out] - z[~out].mean(0), m[~out][:, sample], shares)
        mean = m[~out][:, sample].mean(0)
        residual[:, out] = m[out][:, sample] - mean - (z[out] - z[~out].mean(0)) @ path
    variation = (m[:, sample] ** 2).sum(0)
    unexplained = (residual**2).sum(1) / np.where(variation > 0, variation, np.nan)
    best = int(np.nanargmin(np.nanmean(unexplained, axis=1))) if (variation > 0).any() else 0
    coefficients = _paths(z, m, shares[best : best + 1])[0]
    r2 = np.full(m.shape[1], np.nan)
    r2[sample] = 1 - unexplained[best]
    return LassoDatamodel(
        own=sound.own,
        alpha=sound.alpha,
        membership=membership,
        intercept=intercept,
        strength=shares[best] * _largest(z, m),
        r2=r2,
        spread=m.std(0, ddof=1),
        full=check_full(full, m.shape[1]),
        coefficients=coefficients,
    )


def _largest(z: Array, m: Array) -> Array:
    """Return the smallest strength at which all weights of a target are 0, shape (targets,)."""
    return np.asarray(np.abs(z.T @ (m - m.mean(0))).max(0) / len(z))


def _paths(z: Array, m: Array, shares: Sequence[float]) -> Array:
    """Return the weights at falling strengths, shape (shares, examples, targets); each starts from the one before."""
    largest = _largest(z, m)
    out = np.zeros((len(shares), z.shape[1], m.shape[1]))
    design = np.asfortranarray(z)
    for target in np.flatnonzero(largest > 0):
        model = Lasso(alpha=1.0, fit_intercept=True, warm_start=True, max_iter=ITERATIONS, tol=1e-3, copy_X=False)
        for row, share in enumerate(shares):
            model.set_params(alpha=share * largest[target])
            with warnings.catch_warnings():
                # Past the useful strengths K < n lets coordinate descent crawl; such shares lose the validation anyway.
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(design, m[:, target])
            out[row, :, target] = model.coef_
    return out
