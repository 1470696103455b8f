"""Several labels an example, each there or not: logistic loss averaged over labels, and the mean signed logit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.core.errors import InputError
from expunge.core.outcomes.outcome import Outcome, alike, log_mean_odds, numbers, shared


@dataclass(frozen=True, kw_only=True)
class Labels(Outcome):
    """Targets are (examples, labels) of 0 and 1; outputs are logits of the same shape for every member."""

    name: ClassVar[str] = "labels"
    statistic_name: ClassVar[str] = "mean margin"
    utility_name: ClassVar[str] = "accuracy"

    def read(self, targets: Any, part: str) -> Tensor:
        """Return targets as int64 zeros and ones, (examples, labels)."""
        y = numbers(targets, part)
        if y.ndim != 2 or not bool(((y == 0) | (y == 1)).all()):
            raise InputError(f"{part} targets have shape {tuple(y.shape)}, expected (examples, labels) of 0 and 1.")
        return y.long().contiguous()

    def output_shape(self, targets: Tensor) -> tuple[int, ...]:
        """Return (labels,)."""
        return tuple(targets.shape[1:])

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        """Refuse outputs that are not one logit a label."""
        if outputs.shape[1:] != targets.shape[1:]:
            raise InputError(
                f"model()(x) for {len(outputs)} examples returned {tuple(outputs.shape)}, expected one logit a label: "
                f"({len(outputs)}, {targets.shape[1]}). Change the last layer."
            )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the logistic loss of every example, averaged over its labels, in nats."""
        y = shared(targets, outputs, 2).to(outputs.dtype)
        return F.binary_cross_entropy_with_logits(outputs, y, reduction="none").mean(-1)

    def statistic(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the logits, negated where the label is absent, averaged over labels, in nats."""
        z = outputs.double()
        return torch.where(shared(targets, z, 2) == 1, z, -z).mean(-1)

    def utility(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the share of labels that are right, 0 to 1."""
        right = ((outputs > 0) == (shared(targets, outputs, 2) == 1)) & torch.isfinite(outputs)
        return right.double().mean((1, 2))

    def mean_prediction(self, outputs: Tensor) -> Tensor:
        """Return the log-odds of the mean probability of each label."""
        return log_mean_odds(outputs)

    def agreement(self, outputs: Tensor, others: Tensor, targets: Tensor) -> Tensor:
        """Return the share of labels that both give, or both do not."""
        return alike(outputs > 0, others > 0)
