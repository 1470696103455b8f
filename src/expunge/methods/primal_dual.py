"""Primal-dual unlearning: bring the forget loss to the level of held-out rows, subject to a bound on the retain loss.

With L_F and L_R the mean losses over F and R, theta_0 the pretrained weights and c a level that is declared:

    min_theta |L_F(theta) - c|    subject to    L_R(theta) <= L_R(theta_0) + tolerance

    theta  <- theta - lr * grad [ |L_F(theta) - c| + lambda * L_R(theta) ]           on a batch of each
    lambda <- max(0, lambda + dual_lr * (L_R(theta) - L_R(theta_0) - tolerance))     on the same batch of R

The level is what retraining would leave: by default the member's own mean loss on held-out rows, weighted so that they
have the classes of F (an oracle has seen neither). The forget term has a minimum, so nothing runs away. The multiplier
lambda is the counterfactual price: how far the forget term would fall for one more unit of retain loss, so that
1 / lambda is the retain loss that a unit of forgetting costs; 0 says that forgetting cost nothing that was not allowed.

Source: the constrained form and its dual updates are those of "PDU" (arXiv 2506.05314: dual step 1.0), the reading of
the multiplier that of Chamon, Paternain, Ribeiro, "Trust but Verify" (arXiv 2011.12344). Differs from the source: the
forget term of PDU flattens the logits, here it is centred on what retrained models do; the constraint is relative to
the start; both sides of it are read on the same batch, so that batches that are hard by nature do not count as
violations; no warm-up; the tolerance is that of RFE (arXiv 2603.26569: .05), the primal steps are our choice. The
forward pass over the held-out rows is not counted in the cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.core import ForgetSet, InputError, Network, Outcome, Recipe, Task
from expunge.core.checks import between, non_negative
from expunge.ensembles.batches import gather_own
from expunge.methods.method import Method, OptimizerOption, Trained, going_round
from expunge.methods.problem import FORWARD_SHARE, Checkpoint, Problem, Treatment


@dataclass(frozen=True, kw_only=True)
class PrimalDual(Trained):
    """Bring the forget loss to a level while the retain loss stays within a tolerance, by primal-dual steps."""

    lr: float = 0.01
    """Learning rate of the weights, at least 0."""
    epochs: int = 10
    """Passes over R, at least 1; a batch of F goes beside each of its batches."""
    tolerance: float = 0.05
    """How far the mean loss over R may rise above that of the start, at least 0, in units of the loss (RFE: .05)."""
    dual_lr: float = 1.0
    """Learning rate of the multiplier, at least 0; 0 leaves it at 0, so that R is not protected (PDU: 1)."""
    target: float | None = None
    """The level c of the mean loss over F; None is the member's own on held-out rows with the classes of F."""
    batch_size: int = 64
    """Retain examples a step, at least 1."""
    forget_batch_size: int = 64
    """Forget examples a step, at least 1."""
    momentum: float = 0.0
    """Momentum of SGD, or the first beta of Adam, 0 to 1."""
    weight_decay: float = 0.0
    """L2 coefficient, at least 0: 0, since the level and the bound say where to end."""
    statistics: Treatment = "frozen"
    """Normalisation statistics: `frozen`, `updated` or `recalibrated`."""
    optimizer: OptimizerOption = "recipe"
    """`sgd`, `adam`, `adamw`, or `recipe`: the one that trained the models."""

    name: ClassVar[str] = "primal_dual"
    label: ClassVar[str] = "Primal-dual"
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite", "visited", "approached", "bounded")
    shown: ClassVar[tuple[str, ...]] = ("lr", "tolerance")
    forecastable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        self.check_steps()
        non_negative(tolerance=self.tolerance, dual_lr=self.dual_lr)
        if self.target is not None:
            between(-1e15, 1e15, target=self.target)

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Both sets are visited, in batches of their own."""
        return {"forget": self.forget_batch_size, "retain": self.batch_size}

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse, besides, a level that no held-out row tells."""
        super().check(network, task, forget)
        if self.target is None:
            of_forget = torch.from_numpy(forget.indices)
            alike_rows(network.outcome, task.train.y[of_forget], task.validation.y)

    def planned_examples(self, forget: int, retain: int) -> float:
        """Return what all epochs visit: all of R in each, a batch of F beside each batch; the start forward."""
        steps = self.epochs * -(-retain // self.batch_size)
        beside = going_round(steps, forget, self.forget_batch_size)
        return self.epochs * retain + beside + FORWARD_SHARE * (forget + retain)

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint after every pass over R."""
        descent, outcome = self.descent(problem), problem.outcome
        level = self.level(problem)
        start = problem.logits(descent, torch.arange(len(problem.y)))
        problem.forward_only(len(problem.y))
        allowed, far = problem.retain_loss(descent), (problem.forget_loss(descent) - level).abs()
        multiplier = torch.zeros_like(level)
        forget = problem.forget_rounds(self.forget_batch_size)
        for epoch in range(1, self.epochs + 1):
            noise = problem.noise(epoch)
            for retained in problem.retain_batches(epoch, self.batch_size):
                x, y, index = retained
                fx, fy = problem.batch(next(forget))
                on_forget, up = descent.gradients(fx, fy, noise=noise)
                on_retain, down = descent.gradients(x, y, noise=noise)
                side = torch.sign(on_forget - level)
                descent.apply({n: weigh(side, up[n]) + weigh(multiplier, down[n]) for n in down}, self.lr)
                before = outcome.loss(gather_own(start, index), y).mean(1)
                slack = on_retain - before - self.tolerance
                multiplier = (multiplier + self.dual_lr * slack).clamp(min=0)
            problem.approached(far, (problem.forget_loss(descent) - level).abs())
            problem.note(multiplier=multiplier, retain_rise=problem.retain_loss(descent) - allowed)
            yield problem.checkpoint(epoch, descent, self.statistics)

    def level(self, problem: Problem) -> Tensor:
        """Return the level c of each member, (members,)."""
        members, kind = len(problem.start), next(iter(problem.start.params.values()))
        if self.target is not None:
            return torch.full((members,), self.target, dtype=kind.dtype, device=problem.x.device)
        held_out, of_forget = problem.task.validation, problem.y[problem.forget.to(problem.y.device)]
        weights = alike_rows(problem.outcome, of_forget.cpu(), held_out.y)
        losses = problem.outcome.loss(problem.start.logits(held_out.x), held_out.y)
        return (losses @ weights.to(losses.dtype)).to(problem.x.device)

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return rates across what works, each with two tolerances; every epoch is a stopping time."""
        shares, tolerances = (0.03, 0.1, 0.3, 1.0), (0.02, 0.1)
        return [
            cls(
                lr=share * recipe.lr,
                tolerance=tolerance,
                batch_size=recipe.batch_size,
                forget_batch_size=recipe.batch_size,
            )
            for share in shares
            for tolerance in tolerances
        ]


def weigh(factors: Tensor, gradient: Tensor) -> Tensor:
    """Return a gradient (members, ...) with each member's multiplied by its own factor (members,)."""
    return factors.to(gradient).view(-1, *[1] * (gradient.ndim - 1)) * gradient


def alike_rows(outcome: Outcome, forgotten: Tensor, held_out: Tensor) -> Tensor:
    """Return weights of held-out rows with which they have the classes of the forget set, float64, sum 1.

    Args:
        outcome: What targets mean; without classes all rows weigh the same.
        forgotten: Targets of the forget set (examples, ...).
        held_out: Targets of the held-out rows (rows, ...).

    Returns:
        Shape (rows,). Classes that no held-out row has are left out.

    Raises:
        InputError: If no held-out row is of a class of the forget set.
    """
    wanted, there = outcome.groups(forgotten).flatten(), outcome.groups(held_out).flatten()
    weights = torch.zeros(len(there), dtype=torch.float64)
    for group in wanted.unique():
        rows = there == group
        weights[rows] = (wanted == group).double().mean() / rows.double().sum().clamp(min=1)
    if not bool(weights.any()):
        raise InputError(
            "no held-out row is of a class of the forget set, so that they tell no level for its loss; expected "
            "target=, the mean loss that retrained models are expected to have there."
        )
    return weights / weights.sum()
