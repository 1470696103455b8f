"""The subset models of a run: trained once in its folder, and what an audit reads off them.

Component forget sets and the targets of margin matching come from the same models, so a run pays for them once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from expunge.core import Network, Task
from expunge.core.seeds import derive
from expunge.dependence import (
    Components,
    Datamodel,
    SubsetEnsemble,
    fit_lasso,
    fit_ridge,
    principal_components,
    train_subsets,
)

SUBSETS = 1000
"""Subset models of a run."""

ALPHA = 0.5
"""Share of the training examples that each is trained on."""

LARGEST_COMPONENT = 10
"""Components that are computed; later ones are small and noisy."""

LARGEST_LASSO = 2**23
"""Weights (examples times targets) up to which LASSO is fitted; about four minutes on two cores at the most."""

Progress = Callable[[int, int], None]


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
    return principal_components(fit(training_targets(subsets)), min(LARGEST_COMPONENT, subsets.masks.shape[1] - 2))


def training_targets(subsets: SubsetEnsemble) -> SubsetEnsemble:
    """Return the subsets with the training examples as their only targets."""
    inside = subsets.own >= 0
    margins, correct = subsets.margins[:, inside], subsets.correct[:, inside]
    return replace(subsets, margins=margins, correct=correct, own=subsets.own[inside])
