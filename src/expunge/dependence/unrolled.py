"""Predicted oracles from the pretrained models: what training without the forget set would have led to.

Influence at the end of training underestimates what was learnt early: a cluster that is fitted perfectly has no
gradient left, however much the model owes to it. So training is followed in a few segments. In segment l the gradient
of the forget loss and the curvature of the retain loss are taken as constant, and gradient flow with the L2 term gives

    d_l = exp(-t_l H_l) d_(l-1) + (1 - exp(-t_l H_l)) H_l^-1 g_l / |R|,      d_0 = 0

    H_l   (Gauss-Newton matrix of the summed loss on R) / |R| + decay
    g_l   sum over F of the gradients of the loss, + decay |F| theta (without F, the mean over fewer examples)
    t_l   sum of learning rates / (1 - momentum) over the steps of the segment: training time

computed in the form that takes one function of the curvature a segment instead of two:

    d_l = d_(l-1) + (1 - exp(-t_l H_l)) H_l^-1 (g_l / |R| - H_l d_(l-1))

d is the change of the weights, J d the change of margins at the end. One segment that lasts for ever is the Newton step
on the retain objective, (sum of curvatures over R + ridge)^-1 g: classical influence with the leverage of F taken out.

Source: the segments are Bae et al., "Training Data Attribution via Approximate Unrolled Differentiation" (arXiv
2405.12186), sec. 3; influence functions Koh and Liang (arXiv 1703.04730).
Differs from the source: exact products in a Krylov space instead of EK-FAC; the curvature is that of R, not of all
examples, since the whole set is removed; the L2 term of the removed examples is kept.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.core import Ensemble, ForgetSet, InputError, Recipe, Task
from expunge.core.checks import positive
from expunge.core.tree import State, concatenate
from expunge.dependence.curvature import damped
from expunge.dependence.krylov import matrix_function
from expunge.dependence.linearised import Linearised, combine
from expunge.dependence.members import by_members
from expunge.dependence.representatives import represent

STEPS = 16
"""Products with the curvature for each function of it."""

SHARES = (2 / 15, 4 / 15, 3 / 5)
"""Lengths of the segments of training, as shares of the epochs: short at first, where most is learnt."""


@dataclass(frozen=True)
class Segment:
    """A stretch of training that one state of the members stands for."""

    ensemble: Ensemble
    """The members at that time."""
    time: float
    """Learning rates / (1 - momentum), summed over the steps; infinity for training to convergence."""


def segment_plan(recipe: Recipe, examples: int) -> list[tuple[int, float]]:
    """Return (epoch at which the members are looked at, training time) for each segment of a recipe.

    The last segment is looked at at the end, the others in their middle.

    Args:
        recipe: How the members were trained; SGD.
        examples: Training examples.

    Raises:
        InputError: If the optimiser is not SGD: the time of adaptive optimisers is not that of gradient flow.

    >>> [(epoch, round(time)) for epoch, time in segment_plan(Recipe(epochs=30, lr=0.2), 1437)]
    [(2, 74), (8, 318), (30, 298)]
    """
    bounds, plan = [0], []
    for share in SHARES:
        bounds.append(min(recipe.epochs, max(bounds[-1] + 1, bounds[-1] + round(share * recipe.epochs))))
    bounds[-1] = recipe.epochs
    for first, last in itertools.pairwise(bounds):
        if first == last:
            continue
        middle = last if last == recipe.epochs else (first + last) // 2
        plan.append((max(middle, 1), recipe.training_time(examples, first, last)))
    return plan


def unrolled_removal(segments: Sequence[Segment], task: Task, forget: ForgetSet, *, steps: int = STEPS) -> State:
    """Return how the weights of each member would differ had it never seen the forget set, each tensor (members, ...).

    Args:
        segments: Training in order; the last state is the pretrained one. All have the same members.
        task: Data and recipe (its weight decay).
        forget: What is removed.
        steps: Products with the curvature for each function of it, at least 1.

    Raises:
        InputError: If there is no segment, or the segments have different members.
    """
    if not segments:
        raise InputError("segments is empty, expected at least one (the pretrained ensemble).")
    if len({segment.ensemble.ids for segment in segments}) > 1:
        raise InputError("the segments have different members, expected the same members at several times.")
    for segment in segments:
        positive(time=min(segment.time, 1e300))
    forget.check(task)
    ensemble = segments[-1].ensemble
    parts = by_members(lambda part: _unroll(segments, part, task, forget, steps), len(ensemble), ensemble.device)
    return concatenate(parts)


def _unroll(segments: Sequence[Segment], part: slice, task: Task, forget: ForgetSet, steps: int) -> State:
    x, y = task.train.x, task.train.y
    gone, kept = torch.from_numpy(forget.indices), torch.from_numpy(forget.retain)
    decay, size = task.recipe.weight_decay, len(kept)
    rows, each = represent(kept)
    moved: State | None = None
    for segment in segments:
        linearised = Linearised(segment.ensemble[part])
        operator = damped(linearised, x[rows], decay * size, each)
        pull = combine(linearised.gradient(x[gone], y[gone]), linearised.params, decay * len(gone))
        if moved is not None:
            pull = combine(pull, operator(moved), -1.0)
        approach = functools.partial(_approach, rate=segment.time / size)
        step = matrix_function(linearised, operator, pull, approach, steps)
        moved = step if moved is None else combine(moved, step, 1.0)
    assert moved is not None
    return moved


def _approach(h: Tensor, rate: float) -> Tensor:
    """Return (1 - exp(-rate h)) / h, which is `rate` at h = 0 and 1 / h for an infinite rate."""
    if math.isinf(rate):
        return 1 / h.clamp_min(1e-12)
    small = h * rate < 1e-8
    safe = torch.where(small, torch.ones_like(h), h)
    return torch.where(small, torch.full_like(h, rate), -torch.expm1(-rate * safe) / safe)
