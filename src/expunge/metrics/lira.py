"""LiRA: the likelihood-ratio attack for membership, per example, from shadow models.

For an example x with margins of shadow models that were trained on it, N(mu_in, s_in^2), and of those that were not,
N(mu_out, s_out^2), a target model with margin phi scores

    online    log N(phi; mu_in, s_in) - log N(phi; mu_out, s_out)
    offline   log Pr[N(mu_out, s_out) <= phi]

summed over augmentations. Means are medians over shadows, as in the published code.

A failed target (non-finite, collapsed or exploded beside the shadows) is recognised by anybody who sees it, and tells
an attacker all: `lira` marks it, and `lira_roc` counts it as told right on every example, which is 1 when all failed.

`lira_roc` reads targets that were trained on their members and then unlearned them. The aim is what the same attack
reads on oracles, never trained on these examples: above it is under-forgotten, below it over-forgotten.

Differs from the published code, whose own ways remain as switches:

- a fixed variance is that within examples; there it is that of all margins of the shadows at once, so the examples'
  different levels are in it, and online the shadows *in* serve both sides (`fixed_published`);
- variances are unbiased; there they are divided by the number of shadows (`per_example_published`);
- the offline score there is `log N(phi; mu_out, s_out)` with its sign turned, which calls a margin far *below* the
  shadows a member too (`offline_published`).

There, augmentations are averaged, which ranks alike, and each example keeps as many shadows as the one with fewest.

Source: Carlini et al., "Membership Inference Attacks From First Principles" (arXiv 2112.03570), Algorithm 1 and Section
IV-C; code: `research/mi_lira_2021/plot.py` of tensorflow/privacy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from expunge.core import InputError
from expunge.core.checks import one_of, plain_arguments
from expunge.metrics.arrays import Array, to_array
from expunge.metrics.failures import Reference, failed_members
from expunge.metrics.reading import Side, settled, side_of
from expunge.metrics.roc import Interval, PooledRoc, pooled_roc


@dataclass(frozen=True)
class Lira:
    """What LiRA achieves on targets, beside what it achieves on oracles; intervals are over models, 95 %.

    They hold given the shadows and the examples: other shadows would move every score.
    """

    auc: Interval
    """Area under the curve of all targets and examples together, failed targets told right."""
    balanced_accuracy: Interval
    """Mean of true-positive and true-negative rate at a likelihood ratio of 1, a threshold fixed beforehand."""
    tpr: Interval
    """True-positive rate at the largest attainable false-positive rate of at most `fpr`."""
    oracle_auc: Interval
    """The floor: the same of the oracles; NaN without them."""
    oracle_balanced_accuracy: Interval
    """The same of the oracles; NaN without them."""
    oracle_tpr: Interval
    """The same of the oracles; NaN without them."""
    distance: float
    """How far the area of sound targets is from the oracles', with each failed target at the largest distance; NaN
    without oracles."""
    side: Side
    """Where the interval of the area of sound targets minus the oracles' lies, in words; undecided without oracles."""
    fpr: float
    """The false-positive rate asked for."""
    resolution: float
    """One over the number of non-members' scores: below it no false-positive rate is seen."""
    targets: int
    """Models under attack, failed ones included."""
    oracles: int
    """Oracles under the same attack."""
    examples: int
    """Examples."""
    failed: int
    """Targets that are non-finite, collapsed or exploded."""
    ideal: str = "the oracle's value; below it is over-forgetting"


@plain_arguments
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
        variance: `per_example`; `fixed` (within examples, pooled over them, for in and out each, better below about 64
            shadows); `per_example_published` and `fixed_published`, as the published code computes these.

    Returns:
        Shape (targets, examples); NaN on every example of a failed target, which `lira_roc` counts as told right.

    Raises:
        InputError: If shapes disagree, a shadow is not finite, or an example has fewer than 2 shadows on a side needed.
    """
    one_of(("online", "offline", "offline_published"), mode=mode)
    one_of(("per_example", "fixed", "per_example_published", "fixed_published"), variance=variance)
    ours, shadows = _with_augmentations(target, "target"), _with_augmentations(shadow, "shadow")
    member = np.asarray(to_array(trained, "trained", ndim=2, flags=True), dtype=bool)
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
    needed = (False,) if mode.startswith("offline") else (True, False)
    for side in needed:
        fewest = int((member == side).sum(0).min())
        if fewest < 2:
            raise InputError(
                f"an example has {fewest} shadows {'in' if side else 'out'}, expected at least 2. Train more shadows"
                f"{', or use mode=offline' if side else ''}."
            )
    failed = _failed(ours, shadows)
    phi = np.where(failed[:, None, None], 0.0, ours)
    # mean and deviation of each side, (examples, augmentations)
    centre, spread = {}, {}
    for side in needed:
        rows = np.where((member == side)[:, :, None], shadows, np.nan)
        centre[side] = np.nanmedian(rows, 0)
        spread[side] = _spread(rows, variance)
    if variance == "fixed_published" and mode == "online":
        spread[False] = spread[True]
    tiny = 1e-30
    out = scipy.stats.norm(centre[False], np.maximum(spread[False], tiny))
    if mode == "online":
        inside = scipy.stats.norm(centre[True], np.maximum(spread[True], tiny))
        scores = inside.logpdf(phi) - out.logpdf(phi)
    elif mode == "offline":
        scores = out.logcdf(phi)
    else:
        scores = -out.logpdf(phi)
    total = np.asarray(scores.sum(-1))
    return np.where(failed[:, None], np.nan, total)


def _spread(rows: Array, variance: str) -> Array:
    """Return standard deviations (examples, augmentations) of (shadows, examples, augmentations), NaN where none is."""
    if variance.startswith("per_example"):
        return np.asarray(np.nanstd(rows, 0, ddof=1 if variance == "per_example" else 0))
    if variance == "fixed_published":
        pooled = np.nanvar(rows)
    else:
        within = np.nansum((rows - np.nanmean(rows, 0)) ** 2)
        pooled = within / (np.isfinite(rows).sum() - rows[0].size)
    return np.full(rows.shape[1:], np.sqrt(pooled))


@plain_arguments
def lira_roc(
    scores: Any,
    trained: Any,
    *,
    oracle: tuple[Any, Any] | None = None,
    fpr: float = 0.001,
    replicates: int = 1000,
    seed: int = 0,
) -> Lira:
    """Return what LiRA achieves over all targets and examples together, beside what it achieves on oracles.

    Args:
        scores: From `lira`, shape (targets, examples): examples that a target has to forget, and examples that it never
            saw. A target with a NaN has failed.
        trained: Which of them a target was trained on before unlearning, boolean, shape (targets, examples).
        oracle: The same two of oracles, never trained on the examples to forget: their scores under the same shadows,
            and which examples count as members for the attack, those that the targets were trained on. None leaves the
            oracles' values NaN; 0.5 is no substitute, as forget examples may be easier or harder than others.
        fpr: Largest false-positive rate for the true-positive rate.
        replicates: Bootstrap replicates over targets, at least 100.
        seed: Draws them.

    Returns:
        Area, balanced accuracy at a likelihood ratio of 1 (score 0), true-positive rate, each with an interval over
        targets, and the side.

    Raises:
        InputError: If shapes disagree, `trained` is the same for all, or an oracle failed.
    """
    values, member, failed = _attacked(scores, trained, "scores", "trained")
    found = _pooled(values, member, failed, fpr, replicates, seed)
    nothing = Interval(float("nan"), float("nan"), float("nan"))
    floor = PooledRoc(nothing, nothing, nothing)
    oracles = 0
    if oracle is not None:
        others, claimed, broken = _attacked(*oracle, "oracle scores", "oracle trained")
        if broken.any():
            raise InputError(
                f"oracle scores are non-finite in {int(broken.sum())} of {len(others)} oracles (first "
                f"{int(np.argmax(broken))}): these failed. Expected sound oracles, because they are the reference; "
                "leave them out, or retrain them."
            )
        oracles = len(others)
        floor = _pooled(others, claimed, broken, fpr, replicates, seed + 1)
    sound = found.auc
    if failed.any():
        left = ~failed
        # With the failed ones told right the area would rise, past the oracles' when it was below: seen without them.
        usable = left.any() and member[left].any() and not member[left].all()
        sound = _pooled(values[left], member[left], failed[left], fpr, replicates, seed).auc if usable else nothing
    return Lira(
        auc=found.auc,
        balanced_accuracy=found.balanced_accuracy,
        tpr=found.tpr,
        oracle_auc=floor.auc,
        oracle_balanced_accuracy=floor.balanced_accuracy,
        oracle_tpr=floor.tpr,
        distance=_distance(sound.value, floor.auc.value, float(failed.mean())),
        side=settled(int(failed.sum()), len(values), oracles) or side_of(*_difference(sound, floor.auc), "below"),
        fpr=fpr,
        resolution=1 / int((~member).sum()),
        targets=len(values),
        oracles=oracles,
        examples=values.shape[1],
        failed=int(failed.sum()),
    )


def _attacked(scores: Any, trained: Any, what: str, which: str) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return scores, who is a member, and which models failed, checked."""
    values, member = (
        to_array(scores, what, ndim=2),
        np.asarray(to_array(trained, which, ndim=2, flags=True), dtype=bool),
    )
    if values.shape != member.shape:
        raise InputError(f"{what} has shape {values.shape}, {which} {member.shape}, expected the same.")
    if member.all() or not member.any():
        raise InputError(f"{which} is the same for all, expected both members and non-members.")
    return values, member, np.asarray(np.isnan(values).any(1))


def _pooled(values: Array, member: Any, failed: Any, fpr: float, replicates: int, seed: int) -> PooledRoc:
    told = np.where(failed[:, None], np.where(member, np.inf, -np.inf), values)
    return pooled_roc(told, member, threshold=0.0, fpr=fpr, replicates=replicates, seed=seed)


def _distance(sound: float, oracle: float, share: float) -> float:
    """Return the distance of the area from the oracles', the failed share at the largest that is possible."""
    worst = max(oracle, 1 - oracle)
    return share * worst + ((1 - share) * abs(sound - oracle) if share < 1 else 0.0)


def _difference(ours: Interval, theirs: Interval) -> tuple[float, float]:
    """Return the interval of the difference of two independent values."""
    difference = ours.value - theirs.value
    below = np.hypot(ours.value - ours.low, theirs.high - theirs.value)
    above = np.hypot(ours.high - ours.value, theirs.value - theirs.low)
    return float(difference - below), float(difference + above)


def _failed(targets: Array, shadows: Array) -> NDArray[np.bool_]:
    """Return which targets failed under at least one augmentation, shape (targets,)."""
    views = range(targets.shape[2])
    return np.asarray(np.any([failed_members(targets[:, :, i], Reference.of(shadows[:, :, i])) for i in views], axis=0))


def _with_augmentations(values: Any, what: str) -> Array:
    array = to_array(values, what)
    if array.ndim not in (2, 3):
        raise InputError(
            f"{what} has shape {array.shape}, expected (models, examples) or (models, examples, augmentations)."
        )
    return array if array.ndim == 3 else array[:, :, None]
