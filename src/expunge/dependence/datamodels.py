"""Datamodels: margins as a linear function of which examples a model was trained on, and what removal does to them.

Over K models trained on random subsets S_k of n examples (`subsets.py`), with z_kj = 1 if example j is in S_k, centred
over k, for target i:

    m_ki = c_i + own_i z_ki + sum_{j != i} u_ji z_kj + e_ki,        u ~ N(0, s^2 / lambda),  e ~ N(0, s^2)

`own`, the effect of a target's own membership, is far larger than the others and is not shrunk; the rest is ridge. With
A = (Z Z^T + lambda)^-1 and P = A - A z_i z_i^T A / (z_i^T A z_i), everything is closed form for all targets at once:

    own_i = z_i^T A m_i / z_i^T A z_i,      u_i = Z^T P m_i
    left out:  m_ki - prediction = (P m_i)_k / (P_kk - 1 / (K lambda))

Removing F changes the margins by minus a summed effect. Ridge shrinks that sum by a factor that the masks alone decide:
with c the count of S_k in F (without the target itself), generalised least squares for one common effect of F is

    mu_i = c^T P m_i / c^T P c,    sum over F, not shrunk: q mu_i,    ridge's own sum: (c^T P c / q) q mu_i

The effects are those at alpha n examples; an influence falls as 1 / (examples), so at full size they are about alpha
times as large (`law="inverse"`). Subsets of one size say nothing about what all effects have in common; the margins of
models trained on everything (`full`), which an audit has anyway, supply it.

Source: Ilyas et al., "Datamodels" (arXiv 2202.00622); sum as fixed effect: best linear unbiased prediction (Henderson
1975). Differs from the source: ridge beside LASSO, `own` not shrunk, the sum not shrunk, scale brought to full size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from expunge.core import ForgetSet, InputError
from expunge.core.checks import one_of, positive
from expunge.dependence.subsets import SubsetEnsemble

Array = np.ndarray[Any, Any]
Law = Literal["inverse", "constant"]
Shrink = Literal["adaptive", "none", "ridge"]

FEWEST_SUBSETS = 20
"""Below this a left-out error of the regression means nothing."""

STRENGTHS = tuple(np.geomspace(1e-4, 1e3, 15))
"""Ridge strengths that are tried, relative to the mean eigenvalue of Z Z^T."""

BLOCK = 4096
"""Targets or examples handled together, which bounds memory."""

NUMBERS = 2**25
"""Weights held together."""


class Removal(NamedTuple):
    """What removing a forget set is predicted to do."""

    change: Array
    """Predicted margin after removal minus margin before, shape (targets,)."""
    standard_error: Array
    """Standard error of the change without shrinkage, shape (targets,); an upper bound with it; NaN for LASSO."""
    kept: Array
    """Share of the unshrunk sum over the other forget examples that `change` keeps, shape (targets,), 1 for all."""


@dataclass(frozen=True)
class Datamodel:
    """Common part of ridge and LASSO datamodels."""

    own: Array
    """Position of each target in the training data, -1 for others, shape (targets,)."""
    alpha: float
    """Share of the examples in a subset."""
    membership: Array
    """Share of the subsets that hold each example, shape (examples,)."""
    intercept: Array
    """Mean margin over subsets, shape (targets,)."""
    strength: Array
    """Penalty of each target, shape (targets,): lambda for ridge, the L1 coefficient for LASSO."""
    r2: Array
    """Share of the variance over subsets explained for subsets left out, shape (targets,); NaN where not computed."""
    spread: Array
    """Standard deviation of the margin over subsets, shape (targets,)."""
    full: Array | None
    """Mean margin of models trained on everything, shape (targets,), or None."""

    @property
    def examples(self) -> int:
        """Number of training examples n."""
        return len(self.membership)

    @property
    def targets(self) -> int:
        """Number of targets."""
        return len(self.intercept)

    def weights(self, targets: slice | Array = slice(None)) -> Array:
        """Return the effect of each example's membership on the margins, shape (examples, targets), at size alpha n."""
        raise NotImplementedError

    def predict(self, masks: Any) -> Array:
        """Return predicted margins of models trained on subsets of about alpha n examples.

        Args:
            masks: Which examples each model is trained on, shape (subsets, examples), boolean.

        Returns:
            Shape (subsets, targets).
        """
        z = check_masks(masks, self.examples).astype(np.float64) - self.membership
        return np.asarray(self.intercept + self.apply_transposed(z))

    def apply(self, vectors: Array, targets: Array) -> Array:
        """Return weights[:, targets] @ vectors, shape (examples, ...), without holding all weights.

        Args:
            vectors: Shape (number of targets, ...).
            targets: Positions of targets.
        """
        parts = [self.weights(targets[part]) @ vectors[part] for part in blocks(len(targets), self.examples)]
        return np.asarray(sum(parts))

    def apply_transposed(self, rows: Array, targets: Array | None = None) -> Array:
        """Return rows @ weights[:, targets], shape (rows, targets), without holding all weights.

        Args:
            rows: Shape (rows, examples).
            targets: Positions of targets; None means all.
        """
        at = np.arange(self.targets) if targets is None else targets
        return np.concatenate([rows @ self.weights(at[part]) for part in blocks(len(at), self.examples)], axis=1)

    def removal(self, forget: ForgetSet | Sequence[int] | Array, *, law: Law = "inverse") -> Removal:
        """Return the predicted change of all margins when a forget set is removed from the full training set."""
        raise NotImplementedError

    def _forget(self, forget: ForgetSet | Sequence[int] | Array) -> Array:
        indices = forget.indices if isinstance(forget, ForgetSet) else np.asarray(forget)
        if isinstance(forget, ForgetSet) and forget.examples != self.examples:
            raise InputError(
                f"forget set {forget.name!r} was made for {forget.examples} training examples, the datamodel has "
                f"{self.examples}."
            )
        if indices.ndim != 1 or indices.size == 0 or not np.issubdtype(indices.dtype, np.integer):
            raise InputError(f"forget is an array {indices.shape} of {indices.dtype}, expected positions of examples.")
        if len(np.unique(indices)) < len(indices) or indices.min() < 0 or indices.max() >= self.examples:
            raise InputError(
                f"forget has positions from {indices.min()} to {indices.max()}, expected each of 0 to "
                f"{self.examples - 1} at most once."
            )
        if len(indices) == self.examples:
            raise InputError("forget is the whole training set, expected fewer examples.")
        unseen = indices[(self.membership[indices] == 0) | (self.membership[indices] == 1)]
        if unseen.size:
            raise InputError(
                f"{unseen.size} forget examples (first: {unseen[0]}) are in all subsets or in none, so nothing is "
                "known about their effect; train more subsets, or choose alpha nearer to 0.5."
            )
        return indices.astype(np.int64)

    def size_factor(self, size: int, law: Law) -> float:
        """Return the effect of removing one of the last `size` of n examples, relative to one at alpha n examples."""
        one_of(("inverse", "constant"), law=law)
        n = self.examples
        return float(self.alpha * n * np.log(n / (n - size)) / size) if law == "inverse" else 1.0

    def common(self, summed: Array, law: Law) -> Array:
        """Return what one more example adds at size alpha n, beyond its own effect: 0 where `full` is unknown.

        Args:
            summed: Sum of the effects of all examples as estimated, shape (targets,).
            law: How effects depend on size.
        """
        if self.full is None:
            return np.zeros(self.targets)
        n, alpha = self.examples, self.alpha
        path = alpha * n * np.log(1 / alpha) if law == "inverse" else (1 - alpha) * n
        return np.asarray((self.full - self.intercept) / path - summed / n)


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
                `ridge`: as ridge regression shrinks it; `adaptive`: between the two, by how far the sums of the forget
                targets, of the other training targets, and of the rest exceed their noise (positive-part James-Stein).
            limit: Largest standard error of the sum (root mean square over targets, before scaling to full size) that
                is accepted, in units of the margin's standard deviation over subsets; `float("inf")` accepts all.

        Raises:
            InputError: If the forget set does not fit, or is larger than these subsets can resolve.
        """
        indices = self._forget(forget)
        one_of(("adaptive", "none", "ridge"), shrink=shrink)
        inside = np.isin(self.own, indices)
        size, others = len(indices), len(indices) - inside
        none, ridge, kept, error = (np.zeros(self.targets) for _ in range(4))
        summed_none, summed_ridge = self.own_effect.copy(), self.own_effect.copy()
        count = _centred(self.masks, self.membership, indices).sum(1)
        for strength in np.unique(self.strength):
            for part in blocks(self.targets):
                at = np.arange(self.targets)[part]
                at = at[self.strength[at] == strength]
                if len(at):
                    fit = self._sums(at, strength, count, inside[at], others[at])
                    none[at], ridge[at], kept[at], error[at], summed_none[at], summed_ridge[at] = fit
        self._resolved(error, size, limit)
        share = kept.copy() if shrink == "ridge" else np.ones(self.targets)
        if shrink == "adaptive":
            for group in (inside, ~inside & (self.own >= 0), self.own < 0):
                if group.any():
                    signal = 1 - float(np.mean(error[group] ** 2)) / max(float(np.mean(none[group] ** 2)), 1e-300)
                    share[group] = np.clip(signal, kept[group], 1.0)
        # Both ends are linear in the margins; what lies between is a mixture of the two.
        mix = np.where(kept < 1, (share - kept) / np.where(kept < 1, 1 - kept, 1.0), 1.0)
        summed = ridge + mix * (none - ridge)
        total = summed_ridge + mix * (summed_none - summed_ridge)
        factor = self.size_factor(size, law)
        change = -(summed + size * self.common(total, law)) * factor
        return Removal(change, error * factor, share)

    def _sums(
        self, at: Array, strength: float, count: Array, inside: Array, others: Array
    ) -> tuple[Array, Array, Array, Array, Array, Array]:
        """Return sums over F of some targets: unshrunk, ridge, share kept, standard error, and both sums over all."""
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
        # Variance of others * mu + own: mu has 1 / cpc, own given mu has 1 / zz, and own depends on mu by -zc / zz.
        slope = others - np.where(inside, zc / zz, 0.0)
        error = np.sqrt(variance * (np.where(alone, 0.0, slope**2 / cpc) + np.where(inside, 1 / zz, 0.0)))
        kept = np.where(alone, 1.0, cpc / np.maximum(others, 1))
        return none, ridge, kept, error, np.where(train, joint, 0.0) + others * mu, own

    def _resolved(self, error: Array, size: int, limit: float) -> None:
        scale = float(np.sqrt(np.mean(self.spread**2)))
        typical = float(np.sqrt(np.mean(error**2)))
        if typical > limit * scale:
            needed = int(np.ceil(len(self.masks) * (typical / (limit * scale)) ** 2))
            raise InputError(
                f"a forget set of {size} is larger than {len(self.masks)} subsets can resolve: the standard error of "
                f"its summed effect is {typical:.3g}, more than {limit:g} times the {scale:.3g} by which margins vary "
                f"between subsets; train about {needed} subsets, or pass limit=float('inf')."
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


def blocks(length: int, width: int = 1) -> Iterator[slice]:
    """Yield slices that cover a length, each of at most `BLOCK` and of at most `NUMBERS` numbers of that width.

    >>> list(blocks(5000))
    [slice(0, 4096, None), slice(4096, 5000, None)]
    """
    step = max(1, min(BLOCK, NUMBERS // width))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def check_masks(masks: Any, examples: int | None = None) -> Array:
    """Return masks as a boolean array (subsets, examples), or raise `InputError`."""
    array = np.asarray(masks)
    if array.ndim != 2 or array.dtype != bool or (examples is not None and array.shape[1] != examples):
        wanted = "examples" if examples is None else str(examples)
        raise InputError(f"masks are {array.dtype} of shape {array.shape}, expected boolean of (subsets, {wanted}).")
    return array


def check_subsets(subsets: SubsetEnsemble) -> SubsetEnsemble:
    """Return the usable subsets, checked to allow a regression."""
    masks = check_masks(subsets.masks)
    if subsets.margins.shape != (len(masks), len(subsets.own)):
        raise InputError(
            f"margins have shape {subsets.margins.shape}, expected ({len(masks)}, {len(subsets.own)}) for these masks "
            "and targets."
        )
    sound = subsets.usable()
    if len(sound) < FEWEST_SUBSETS:
        dropped = len(subsets) - len(sound)
        raise InputError(
            f"{len(sound)} subset models with finite margins ({dropped} dropped), expected at least {FEWEST_SUBSETS} "
            "for a regression, and about as many as examples for a good one; train more subsets."
        )
    membership = sound.masks.mean(0)
    if not ((membership > 0) & (membership < 1)).any():
        raise InputError("no example is in some subsets and not in others, expected random subsets (`subset_masks`).")
    return sound


def check_full(full: Any, targets: int) -> Array | None:
    """Return mean margins of full models (targets,), or None."""
    if full is None:
        return None
    array = np.asarray(full, dtype=np.float64)
    array = np.nanmean(array, axis=0) if array.ndim == 2 else array
    if array.shape != (targets,) or not np.isfinite(array).all():
        raise InputError(f"full has shape {array.shape}, expected finite margins ({targets},) or (members, {targets}).")
    return array
