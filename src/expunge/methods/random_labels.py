"""Random labels (RL): in each epoch a pass of descent on F with labels drawn at random, then a pass of descent on R.

    for epoch t = 1, 2, ...:
        y'_i ~ uniform over classes, for each i of F     in every pass, or once for all of them
        theta <- theta - lr * grad mean_{B of F} l(f_theta(x), y')       over one pass of F
        theta <- theta - lr * grad mean_{B of R} l(f_theta(x), y)        over one pass of R

Two methods go by this name, and do not end alike: labels drawn once are learned by heart, as wrong labels are; labels
drawn in every pass drive the outputs on F to the uniform ones, which retrained models do not put out for examples like
those that they know.

Source: Golatkar et al., "Eternal Sunshine of the Spotless Net" (arXiv 1911.04933), and the code of Fan et al., "SalUn"
(arXiv 2310.12508) for CIFAR-10: F before R in every epoch, any of all classes (the true one with the chance of any
other); 10 epochs at rate .01 to .1 in the benchmarks that took it over. With `include_true`
off and `redraw` "fixed" it is the relabelling of Graves et al., "Amnesiac Machine Learning" (arXiv 2010.10981).
Differs from the source: the optimiser that trained the models by default; batches of 64; every member draws labels of
its own. Momentum and decay are those of fine-tuning, and that labels are drawn again in every pass is our choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from expunge.core import Recipe
from expunge.core.seeds import generator
from expunge.ensembles import Rule
from expunge.methods.method import Method, Need, OptimizerOption, Trained
from expunge.methods.problem import Checkpoint, Problem, Treatment

Redraw = Literal["fixed", "every_pass"]
"""When labels are drawn: once for all passes, or again for each."""


@dataclass(frozen=True, kw_only=True)
class RandomLabels(Trained):
    """Alternate a pass over the forget set with random labels and a pass over the retain set with its own."""

    lr: float = 0.01
    """Learning rate of both passes, at least 0 (benchmarks: .01 to .1)."""
    epochs: int = 10
    """Epochs, at least 1; each has a pass over F and one over R (benchmarks: 10)."""
    redraw: Redraw = "every_pass"
    """When labels are drawn: `every_pass`, or `fixed`, once for all passes."""
    include_true: bool = True
    """Whether the true class may be drawn: with the chance of any other (source), or never."""
    batch_size: int = 64
    """Retain examples a step, at least 1."""
    forget_batch_size: int = 64
    """Forget examples a step, at least 1."""
    momentum: float = 0.9
    """Momentum of SGD, or the first beta of Adam, 0 to 1; the velocity is shared by both passes."""
    weight_decay: float = 5e-4
    """L2 coefficient, at least 0, as for fine-tuning."""
    statistics: Treatment = "frozen"
    """Normalisation statistics: `frozen`, `updated` (the public code) or `recalibrated`."""
    optimizer: OptimizerOption = "recipe"
    """`sgd`, `adam`, `adamw`, or `recipe`: the one that trained the models."""

    name: ClassVar[str] = "random_labels"
    label: ClassVar[str] = "Random labels"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "forget", "weights", "classes"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite", "visited")

    def __post_init__(self) -> None:
        """Check the options."""
        self.check_steps()

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Both sets are visited."""
        return {"forget": self.forget_batch_size, "retain": self.batch_size}

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint after every epoch."""
        descent = self.descent(problem)
        descent.follow(self.rule(problem))
        true = problem.y[problem.forget.to(problem.y.device)].cpu()
        for epoch in range(1, self.epochs + 1):
            noise = problem.noise(epoch)
            turn = 0 if self.redraw == "fixed" else epoch
            drawn = drawn_labels(true, problem.task.classes, problem.seeds, turn, self.include_true)

            def labels(order: Tensor, drawn: Tensor = drawn) -> Tensor:
                return drawn.gather(1, problem.place(order))

            size = self.forget_batch_size
            problem.take_pass(descent, "forget", epoch, size, self.lr, labels=labels, noise=noise)
            problem.take_pass(descent, "retain", epoch, self.batch_size, self.lr, noise=noise)
            yield problem.checkpoint(epoch, descent, self.statistics)

    def rule(self, problem: Problem) -> Rule:
        """Return the rule of all steps: here, that of the optimiser alone.

        Args:
            problem: What is unlearned.
        """
        return Rule()

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return rates across what works, each with labels drawn once and in every pass."""
        shares = (0.03, 0.1, 0.3, 1.0)
        redraws: tuple[Redraw, ...] = ("fixed", "every_pass")
        return [
            cls(
                lr=share * recipe.lr,
                redraw=redraw,
                batch_size=recipe.batch_size,
                forget_batch_size=recipe.batch_size,
            )
            for share in shares
            for redraw in redraws
        ]


def drawn_labels(true: Tensor, classes: int, seeds: Sequence[int], turn: int, include_true: bool) -> Tensor:
    """Return a class for every member and example, each as likely as any other.

    Args:
        true: Labels, shape (examples,).
        classes: Number of classes, at least 2.
        seeds: One a member.
        turn: Number of the draw; each is another.
        include_true: Whether the true class may be drawn.

    Returns:
        Shape (members, examples).
    """
    most = classes if include_true else classes - 1
    drawn = torch.stack([torch.randint(most, true.shape, generator=generator(seed, "labels", turn)) for seed in seeds])
    # Without the true class: the others are numbered without a gap, and from it on they are one higher.
    return drawn if include_true else drawn + (drawn >= true).long()
