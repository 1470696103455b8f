"""Influence: what removing examples does to every member, predicted without training again.

At a minimum of the summed objective over D, the minimiser without F lies, to first order and by one Newton step,

    first     H^{-1} sum_F g_j                          (influence function)
    newton    (H - H_F)^{-1} sum_F g_j                  (Newton step on the objective of R)

away, where g_j is the gradient of the loss of example j, H the Gauss-Newton matrix of D plus (decay |D| + damping) I,
and H_F that of F alone. The Newton step contains what the first order lacks: examples of F support one another, so that
removing all of them moves more than the sum of removing each (the amplification 1 / (1 - kappa), see `measures`). The
scale is that of weights and margins: nothing is normalised away. With squared error and a linear model the Newton step
is exact.

Two conventions for weight decay. `objective="sum"`: the ridge stays as it is, as in the textbook. `objective="mean"`:
the recipe's loss is a mean, so on R the same weight decay amounts to the smaller ridge decay |R|, and the weights move
by (H_R + (decay |R| + damping) I)^{-1} (sum_F g_j + decay |F| theta).

Sources: R. D. Cook and S. Weisberg, Residuals and Influence in Regression (1982), ch. 3; P. W. Koh and P. Liang,
"Understanding Black-box Predictions via Influence Functions" (arXiv 1703.04730), eq. 1-2, and for groups Koh et al.,
"On the Accuracy of Influence Functions for Measuring Group Effects" (arXiv 1905.13289); C. Guo et al., "Certified Data
Removal from Machine Learning Models" (arXiv 1911.03030), eq. 3 (the Newton step).
Differs from the sources: Gauss-Newton in place of the Hessian, which need not be positive away from a strict minimum;
`damping` may carry an early stop, see `expunge.dependence.training_ridge`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from expunge.core import Ensemble, ForgetSet, InputError, Task, margins_from_logits
from expunge.core.checks import non_negative, one_of
from expunge.core.tree import State
from expunge.dependence.curvature import damped
from expunge.dependence.inputs import complement, read_data, read_forget, spread, usable_members
from expunge.dependence.linearised import Linearised, combine, dot
from expunge.dependence.losses import Loss
from expunge.dependence.ridge import Order, check_ridge
from expunge.papers.ascent_fails_to_forget.dependence.solving import conjugate_gradients, dense_curvature

Solver = Literal["auto", "dense", "cg"]
Objective = Literal["sum", "mean"]

DENSE_BYTES = 2**30
"""Memory that the curvature of all members may take in the dense form."""

DENSE_PARAMETERS = 256
"""Parameters up to which `auto` forms the curvature: as many products as conjugate gradients might take, and exact."""


@dataclass(frozen=True)
class RemovalEffect:
    """The predicted effect of removing examples, for every usable member."""

    linearised: Linearised
    """The members that could be used, linearised at their weights."""
    good: Tensor
    """Which of the members asked for were usable, (members,), boolean; the others read NaN below."""
    direction: State
    """Predicted move of the weights, each tensor (usable members, ...)."""
    residual: Tensor
    """Relative residual of the linear system of each usable member, (usable members,); 0 means solved exactly."""
    iterations: int
    """Products with the curvature that were spent; 0 when it was formed."""

    def margins(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the predicted change of margins, to first order in the move, (members, examples), on the CPU.

        Args:
            x: Inputs (examples, ...).
            y: Labels (examples,).
        """
        _, moved = self.linearised.margins(x, y.to(self.linearised.ensemble.device), self.direction)
        return spread(moved.cpu(), self.good)

    def outputs(self, x: Tensor) -> Tensor:
        """Return the predicted change of the outputs, to first order in the move, (members, examples, classes)."""
        _, moved = self.linearised.outputs(x, self.direction)
        return spread(moved.cpu(), self.good)

    def moved(self, amount: float = 1.0) -> Ensemble:
        """Return the usable members with their weights moved by `amount` of the direction.

        Its margins are the prediction with the network's own curvature; large moves leave the range where a linear
        prediction of the weights means anything.
        """
        ensemble = self.linearised.ensemble
        moved = combine(self.linearised.params, self.direction, amount)
        return ensemble.with_state({**ensemble.params, **moved}, ensemble.buffers)

    def nonlinear_margins(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the change of margins when the weights are moved and evaluated, (members, examples), on the CPU."""
        before = margins_from_logits(self.linearised.ensemble.logits(x), y.cpu())
        return spread(margins_from_logits(self.moved().logits(x), y.cpu()) - before, self.good)

    @property
    def length(self) -> Tensor:
        """Euclidean length of the move, (members,)."""
        return spread(dot(self.direction, self.direction).sqrt().cpu(), self.good)


def removal(
    ensemble: Ensemble,
    data: Task | tuple[Any, Any],
    forget: ForgetSet | Any,
    *,
    order: Order = "newton",
    objective: Objective = "sum",
    decay: float | None = None,
    damping: float = 0.0,
    solver: Solver = "auto",
    iterations: int = 100,
    tolerance: float = 1e-3,
    members: int | None = None,
    loss: Loss | None = None,
    budget: int = 2**20,
) -> RemovalEffect:
    """Predict how the weights and margins of every member move when examples are removed from its training.

    Args:
        ensemble: Members trained on all of the data.
        data: The task, or training inputs (examples, ...) and labels (examples,).
        forget: The forget set, or positions in the training data.
        order: `newton` (curvature of R) or `first` (curvature of D: the influence function).
        objective: Whether weight decay stays a fixed ridge (`sum`) or goes with a mean loss (`mean`); see above.
        decay: L2 coefficient beside the mean loss; None takes the recipe's (0 for a pair of arrays).
        damping: Added to the diagonal, in units of the summed loss, at least 0.
        solver: `dense` forms the curvature and solves exactly; `cg` needs products only; `auto` picks dense up to 256
            parameters.
        iterations: Most products of conjugate gradients, at least 1.
        tolerance: Relative residual at which conjugate gradients stop, 0 to 1.
        members: Use the first so many members; None uses all.
        loss: `CrossEntropy()` by default; `SquaredError()` for regression.
        budget: Numbers that the largest activation may hold at once.

    Returns:
        Direction in weight space and what follows for margins.

    Raises:
        InputError: If the forget set is empty, leaves the data or leaves nothing; if decay and damping are both 0; if
            no member is better than guessing; if a dense curvature would not fit.
        DivergedError: If no member is finite.
    """
    one_of(("newton", "first"), order=order)
    one_of(("sum", "mean"), objective=objective)
    one_of(("auto", "dense", "cg"), solver=solver)
    non_negative(damping=damping)
    read = read_data(data, decay)
    index = read_forget(forget, len(read))
    ridge = check_ridge(read.decay * len(read) + damping)
    chosen, good = usable_members(ensemble, read.x, read.y, members=members)
    linearised = Linearised(chosen, loss=loss, budget=budget)
    device = chosen.device
    x, y = read.x.to(device), read.y.to(device)
    asked = linearised.gradient(x[index], y[index])
    if objective == "mean":
        asked = combine(asked, linearised.params, read.decay * len(index))
        ridge -= read.decay * len(index)
    # H - H_F is the curvature of R: summing over R instead of subtracting cannot lose definiteness to rounding.
    over = x[complement(index, len(read)).to(device)] if order == "newton" else x
    if solver == "dense" or (solver == "auto" and linearised.parameters <= DENSE_PARAMETERS):
        check_dense(linearised)
        matrix = dense_curvature(linearised, over).double()
        matrix.diagonal(dim1=1, dim2=2).add_(ridge)
        solved = torch.linalg.solve(matrix, linearised.flatten(asked).double())
        rows = solved.to(linearised.flatten(asked).dtype)
        return RemovalEffect(linearised, good, linearised.unflatten(rows), torch.zeros(len(chosen)), 0)
    found = conjugate_gradients(damped(linearised, over, ridge), asked, iterations=iterations, tolerance=tolerance)
    return RemovalEffect(linearised, good, found.x, found.residual.cpu(), found.iterations)


def check_dense(linearised: Linearised) -> None:
    """Refuse to form the curvature of a model that is too large."""
    size, members = linearised.parameters, linearised.members
    needed = 8 * members * size**2
    if needed > DENSE_BYTES:
        raise InputError(
            f"the curvature of {members} members with {size} parameters takes {needed / 2**30:.1f} GiB, expected at "
            f"most {DENSE_BYTES / 2**30:.0f} GiB; use solver='cg', or fewer members."
        )
