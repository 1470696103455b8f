"""The subset models of a run: trained once in its folder, and what an audit reads off them.

Component forget sets and the targets of margin matching come from the same models, so a run pays for them once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from expunge.core import Ensemble, ForgetSet, Network, Task
from expunge.core.seeds import derive
from expunge.dependence import (
    Components,
    Datamodel,
    Removal,
    SubsetEnsemble,
    fit_lasso,
    fit_ridge,
    principal_components,
    train_subsets,
    unseen_spread,
)
from expunge.dependence.datamodels import check_full

SUBSETS = 1000
"""Subset models of a run."""

ALPHA = 0.5
"""Share of the training examples that each is trained on."""

LARGEST_COMPONENT = 10
"""Components that are computed; later ones are small and noisy."""

LARGEST_LASSO = 2**23
"""Weights (examples times targets) up to which LASSO is fitted; about four minutes on two cores at the most."""

Progress = Callable[[int, int], None]


class MatchingTargets(NamedTuple):
    """What margin matching needs, and what it cost."""

    targets: Tensor
    """Predicted oracle margins of each member, shape (members, training examples)."""
    cost: float
    """Training the subset models, relative to retraining all members on R: each member's share if this forget set is
    the only one; the same models serve any number of forget sets."""
    removal: Removal
    """The predicted change and its standard error, by training example."""


def task_subsets(
    task: Task,
    folder: Path,
    seed: int = 0,
    *,
    subsets: int = SUBSETS,
    device: str | torch.device = "auto",
    chunk: int | None = None,
    network: Network | None = None,
    progress: Progress | None = None,
) -> SubsetEnsemble:
    """Return the subset models of a task, kept in `subsets` in the run's folder.

    Args:
        task: The task.
        folder: The run's folder.
        seed: The study's seed.
        subsets: Number of subset models K.
        device: `auto`, `cpu`, `cuda`, or a torch device.
        chunk: Models trained together; None measures the fastest.
        network: How the stack is evaluated; None chooses.
        progress: Called with subset models done and in all.
    """
    return train_subsets(
        task,
        subsets=subsets,
        alpha=ALPHA,
        targets="all",
        seed=derive(seed, "subset models") % 2**31,
        store=Path(folder) / "subsets",
        device=device,
        chunk=chunk,
        network=network,
        progress=progress,
    )


def fit(subsets: SubsetEnsemble) -> Datamodel:
    """Return a datamodel: LASSO, which predicts better, up to `LARGEST_LASSO` weights, and ridge above."""
    weights = subsets.masks.shape[1] * len(subsets.own)
    return fit_lasso(subsets) if weights <= LARGEST_LASSO else fit_ridge(subsets)


def task_components(subsets: SubsetEnsemble) -> Components:
    """Return the leading principal components of the datamodel matrix."""
    return principal_components(fit(_training(subsets)), min(LARGEST_COMPONENT, subsets.masks.shape[1] - 2))


def matching_targets(
    task: Task,
    pretrained: Ensemble,
    forget: ForgetSet,
    subsets: SubsetEnsemble,
    model: Datamodel | None = None,
    *,
    widen: bool = True,
) -> MatchingTargets:
    """Return pretrained margins plus the change that the datamodel predicts, and what the prediction cost.

    Each member keeps its place among the others.

    Args:
        task: The task.
        pretrained: The ensemble that will be unlearned.
        forget: The forget set.
        subsets: From `task_subsets`.
        model: From `fit(subsets)`, where it is known already.
        widen: On the forget set, scale the members' deviations from their mean by how much more margins vary between
            models that have not seen an example (`unseen_spread`); False keeps the pretrained spread.

    Raises:
        InputError: If the forget set is larger than the subset models can resolve.
    """
    model = fit(subsets) if model is None else model
    everything = torch.cat([task.train.x, task.validation.x]), torch.cat([task.train.y, task.validation.y])
    # The pretrained models show what all effects have in common, which subsets of one size cannot.
    model = replace(model, full=check_full(pretrained.margins(*everything).numpy(), model.targets))
    removal = model.removal(forget)
    order = np.argsort(np.where(subsets.own >= 0, subsets.own, len(subsets.own)), kind="stable")[: len(task.train)]
    removal = Removal(*(values[order] for values in removal))
    margins = pretrained.margins(task.train.x, task.train.y)
    spent = len(subsets) * subsets.alpha * len(task.train) / (len(forget.retain) * len(pretrained))
    training = _training(subsets)
    scale = np.ones(len(task.train))
    if widen:
        scale[forget.indices] = unseen_spread(training)[np.argsort(training.own)][forget.indices]
    mean = margins[pretrained.finite()].mean(0)
    change, factor = (torch.from_numpy(values).to(margins.dtype) for values in (removal.change, scale))
    return MatchingTargets(mean + change + factor * (margins - mean), spent, removal)


def _training(subsets: SubsetEnsemble) -> SubsetEnsemble:
    """Return the subsets with the training examples as their only targets."""
    inside = subsets.own >= 0
    margins, correct = subsets.margins[:, inside], subsets.correct[:, inside]
    return replace(subsets, margins=margins, correct=correct, own=subsets.own[inside])
