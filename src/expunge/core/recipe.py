"""The training recipe: how a model is trained, the same for pretrained models and oracles."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from expunge.core.checks import between, non_negative, plain_arguments, plain_fields, positive, typed_fields, whole
from expunge.core.errors import InputError
from expunge.core.renamed import renamed

Optimizer = Literal["sgd", "adam", "adamw"]
Schedule = Literal["constant", "triangular", "cosine", "linear"]
Precision = Literal["float32", "float64", "bfloat16"]

PEAK, PEAK_SHARE = 5.0, 5 / 24
"""Where the triangular rate peaks unless the recipe says otherwise: the epoch, and the share of a shorter recipe."""


@renamed("batch", "optimiser")
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train one model from scratch.

    The defaults of the optimiser are those of the ResNet-9 recipe in "Ascent Fails to Forget" (arXiv 2509.26427,
    sec. 5): SGD with momentum .9, weight decay 5e-4 and a triangular rate that peaks at .4 in epoch 5 of 24.
    """

    epochs: int = 24
    """Passes over the examples, at least 1."""
    batch_size: int = 64
    """Examples a step, at least 1."""
    lr: float = 0.4
    """Peak learning rate, above 0."""
    optimizer: Optimizer = "sgd"
    """`sgd` (heavy-ball momentum), `adam`, or `adamw` (decoupled weight decay), with PyTorch's update rules."""
    momentum: float = 0.9
    """Momentum of `sgd`, or the first beta of `adam` and `adamw`; 0 to 1."""
    weight_decay: float = 5e-4
    """L2 coefficient (`sgd`, `adam`: added to the gradient; `adamw`: decoupled), at least 0."""
    schedule: Schedule = "triangular"
    """Rate over training: `constant`; `triangular` (linear from 0 up to `lr` at `peak_epoch`, then linear down to 0);
    `cosine` (from `lr` to 0); `linear` (from `lr` to 0)."""
    peak_epoch: float | None = None
    """Epoch at which the triangular rate peaks, from 0 to `epochs`; other schedules ignore it. Left out (None), it is
    5, or 5/24 of the epochs (the same share of the paper's 24) where a triangular rate has fewer than 5 of them. A
    recipe always holds, and describes itself with, the number that results."""
    precision: Precision = "float32"
    """Arithmetic: `float32`; `bfloat16` (autocast around the forward pass, weights stay float32); `float64`."""
    last_batch: Literal["keep", "drop"] = "keep"
    """Whether the incomplete batch at the end of an epoch is used."""

    def __post_init__(self) -> None:
        """Check every field, and the fields that must fit together."""
        plain_fields(self)
        whole(epochs=self.epochs, batch_size=self.batch_size)
        positive(lr=self.lr)
        between(0.0, 1.0, momentum=self.momentum)
        non_negative(weight_decay=self.weight_decay)
        typed_fields(self)
        self._place_peak()
        if self.momentum == 1.0:
            raise InputError("momentum = 1, expected less than 1: the velocity would never decay.")

    def _place_peak(self) -> None:
        triangular = self.schedule == "triangular"
        if self.peak_epoch is None:
            # Other schedules keep 5 whatever their length: the field is part of every digest of a recipe.
            peak = self.epochs * PEAK_SHARE if triangular and self.epochs < PEAK else PEAK
            object.__setattr__(self, "peak_epoch", peak)
            return
        if triangular and not 0.0 <= self.peak_epoch <= self.epochs:
            raise InputError(
                f"peak_epoch = {self.peak_epoch}, expected a number from 0.0 to {self.epochs} (epochs); leave it out, "
                "or give None, for a peak that fits; recipe.compressed(epochs) shortens a whole recipe."
            )

    @property
    def _peak(self) -> float:
        assert self.peak_epoch is not None
        return self.peak_epoch

    @plain_arguments
    def rate(self, epoch: float) -> float:
        """Return the learning rate after `epoch` epochs (a fraction of an epoch is allowed).

        >>> Recipe(epochs=24, lr=0.4, peak_epoch=5).rate(5)
        0.4
        """
        done = min(max(epoch / self.epochs, 0.0), 1.0)
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * done))
        if self.schedule == "linear":
            return self.lr * (1 - done)
        peak = self._peak
        if epoch <= peak:
            return self.lr * (epoch / peak if peak > 0 else 1.0)
        return self.lr * (self.epochs - epoch) / (self.epochs - peak) if epoch < self.epochs else 0.0

    @plain_arguments
    def training_time(self, examples: int, first: int = 0, last: int | None = None) -> float:
        """Return how long training lasts as a gradient flow: the sum of the learning rates / (1 - momentum).

        Args:
            examples: Training examples, at least 1.
            first: Epoch at which to begin to count.
            last: Epoch at which to end; all of them by default.

        Raises:
            InputError: If the optimiser is not SGD: steps of adaptive optimisers are rescaled.

        >>> round(Recipe(epochs=30, batch_size=64, lr=0.2).training_time(1437), 1)
        690.0
        """
        if self.optimizer != "sgd":
            raise InputError(f"optimizer = {self.optimizer!r}, expected 'sgd': its time is the sum of its rates.")
        steps = self.steps_per_epoch(examples)
        epochs = range(first, self.epochs if last is None else last)
        rates = (self.rate(epoch + (step + 0.5) / steps) for epoch in epochs for step in range(steps))
        return math.fsum(rates) / (1 - self.momentum)

    @plain_arguments
    def steps_per_epoch(self, examples: int) -> int:
        """Return the number of batches that an epoch over `examples` examples takes."""
        return examples // self.batch_size if self.last_batch == "drop" else math.ceil(examples / self.batch_size)

    def full_batch(self, examples: int) -> bool:
        """Return whether every epoch is one step on all examples, and would be on fewer."""
        return self.batch_size >= examples and self.last_batch == "keep"

    @plain_arguments
    def compressed(self, epochs: int) -> Recipe:
        """Return the same recipe squeezed into fewer epochs: the schedule is stretched to fit, not cut off."""
        whole(epochs=epochs)
        return dataclasses.replace(self, epochs=epochs, peak_epoch=self._peak * epochs / self.epochs)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for specifications and records."""
        return dataclasses.asdict(self)
