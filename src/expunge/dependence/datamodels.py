"""Datamodels: margins as a linear function of which examples a model was trained on, and what removal does to them.

    m_i(S) = c_i + sum_{j in S} beta_ji          S a random subset of round(alpha n) examples (`subsets.py`)

`ridge_datamodel.py` and `lasso.py` estimate beta. Removing F from the full training set then changes margin i by

    - g ( sum_{j in F} beta_ji + |F| a_i ),      g = alpha n log(n / (n - |F|)) / |F|

g brings the scale to full size: the effects are those at alpha n examples, and an influence falls as 1 / (examples), so
at n it is about alpha times as large (`law="inverse"`). a_i is what all effects have in common, which subsets of one
size cannot show; the margins of models trained on everything (`full`), which an audit has anyway, supply it:

    alpha n log(1 / alpha) ( a_i + mean_j beta_ji ) = full_i - m_i(subsets)

Source: Ilyas et al., "Datamodels: Predicting Predictions from Training Data" (arXiv 2202.00622), sec. 2; removal as in
Georgiev et al., "Attribute-to-Delete" (arXiv 2410.23232), sec. 4. Differs from both: they have g = 1 and a_i = 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from expunge.core import ForgetSet, InputError
from expunge.core.checks import one_of
from expunge.dependence.subsets import SubsetEnsemble

Array = np.ndarray[Any, Any]
Law = Literal["inverse", "constant"]
Shrink = Literal["adaptive", "none", "penalty"]

FEWEST_SUBSETS = 20
"""Below this a left-out error of the regression means nothing."""

BLOCK = 4096
"""Targets or examples handled together, which bounds memory."""

NUMBERS = 2**25
"""Weights held together."""


class Removal(NamedTuple):
    """What removing a forget set is predicted to do."""

    change: Array
    """Predicted margin after removal minus margin before, shape (targets,)."""
    standard_error: Array
    """Standard error of the change without shrinkage, shape (targets,); shrinkage has less noise, and bias."""
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
    subsets: int
    """Number of subset models K."""

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

    def removal(
        self,
        forget: ForgetSet | Sequence[int] | Array,
        *,
        law: Law = "inverse",
        shrink: Shrink = "adaptive",
        limit: float = 1.0,
    ) -> Removal:
        """Return the predicted change of all margins when a forget set is removed from the full training set."""
        raise NotImplementedError

    def _removed(self, summed: Array, total: Array, error: Array, kept: Array, size: int, law: Law) -> Removal:
        factor = self.size_factor(size, law)
        return Removal(-(summed + size * self.common(total, law)) * factor, error * factor, kept)

    def _resolved(self, error: Array, size: int, limit: float) -> None:
        scale = float(np.sqrt(np.mean(self.spread**2)))
        typical = float(np.sqrt(np.mean(error**2)))
        if typical > limit * scale:
            needed = int(np.ceil(self.subsets * (typical / (limit * scale)) ** 2))
            raise InputError(
                f"a forget set of {size} is larger than {self.subsets} subsets can resolve: the standard error of "
                f"its summed effect is {typical:.3g}, more than {limit:g} times the {scale:.3g} by which margins vary "
                f"between subsets; train about {needed} subsets, or pass limit=float('inf')."
            )

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

    @cached_property
    def balanced(self) -> Array:
        """Margin predicted for subsets that hold each example equally often, shape (targets,)."""
        # The subsets at hand hold some examples more often than others, and their mean margin shows it.
        return np.asarray(self.intercept + self.apply_transposed((self.alpha - self.membership)[None])[0])

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
        return np.asarray((self.full - self.balanced) / path - summed / n)


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
    if array.ndim == 2:
        sound = array[np.isfinite(array).all(1)]
        array = sound.mean(0) if len(sound) else array[0]
    if array.shape != (targets,) or not np.isfinite(array).all():
        raise InputError(f"full has shape {array.shape}, expected finite margins ({targets},) or (members, {targets}).")
    return array
