"""How far a student's outputs are from its teacher's: what SCRUB climbs and descends, and what bad teaching descends.

    kl                        T^2 KL( softmax(f_teacher / T) || softmax(f_student / T) )
    continuous_categorical    the same of two laws on the simplex, see `continuous_categorical`

Outputs that are not logits of classes or tokens are compared by half their mean squared difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from expunge.core import InputError, Outcome, Task
from expunge.core.outcomes import Classes, Sequences
from expunge.ensembles import Loss, Objective, WrittenLoss
from expunge.ensembles.batches import gather_own
from expunge.ensembles.chain import DISTIL, Known
from expunge.methods.continuous_categorical import ContinuousCategorical

Matching = Literal["kl", "continuous_categorical"]
"""What student and teacher are compared by."""


def distance_of(outcome: Outcome, temperature: float, matching: Matching = "kl") -> Loss:
    """Return the distance of a student's outputs from its teacher's, from (members, batch, ...) each to (members,).

    Args:
        outcome: What outputs mean.
        temperature: T, above 0; only logits are divided by it.
        matching: Which distance; `continuous_categorical` for classes alone.
    """
    if isinstance(outcome, Classes):
        return ContinuousCategorical(temperature) if matching == "continuous_categorical" else Divergence(temperature)
    if isinstance(outcome, Sequences):
        return lambda outputs, teacher: divergence(outputs, teacher, temperature)
    return lambda outputs, teacher: (outputs - teacher).square().flatten(1).mean(1) / 2


def check_matching(matching: Matching, task: Task) -> None:
    """Refuse a distance between laws on the simplex of classes where outputs are something else.

    Raises:
        InputError: If the outcome is not one of several classes.
    """
    if matching == "continuous_categorical" and not isinstance(task.outcome, Classes):
        raise InputError(
            f"loss = 'continuous_categorical' compares logits of classes, and the outcome of {task.name} is "
            f"{task.outcome.name!r}; expected loss='kl'."
        )


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(teacher || student) of each member, averaged over examples.

    Args:
        student: Logits, shape (members, examples, classes).
        teacher: Logits, the same shape.
        temperature: T, above 0.

    Returns:
        Shape (members,), in nats.
    """
    p = F.log_softmax(teacher / temperature, dim=-1)
    q = F.log_softmax(student / temperature, dim=-1)
    return temperature**2 * (p.exp() * (p - q)).sum(-1).flatten(1).mean(-1)


@dataclass(frozen=True)
class Divergence(WrittenLoss):
    """`divergence` of classes with its gradient, T (softmax(student / T) - softmax(teacher / T)) / examples."""

    temperature: float

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the divergence from the teacher's logits (members, batch, classes)."""
        return divergence(logits, target, self.temperature)

    def slope(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return its gradient."""
        # Classes before examples: softmax along a short last axis is several times slower.
        theirs, own = (F.softmax(z.transpose(1, 2) / self.temperature, 1) for z in (target, logits))
        return own.sub_(theirs).mul_(self.temperature / logits.shape[1]).transpose(1, 2)


@dataclass(frozen=True)
class FromTeacher(Objective):
    """The distance of a student's outputs from its teacher's, which are computed once."""

    teacher: Tensor
    """Outputs of the teacher, (members, train, ...)."""
    distance: Loss

    @property
    def weights(self) -> tuple[float, float]:
        """Weights of the cross-entropy and of the distance."""
        return 0.0, 1.0

    @property
    def known(self) -> Known | None:
        """The divergence of classes, with cross-entropy or without."""
        if not isinstance(self.distance, Divergence):
            return None
        return Known(DISTIL, self.teacher, (*self.weights, self.distance.temperature))

    def of_batch(self, index: Tensor, labels: Tensor, shares: Tensor) -> tuple[Loss, Tensor]:
        """Return the distance, with the teacher's rows."""
        return self.distance, gather_own(self.teacher, index)
