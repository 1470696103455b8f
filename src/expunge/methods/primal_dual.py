"""Primal-dual unlearning: bring the forget loss to the level of held-out rows, subject to bounds on other losses.

With L_F, L_R and L_V the mean losses over F, R and the validation rows, theta_0 the pretrained weights and c a level
that is declared:

    min_theta |L_F(theta) - c|    subject to    L_R(theta) <= L_R(theta_0) + tolerance
                                                L_V(theta) <= L_V(theta_0) + validation_tolerance      if it is given

    theta  <- theta - lr * grad [ |L_F(theta) - c| + lambda_R * L_R(theta) + lambda_V * L_V(theta) ]
    lambda <- max(0, lambda + dual_lr * (L(theta) - L(theta_0) - tolerance))        of each split

each on a batch of its split.

The level is what retraining would leave: by default the member's own mean loss on held-out rows, weighted so that they
have the classes of F (an oracle has seen neither). The forget term has a minimum, so nothing runs away. A multiplier
lambda is the counterfactual price: how far the forget term would fall for one more unit of that split's loss, so that
1 / lambda is the loss that a unit of forgetting costs there; 0 says that forgetting cost nothing that was not allowed.
Each split has its own (facts `multiplier` and `validation-multiplier` of a stopping time, with the rise of each loss).

Where the second bound is violated, steps are taken on validation rows. Then these are no longer held out: what an audit
reads on its validation split is what the method trained for, and the check of the bounds says so.

Source: the constrained form and its dual updates are those of "PDU" (arXiv 2506.05314: dual step 1.0), the reading of
the multiplier that of Chamon, Paternain, Ribeiro, "Trust but Verify" (arXiv 2011.12344). Differs from the source: the
forget term of PDU flattens the logits, here it is centred on what retrained models do; constraints are relative to the
start, and there is one a split; both sides of each are read on the same batch, so that batches that are hard by nature
do not count as violations; no warm-up; the tolerance is that of RFE (arXiv 2603.26569: .05), the primal steps are our
choice. The forward pass over the held-out rows that tells the level is not counted in the cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import ClassVar, Literal

import torch
from torch import Tensor

from expunge.core import ForgetSet, InputError, Network, Outcome, Recipe, Task
from expunge.core.checks import between, non_negative
from expunge.ensembles import Descent
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
    validation_tolerance: float | None = None
    """The same for the validation rows, which are then trained on where it is exceeded; None does not read them."""
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
        if self.validation_tolerance is not None:
            non_negative(validation_tolerance=self.validation_tolerance)
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
        """Return what all epochs visit: all of R in each, a batch of F beside each batch; the start forward.

        Validation rows, where they bind, count as whole batches; how many there are is not known here.
        """
        steps = self.epochs * -(-retain // self.batch_size)
        beside = going_round(steps, forget, self.forget_batch_size)
        beside += 0 if self.validation_tolerance is None else steps * self.batch_size
        return self.epochs * retain + beside + FORWARD_SHARE * (forget + retain)

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint after every pass over R."""
        descent = self.descent(problem)
        level = self.level(problem)
        bounds = [Bound(problem, descent, "retain", self.tolerance)]
        if self.validation_tolerance is not None:
            bounds.append(Bound(problem, descent, "validation", self.validation_tolerance))
        far = (problem.forget_loss(descent) - level).abs()
        forget = problem.forget_rounds(self.forget_batch_size)
        held_out = (batch for turn in count() for batch in problem.held_out_batches(turn, self.batch_size))
        for epoch in range(1, self.epochs + 1):
            noise = problem.noise(epoch)
            for retained in problem.retain_batches(epoch, self.batch_size):
                fx, fy = problem.batch(next(forget))
                on_forget, up = descent.gradients(fx, fy, noise=noise)
                pull = {name: weigh(torch.sign(on_forget - level), tensor) for name, tensor in up.items()}
                seen = [(bounds[0], retained), *((bound, next(held_out)) for bound in bounds[1:])]
                read = []
                for bound, (x, y, index) in seen:
                    losses, down = descent.gradients(x, y, noise=noise)
                    pull = {name: tensor + weigh(bound.multiplier, down[name]) for name, tensor in pull.items()}
                    read.append((losses, y, index))
                descent.apply(pull, self.lr)
                for bound, batch in zip(bounds, read, strict=True):
                    bound.update(*batch, self.dual_lr)
            problem.approached(far, (problem.forget_loss(descent) - level).abs())
            for bound in bounds:
                head = "" if bound.split == "retain" else f"{bound.split}_"
                problem.note(**{f"{head}multiplier": bound.multiplier, f"{bound.split}_rise": bound.rise(descent)})
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


class Bound:
    """How far the mean loss over one split may rise, and what its multiplier has come to."""

    def __init__(
        self, problem: Problem, descent: Descent, split: Literal["retain", "validation"], tolerance: float
    ) -> None:
        """Read the losses that the start has.

        Args:
            problem: Whose rows; the pass forward is entered in its ledger.
            descent: At the start.
            split: Which rows.
            tolerance: How far their mean loss may rise.
        """
        self.split, self.tolerance = split, tolerance
        self._outcome, self._start = problem.outcome, problem.start
        rows = problem.task.train if split == "retain" else problem.task.validation
        self._rows = rows[problem.retain] if split == "retain" else rows
        self._before = problem.start.logits(rows.x).to(problem.x.device)
        problem.forward_only(len(rows))
        self._allowed = self._mean(descent)
        self.multiplier = torch.zeros_like(self._allowed)

    def _mean(self, descent: Descent) -> Tensor:
        own = self._start.with_state(descent.params, descent.buffers)
        y = self._rows.y
        with torch.no_grad():
            return self._outcome.loss(own.logits(self._rows.x), y).mean(1).to(self._before.device)

    def rise(self, descent: Descent) -> Tensor:
        """Return how far the mean loss of each member is above that of its start, (members,)."""
        return self._mean(descent) - self._allowed

    def update(self, losses: Tensor, y: Tensor, index: Tensor, dual_lr: float) -> None:
        """Move the multipliers by what a batch says.

        Args:
            losses: Mean loss of each member over the batch before the step, (members,).
            y: Its targets (members, batch, ...).
            index: Positions of its rows.
            dual_lr: Learning rate.
        """
        before = self._outcome.loss(gather_own(self._before, index), y).mean(1)
        self.multiplier = (self.multiplier + dual_lr * (losses - before - self.tolerance)).clamp(min=0)


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
