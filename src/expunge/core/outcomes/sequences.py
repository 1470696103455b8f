"""A token at every place of a sequence: cross-entropy and log-likelihood a token, over the places that count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.core.errors import InputError
from expunge.core.outcomes.outcome import Outcome, log_mean_probability, numbers, shared

IGNORED = -100
"""The target of a place that does not count, such as a prompt or padding (PyTorch's `ignore_index`)."""


@dataclass(frozen=True, kw_only=True)
class Sequences(Outcome):
    """Targets are token numbers (examples, places), -100 where a place does not count; outputs have a logit a token."""

    name: ClassVar[str] = "sequences"
    statistic_name: ClassVar[str] = "log-likelihood a token"
    utility_name: ClassVar[str] = "token accuracy"

    def read(self, targets: Any, part: str) -> Tensor:
        """Return targets as int64 token numbers, (examples, places)."""
        y = numbers(targets, part)
        if y.ndim != 2 or y.is_floating_point() or y.is_complex():
            raise InputError(
                f"{part} targets are {y.dtype} of shape {tuple(y.shape)}, expected token numbers (examples, places)."
            )
        empty = torch.nonzero((y == IGNORED).all(1)).flatten()
        if len(empty):
            raise InputError(f"{part} has {len(empty)} sequences without a token that counts (first: {int(empty[0])}).")
        return y.long().contiguous()

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        """Refuse outputs that are not (examples, places, tokens), and tokens that have no logit."""
        if outputs.ndim != 3 or outputs.shape[1] != targets.shape[1]:
            raise InputError(
                f"model()(x) for {len(outputs)} examples returned {tuple(outputs.shape)}, expected ({len(outputs)}, "
                f"{targets.shape[1]}, tokens): a logit for every token at every place."
            )
        counted = targets[targets != IGNORED]
        if int(counted.min()) < 0 or int(counted.max()) >= outputs.shape[2]:
            raise InputError(
                f"targets run from {int(counted.min())} to {int(counted.max())}, expected 0 to {outputs.shape[2] - 1}, "
                f"or {IGNORED} for places that do not count."
            )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy a counted token of every example, in nats."""
        y = shared(targets, outputs, 2)
        flat = F.cross_entropy(outputs.flatten(0, 2), y.flatten(), reduction="none", ignore_index=IGNORED)
        return flat.view(y.shape).sum(-1) / (y != IGNORED).sum(-1)

    def statistic(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean log-likelihood of the counted tokens, in nats, at most 0."""
        return -self.loss(outputs.double(), targets)

    def utility(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the share of counted tokens that are most likely under the model, 0 to 1."""
        y = shared(targets, outputs, 2)
        right = (outputs.argmax(-1) == y) & torch.isfinite(outputs).all(-1)
        return right.sum((1, 2)).double() / (y != IGNORED).sum((1, 2))

    def mean_prediction(self, outputs: Tensor) -> Tensor:
        """Return the logarithm of the mean probability of each token."""
        return log_mean_probability(outputs)

    def agreement(self, outputs: Tensor, others: Tensor, targets: Tensor) -> Tensor:
        """Return the share of counted places with the same most likely token."""
        counted = shared(targets, outputs, 2) != IGNORED
        same = (outputs.argmax(-1) == others.argmax(-1)) & counted
        return same.sum((1, 2)).double() / counted.sum((1, 2))
