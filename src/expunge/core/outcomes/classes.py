"""One of several classes: cross-entropy, and the margin as the compared number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.core.errors import InputError
from expunge.core.margins import margins_from_logits
from expunge.core.outcomes.outcome import Outcome, alike, log_mean_probability, numbers, shared

FEW = 64
"""Classes up to which log-softmax is several times faster along examples than along classes."""


@dataclass(frozen=True, kw_only=True)
class Classes(Outcome):
    """Targets are class numbers, or words; outputs are logits (members, examples, classes)."""

    classes: int | None = None
    """Number of classes K; None until the model's outputs or the labels tell."""
    labels: tuple[str, ...] = ()
    """The words that stand for classes 0, 1, ...; empty where labels are numbers."""

    name: ClassVar[str] = "classes"
    statistic_name: ClassVar[str] = "margin"
    utility_name: ClassVar[str] = "accuracy"
    has_groups: ClassVar[bool] = True

    def read(self, targets: Any, part: str) -> Tensor:
        """Return labels as int64 class numbers, (examples,); words are numbered in alphabetical order."""
        words = _words(targets)
        if words is not None:
            if not self.labels and part != "train":
                raise InputError(
                    f"{part} labels are words (first: {words[0][:20]!r}), expected class numbers 0, 1, 2, ..., as the "
                    "training labels are."
                )
            return self._numbered(words, part)
        y = numbers(targets, part)
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if y.ndim != 1:
            raise InputError(
                f"{part} labels have shape {tuple(y.shape)}, expected (examples,) with class numbers, not one-hot; for "
                "several labels an example write outcome='labels'."
            )
        if y.is_complex() or (y.is_floating_point() and not bool((y == y.round()).all())):
            raise InputError(
                f"{part} labels are fractional, expected class numbers 0, 1, 2, ...; for real targets write "
                "outcome='regression'."
            )
        return y.long().contiguous()

    def named(self, targets: Any) -> Classes:
        """Return the outcome that knows the words of the training labels; itself where they are numbers."""
        words = _words(targets)
        return self if words is None else replace(self, labels=tuple(sorted(set(words))))

    def _numbered(self, words: Sequence[str], part: str) -> Tensor:
        place = {word: number for number, word in enumerate(self.labels or sorted(set(words)))}
        strange = sorted(set(words) - set(place))
        if strange:
            raise InputError(
                f"{part} has the label {strange[0]!r}, expected one of the training labels: {list(place)}."
            )
        return torch.tensor([place[word] for word in words])

    def fitted(self, targets: Tensor, outputs: Tensor) -> Classes:
        """Take K from the model, which may know more classes than the training labels show."""
        if int(targets.min()) == int(targets.max()):
            raise InputError(
                "train has one class only, expected at least 2: a margin compares the true class with others."
            )
        if self.classes is not None:
            return self
        seen = max(int(targets.max()) + 1, len(self.labels))
        return replace(self, classes=max(seen, outputs.shape[-1]) if outputs.ndim == 2 else seen)

    def output_shape(self, targets: Tensor) -> tuple[int, ...]:
        """Return (K,), from the labels where `classes` does not say it."""
        return (self.classes or max(int(targets.max()) + 1, len(self.labels)),)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        """Refuse outputs that are not (examples, K), labels outside 0 to K - 1, and a single class."""
        known = outputs.shape[-1] if self.classes is None else self.classes
        low, high = int(targets.min()), int(targets.max())
        wrong = outputs.ndim != 2 or outputs.shape[-1] != known
        if low == 1 and high == outputs.shape[-1] and (wrong or high >= known):
            raise InputError(f"labels run from 1 to {high}, expected 0 to {high - 1}; subtract 1.")
        if low < 0 or high >= known:
            raise InputError(f"labels run from {low} to {high}, expected 0 to {known - 1} (classes = {known}).")
        if wrong:
            raise InputError(
                f"model()(x) for {len(outputs)} examples returned {tuple(outputs.shape)}, expected logits of shape "
                f"({len(outputs)}, {known}). Change the last layer, or pass classes=; for one logit an example write "
                "outcome='binary', for real targets outcome='regression'."
            )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of every example, in nats."""
        y = shared(targets, outputs, 1)
        if outputs.shape[-1] <= FEW:
            log_p = F.log_softmax(outputs.transpose(1, 2), 1).transpose(1, 2)
        else:
            log_p = F.log_softmax(outputs, 2)
        return F.nll_loss(log_p.flatten(0, 1), y.flatten(), reduction="none").view(outputs.shape[:2])

    def statistic(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return margins: logit of the true class minus log-sum-exp of the others, in nats."""
        if targets.ndim == 1:
            return margins_from_logits(outputs, targets).double()
        flat = margins_from_logits(outputs.flatten(0, 1), targets.flatten())
        return flat.view(outputs.shape[:2]).double()

    def utility(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the accuracy, 0 to 1; an example whose logits are not all finite counts as wrong."""
        y = shared(targets, outputs, 1)
        largest = outputs.amax(-1, keepdim=True)
        # The place of the largest takes many times longer to find than the largest itself; ties need it.
        if bool(torch.isfinite(outputs.sum())) and int((outputs == largest).sum()) == largest.numel():
            right = (outputs.gather(-1, y.unsqueeze(-1)) == largest).squeeze(-1)
        else:
            right = (outputs.argmax(-1) == y) & torch.isfinite(outputs).all(-1)
        return right.double().mean(1)

    def mean_prediction(self, outputs: Tensor) -> Tensor:
        """Return the logarithm of the mean probability of each class."""
        return log_mean_probability(outputs)

    def agreement(self, outputs: Tensor, others: Tensor, targets: Tensor) -> Tensor:
        """Return the share of examples with the same most likely class."""
        return alike(outputs.argmax(-1), others.argmax(-1))

    def groups(self, targets: Tensor) -> Tensor:
        """Return the labels."""
        return targets


def _words(targets: Any) -> list[str] | None:
    """Return labels that are words, or None where they are numbers."""
    if isinstance(targets, Tensor):
        return None
    try:
        array = np.asarray(targets)
    except (TypeError, ValueError):  # ragged: reading it as numbers says so
        return None
    objects = array.flat if array.dtype == object else ()
    if array.ndim == 0 or not (array.dtype.kind in "US" or any(isinstance(value, str) for value in objects)):
        return None
    if array.ndim != 1:
        raise InputError(f"labels are words of shape {array.shape}, expected (examples,).")
    words = array.astype(np.str_).tolist() if array.dtype.kind in "US" else array.tolist()
    strange = [row for row, word in enumerate(words) if not isinstance(word, str)]
    if strange:
        raise InputError(
            f"{len(strange)} labels are no words among words (first: {words[strange[0]]!r} in row {strange[0]}); "
            "expected a word for every example: name or leave out what is missing."
        )
    return [str(word) for word in words]
