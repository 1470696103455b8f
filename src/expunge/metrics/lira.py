"""LiRA: the likelihood-ratio attack for membership, per example, from shadow models.

For an example x with margins of shadow models that were trained on it, N(mu_in, s_in^2), and of those that were not,
N(mu_out, s_out^2), a target model with margin phi scores

    online    log N(phi; mu_in, s_in) - log N(phi; mu_out, s_out)
    offline   log Pr[N(mu_out, s_out) <= phi]

summed over augmentations. Means are medians over shadows, as in the published code.

Differs from the published code: there, the pooled variance of the shadows *in* serves both sides when the variance is
fixed, and the offline score is `log N(phi; mu_out, s_out)` with its sign turned, which calls a margin far *below* the
shadows a member too. Both remain as switches.

Source: Carlini et al., "Membership Inference Attacks From First Principles" (arXiv 2112.03570), Algorithm 1 and Section
IV-C; code: `research/mi_lira_2021/plot.py` of tensorflow/privacy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from expunge.core import InputError
from expunge.core.checks import one_of
from expunge.metrics.arrays import Array, to_array
from expunge.metrics.roc import Roc, roc


def lira(
    target: Any,
    shadow: Any,
    trained: Any,
    *,
    mode: str = "online",
    variance: str = "per_example",
) -> Array:
    """Return the log-likelihood-ratio score of each example for each target model; higher says member.

    Args:
        target: Margins of the models under attack, shape (targets, examples) or (targets, examples, augmentations).
        shadow: Margins of the shadow models, shape (shadows, examples) or (shadows, examples, augmentations). They must
            be other models than the targets, of the same recipe.
        trained: Which shadow was trained on which example, boolean, shape (shadows, examples).
        mode: `online`; `offline` (one-sided tail, uses shadows out only); `offline_published` (minus the log-density).
        variance: `per_example`; `fixed` (pooled over examples, for in and out each, better below about 64 shadows);
            `fixed_published` (the pooled variance of the shadows in, for both).

    Returns:
        Shape (targets, examples). A target whose margin is not finite scores +inf: an attacker sees a broken
        model, and a failure must not pass for privacy.

    Raises:
        InputError: If shapes disagree, a shadow is not finite, or an example has fewer than 2 shadows on a side needed.
    """
    one_of(("online", "offline", "offline_published"), mode=mode)
    one_of(("per_example", "fixed", "fixed_published"), variance=variance)
    ours, shadows = _with_augmentations(target, "target"), _with_augmentations(shadow, "shadow")
    member = np.asarray(to_array(trained, "trained", ndim=2), dtype=bool)
    if ours.shape[1:] != shadows.shape[1:]:
        raise InputError(
            f"target has shape {ours.shape} and shadow {shadows.shape}, expected the same after the first axis."
        )
    if member.shape != shadows.shape[:2]:
        raise InputError(f"trained has shape {member.shape}, expected (shadows, examples) = {shadows.shape[:2]}.")
    if not np.isfinite(shadows).all():
        count = int((~np.isfinite(shadows).all((1, 2))).sum())
        raise InputError(
            f"{count} shadow models have non-finite margins, expected finite ones; leave these shadows out."
        )
    needed = (False,) if mode.startswith("offline") and variance != "fixed_published" else (True, False)
    for side in needed:
        fewest = int((member == side).sum(0).min())
        if fewest < 2:
            raise InputError(
                f"an example has {fewest} shadows {'in' if side else 'out'}, expected at least 2. Train more shadows"
                f"{', or use mode=offline' if side else ''}."
            )
    bad = ~np.isfinite(ours)
    phi = np.where(bad, 0.0, ours)
    # mean and deviation of each side, (examples, augmentations)
    centre, spread = {}, {}
    for side in needed:
        rows = np.where((member == side)[:, :, None], shadows, np.nan)
        centre[side] = np.nanmedian(rows, 0)
        spread[side] = np.nanstd(rows, 0, ddof=1)
        if variance != "per_example":
            spread[side] = np.full_like(spread[side], np.sqrt(np.nanmean((rows - np.nanmean(rows, 0)) ** 2)))
    if variance == "fixed_published":
        spread[False] = spread[True]
    tiny = 1e-30
    out = stats.norm(centre[False], np.maximum(spread[False], tiny))
    if mode == "online":
        inside = stats.norm(centre[True], np.maximum(spread[True], tiny))
        scores = inside.logpdf(phi) - out.logpdf(phi)
    elif mode == "offline":
        scores = out.logcdf(phi)
    else:
        scores = -out.logpdf(phi)
    total = np.asarray(scores.sum(-1))
    return np.where(bad.any(-1), np.inf, total)


def lira_roc(scores: Any, trained: Any, *, fpr: float = 0.001) -> Roc:
    """Return what LiRA achieves over all targets and examples together.

    Args:
        scores: From `lira`, shape (targets, examples).
        trained: Which target was trained on which example, boolean, shape (targets, examples).
        fpr: Largest false-positive rate for the true-positive rate.

    Returns:
        Area, balanced accuracy at a likelihood ratio of 1 (score 0, fixed beforehand), true-positive rate.
    """
    values, member = to_array(scores, "scores", ndim=2), np.asarray(to_array(trained, "trained", ndim=2), dtype=bool)
    if values.shape != member.shape:
        raise InputError(f"scores has shape {values.shape}, trained {member.shape}, expected the same.")
    if member.all() or not member.any():
        raise InputError("trained is the same for all, expected both members and non-members.")
    return roc(values[member], values[~member], threshold=0.0, fpr=fpr)


def _with_augmentations(values: Any, what: str) -> Array:
    array = to_array(values, what)
    if array.ndim not in (2, 3):
        raise InputError(
            f"{what} has shape {array.shape}, expected (models, examples) or (models, examples, augmentations)."
        )
    return array if array.ndim == 3 else array[:, :, None]
