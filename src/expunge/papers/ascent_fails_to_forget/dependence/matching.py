"""What the paper's own experiments take from subset models: its component forget sets, and targets of margin matching.

`expunge.methods.MarginMatching` takes its targets from the forecast; these, from datamodels, cost a thousand models.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from expunge.core import Ensemble, ForgetSet, Task
from expunge.dependence import Components, Datamodel, Removal, SubsetEnsemble, component_forget_set
from expunge.dependence.components import PAPER
from expunge.dependence.datamodels import check_full
from expunge.papers.ascent_fails_to_forget.dependence.memorisation import unseen_spread
from expunge.studies.run.subset_models import fit, training_targets


class MatchingTargets(NamedTuple):
    """What margin matching needs, and what it cost."""

    targets: Tensor
    """Predicted oracle margins of each member, shape (members, training examples)."""
    cost: float
    """Training the subset models, relative to retraining all members on R: each member's share if this forget set is
    the only one; the same models serve any number of forget sets."""
    removal: Removal
    """The predicted change and its standard error, by training example."""


def paper_forget_sets(task: Task, components: Components) -> list[ForgetSet]:
    """Return the paper's six component sets, scaled to the task: three on the first component, three on the second.

    Sizes are the paper's shares of the training examples (.02 %, .2 %, 1 %), and at least 10, 20 and 40.
    """
    return [
        component_forget_set(task, components, component, side, max(fewest, round(share * len(task.train))))
        for component in (1, 2)
        for side, share, fewest in PAPER
    ]


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
    training = training_targets(subsets)
    scale = np.ones(len(task.train))
    if widen:
        scale[forget.indices] = unseen_spread(training)[np.argsort(training.own)][forget.indices]
    mean = margins[pretrained.finite()].mean(0)
    change, factor = (torch.from_numpy(values).to(margins.dtype) for values in (removal.change, scale))
    return MatchingTargets(mean + change + factor * (margins - mean), spent, removal)
