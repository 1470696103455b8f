"""Yes or no from one logit: logistic loss, and the signed logit as the compared number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.core.errors import InputError
from expunge.core.outcomes.outcome import Outcome, alike, log_mean_odds, numbers, shared


@dataclass(frozen=True, kw_only=True)
class Binary(Outcome):
    """Targets are 0 or 1; outputs are one logit of class 1, (members, examples) or (members, examples, 1)."""

    name: ClassVar[str] = "binary"
    statistic_name: ClassVar[str] = "margin"
    utility_name: ClassVar[str] = "accuracy"
    has_groups: ClassVar[bool] = True

    def read(self, targets: Any, part: str) -> Tensor:
        """Return targets as int64 zeros and ones, (examples,)."""
        y = numbers(targets, part)
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if y.ndim != 1 or not bool(((y == 0) | (y == 1)).all()):
            raise InputError(
                f"{part} targets of outcome 'binary' have shape {tuple(y.shape)}, expected (examples,) of 0 and 1."
            )
        return y.long().contiguous()

    def output_shape(self, targets: Tensor) -> tuple[int, ...]:
        """Return (): one logit."""
        return ()

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        """Refuse outputs that are not one logit an example."""
        if outputs.shape not in ((len(outputs),), (len(outputs), 1)):
            raise InputError(
                f"model()(x) for {len(outputs)} examples returned {tuple(outputs.shape)}, expected one logit an "
                "example for outcome='binary'. Change the last layer, or write outcome='classes'."
            )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the logistic loss of every example, in nats."""
        z = _one(outputs)
        return F.binary_cross_entropy_with_logits(z, shared(targets, z, 1).to(z.dtype), reduction="none")

    def statistic(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the logit, negated where the target is 0: the margin between two classes, in nats."""
        z = _one(outputs).double()
        return torch.where(shared(targets, z, 1) == 1, z, -z)

    def utility(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the accuracy, 0 to 1; a logit that is not finite counts as wrong."""
        z = _one(outputs)
        return (((z > 0) == (shared(targets, z, 1) == 1)) & torch.isfinite(z)).double().mean(1)

    def mean_prediction(self, outputs: Tensor) -> Tensor:
        """Return the log-odds of the mean probability."""
        return log_mean_odds(outputs)

    def agreement(self, outputs: Tensor, others: Tensor, targets: Tensor) -> Tensor:
        """Return the share of examples whose logits are on the same side of 0."""
        return alike(_one(outputs) > 0, _one(others) > 0)

    def groups(self, targets: Tensor) -> Tensor:
        """Return the targets."""
        return targets


def _one(outputs: Tensor) -> Tensor:
    return outputs.squeeze(-1) if outputs.ndim == 3 else outputs
