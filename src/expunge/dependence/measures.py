"""All measures of dependence between a forget set and the rest, as named numbers from the pretrained ensemble alone.

Each measure has a name, a sentence, and the direction that its source or definition expects: `higher` if a larger value
should make unlearning by ascent harder, `lower` if a smaller one should, `none` where nothing is claimed. Whether the
expectation holds is for a study to say. Values are means over members of the value of each member, unless the sentence
says otherwise: unlearned models are judged member against member, and a norm of an average would let effects of
opposite sign cancel (`spectral_norm_of_mean` is that norm, for comparison).

Everything in example space is exact for any number of parameters (see `kernel`); one `Kernel` serves any number of
forget sets. With the default damping the linear system stands for training that stopped where the recipe stops.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.core import Ensemble, ForgetSet, InputError, Task, margins_from_logits
from expunge.core.checks import whole
from expunge.dependence.angles import angles
from expunge.dependence.cross_influence import blocks, largest_singular_value
from expunge.dependence.entanglement import entanglement
from expunge.dependence.features import penultimate
from expunge.dependence.inputs import complement, read_forget, spread
from expunge.dependence.kernel import Kernel, MemberKernel
from expunge.dependence.leverage import EPSILON, canonical_correlations, leverage
from expunge.dependence.members import each_member
from expunge.dependence.representatives import smaller
from expunge.dependence.ridge import training_ridge
from expunge.dependence.two_sample import member_dependence, within_class_classifier, within_class_mmd

Direction = Literal["higher", "lower", "none"]


@dataclass(frozen=True)
class Measure:
    """What one number means."""

    group: str
    """`size`, `influence`, `leverage`, `ascent`, `features` or `angles`."""
    text: str
    """One sentence, with unit or range."""
    harder: Direction
    """Which values are expected to go with harder unlearning by ascent."""

    @property
    def sentence(self) -> str:
        """The text, and which way is harder where anything is claimed."""
        return self.text if self.harder == "none" else f"{self.text} {self.harder.capitalize()} is harder."


MEASURES: Mapping[str, Measure] = {
    # Trivial predictors: what any other measure has to beat.
    "size": Measure("size", "Examples in F.", "higher"),
    "share": Measure("size", "Examples in F over training examples, 0 to 1.", "higher"),
    "mean_loss": Measure("size", "Mean cross-entropy of F, nats.", "higher"),
    "mean_margin": Measure("size", "Mean margin of F, nats.", "lower"),
    "class_skew": Measure(
        "size", "Total variation between the class shares of F and of the training data, 0 to 1.", "higher"
    ),
    # Influence: what removing F is predicted to do.
    "shift_forget": Measure("influence", "Predicted change of the mean margin of F (Newton step), nats.", "none"),
    "shift_retain": Measure(
        "influence", "Root mean square over R of the predicted change of a margin, nats.", "higher"
    ),
    "shift_validation": Measure(
        "influence", "Root mean square over validation of the predicted change of a margin, nats.", "higher"
    ),
    "shift_in_spreads": Measure(
        "influence", "|shift_forget| over the standard deviation of a forget margin between members.", "higher"
    ),
    "shift_ratio": Measure(
        "influence",
        "shift_validation over the root mean square of the shift on F: how alike F and fresh data are.",
        "none",
    ),
    "spectral_retain": Measure("influence", "Spectral norm of the cross-influence R <- F, nats.", "higher"),
    "spectral_validation": Measure(
        "influence", "Spectral norm of the cross-influence validation <- F, nats.", "higher"
    ),
    "spectral_forget": Measure("influence", "Spectral norm of the cross-influence F <- F, nats.", "none"),
    "spectral_norm_of_mean": Measure(
        "influence", "Spectral norm of the cross-influence R <- F averaged over members, nats.", "higher"
    ),
    "effect_retain": Measure(
        "influence", "|C 1|, length of the first-order effect of F on the margins of R.", "higher"
    ),
    "effect_validation": Measure("influence", "|C 1| on the validation margins.", "higher"),
    # Leverage: how much of the fit F decides, and how much of that R decides as well.
    "leverage": Measure("leverage", "tr(H^-1 H_F), effective parameters that F decides, 0 to |F|.", "none"),
    "kappa": Measure("leverage", "Largest eigenvalue of H^-1/2 H_F H^-1/2, 0 to 1.", "none"),
    "amplification": Measure("leverage", "1 / (1 - kappa), at least 1.", "none"),
    "canonical_largest": Measure(
        "leverage",
        "Largest canonical correlation between the gradients of F and R in the metric of H^-1, 0 to 1.",
        "higher",
    ),
    "canonical_share": Measure(
        "leverage", "Mean squared canonical correlation: share of the directions of F that R spans, 0 to 1.", "higher"
    ),
    # Ascent: what the gradient of F, not preconditioned, does on its way.
    "ascent_retain": Measure(
        "ascent", "Root mean square change of R's margins over that of F's, along the gradient of F.", "higher"
    ),
    "ascent_validation": Measure("ascent", "The same with the validation margins above.", "higher"),
    "ascent_misfit": Measure(
        "ascent",
        "Share of the predicted change on F that no step along the gradient of F reproduces (norms), 0 to 1.",
        "higher",
    ),
    "ascent_excess": Measure(
        "ascent",
        "Root mean square difference on validation between the step that comes closest on F and the predicted change, "
        "over the spread between members: collateral that retraining would not have.",
        "higher",
    ),
    # Features: is F like R, given the class?
    "entanglement": Measure("features", "Entanglement score of penultimate features, raw; mainly reads |F|.", "higher"),
    "entanglement_normalised": Measure(
        "features", "log entanglement score in standard deviations of random sets of the same class mix.", "higher"
    ),
    "mmd": Measure("features", "MMD^2 between F and R within class, penultimate features.", "lower"),
    "mmd_normalised": Measure("features", "The same in standard deviations of permutations within class.", "lower"),
    "classifier": Measure("features", "ROC area of a linear classifier of F against R within class.", "lower"),
    "classifier_normalised": Measure("features", "The same in standard deviations of permutations.", "lower"),
    "member_hsic": Measure(
        "features",
        "Normalised HSIC between margins of F and of R over members (all members of the ensemble).",
        "higher",
    ),
    # Angles between gradients.
    "cosine_validation": Measure("angles", "Cosine of the summed loss gradients of F and validation.", "higher"),
    "cosine_validation_curved": Measure("angles", "The same in the metric of H^-1.", "higher"),
    "nearest_retained": Measure(
        "angles", "Mean over F of the largest cosine of margin gradients with an example of R, -1 to 1.", "higher"
    ),
    "alignment": Measure("angles", "Alignment of the tangent kernel between F and R, 0 to 1.", "higher"),
}
"""Every measure, in the order of the result."""


@dataclass(frozen=True)
class Dependence:
    """The measures of one forget set."""

    values: Mapping[str, float]
    """By name, see `MEASURES`; NaN where a measure has nothing to compare (a class without retained examples)."""
    per_member: Mapping[str, Tensor]
    """The values of each member asked for (members,), where the measure has one; NaN for members left out."""
    members: int
    """Members that the means are over."""
    left_out: tuple[int, ...]
    """Indices (`Ensemble.ids`) of members that could not be used."""
    damping: float
    """Damping of the linear system, in units of the summed loss."""


def default_damping(task: Task) -> float:
    """Return the damping that stands for the recipe's stop: `training_ridge` for SGD, 0 for other optimisers."""
    return training_ridge(task.recipe, len(task.train)) if task.recipe.optimizer == "sgd" else 0.0


def measure_kernel(
    ensemble: Ensemble, task: Task, *, members: int = 20, damping: float | None = None, counts: Tensor | None = None
) -> Kernel:
    """Return the kernel that `measure_dependence` uses; make it once to measure many forget sets of one ensemble.

    Args:
        ensemble: Members trained on all of the task.
        task: Its data, and the recipe's weight decay.
        members: Members that the expensive measures use, at least 1.
        damping: Added to the diagonal, at least 0; None takes `default_damping`.
        counts: How many examples each training example stands for; None is each for itself.
    """
    whole(members=members)
    damping = default_damping(task) if damping is None else damping
    return Kernel(ensemble, task, members=members, damping=damping, counts=counts)


def kernel_beside(ensemble: Ensemble, task: Task, index: Tensor, *, members: int = 20) -> tuple[Kernel, Task, Tensor]:
    """Return the kernel on a forget set and what stands for the rest of a large task, and what it belongs to.

    Args:
        ensemble: Members trained on all of the task.
        task: A task with more retained examples than `representatives.LARGE`; a smaller one is taken as it is.
        index: Positions of the forget set.
        members: Members that the expensive measures use, at least 1.

    Returns:
        The kernel, the task whose examples it is of, and the positions of the forget set there.
    """
    few, inside, counts = smaller(task, index)
    damping = default_damping(task)
    return measure_kernel(ensemble, few, members=members, damping=damping, counts=counts), few, inside


def measure_dependence(
    ensemble: Ensemble,
    task: Task,
    forget: ForgetSet | Any,
    *,
    kernel: Kernel | None = None,
    members: int = 20,
    damping: float | None = None,
    epsilon: float = EPSILON,
    permutations: int = 100,
    seed: int = 0,
) -> Dependence:
    """Measure how a forget set and the rest depend on one another, before any unlearning.

    Args:
        ensemble: Members trained on all of the task.
        task: Its data, and the recipe.
        forget: The forget set, or positions in the training data.
        kernel: From `measure_kernel`, for the same ensemble and task; then `members` and `damping` are those of the
            kernel. Most of the time for one forget set goes into making it.
        members: Members that the measures use (margins between members use all), at least 1.
        damping: Added to the diagonal, at least 0; None takes `default_damping`.
        epsilon: Ridge of the canonical correlations, in units of leverage, above 0.
        permutations: Random sets that features are compared with, at least 2.
        seed: Of the random sets.

    Returns:
        Named numbers, each described in `MEASURES`.

    Raises:
        InputError: If the forget set is empty, leaves the data or leaves nothing; if the kernel belongs to other data;
            if it would not fit in memory (`papers.ascent_fails_to_forget.dependence.Projection` would).
        DivergedError: If no member is finite.
    """
    whole(2, permutations=permutations)
    index = read_forget(forget, len(task.train))
    if kernel is None:
        kernel = measure_kernel(ensemble, task, members=members, damping=damping)
    _check_kernel(kernel, ensemble, task)
    usable = kernel.linearised.ensemble
    margins = ensemble.margins(kernel.x, kernel.y).double()
    margins = margins[torch.isfinite(margins).all(1)]
    deviation = margins.std(0) if len(margins) > 1 else torch.full((margins.shape[1],), float("nan"))
    members_used = kernel.members

    def one(position: int) -> tuple[dict[str, float], Tensor]:
        member = members_used[position]
        columns = member.columns(index)
        own, block = _in_example_space(member, index, columns, deviation, epsilon, kernel.counts)
        return own | _in_feature_space(usable, position, task, index, permutations, seed), block

    found = each_member(one, len(members_used), usable.device)
    rows = [own for own, _ in found]
    average = torch.stack([block for _, block in found]).mean(0)
    per_member = {
        name: spread(torch.tensor([row[name] for row in rows], dtype=torch.float64), kernel.good) for name in rows[0]
    }
    shared = _shared(usable, task, index, margins, permutations, seed)
    shared["spectral_norm_of_mean"] = largest_singular_value(average)
    means = {name: _mean(values) for name, values in per_member.items()}
    everything = means | shared
    ids = ensemble.ids[: len(kernel.good)]
    return Dependence(
        values={name: everything[name] for name in MEASURES},
        per_member=per_member,
        members=len(rows),
        left_out=tuple(own for own, good in zip(ids, kernel.good.tolist(), strict=True) if not good),
        damping=kernel.ridge - kernel.data.decay * len(kernel.data),
    )


def _in_example_space(
    member: MemberKernel, index: Tensor, columns: Tensor, deviation: Tensor, epsilon: float, counts: Tensor | None
) -> tuple[dict[str, float], Tensor]:
    """Return influence, leverage, ascent and angles of one member, and its block R <- F."""
    n = member.examples
    rest = complement(index, n)
    cross = blocks(member, index, columns)
    if counts is not None:  # a row that stands for k rows alike is k times as long in squares
        cross = replace(cross, retain=counts[rest].sqrt()[:, None] * cross.retain)
    shift = member.removal(index, "newton", columns)
    lever = leverage(member, index, columns)
    canonical = canonical_correlations(member, index, epsilon, columns)
    ascent = member.kernel[:, index] @ member.slope[index]
    squared = float(ascent[index] @ ascent[index])
    # The step along the gradient that brings the margins of F closest to those predicted for the oracle; not backwards.
    step = max(0.0, float(ascent[index] @ shift[index]) / squared) if squared else 0.0
    reached = step * ascent
    spread_f, spread_v = float(deviation[index].mean()), float(deviation[n:].mean())
    shift_forget, shift_validation = float(shift[index].mean()), _rms(shift[n:])
    angle = angles(member, index)
    values = {
        "shift_forget": shift_forget,
        "shift_retain": _rms(shift[rest]),
        "shift_validation": shift_validation,
        "shift_in_spreads": _ratio(abs(shift_forget), spread_f),
        "shift_ratio": _ratio(shift_validation, _rms(shift[index])),
        "spectral_retain": largest_singular_value(cross.retain),
        "spectral_validation": largest_singular_value(cross.others),
        "spectral_forget": largest_singular_value(cross.forget),
        "effect_retain": float(cross.retain.sum(1).norm()),
        "effect_validation": float(cross.others.sum(1).norm()),
        "leverage": lever.total,
        "kappa": lever.kappa,
        "amplification": lever.amplification,
        "canonical_largest": float(canonical[0]),
        "canonical_share": float((canonical**2).mean()),
        "ascent_retain": _ratio(_rms(ascent[rest]), _rms(ascent[index])),
        "ascent_validation": _ratio(_rms(ascent[n:]), _rms(ascent[index])),
        "ascent_misfit": _ratio(_rms(reached[index] - shift[index]), _rms(shift[index])),
        "ascent_excess": _ratio(_rms(reached[n:] - shift[n:]), spread_v),
        "cosine_validation": angle.forget_validation,
        "cosine_validation_curved": angle.forget_validation_curved,
        "nearest_retained": angle.nearest_retained,
        "alignment": angle.alignment,
    }
    return values, cross.retain


def _in_feature_space(
    usable: Ensemble, position: int, task: Task, index: Tensor, permutations: int, seed: int
) -> dict[str, float]:
    """Return entanglement and two-sample measures of one member."""
    features, labels = penultimate(usable, position, task.train.x), task.train.y
    score = entanglement(features, labels, index, sets=permutations, seed=seed)
    apart = within_class_mmd(features, labels, index, permutations=permutations, seed=seed)
    told = within_class_classifier(features, labels, index, permutations=permutations, seed=seed)
    return {
        "entanglement": score.score,
        "entanglement_normalised": score.normalised,
        "mmd": apart.value,
        "mmd_normalised": apart.normalised,
        "classifier": told.value,
        "classifier_normalised": told.normalised,
    }


def trivial(task: Task, index: Tensor) -> dict[str, float]:
    """Return what sizes and labels alone say of a forget set."""
    classes = torch.bincount(task.train.y, minlength=task.classes).double() / len(task.train)
    own = torch.bincount(task.train.y[index], minlength=task.classes).double() / len(index)
    return {
        "size": float(len(index)),
        "share": len(index) / len(task.train),
        "class_skew": float((own - classes).abs().sum() / 2),
    }


def _shared(
    usable: Ensemble, task: Task, index: Tensor, margins: Tensor, permutations: int, seed: int
) -> dict[str, float]:
    """Return the trivial predictors, and what needs all members at once."""
    x, y = task.train.x[index], task.train.y[index]
    logits = usable.logits(x).double()
    losses = F.cross_entropy(logits.flatten(0, 1), y.repeat(len(usable)))
    enough = len(margins) >= 4
    rest = complement(index, len(task.train))
    joint = (
        member_dependence(margins[:, index], margins[:, rest], permutations=permutations, seed=seed) if enough else None
    )
    return trivial(task, index) | {
        "mean_loss": float(losses),
        "mean_margin": float(margins_from_logits(logits, y).mean()),
        "member_hsic": joint.value if joint is not None else float("nan"),
    }


def _check_kernel(kernel: Kernel, ensemble: Ensemble, task: Task) -> None:
    if kernel.examples != len(task.train) or not torch.equal(kernel.data.y, task.train.y):
        raise InputError(
            f"the kernel was made for other training data ({kernel.examples} examples), expected those of the task "
            f"{task.name!r} ({len(task.train)} examples); make it with measure_kernel(ensemble, task)."
        )
    used = kernel.linearised.ensemble.ids
    if not set(used) <= set(ensemble.ids):
        raise InputError(
            f"the kernel was made for members {used}, expected members of this ensemble ({ensemble.ids}); make it with "
            "measure_kernel(ensemble, task)."
        )


def _rms(values: Tensor) -> float:
    return math.sqrt(float((values**2).mean()))


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else float("nan")


def _mean(values: Tensor) -> float:
    kept = values.numpy()[~np.isnan(values.numpy())]
    return float(kept.mean()) if len(kept) else float("nan")
