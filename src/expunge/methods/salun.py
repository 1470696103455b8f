"""SalUn: random labels, with steps that move only the weights that matter for the forget set.

    s_j = | sum_{i of F} dl_i / dtheta_j |           at the pretrained weights, statistics stored, without dropout
    m_j = 1 if s_j is among the top share of all trainable weights together, else 0
    theta_j <- theta_j + m_j * (the step of random labels)_j         in each step, on F and on R

A weight outside the mask stays as it was trained to the last bit. (In public code it does not: the gradient is
multiplied by the mask, and weight decay, which is added after that, moves every weight.) Weights that tie with the last
one in the mask are in it; a weight that the loss on F does not depend on (s_j = 0) is in no mask but that of share 1,
which has them all and is random labels bit by bit: batches and labels are drawn under its name.

Source: Fan et al., "SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency" (arXiv 2310.12508), sec. 4
and its code: the median as threshold (share .5), sums of signed gradients before the absolute value, lr .013, 10
epochs. Differs from the source: every example has the same weight in the sum (the code adds means of batches, so that
those of a smaller last batch weigh more); a tie does not depend on the order of the weights; the options of
`random_labels`, with its optimiser and batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.core import Recipe
from expunge.core.checks import between, positive
from expunge.core.tree import State
from expunge.ensembles import Rule, weighted
from expunge.methods.method import Method
from expunge.methods.problem import Problem
from expunge.methods.random_labels import RandomLabels

BATCH = 256
"""Forget examples whose gradients are summed at once."""


@dataclass(frozen=True, kw_only=True)
class SalUn(RandomLabels):
    """Random labels whose steps move the most salient weights alone."""

    lr: float = 0.013
    """Learning rate of both passes, at least 0 (source: .013)."""
    share: float = 0.5
    """Share of the trainable weights that move, above 0, at most 1 (source: .5)."""

    name: ClassVar[str] = "salun"
    label: ClassVar[str] = "SalUn"
    shown: ClassVar[tuple[str, ...]] = ("share", "lr")
    order: ClassVar[str] = RandomLabels.name
    forecastable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        positive(share=self.share)
        between(0.0, 1.0, share=self.share)

    def planned_examples(self, forget: int, retain: int) -> float:
        """Return what all epochs visit, and the pass over F that finds the mask."""
        return super().planned_examples(forget, retain) + (forget if self.share < 1 else 0)

    def rule(self, problem: Problem) -> Rule:
        """Return that the weights outside the mask stay where they were trained."""
        return Rule() if self.share == 1 else Rule(moving=masks(forget_gradients(problem), self.share))

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return rates across what works, each with half and a tenth of the weights."""
        return [
            cls(lr=rate * recipe.lr, share=share, batch_size=recipe.batch_size, forget_batch_size=recipe.batch_size)
            for rate in (0.03, 0.1, 0.3, 1.0)
            for share in (0.5, 0.1)
        ]


def forget_gradients(problem: Problem) -> State:
    """Return the gradient of the loss summed over the forget set, by trainable parameter, each (members, ...).

    Args:
        problem: Whose pretrained weights and forget set; the examples are entered in its ledger.
    """
    descent = problem.descent(statistics="frozen")
    total = {name: torch.zeros_like(tensor) for name, tensor in descent.trainable.items()}
    members = len(problem.start)
    for index in problem.forget.split(BATCH):
        there = index.to(problem.x.device)
        x, y = (part[there].expand(members, *part[there].shape) for part in (problem.x, problem.y))
        every = torch.ones(len(index), dtype=torch.float64, device=x.device)
        _, gradients = descent.gradients(x, y, weighted(problem.outcome, every))
        for name, own in gradients.items():
            total[name] += own
    problem.visit(problem.forget)
    return total


def masks(gradients: State, share: float) -> State:
    """Return which weights are among the top share by absolute gradient, with all that tie with the last of them.

    Args:
        gradients: By name, each (members, ...).
        share: Above 0, at most 1.

    Returns:
        Boolean tensors of the same shapes; a member's weights are compared with its own only.

    >>> masks({"a": torch.tensor([[3.0, -4.0]]), "b": torch.tensor([[1.0, 0.0]])}, 0.5)
    {'a': tensor([[True, True]]), 'b': tensor([[False, False]])}
    """
    saliency: Tensor = torch.cat([tensor.flatten(1).abs() for tensor in gradients.values()], 1)
    count = saliency.shape[1]
    kept = max(1, round(share * count))
    least = saliency.kthvalue(count - kept + 1, dim=1).values
    found = {}
    for name, tensor in gradients.items():
        own = tensor.abs()
        found[name] = (own >= least.view(-1, *[1] * (tensor.ndim - 1))) & (own > 0)
    return found
