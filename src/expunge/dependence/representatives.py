"""A sample of what is retained that stands for all of it, where there are too many to pass over often.

The curvature of R is a sum over its examples; over a random sample S of R,

    H_R  ~  (|R| / |S|) sum over S

has the same mean. What is pulled (the gradient on F) is never sampled. A sample misses the near neighbours that F has
in R, so that what removal changes comes out too large rather than too small; how much, `benchmarks/forecast_sample.py`
says. Up to `LARGE` examples nothing is sampled.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from expunge.core import Task
from expunge.core.seeds import generator

LARGE = 8192
"""Retained examples up to which all are passed over."""

SAMPLE = 2048
"""Examples of the sample that stands for more."""

OTHERS = 1000
"""Validation examples that a smaller task keeps."""


class Represented(NamedTuple):
    """Examples that stand for others."""

    rows: Tensor
    """Their positions in the training data, rising."""
    each: float
    """How many examples each stands for, at least 1."""


def represent(kept: Tensor) -> Represented:
    """Return the examples over which the curvature of what is kept is summed.

    Args:
        kept: Positions of all that is kept.

    >>> represent(torch.arange(100)).each
    1.0
    >>> found = represent(torch.arange(40_960))
    >>> len(found.rows), found.each
    (2048, 20.0)
    """
    if len(kept) <= LARGE:
        return Represented(kept, 1.0)
    order = torch.randperm(len(kept), generator=generator(0, "representatives"))[:SAMPLE]
    return Represented(kept[order.sort().values], len(kept) / SAMPLE)


def smaller(task: Task, index: Tensor) -> tuple[Task, Tensor, Tensor | None]:
    """Return a task with the forget set and what stands for the rest, for measures that compare all examples.

    Args:
        task: The task.
        index: Positions of the forget set.

    Returns:
        The task (itself where nothing is sampled), positions of the forget set in it, and how many examples each of
        its training examples stands for (None: each for itself).
    """
    gone = torch.zeros(len(task.train), dtype=torch.bool)
    gone[index] = True
    rows, each = represent(torch.nonzero(~gone).flatten())
    if each == 1:
        return task, index, None
    few = task.validation[torch.randperm(len(task.validation), generator=generator(0, "others"))[:OTHERS]]
    both = task.train[torch.cat([index, rows])]
    counts = torch.ones(len(both), dtype=torch.float64)
    counts[len(index) :] = each
    return task.with_data(both, few), torch.arange(len(index)), counts
