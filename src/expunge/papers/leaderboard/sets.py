"""The forget sets of a leaderboard: six kinds, two of each, in sizes that are shares of the training examples.

    random               any rows
    class part           rows of one class, two classes
    cluster              a row and its nearest neighbours
    mislabelled          rows whose labels are wrong
    component            one end of a principal component of datamodels
    component, both ends both ends of it

Component sets need models that are trained on halves of the data, so tasks that train by a `fit` of their own have
none; outcomes that are not classes have neither parts of classes nor wrong labels.
"""

from __future__ import annotations

import torch

from expunge.core import InputError, Task
from expunge.core.outcomes import Classes

SMALL, LARGE = 0.02, 0.05
"""Shares of the training examples that are forgotten."""
FEWEST = 100
"""Training examples below which the small sets would have next to no rows."""


def forget_specs(task: Task) -> dict[str, str]:
    """Return specifications of forget sets, and the kind of each.

    Args:
        task: What is trained.

    Raises:
        InputError: If the task is too small.
    """
    n = len(task.train)
    if n < FEWEST:
        raise InputError(
            f"task {task.name!r} has {n} training examples, expected at least {FEWEST} for the forget sets of a "
            "leaderboard; name your own with forget."
        )
    small, large = max(5, round(SMALL * n)), round(LARGE * n)
    found = {f"{kind}:{size}": kind for kind in ("random", "cluster") for size in (small, large)}
    if isinstance(task.outcome, Classes):
        counts = torch.bincount(task.outcome.groups(task.train.y), minlength=task.classes)
        for label in counts.argsort(descending=True, stable=True)[:2].tolist():
            size = min(large, int(counts[label]) // 2)  # a calibration set of the same class must fit beside it
            if size:
                found[f"class_part:{size}:{label}"] = "class part"
        found |= {f"mislabelled:{size}": "mislabelled" for size in (small, large)}
    if task.fit is None and task.model is not None:
        found |= {f"component:{which}:{large}": "component" for which in ("1:top", "2:bottom")}
        found |= {f"component:{which}:both:{large}": "component, both ends" for which in (1, 2)}
    return found
