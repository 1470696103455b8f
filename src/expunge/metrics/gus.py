"""GUS, the Gaussian unlearning score: does a model still know the noise that was added to its training inputs?

A few training inputs are poisoned, x + xi with xi ~ N(0, s^2 I), the model is trained on them, and they are then
unlearned. With g the gradient of the loss at the clean input,

    I = <-g, xi> / (s |g|)

is N(0, 1) exactly when the model is independent of xi, that is when it never saw the poisoned input.

Sign: moving from the clean towards the memorised noisy input lowers the loss, so <g, xi> is negative for a model that
remembers. Summaries of the paper state a positive mean with the gradient of the loss; here the sign is turned once, in
the open: positive means remembered. An interpolating linear regression reads sqrt(2 / pi) = 0.798 (with g itself
-0.798).

Points whose gradient is 0 (saturated outputs) carry no evidence. They are left out and counted; when most are, the
score says so by being undecided, since driving gradients to 0 is an easy way to hide.

Source: Pawelczyk et al., "Machine Unlearning Fails to Remove Data Poisoning Attacks" (arXiv 2406.17216), Section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from expunge.core import InputError
from expunge.core.checks import between, plain_arguments, positive
from expunge.metrics.arrays import Array, to_array
from expunge.metrics.roc import Interval, clopper_pearson


@dataclass(frozen=True)
class Gus:
    """The score of one model; 0 is ideal, positive means remembered."""

    mean: float
    """Mean of `per_example`; NaN when no point has a gradient."""
    low: float
    """Lower end of the 95 % interval, from the exact null variance 1."""
    high: float
    """Upper end of the 95 % interval."""
    p_value: float
    """Two-sided z-test of mean 0: small means that the model depends on the noise. 0 for a failed model."""
    tpr: Interval
    """Share of points above the threshold that `fpr` of a model without memory exceed, Clopper-Pearson 95 %."""
    fpr: float
    """That false-positive rate; it is what `tpr` reads at the ideal."""
    per_example: Array
    """I of each used point, shape (used,)."""
    used: int
    """Points with a gradient."""
    excluded: int
    """Points without: zero gradient, no evidence."""
    conclusion: str
    """`remembered`, `no trace`, `reversed` (mean below 0: pushed beyond forgetting), `undecided`, or `failed`."""


@plain_arguments
def gus(gradients: Any, noise: Any, scale: float, *, fpr: float = 0.01, tiny: float = 1e-12) -> Gus:
    """Return the Gaussian unlearning score of one model.

    Args:
        gradients: Gradient of the loss with respect to each clean input, shape (examples, ...).
        noise: What was added to that input in training, the same shape, after the same augmentation and normalisation
            as the input.
        scale: Standard deviation s of the noise, above 0.
        fpr: False-positive rate for `tpr`, between 0 and 1.
        tiny: Gradients with a norm of at most `tiny` times the largest (or 1e-300) are excluded and counted.

    Raises:
        InputError: If shapes disagree, or the noise is not finite or does not have the stated standard deviation.
    """
    positive(scale=scale)
    between(0, 1, fpr=fpr)
    slopes, xi = to_array(gradients, "gradients"), to_array(noise, "noise")
    if slopes.shape != xi.shape or slopes.ndim < 2:
        raise InputError(f"gradients has shape {slopes.shape}, noise {xi.shape}; expected the same (examples, ...).")
    slopes, xi = slopes.reshape(len(slopes), -1), xi.reshape(len(xi), -1)
    if not np.isfinite(xi).all():
        raise InputError("noise has non-finite values, expected what was added to the inputs.")
    # n values give the scale to about 1 / sqrt(2 n): far outside that, the units are wrong.
    found = float(np.sqrt((xi**2).mean()))
    if abs(found / scale - 1) > 6 / np.sqrt(2 * xi.size) + 0.02:
        raise InputError(
            f"noise has standard deviation {found:.3g} but scale = {scale:g}; expected them to agree. If inputs are "
            "normalised or cropped after poisoning, pass the noise in those units."
        )
    if not np.isfinite(slopes).all():
        nan = float("nan")
        empty: Array = np.empty(0)
        return Gus(nan, nan, nan, 0.0, Interval(1.0, nan, 1.0), fpr, empty, 0, len(slopes), "failed")
    norm = np.linalg.norm(slopes, axis=1)
    keep = norm > max(tiny * float(norm.max()), 1e-300)
    values = -(slopes[keep] * xi[keep]).sum(1) / (scale * norm[keep])
    used = int(keep.sum())
    excluded = len(slopes) - used
    if used == 0:
        nan = float("nan")
        return Gus(nan, nan, nan, 1.0, Interval(nan, 0.0, 1.0), fpr, values, 0, excluded, "undecided")
    mean = float(values.mean())
    half = float(scipy.stats.norm.ppf(0.975)) / np.sqrt(used)
    p_value = float(2 * scipy.stats.norm.sf(np.sqrt(used) * abs(mean)))
    threshold = float(scipy.stats.norm.isf(fpr))
    if p_value <= 0.05:
        conclusion = "remembered" if mean > 0 else "reversed"
    else:
        conclusion = "undecided" if excluded > used else "no trace"
    return Gus(
        mean=mean,
        low=mean - half,
        high=mean + half,
        p_value=p_value,
        tpr=clopper_pearson(int((values > threshold).sum()), used),
        fpr=fpr,
        per_example=values,
        used=used,
        excluded=excluded,
        conclusion=conclusion,
    )
