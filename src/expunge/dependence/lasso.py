"""Datamodels by LASSO, the regression of the source: few examples matter to a target, and the others get weight 0.

    beta_i = argmin  |m_i - c_i - Z beta|^2 / (2 K) + strength |beta|_1

The strength of a target is a share of the smallest one at which all its weights are 0. One share is chosen for all, by
K-fold cross-validation over subsets on a sample of the targets.

LASSO shrinks what it keeps and drops what is small, so it misses the effect of a forget set that is a sum of many small
effects. What it misses is still in the residuals: a ridge datamodel of them adds the sum over F, shrunk or not, as in
`ridge_datamodel.py` (the idea of the debiased LASSO, for the one sum that is needed).

Source: Ilyas et al., "Datamodels" (arXiv 2202.00622), sec. 2 and app. B (LASSO, strength by validation).
Differs from the source: one share for all targets instead of one strength for each; coordinate descent of scikit-learn;
the sum over F is completed from the residuals (Zhang and Zhang, arXiv 1110.2563, debias single weights).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from expunge.core import ForgetSet, InputError
from expunge.core.checks import between, whole
from expunge.core.seeds import derive
from expunge.dependence.datamodels import Array, Datamodel, Law, Removal, Shrink, check_full, check_subsets
from expunge.dependence.ridge_datamodel import RidgeDatamodel, fit_ridge
from expunge.dependence.subsets import SubsetEnsemble
from expunge.ensembles.chunks import run_chunks, worker_count

SHARES = (0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03)
"""Strengths that are tried, as shares of the one at which all weights are 0."""

SAMPLE = 12
"""Targets on which the share is chosen."""

RESIDUAL_STRENGTH = 1.0
"""Ridge strength on the residuals, relative to the mean eigenvalue of Z Z^T. They hold little that a left-out error
could see, so it would choose the largest; a moderate one takes the other examples' part out of the sum over F."""

CPU = torch.device("cpu")

ITERATIONS = 2000
"""Passes of coordinate descent at most."""


@dataclass(frozen=True)
class LassoDatamodel(Datamodel):
    """A datamodel whose weights are mostly 0, with a ridge datamodel of what it leaves unexplained."""

    coefficients: Array
    """Shape (examples, targets)."""
    residual: RidgeDatamodel
    """Of margins minus prediction: for the part of a summed effect that the penalty took away."""
    inflation: float
    """Residuals of subsets left out, relative to those of the fit; at least 1."""

    def weights(self, targets: slice | Array = slice(None)) -> Array:
        """Return the effect of each example's membership on the margins, shape (examples, targets), at size alpha n."""
        return np.asarray(self.coefficients[:, targets])

    def removal(
        self,
        forget: ForgetSet | Sequence[int] | Array,
        *,
        law: Law = "inverse",
        shrink: Shrink = "adaptive",
        limit: float = 1.0,
    ) -> Removal:
        """Return the predicted change of all margins when a forget set is removed from the full training set.

        Args:
            forget: What is removed; a `ForgetSet` or positions.
            law: `inverse`: effects fall as 1 / (examples), from alpha n to n; `constant`: they do not depend on size.
            shrink: `penalty`: the sum of the weights, as LASSO shrinks them; `none`: with all that the residuals show
                beside it; `adaptive`: with as much of that as exceeds its noise (see `RidgeDatamodel.removal`).
            limit: As in `RidgeDatamodel.removal`.

        Returns:
            Change, standard error (of `none`), and the share kept of what the residuals show.

        Raises:
            InputError: If the forget set does not fit, or is larger than these subsets can resolve.
        """
        indices = self._forget(forget)
        found = self.residual.summed(indices, shrink, self.inflation)
        self._resolved(found.error, len(indices), limit)
        summed, total = self.coefficients[indices].sum(0), self.coefficients.sum(0)
        kept = found.kept
        if shrink == "penalty":
            kept = np.zeros(self.targets)
        else:
            summed, total = summed + found.summed, total + found.total
        return self._removed(summed, total, found.error, kept, len(indices), law)


def fit_lasso(
    subsets: SubsetEnsemble,
    *,
    full: Any = None,
    shares: Sequence[float] = SHARES,
    folds: int = 5,
    seed: int = 0,
    workers: int | None = None,
) -> LassoDatamodel:
    """Regress margins on membership by LASSO, one target after another.

    Takes about 30 milliseconds a target at 1,000 subsets of 1,437 examples, where `fit_ridge` takes one.

    Args:
        subsets: Masks and margins; models that are not finite are left out.
        full: As in `fit_ridge`.
        shares: Penalties to choose from, as shares of the one at which all weights are 0, each above 0 and at most 1.
        folds: Folds of the cross-validation, at least 2.
        seed: Decides the folds and the targets on which the share is chosen.
        workers: Targets that are fitted at once; None uses every core.

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
        path = _paths(z[~out] - z[~out].mean(0), m[~out][:, sample], shares, workers)
        mean = m[~out][:, sample].mean(0)
        residual[:, out] = m[out][:, sample] - mean - (z[out] - z[~out].mean(0)) @ path
    variation = (m[:, sample] ** 2).sum(0)
    unexplained = (residual**2).sum(1) / np.where(variation > 0, variation, np.nan)
    best = int(np.nanargmin(np.nanmean(unexplained, axis=1))) if (variation > 0).any() else 0
    coefficients = _paths(z, m, shares[best : best + 1], workers)[0]
    left = m - z @ coefficients
    # The fit has made its residuals smaller than the noise; by how much, the left-out subsets tell.
    fitted = float((left[:, sample] ** 2).sum())
    inflation = np.sqrt(float((residual[best] ** 2).sum()) / fitted) if fitted > 0 else 1.0
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
        subsets=len(z),
        coefficients=coefficients,
        residual=fit_ridge(replace(sound, margins=left), strengths=[RESIDUAL_STRENGTH]),
        inflation=max(1.0, float(inflation)),
    )


def _largest(z: Array, m: Array) -> Array:
    """Return the smallest strength at which all weights of a target are 0, shape (targets,)."""
    return np.asarray(np.abs(z.T @ (m - m.mean(0))).max(0) / len(z))


def _paths(z: Array, m: Array, shares: Sequence[float], workers: int | None = None) -> Array:
    """Return the weights at falling strengths, shape (shares, examples, targets); each starts from the one before."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import Lasso

    largest = _largest(z, m)
    out = np.zeros((len(shares), z.shape[1], m.shape[1]))
    design = np.asfortranarray(z)

    def work(target: int) -> None:
        model = Lasso(alpha=1.0, fit_intercept=True, warm_start=True, max_iter=ITERATIONS, tol=1e-3, copy_X=False)
        for row, share in enumerate(shares):
            model.set_params(alpha=share * largest[target])
            model.fit(design, m[:, target])
            out[row, :, target] = model.coef_

    # Past the useful strengths K < n lets coordinate descent crawl; such shares lose the validation anyway.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        varying = np.flatnonzero(largest > 0).tolist()
        if varying:
            run_chunks(work, varying, CPU, worker_count(CPU, workers))
    return out
