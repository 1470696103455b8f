"""SCRUB: push a student away from its frozen teacher on F, and hold it there on R.

With d(x; theta) = T^2 KL( softmax(f_teacher(x) / T) || softmax(f_theta(x) / T) ):

    max pass over F, in epochs t <= msteps:   climb  mean_F d
    min pass over R, in every epoch:          descend  gamma * cross-entropy + alpha * d

Source: Kurmanji et al., "Towards Unbounded Machine Unlearning" (arXiv 2302.09880), sec. 3 and the official code: T = 4,
gamma .99, alpha .001, msteps 2, lr 5e-4 with decay .1 at epochs 3, 5, 9, momentum .9, weight decay 5e-4.
What moves is the student. (In one public benchmark the optimiser holds the teacher's weights, and nothing is learned.)
With `loss="continuous_categorical"` d is another distance, see `distillation`.
At the start student and teacher agree, d is at its minimum, and without noise the first max pass cannot move anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.core import ForgetSet, InputError, Network, Recipe, Task
from expunge.core.checks import between, non_negative, positive
from expunge.core.outcomes import Outcome
from expunge.core.renamed import renamed
from expunge.ensembles import Descent, Loss, WrittenLoss, cross_entropy, cross_entropy_with_gradient
from expunge.methods.distillation import FromTeacher, Matching, check_matching, distance_of
from expunge.methods.method import Method, OptimizerOption, Raises, Trained, first_epochs
from expunge.methods.problem import FORWARD_SHARE, Checkpoint, Problem, Treatment


@renamed("batch", "forget_batch")
@dataclass(frozen=True, kw_only=True)
class Scrub(Trained):
    """Maximise the divergence from the teacher on F while staying close to it and to the labels on R."""

    lr: float = 5e-4
    """Learning rate of both passes, at least 0 (official code: 5e-4)."""
    epochs: int = 10
    """Epochs, at least 1; each has a min pass over R (paper's grid in 2509.26427: 5, 7, 10)."""
    msteps: int | None = None
    """Epochs that begin with a max pass over F, from 0 to `epochs` (official code: 2 or 3); left out, 3 or all of
    fewer."""
    batch_size: int = 64
    """Retain examples a step, at least 1 (official code: 128 or 32)."""
    forget_batch_size: int = 64
    """Forget examples a step, at least 1 (official code: 32 or 16)."""
    temperature: float = 4.0
    """T, above 0 (official code: 4)."""
    loss: Matching = "kl"
    """The d above: `kl` (official code) or, for classes, `continuous_categorical`."""
    gamma: float = 0.99
    """Weight of the cross-entropy on R, at least 0 (official code: .99)."""
    alpha: float = 0.1
    """Weight of the distillation on R, at least 0 (official code: .001; data-unlearning-bench: .1)."""
    decay: float = 0.1
    """Factor on the rate at each of `decay_epochs`, above 0 (official code: .1)."""
    decay_epochs: tuple[int, ...] = ()
    """Epochs before which the rate is multiplied by `decay` (official code: 3, 5, 9)."""
    momentum: float = 0.9
    """Momentum of SGD, or the first beta of Adam, 0 to 1 (official code: .9)."""
    weight_decay: float = 5e-4
    """L2 coefficient, at least 0 (official code: 5e-4)."""
    statistics: Treatment = "frozen"
    """Normalisation statistics of the student: `frozen`, `updated` or `recalibrated`; the teacher's never move."""
    optimizer: OptimizerOption = "recipe"
    """`sgd`, `adam`, `adamw`, or `recipe`: the one that trained the models."""

    name: ClassVar[str] = "scrub"
    label: ClassVar[str] = "SCRUB"
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite", "visited", "ascended")
    raises: ClassVar[Raises] = "forget divergence"

    def __post_init__(self) -> None:
        """Check the options."""
        self.check_steps()
        non_negative(gamma=self.gamma, alpha=self.alpha)
        positive(temperature=self.temperature, decay=self.decay)
        between(0, 1e15, temperature=self.temperature)  # float32 holds its square
        first_epochs(self, 3, "msteps")
        self._check_decay()

    def _check_decay(self) -> None:
        came = self.decay_epochs
        if not isinstance(came, tuple | list) or any(
            isinstance(epoch, bool) or not isinstance(epoch, int) or not 1 <= epoch <= self.epochs for epoch in came
        ):
            raise InputError(
                f"decay_epochs = {came!r}, expected a tuple of whole numbers from 1 to {self.epochs} (epochs), such as "
                "(1,); () never lowers the rate."
            )
        object.__setattr__(self, "decay_epochs", tuple(came))

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Both sets are visited."""
        return {"forget": self.forget_batch_size, "retain": self.batch_size}

    def planned_examples(self, forget: int, retain: int) -> float:
        """Return what all passes visit, and the teacher's pass forward."""
        return (self.msteps or 0) * forget + self.epochs * retain + FORWARD_SHARE * (forget + retain)

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse, besides, a distance that the outcome does not know."""
        super().check(network, task, forget)
        check_matching(self.loss, task)

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint after every epoch."""
        student = self.descent(problem)
        distance = distance_of(problem.outcome, self.temperature, self.loss)
        teacher = _teacher_logits(problem, student)
        on_forget = teacher[:, problem.forget]
        away, keep = FromTeacher(teacher, distance), Keeping(teacher, distance, problem.outcome, self)
        lr = self.lr
        for epoch in range(1, self.epochs + 1):
            if epoch in self.decay_epochs:
                lr *= self.decay
            noise = problem.noise(epoch)
            if epoch <= (self.msteps or 0):
                before = distance(problem.logits(student, problem.forget), on_forget)
                size = self.forget_batch_size
                problem.take_pass(student, "forget", epoch, size, lr, objective=away, ascend=True, noise=noise)
                problem.raised(before, distance(problem.logits(student, problem.forget), on_forget))
            problem.take_pass(student, "retain", epoch, self.batch_size, lr, objective=keep, noise=noise)
            yield problem.checkpoint(epoch, student, self.statistics)

    def keep(self, outcome: Outcome, distance: Loss, teacher: Tensor) -> Loss:
        """Return what a step of a min pass descends, given the teacher's outputs on its batch."""
        if isinstance(distance, WrittenLoss):
            return Keep(self.gamma, self.alpha, distance, teacher)

        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            return self.gamma * outcome.loss(outputs, targets).mean(1) + self.alpha * distance(outputs, teacher)

        return loss

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return rates across what works, with few or many max passes."""
        shares, msteps = (0.1, 0.3, 1.0, 3.0), (3, 5)
        return [
            cls(
                lr=share * recipe.lr,
                epochs=7,
                msteps=steps,
                batch_size=recipe.batch_size,
                forget_batch_size=recipe.batch_size,
            )
            for share in shares
            for steps in msteps
        ]


@dataclass(frozen=True)
class Keep(WrittenLoss):
    """What a min pass descends: gamma * cross-entropy + alpha * divergence from the teacher's logits of the batch."""

    gamma: float
    alpha: float
    distance: WrittenLoss
    teacher: Tensor

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the weighted losses against labels (members, batch)."""
        return self.gamma * cross_entropy(logits, target) + self.alpha * self.distance(logits, self.teacher)

    def slope(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return their gradient."""
        _, to_labels = cross_entropy_with_gradient(logits, target)
        return to_labels.mul_(self.gamma).add_(self.distance.slope(logits, self.teacher), alpha=self.alpha)


@dataclass(frozen=True)
class Keeping(FromTeacher):
    """What a min pass descends."""

    outcome: Outcome
    method: Scrub

    @property
    def weights(self) -> tuple[float, float]:
        """Those of the options."""
        return self.method.gamma, self.method.alpha

    def of_batch(self, index: Tensor, labels: Tensor, shares: Tensor) -> tuple[Loss, Tensor]:
        """Return the whole loss, with the labels."""
        distance, rows = super().of_batch(index, labels, shares)
        return self.method.keep(self.outcome, distance, rows), labels


def _teacher_logits(problem: Problem, student: Descent) -> Tensor:
    # The teacher is the pretrained model and never changes: its outputs are computed once, (members, train, classes).
    examples = torch.arange(len(problem.y))
    problem.forward_only(len(examples))
    return problem.logits(student, examples)
