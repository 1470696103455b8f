"""The loss of PRMQ: cross-entropy with weights of classes, and the squared change of each output's entropy.

    sum_B w_y l / sum_B w_y  +  weight * mean_B (H(p) - H(p_0))^2          w_c = (rows of class c in R)^(-power)

p_0 are the probabilities of the pretrained model. Source: the PRMQ entry of the unlearning competition at NeurIPS 2023
(power .1; weight 1), as the public code of arXiv 2410.01276 runs it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.ensembles.losses import Loss, Objective
from expunge.methods.problem import Problem


@dataclass(frozen=True)
class EntropyKept(Objective):
    """Cross-entropy with weights of classes, and a penalty on entropies that change."""

    entropies: Tensor
    """Of the pretrained outputs, (members, training examples); empty where the weight is 0."""
    classes: Tensor
    """Weight of each class, (classes,)."""
    weight: float
    """Of the penalty, at least 0."""

    @classmethod
    def of(cls, problem: Problem, weight: float, power: float) -> EntropyKept:
        """Read the pretrained outputs, which is entered in the ledger as a pass forward over R, and count classes.

        Args:
            problem: Whose pretrained models and retain set.
            weight: Of the penalty, at least 0.
            power: Of the number of rows that a class has, at least 0; 0 weighs all classes alike.
        """
        retain = problem.retain.to(problem.y.device)
        counts = torch.bincount(problem.y[retain], minlength=problem.task.classes).clamp(min=1)
        outputs = problem.start.logits(problem.x).to(problem.x.device) if weight else torch.empty(0, 0, 1)
        problem.forward_only(len(retain) if weight else 0)
        kind = next(iter(problem.start.params.values())).dtype
        return cls(entropy(outputs), counts.to(kind) ** -power, weight)

    def of_batch(self, index: Tensor, labels: Tensor, shares: Tensor) -> tuple[Loss | None, Tensor]:
        """Return the loss, and the labels."""
        before = self.entropies.gather(1, index.to(self.entropies.device)) if self.weight else None

        def loss(logits: Tensor, y: Tensor) -> Tensor:
            each = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(y.shape)
            own = self.classes.to(each)[y]
            found = (own * each).sum(1) / own.sum(1)
            if before is None:
                return found
            return found + self.weight * (entropy(logits) - before).square().mean(1)

        return loss, labels


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy of the probabilities that logits (..., classes) stand for, in nats.

    >>> entropy(torch.zeros(1, 2)).tolist() == [torch.tensor(2.0).log().item()]
    True
    """
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)
