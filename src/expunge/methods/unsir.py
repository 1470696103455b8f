"""UNSIR: learn noise that the models take for anything but the class to forget, train on it, and repair on R.

For each class c that is forgotten, with the weights frozen, inputs N that start as standard normal noise take steps of

    N <- Adam step down the gradient of  [ -l(f_theta(N), c) + penalty * mean over inputs of |N|^2 ]

    impair:   theta <- theta - lr * grad mean_B l     over one pass of copies of (N, c) and some of R, shuffled together
    repair:   theta <- theta - repair * lr * grad mean_{B of R} l     over a pass of as much of R, in every epoch

The noise climbs the loss in input space; no step climbs it in the weights, and no example of F is ever read: all that
is known of F is its class. So a request must be one for whole classes.

Source: Tarun et al., "Fast Yet Effective Machine Unlearning" (arXiv 2111.08947), secs. 3 and 4, and its code: Adam at
.1 for 5 rounds of 8 steps, penalty .1, a batch of 256 noise inputs in 20 copies; then one epoch of Adam at .02 to
impair and one at .01 to repair, on a fifth of R. Differs from the source: that share of R is drawn again in every pass;
the optimiser of impairing goes on in repairing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.core import ForgetSet, InputError, Network, Recipe, Task
from expunge.core.checks import between, non_negative, positive, whole
from expunge.core.seeds import derive, generator
from expunge.core.stopping import check_stopped
from expunge.ensembles.batches import batches, epoch_order, gather_own
from expunge.ensembles.plan import check_batch_norm
from expunge.methods.method import Choice, Method, Need, OptimizerOption, Trained
from expunge.methods.problem import Checkpoint, Problem, Treatment

LEAST = 0.95
"""Share of a class's training rows from which on a forget set holds nearly all of it."""


@dataclass(frozen=True, kw_only=True)
class UNSIR(Trained):
    """Impair with noise that stands for the forgotten classes, then repair on the retain set."""

    lr: float = 0.02
    """Learning rate of impairing, at least 0 (source: .02, of Adam)."""
    repair: float = 0.5
    """Rate of repairing, as a multiple of `lr`, at least 0 (source: .01 / .02)."""
    epochs: int = 1
    """Passes of repair, at least 1, each a stopping time (source: 1)."""
    retain_share: float = 0.2
    """Share of R that a pass visits, above 0, at most 1 (source: 1000 of 5000 a class)."""
    noise_lr: float = 0.1
    """Rate of Adam for the noise, at least 0 (source: .1)."""
    noise_steps: int = 40
    """Steps of the noise, at least 1 (source: 40)."""
    noise_penalty: float = 0.1
    """Weight of its mean squared length, at least 0 (source: .1)."""
    noise_size: int = 256
    """Noise inputs of a class, at least 1 (source: 256)."""
    noise_copies: int = 20
    """How often impairing sees each, at least 1 (source: 20)."""
    batch_size: int = 256
    """Examples a step, at least 1 (source: 256)."""
    momentum: float = 0.9
    """First beta of Adam, or momentum of SGD, 0 to 1 (source: .9)."""
    weight_decay: float = 0.0
    """L2 coefficient, at least 0 (source: 0)."""
    statistics: Treatment = "frozen"
    """Normalisation statistics: `frozen`, `updated` (source) or `recalibrated`."""
    optimizer: OptimizerOption = "adam"
    """`sgd`, `adam` (source), `adamw`, or `recipe`: the one that trained the models."""

    name: ClassVar[str] = "unsir"
    label: ClassVar[str] = "UNSIR"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "weights", "classes", "whole_classes", "real_inputs"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite")
    chosen: ClassVar[Choice] = "last"
    probed: ClassVar[bool] = False  # impairing moves margins by design, and repair brings most of them back
    forecastable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        self.check_steps()
        non_negative(repair=self.repair, noise_lr=self.noise_lr, noise_penalty=self.noise_penalty)
        positive(retain_share=self.retain_share)
        between(0.0, 1.0, retain_share=self.retain_share)
        whole(noise_steps=self.noise_steps, noise_size=self.noise_size, noise_copies=self.noise_copies)

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse a forget set that is not whole classes, or a batch of one under updated batch norm."""
        classes = forgotten_classes(task, forget)
        if self.statistics == "updated":
            kept = self._kept(len(forget.retain))
            for size in (kept, kept + len(classes) * self.noise_size * self.noise_copies):
                check_batch_norm(network, size, self.batch_size)

    def _kept(self, retain: int) -> int:
        return max(1, round(self.retain_share * retain))

    def planned_examples(self, forget: int, retain: int) -> float:
        """Return what all passes visit, with the noise of one class."""
        noise = self.noise_size * (self.noise_steps + self.noise_copies)
        return noise + (1 + self.epochs) * self._kept(retain)

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint after every pass of repair."""
        forgotten = sorted(set(problem.y[problem.forget.to(problem.y.device)].tolist()))
        noise = torch.cat([self.noise_of(problem, each) for each in forgotten], 1)
        labels = torch.tensor(forgotten, device=problem.y.device).repeat_interleave(self.noise_size)
        descent, dropout = self.descent(problem), problem.noise(0)
        for x, y in self._impairing(problem, noise, labels):
            descent.step(x, y, self.lr, noise=dropout)
        for epoch in range(1, self.epochs + 1):
            rate, share, dropout = self.repair * self.lr, self.retain_share, problem.noise(epoch)
            problem.take_pass(descent, "retain", epoch, self.batch_size, rate, share=share, noise=dropout)
            yield problem.checkpoint(epoch, descent, self.statistics)

    def noise_of(self, problem: Problem, label: int) -> Tensor:
        """Return noise that the pretrained members take for anything but a class, (members, noise_size, ...).

        Args:
            problem: Whose members; what the steps cost is entered in its ledger.
            label: The class.
        """
        start, shape = problem.start, (self.noise_size, *problem.x.shape[1:])
        drawn = [torch.randn(shape, generator=generator(seed, "noise inputs", label)) for seed in problem.seeds]
        noise = torch.stack(drawn).to(problem.x).requires_grad_(True)
        labels = torch.full(noise.shape[:2], label, device=problem.y.device)
        steps = torch.optim.Adam([noise], lr=self.noise_lr, foreach=False)
        for _ in range(self.noise_steps):
            check_stopped()
            with torch.enable_grad():
                loss = problem.outcome.loss(start.network(start.params, start.buffers, noise), labels).mean(1)
                length = noise.flatten(2).square().sum(2).mean(1)
                (noise.grad,) = torch.autograd.grad((self.noise_penalty * length - loss).sum(), noise)
            steps.step()
            problem.made(self.noise_size)
        return noise.detach()

    def _impairing(self, problem: Problem, noise: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one pass over copies of the noise and a share of R shuffled together, as (inputs, labels)."""
        x, y, _ = next(problem.retain_batches(0, self._kept(len(problem.retain)), self.retain_share))
        inputs, targets = torch.cat([x, noise], 1), torch.cat([y, labels.expand(len(y), -1)], 1)
        copies = torch.arange(noise.shape[1]).repeat(self.noise_copies)
        problem.made(len(copies))
        both = torch.cat([torch.arange(x.shape[1]), x.shape[1] + copies]).expand(len(x), -1)
        for index in batches(epoch_order(both, [derive(seed, "impair") for seed in problem.seeds], 0), self.batch_size):
            check_stopped()
            yield gather_own(inputs, index), gather_own(targets, index)

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return one setting: no second set of the same whole classes is left on which to choose among several.

        It has steps of the recipe's optimiser, all of R, and a batch of noise in five copies.
        """
        return [
            cls(
                lr=0.3 * recipe.lr,
                epochs=2,
                retain_share=1.0,
                noise_size=recipe.batch_size,
                noise_copies=5,
                batch_size=recipe.batch_size,
                optimizer="recipe",
            )
        ]


def forgotten_classes(task: Task, forget: ForgetSet) -> list[int]:
    """Return the classes that a forget set holds, all or nearly all of each.

    Args:
        task: With labels that are classes.
        forget: The forget set.

    Raises:
        InputError: If it holds some rows of a class and not nearly all of them.
    """
    gone, left = (
        torch.bincount(task.train.y[rows], minlength=task.classes) for rows in (forget.indices, forget.retain)
    )
    classes = torch.nonzero(gone).flatten().tolist()
    for each in classes:
        inside, outside = int(gone[each]), int(left[each])
        if inside < LEAST * (inside + outside):
            raise InputError(
                f"unsir forgets whole classes, and {forget.name} holds {inside} of {inside + outside} training rows of "
                f"class {each}; expected at least {LEAST:.0%} of every class that it holds any of (here {outside} more "
                f"rows of class {each}), or another method."
            )
    return classes
