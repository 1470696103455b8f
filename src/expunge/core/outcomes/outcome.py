"""What every outcome is: what a task's outputs mean, how they are trained, and which number a metric compares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from expunge.core.checks import finite
from expunge.core.errors import InputError
from expunge.core.reading import as_tensor


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Base of all outcomes; the fields of a subclass are what it learned of the targets.

    Axes: outputs are (members, examples, ...), targets (examples, ...) when the examples are shared, or (members,
    examples, ...) when each member has its own.
    """

    name: ClassVar[str]
    """Name in the registry, as `Task(outcome=...)` takes it."""
    statistic_name: ClassVar[str]
    """What a plot calls the compared number."""
    utility_name: ClassVar[str]
    """What a table calls the utility."""

    has_groups: ClassVar[bool] = False
    """Whether examples fall into classes, which `groups` tells."""

    def read(self, targets: Any, part: str) -> Tensor:
        """Return a user's targets as a tensor (examples, ...).

        Args:
            targets: An array, a list, or a pandas column.
            part: How a message calls them, such as "train".

        Raises:
            InputError: If they cannot be targets of this outcome.
        """
        raise NotImplementedError

    def fitted(self, targets: Tensor, outputs: Tensor) -> Outcome:
        """Return the outcome with what it can learn from the training targets and from outputs for two examples."""
        return self

    def output_shape(self, targets: Tensor) -> tuple[int, ...]:
        """Return the shape of one example's outputs, where there is no model to tell it.

        Raises:
            InputError: If targets do not tell it.
        """
        raise InputError(f"model is None, which outcome {self.name!r} does not allow; expected a model.")

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        """Raise `InputError`, with what to change, if outputs (examples, ...) cannot be compared with targets."""
        raise NotImplementedError

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the training loss of every example, (members, examples)."""
        raise NotImplementedError

    def statistic(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the number that is compared between models, larger where the target is fitted better.

        Returns:
            (members, examples), float64; NaN or infinite where a member failed.
        """
        raise NotImplementedError

    def utility(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return how useful each member is on the examples, (members,), float64, larger is better."""
        raise NotImplementedError

    def agreement(self, outputs: Tensor, others: Tensor, targets: Tensor) -> Tensor:
        """Return on which share of examples two sets of outputs decide alike, (members,), float64.

        Args:
            outputs: (members, examples, ...).
            others: The same, of other models.
            targets: (examples, ...).

        Returns:
            0 to 1; NaN where outputs are no decisions, as for real targets.
        """
        return torch.full((len(outputs),), torch.nan, dtype=torch.float64)

    def mean_prediction(self, outputs: Tensor) -> Tensor:
        """Return outputs that stand for the mean of what several models predict.

        Args:
            outputs: (models, ...), of one model each as it puts them out.

        Returns:
            The shape of one model's.

        Raises:
            InputError: If the outcome does not say it.
        """
        raise InputError(
            f"outcome {self.name!r} does not say what several models predict together, expected one of the built-in "
            "outcomes, or a method mean_prediction."
        )

    def groups(self, targets: Tensor) -> Tensor:
        """Return a group number of every example, (examples,), int64: the class where there are classes, else 0."""
        return torch.zeros(len(targets), dtype=torch.int64)


def numbers(targets: Any, part: str) -> Tensor:
    """Return targets as finite numbers of any shape with at least one example."""
    y = as_tensor(targets, f"{part} targets")
    if y.ndim == 0 or len(y) == 0:
        raise InputError(f"{part} is empty, expected at least one example.")
    finite(y, f"{part}.y")
    return y


def log_mean_probability(logits: Tensor) -> Tensor:
    """Return the logarithm of the mean probability over models, for logits (models, ..., classes)."""
    return logits.log_softmax(-1).logsumexp(0) - math.log(len(logits))


def log_mean_odds(logits: Tensor) -> Tensor:
    """Return the log-odds of the mean probability over models, for logits (models, ...) of one answer."""
    return logsigmoid(logits).logsumexp(0) - logsigmoid(-logits).logsumexp(0)


def alike(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return the share of decisions (members, examples, ...) that are the same, (members,), float64."""
    return (ours == theirs).flatten(1).double().mean(1)


def shared(targets: Tensor, outputs: Tensor, axes: int) -> Tensor:
    """Return targets for every member: a member axis is put in front of targets that have none.

    Args:
        targets: (examples, ...) or (members, examples, ...).
        outputs: (members, examples, ...).
        axes: Axes of targets that are shared, the example axis included.
    """
    y = targets.to(outputs.device)
    return y.expand(len(outputs), *y.shape) if y.ndim == axes else y
