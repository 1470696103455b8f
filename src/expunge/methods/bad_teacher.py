"""Bad teaching: follow the pretrained model on R, and a model that was never trained on F.

    theta <- theta - lr * grad mean_{B of F and some of R} [ (1 - l) T^2 KL(good || theta) + l T^2 KL(bad || theta) ]

with l = 1 on F and 0 on R, KL of softmax outputs at temperature T, the good teacher the pretrained model, the bad one a
model of the same architecture with weights drawn anew, each member's from a seed of its own. F and a share of R are
shuffled together, so that a batch has some of both. No label is read.

Source: Chundawat et al., "Can Bad Teaching Induce Forgetting?" (arXiv 2205.08096), sec. 4, and its code: T 1, one epoch
of Adam at rate 1e-4, batches of 256, 30 % of R. Differs from the source: every epoch takes another 30 % of R (the code
draws them once, which is the same for one epoch). In one public benchmark the bad teacher is a ResNet-18 whatever the
student is; here it is what the task's model factory builds. The good teacher's outputs on R and the bad one's on F are
computed once: a pass forward over D.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.core import ForgetSet, InputError, Network, Recipe, Task
from expunge.core.checks import between, positive
from expunge.core.seeds import derive
from expunge.ensembles.initialise import initialise
from expunge.ensembles.plan import check_batch_norm
from expunge.methods.distillation import FromTeacher, Matching, check_matching, distance_of
from expunge.methods.method import Method, OptimizerOption, Trained
from expunge.methods.problem import FORWARD_SHARE, Checkpoint, Problem, Treatment


@dataclass(frozen=True, kw_only=True)
class BadTeacher(Trained):
    """Distil the pretrained model on the retain set and a freshly drawn one on the forget set."""

    lr: float = 1e-4
    """Learning rate, at least 0 (source: 1e-4, of Adam)."""
    epochs: int = 1
    """Passes over F and the share of R, at least 1 (source: 1)."""
    retain_share: float = 0.3
    """Share of R that an epoch visits, above 0, at most 1 (source: .3)."""
    temperature: float = 1.0
    """T, above 0 (source: 1)."""
    loss: Matching = "kl"
    """What student and teacher are compared by: `kl` (source) or, for classes, `continuous_categorical`."""
    batch_size: int = 256
    """Examples of both sets a step, at least 1 (source: 256)."""
    momentum: float = 0.9
    """First beta of Adam, or momentum of SGD, 0 to 1 (source: .9)."""
    weight_decay: float = 0.0
    """L2 coefficient, at least 0 (source: 0)."""
    statistics: Treatment = "frozen"
    """Normalisation statistics of the student: `frozen`, `updated` (source) or `recalibrated`."""
    optimizer: OptimizerOption = "adam"
    """`sgd`, `adam` (source), `adamw`, or `recipe`: the one that trained the models."""

    name: ClassVar[str] = "bad_teacher"
    label: ClassVar[str] = "Bad teacher"
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite", "visited")
    forecastable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        self.check_steps()
        positive(retain_share=self.retain_share, temperature=self.temperature)
        between(0.0, 1.0, retain_share=self.retain_share)
        between(0, 1e15, temperature=self.temperature)  # float32 holds its square

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse a model that is never random, an outcome that the loss does not know, or a batch of one."""
        check_matching(self.loss, task)
        if self.statistics == "updated":
            check_batch_norm(network, len(forget) + self._kept(len(forget.retain)), self.batch_size)
        one, other = (dict(task.build(seed).named_parameters()) for seed in (0, 1))
        if all(torch.equal(tensor, other[name]) for name, tensor in one.items()):
            raise InputError(
                f"bad_teacher needs a model with weights drawn anew, and the model of {task.name} has the same weights "
                "whatever the seed; expected a factory that builds an untrained model, or another method."
            )

    def _kept(self, retain: int) -> int:
        return max(1, round(self.retain_share * retain))

    def planned_examples(self, forget: int, retain: int) -> float:
        """Return what all epochs visit, and the teachers' passes forward."""
        return self.epochs * (forget + self._kept(retain)) + FORWARD_SHARE * (forget + retain)

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint after every epoch."""
        student = self.descent(problem)
        teachers = teacher_outputs(problem)
        follow = FromTeacher(teachers, distance_of(problem.outcome, self.temperature, self.loss))
        for epoch in range(1, self.epochs + 1):
            order, noise = problem.joint_order(epoch, self.retain_share), problem.noise(epoch)
            problem.take(student, order, self.batch_size, self.lr, objective=follow, noise=noise)
            yield problem.checkpoint(epoch, student, self.statistics)

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return rates across what works, with steps of the recipe's optimiser, each with some of R and with all."""
        return [
            cls(
                lr=rate * recipe.lr,
                epochs=5,
                retain_share=share,
                batch_size=recipe.batch_size,
                optimizer="recipe",
            )
            for rate in (0.03, 0.1, 0.3, 1.0)
            for share in (0.3, 1.0)
        ]


def teacher_outputs(problem: Problem) -> Tensor:
    """Return what each member is to put out: its own outputs on R, those of a freshly drawn model on F.

    Args:
        problem: What is unlearned; the passes forward are entered in its ledger.

    Returns:
        Shape (members, training examples, ...).
    """
    start, device = problem.start, problem.x.device
    fresh = initialise(problem.task, [derive(seed, "teacher") for seed in problem.seeds])
    params, buffers = (
        {name: drawn[name].to(tensor) for name, tensor in own.items()}
        for drawn, own in zip(fresh, (start.params, start.buffers), strict=True)
    )
    bad = start.with_state(params, buffers)
    parts = [(start, problem.retain), (bad, problem.forget)]
    outputs = [(examples, ensemble.logits(problem.x[examples.to(device)])) for ensemble, examples in parts]
    shape = outputs[0][1].shape
    found = torch.zeros(shape[0], len(problem.y), *shape[2:], dtype=outputs[0][1].dtype)
    for examples, own in outputs:
        problem.forward_only(len(examples))
        found[:, examples] = own
    return found.to(device)
