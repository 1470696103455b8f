"""Datamodels by ridge regression: closed form for all targets at once, with the summed effect of a forget set.

Over K models trained on random subsets S_k of n examples, with z_kj = 1 if example j is in S_k, centred over k:

    m_ki = c_i + own_i z_ki + sum_{j != i} u_ji z_kj + e_ki,        u ~ N(0, s^2 / lambda),  e ~ N(0, s^2)

`own`, the effect of a target's own membership, is far larger than the others and is not shrunk; the rest is ridge. With
A = (Z Z^T + lambda)^-1 and P = A - A z_i z_i^T A / (z_i^T A z_i):

    own_i = z_i^T A m_i / z_i^T A z_i,      u_i = Z^T P m_i
    left out:  m_ki - prediction = (P m_i)_k / (P_kk - 1 / (K lambda))

Removing F changes the margins by minus a summed effect. Ridge shrinks that sum by a factor that the masks alone decide:
with c the count of S_k in F (without the target itself), generalised least squares for one common effect of F is

    mu_i = c^T P m_i / c^T P c,    sum over F, not shrunk: q mu_i,    ridge's own sum: (c^T P c / q) q mu_i
    squared standard error of the sum that is not shrunk:  (s^2 / lambda) q (q / c^T P c - 1)

Source: Ilyas et al., "Datamodels" (arXiv 2202.00622); the sum as a fixed effect is best linear unbiased prediction
(Henderson, "Best linear unbiased estimation and prediction under a selection model", 1975). Differs from the source:
ridge instead of LASSO, `own` not shrunk, the sum not shrunk where it stands out of its noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from expunge.core import ForgetSet, InputError
from expunge.core.checks import one_of, positive
from expunge.dependence.datamodels import (
    Array,
    Datamodel,
    Law,
    Removal,
    Shrink,
    blocks,
    check_full,
    check_subsets,
)
from expunge.dependence.subsets import SubsetEnsemble

STRENGTHS = tuple(np.geomspace(1e-4, 1e3, 15))
"""Ridge strengths that are tried, relative to the mean eigenvalue of Z Z^T."""


class Summed(NamedTuple):
    """Effects summed over a forget set, at size alpha n, each (targets,)."""

    summed: Array
    """Sum over the forget set."""
    total: Array
    """Sum over all examples."""
    error: Array
    """Standard error of the sum over the forget set, not shrunk."""
    kept: Array
    """Share of the unshrunk sum over the others that is kept."""


class _Sums(NamedTuple):
    """Both ends of the shrinkage, each (targets,)."""

    none: Array
    """Not shrunk."""
    ridge: Array
    """As ridge shrinks it."""
    kept: Array
    """Share of the sum over the others that ridge keeps."""
    error: Array
    """Standard error of `none`."""
    others: Array
    """The part of `none` that is not the target's own effect."""
    others_error: Array
    all_none: Array
    """Sum over all examples, where the forget set is not shrunk."""
    all_ridge: Array


@dataclass(frozen=True)
class RidgeDatamodel(Datamodel):
    """A datamodel by ridge regression; weights are made from K numbers a target when asked for."""

    masks: Array
    """Shape (subsets, examples), boolean."""
    margins: Array
    """Margins of the subset models minus their mean, shape (subsets, targets), float64."""
    eigenvalues: Array
    """Of Z Z^T, shape (subsets,)."""
    eigenvectors: Array
    """Shape (subsets, subsets)."""
    own_effect: Array
    """Effect of a target's own membership, shape (targets,); 0 for targets outside the training data."""
    dual: Array
    """P m, shape (subsets, targets)."""

    def weights(self, targets: slice | Array = slice(None)) -> Array:
        """Return the effect of each example's membership on the margins, shape (examples, targets), at size alpha n."""
        out = _centred(self.masks, self.membership, slice(None)).T @ self.dual[:, targets]
        own, effect = self.own[targets], self.own_effect[targets]
        inside = np.flatnonzero(own >= 0)
        out[own[inside], inside] += effect[inside]
        return np.asarray(out)

    def apply(self, vectors: Array, targets: Array) -> Array:
        """Return weights[:, targets] @ vectors, shape (examples, ...), through the subsets."""
        own, effect = self.own[targets], self.own_effect[targets]
        combined = self.dual[:, targets] @ vectors
        out = self.masks.T @ combined - np.multiply.outer(self.membership, combined.sum(0))
        inside = own >= 0
        np.add.at(out, own[inside], (effect[inside] * vectors[inside].T).T)
        return np.asarray(out)

    def apply_transposed(self, rows: Array, targets: Array | None = None) -> Array:
        """Return rows @ weights[:, targets], shape (rows, targets), through the subsets."""
        at = np.arange(self.targets) if targets is None else targets
        own, effect = self.own[at], self.own_effect[at]
        products = rows @ self.masks.T - (rows @ self.membership)[:, None]
        return np.asarray(products @ self.dual[:, at] + np.where(own >= 0, rows[:, own] * effect, 0.0))

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
            shrink: Of the sum over the forget examples other than the target itself. `none`: unbiased and noisy;
                `penalty`: as ridge regression shrinks it; `adaptive`: between the two, by how far the sums of the
                forget targets, of the other training targets, and of the rest exceed their noise (positive-part
                James-Stein).
            limit: Largest standard error of the sum (root mean square over targets, before scaling to full size) that
                is accepted, in units of the margin's standard deviation over subsets; `float("inf")` accepts all.

        Raises:
            InputError: If the forget set does not fit, or is larger than these subsets can resolve.
        """
        indices = self._forget(forget)
        found = self.summed(indices, shrink)
        self._resolved(found.error, len(indices), limit)
        return self._removed(found.summed, found.total, found.error, found.kept, len(indices), law)

    def summed(self, indices: Array, shrink: Shrink, inflation: float = 1.0) -> Summed:
        """Return the effects of membership summed over some examples, at size alpha n.

        Args:
            indices: Positions of the examples.
            shrink: As in `removal`.
            inflation: Factor on standard errors, for margins that a fit has made smaller than their noise.
        """
        one_of(("adaptive", "none", "penalty"), shrink=shrink)
        inside = np.isin(self.own, indices)
        others = len(indices) - inside
        sums = _Sums(*(np.zeros(self.targets) for _ in _Sums._fields))
        count = _centred(self.masks, self.membership, indices).sum(1)
        for strength in np.unique(self.strength):
            for part in blocks(self.targets):
                at = np.arange(self.targets)[part]
                at = at[self.strength[at] == strength]
                if len(at):
                    found = self._sums(at, strength, count, inside[at], others[at])
                    for whole, values in zip(sums, found, strict=True):
                        whole[at] = values
        kept, error = sums.kept, sums.error * inflation
        share = kept.copy() if shrink == "penalty" else np.ones(self.targets)
        if shrink == "adaptive":
            for group in (inside, ~inside & (self.own >= 0), self.own < 0):
                if group.any():
                    noise, seen = (float(np.mean(v[group] ** 2)) for v in (sums.others_error, sums.others))
                    signal = 1 - inflation**2 * noise / max(seen, 1e-300)
                    share[group] = np.clip(signal, kept[group], 1.0)
        # Both ends are linear in the margins; what lies between is a mixture of the two.
        mix = np.where(kept < 1, (share - kept) / np.where(kept < 1, 1 - kept, 1.0), 1.0)
        return Summed(
            summed=sums.ridge + mix * (sums.none - sums.ridge),
            total=sums.all_ridge + mix * (sums.all_none - sums.all_ridge),
            error=error,
            kept=share,
        )

    def _sums(self, at: Array, strength: float, count: Array, inside: Array, others: Array) -> _Sums:
        k = len(self.masks)
        m = self.margins[:, at]
        z, am, az = self._solved(at, strength)
        ac = self._solve(strength, count)
        train = self.own[at] >= 0
        zz, zc, zm = (z * az).sum(0), z.T @ ac, (z * am).sum(0)
        cc, cm, mm = np.full(len(at), count @ ac), ac @ m, (m * am).sum(0)
        # The target itself, where it is in F, is counted by its own effect and not a second time.
        cc, zc, cm = (
            np.where(inside, cc - 2 * zc + zz, cc),
            np.where(inside, zc - zz, zc),
            np.where(inside, cm - zm, cm),
        )
        zz = np.where(zz > 0, zz, 1.0)
        # P applied to count and margins: without what the target's own membership explains.
        cpc, cpm = cc - zc**2 / zz, cm - zc * zm / zz
        alone = others == 0
        cpc, cpm = np.where(alone, 1.0, cpc), np.where(alone, 0.0, cpm)
        mu = cpm / cpc
        own = np.where(train, zm / zz, 0.0)
        joint = np.where(train & ~alone, (zm - zc * mu) / zz, own)
        none = others * mu + np.where(inside, joint, 0.0)
        ridge = cpm + np.where(inside, own, 0.0)
        variance = np.maximum(mm - own * zm - cpm * mu, 0.0) / (k - 3)  # s^2 / lambda, by restricted likelihood
        # Of others * mu + own: mu has variance 1 / cpc, own given mu has 1 / zz, and own depends on mu by -zc / zz.
        slope = others - np.where(inside, zc / zz, 0.0)
        spread = np.where(alone, 0.0, slope**2 / cpc - others) + np.where(inside, 1 / zz, 0.0)
        # What is to be known is the sum of these very effects, not what effects like them would sum to: "- others".
        error = np.sqrt(variance * np.maximum(spread, 0.0))
        kept = np.where(alone, 1.0, cpc / np.maximum(others, 1))
        return _Sums(
            none=none,
            ridge=ridge,
            kept=kept,
            error=error,
            others=others * mu,
            others_error=np.sqrt(variance * np.where(alone, 0.0, np.maximum(others**2 / cpc - others, 0.0))),
            all_none=np.where(train, joint, 0.0) + others * mu,
            all_ridge=own,
        )

    def _solve(self, strength: float, right: Array) -> Array:
        return _solve(self.eigenvalues, self.eigenvectors, strength, right)

    def _solved(self, at: Array, strength: float) -> tuple[Array, Array, Array]:
        """Return z, A m and A z of some targets, each (subsets, targets); z is 0 for targets outside."""
        z = _own_columns(self.masks, self.membership, self.own[at])
        return z, self._solve(strength, self.margins[:, at]), self._solve(strength, z)


def fit_ridge(
    subsets: SubsetEnsemble,
    *,
    full: Any = None,
    strengths: Sequence[float] = STRENGTHS,
    shared: bool = True,
) -> RidgeDatamodel:
    """Regress margins on membership by ridge regression, all targets at once.

    Args:
        subsets: Masks and margins; models that are not finite are left out.
        full: Mean margin of models trained on everything, shape (targets,), or of each (members, targets); it tells
            what all effects have in common. None takes that as 0.
        strengths: Penalties to choose from, relative to the mean eigenvalue of Z Z^T, each above 0; the one with the
            smallest exact leave-one-out error is taken. One value fixes it.
        shared: One strength for all targets (by the mean share of variance), or one for each.

    Raises:
        InputError: If there are too few subsets, no example's membership varies, or shapes disagree.
    """
    sound = check_subsets(subsets)
    for value in strengths:
        positive(strength=value)
    if len(strengths) == 0:
        raise InputError("strengths is empty, expected at least one penalty above 0.")
    masks, k = sound.masks, len(sound)
    membership = masks.mean(0)
    gram = np.zeros((k, k))
    for part in blocks(masks.shape[1]):
        z = _centred(masks, membership, part)
        gram += z @ z.T
    eigenvalues, eigenvectors = np.linalg.eigh(gram)
    eigenvalues = np.maximum(eigenvalues, 0.0)
    margins = sound.margins.astype(np.float64)
    intercept = margins.mean(0)
    margins -= intercept
    absolute = np.asarray(sorted(strengths)) * eigenvalues.mean()

    errors = _left_out(masks, membership, margins, sound.own, eigenvalues, eigenvectors, absolute)
    variation = (margins**2).sum(0) * (k / (k - 1)) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        unexplained = np.where(variation > 0, errors / variation, np.nan)
    varying = variation > 0
    best = np.argmin(np.where(varying, unexplained, 0.0), axis=0)
    if shared:
        best[:] = np.argmin(unexplained[:, varying].mean(1)) if varying.any() else 0
    strength = absolute[best]

    own_effect, dual = np.zeros(len(intercept)), np.zeros_like(margins)
    for value in np.unique(strength):
        for part in blocks(len(intercept)):
            at = np.arange(len(intercept))[part]
            at = at[strength[at] == value]
            if len(at):
                z = _own_columns(masks, membership, sound.own[at])
                own_effect[at], dual[:, at] = _fit(z, margins[:, at], eigenvalues, eigenvectors, value)
    return RidgeDatamodel(
        own=sound.own,
        alpha=sound.alpha,
        membership=membership,
        intercept=intercept,
        strength=strength,
        r2=1 - unexplained[best, np.arange(len(best))],
        spread=np.sqrt((margins**2).sum(0) / (k - 1)),
        full=check_full(full, len(intercept)),
        subsets=k,
        masks=masks,
        margins=margins,
        eigenvalues=eigenvalues,
        eigenvectors=eigenvectors,
        own_effect=own_effect,
        dual=dual,
    )


def _fit(z: Array, m: Array, eigenvalues: Array, eigenvectors: Array, strength: float) -> tuple[Array, Array]:
    """Return the own effect (targets,) and P m (subsets, targets)."""
    am, az = (_solve(eigenvalues, eigenvectors, strength, right) for right in (m, z))
    zz = (z * az).sum(0)
    own = (z * am).sum(0) / np.where(zz > 0, zz, 1.0)
    return own, am - az * own


def _left_out(
    masks: Array,
    membership: Array,
    margins: Array,
    own: Array,
    eigenvalues: Array,
    eigenvectors: Array,
    strengths: Array,
) -> Array:
    """Return the summed squared error of predicting each subset's margin from all others, (strengths, targets)."""
    k = len(masks)
    out = np.empty((len(strengths), margins.shape[1]))
    for part in blocks(margins.shape[1]):
        m, z = margins[:, part], _own_columns(masks, membership, own[part])
        turned_m, turned_z = eigenvectors.T @ m, eigenvectors.T @ z
        for row, strength in enumerate(strengths):
            scale = 1 / (eigenvalues + strength)
            am, az = eigenvectors @ (scale[:, None] * turned_m), eigenvectors @ (scale[:, None] * turned_z)
            zz = (z * az).sum(0)
            zz = np.where(zz > 0, zz, 1.0)
            pm = am - az * ((z * am).sum(0) / zz)
            diagonal = ((eigenvectors**2) @ scale)[:, None] - az**2 / zz - 1 / (k * strength)
            out[row, part] = ((pm / diagonal) ** 2).sum(0)
    return out


def _solve(eigenvalues: Array, eigenvectors: Array, strength: float, right: Array) -> Array:
    """Return A applied to the columns of `right` (subsets, ...)."""
    scale = 1 / (eigenvalues + strength)
    turned = eigenvectors.T @ right
    return np.asarray(eigenvectors @ (turned * (scale[:, None] if right.ndim == 2 else scale)))


def _centred(masks: Array, membership: Array, examples: Any) -> Array:
    return np.asarray(masks[:, examples] - membership[examples], dtype=np.float64)


def _own_columns(masks: Array, membership: Array, own: Array) -> Array:
    """Return the centred membership of each target itself, 0 for targets outside, shape (subsets, targets)."""
    out = np.zeros((len(masks), len(own)))
    inside = np.flatnonzero(own >= 0)
    out[:, inside] = _centred(masks, membership, own[inside])
    return out
