"""Influence in the space of examples: exact for any number of parameters, and one factorisation for all forget sets.

With phi_i the gradient of the margin of example i, the loss of a classifier is log(1 + exp(-margin)), so

    g_i = c_i phi_i,   c_i = p_i - 1          and          H = sum_D w_i phi_i phi_i^T + rho I,   w_i = p_i (1 - p_i)

(p_i is the probability of the true class; for squared error phi is the gradient of the output, c_i = output - target,
w_i = 1). With the tangent kernel K = Phi Phi^T everything needed follows from matrices over examples:

    A = Phi H^{-1} Phi^T = [K - K_D W^{1/2} (rho I + W^{1/2} K_DD W^{1/2})^{-1} W^{1/2} K_D] / rho

    first     change of margin i when F is removed = A_iF c_F
    newton                                        = A_iF (I - W_F A_FF)^{-1} c_F

Sources: Park et al., "TRAK" (arXiv 2303.14186), sec. 3, for gradients of margins and the weights; Woodbury's identity.
Differs from the sources: nothing is projected (the kernel is that of the gradients themselves), the ridge is the one of
training, and the scale is kept (the published library divides it away). Differs from `removal`: curvature through the
margin leaves out (1 - p_i) (diag q - q q^T), what the wrong classes q have among themselves; with two classes the two
are the same matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from expunge.core import Ensemble, ForgetSet, InputError, Task
from expunge.core.checks import non_negative, one_of
from expunge.core.tree import State
from expunge.dependence.inputs import Data, complement, read_data, read_forget, spread, usable_members
from expunge.dependence.linearised import Linearised, margin_cotangent
from expunge.dependence.losses import Loss, SquaredError
from expunge.dependence.members import each_member
from expunge.dependence.ridge import Order, check_ridge
from expunge.ensembles.example_gradients import example_gradients, gram

KEEP_BYTES = 2**31
"""Memory that the kernels and factorisations of all members may take."""


@dataclass(frozen=True)
class MemberKernel:
    """One member, seen from its examples. The first `examples` rows are the training examples, then the others."""

    kernel: Tensor
    """K, inner products of gradients of margins, (rows, rows), float64."""
    slope: Tensor
    """c, the derivative of the loss by the margin, (rows,)."""
    weight: Tensor
    """w, the second derivative of the loss by the margin, (rows,)."""
    factor: Tensor
    """Cholesky factor of rho I + W^{1/2} K W^{1/2} on the training examples, (examples, examples)."""
    ridge: float
    """rho."""
    _factors: dict[float, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def examples(self) -> int:
        """Number of training examples."""
        return len(self.factor)

    def columns(self, index: Tensor) -> Tensor:
        """Return A[:, index], (rows, size): inner products of gradients in the metric of H^{-1}.

        Args:
            index: Rows of the kernel: training examples, or others after them.
        """
        root = self.weight[: self.examples].sqrt()
        own = self.kernel[:, index]
        inside = torch.cholesky_solve(root[:, None] * own[: self.examples], self.factor)
        return (own - self.kernel[:, : self.examples] @ (root[:, None] * inside)) / self.ridge

    def inverse_hat(self, index: Tensor, epsilon: float) -> Tensor:
        """Return [(h + epsilon I)^{-1}]_FF, (size, size), h = W^{1/2} A_DD W^{1/2} the hat matrix.

        With k = W^{1/2} K W^{1/2}, h = k (k + rho)^{-1}, so that the inverse is [1 + s (k + epsilon s)^{-1}] / (1 +
        epsilon) with s = rho / (1 + epsilon).

        Args:
            index: Training examples (size,).
            epsilon: Above 0.
        """
        s = self.ridge / (1 + epsilon)
        unit = torch.zeros(self.examples, len(index), dtype=self.kernel.dtype)
        unit[index, torch.arange(len(index))] = 1
        found = s * torch.cholesky_solve(unit, self._factor_at(epsilon * s))[index]
        found.diagonal().add_(1.0)
        return found / (1 + epsilon)

    def _factor_at(self, ridge: float) -> Tensor:
        # One factorisation serves all forget sets; another epsilon replaces it.
        kept: dict[float, Tensor] = self._factors
        if ridge not in kept:
            root = self.weight[: self.examples].sqrt()
            system = root[:, None] * self.kernel[: self.examples, : self.examples] * root
            system.diagonal().add_(ridge)
            kept.clear()
            kept[ridge] = torch.linalg.cholesky(system)
        return kept[ridge]

    def product(self, vectors: Tensor) -> Tensor:
        """Return A @ vectors, (rows, columns), for vectors (rows, columns)."""
        root = self.weight[: self.examples].sqrt()
        moved = self.kernel @ vectors
        inside = torch.cholesky_solve(root[:, None] * moved[: self.examples], self.factor)
        return (moved - self.kernel[:, : self.examples] @ (root[:, None] * inside)) / self.ridge

    def removal(self, index: Tensor, order: Order = "newton", columns: Tensor | None = None) -> Tensor:
        """Return the predicted change of the margins of all rows when training examples are removed, (rows,).

        Args:
            index: Positions of the training examples (size,).
            order: `newton` or `first`.
            columns: A[:, index], if at hand.
        """
        columns = self.columns(index) if columns is None else columns
        return columns @ self.coefficients(index, order, columns)

    def coefficients(self, index: Tensor, order: Order, columns: Tensor) -> Tensor:
        """Return b with A_iF b the change of margin i, (size,)."""
        slope = self.slope[index]
        if order == "first":
            return slope
        system = torch.eye(len(index), dtype=columns.dtype) - self.weight[index, None] * columns[index]
        solved: Tensor = torch.linalg.solve(system, slope)
        return solved


class Kernel:
    """Tangent kernels of an ensemble on its training examples, factorised once for any number of forget sets.

    Args:
        ensemble: Members trained on all of the data.
        data: The task, or training inputs (examples, ...) and labels (examples,).
        others: Further examples (x, y) whose margins are of interest; None takes the validation examples of a task.
        decay: L2 coefficient beside the mean loss; None takes the recipe's (0 for a pair of arrays).
        damping: Added to the diagonal, in units of the summed loss, at least 0.
        members: Use the first so many members; None uses all.
        loss: `CrossEntropy()` by default; `SquaredError()` for regression with one output.
        counts: How many examples each training example stands for (examples,); None is each for itself.

    Raises:
        InputError: If the kernels would not fit in memory (use `Projection`), decay and damping are both 0, or no
            member is better than guessing.
        DivergedError: If no member is finite.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        data: Task | tuple[Any, Any],
        *,
        others: tuple[Any, Any] | None = None,
        decay: float | None = None,
        damping: float = 0.0,
        members: int | None = None,
        loss: Loss | None = None,
        counts: Tensor | None = None,
    ) -> None:
        non_negative(damping=damping)
        self.data: Data = read_data(data, decay)
        self.counts = counts
        total = len(self.data) if counts is None else float(counts.sum())
        self.ridge = check_ridge(self.data.decay * total + damping)
        if others is None and isinstance(data, Task):
            others = (data.validation.x, data.validation.y)
        x, y = self.data.x, self.data.y
        if others is not None:
            more = read_data(others, 0.0)
            x, y = torch.cat([x, more.x]), torch.cat([y, more.y])
        self.x, self.y = x, y
        wanted = len(ensemble) if members is None else min(members, len(ensemble))
        check_room(wanted, len(self.data), len(x))
        chosen, self.good = usable_members(ensemble, self.data.x, self.data.y, members=members)
        self.linearised = Linearised(chosen, loss=loss)
        self.members = each_member(self._build, len(chosen), chosen.device)

    def __iter__(self) -> Iterator[MemberKernel]:
        return iter(self.members)

    @property
    def examples(self) -> int:
        """Number of training examples."""
        return len(self.data)

    def removal(self, forget: ForgetSet | Any, *, order: Order = "newton") -> Tensor:
        """Return the predicted change of margins when a forget set is removed, (members, rows), float64.

        Rows are the training examples, then the others; members that could not be used read NaN.

        Args:
            forget: The forget set, or positions in the training data.
            order: `newton` (curvature of R) or `first` (curvature of D: the influence function).
        """
        one_of(("newton", "first"), order=order)
        index = read_forget(forget, self.examples)
        return spread(torch.stack([member.removal(index, order) for member in self.members]), self.good)

    def direction(self, forget: ForgetSet | Any, *, order: Order = "newton") -> State:
        """Return the predicted move of the weights, each tensor (usable members, ...); one backward pass.

        Args:
            forget: The forget set, or positions in the training data.
            order: `newton` or `first`.
        """
        one_of(("newton", "first"), order=order)
        index = read_forget(forget, self.examples)
        # The move is H^{-1} Phi_F^T b; by Woodbury a combination of the gradients of all training examples.
        mix = []
        for member in self.members:
            b = member.coefficients(index, order, member.columns(index))
            root = member.weight[: self.examples].sqrt()
            inside = torch.cholesky_solve((root * (member.kernel[: self.examples, index] @ b))[:, None], member.factor)
            a = -root * inside[:, 0]
            a[index] += b
            mix.append(a / self.ridge)
        x, y = self.data.x, self.data.y
        linearised = self.linearised
        cotangent = self._cotangent(linearised.logits(x).cpu(), y)
        return linearised.pullback(x, (cotangent * torch.stack(mix)[..., None].to(cotangent)).to(linearised.device))

    def retain(self, index: Tensor) -> Tensor:
        """Return the other training positions, (examples - size,)."""
        return complement(index, self.examples)

    def _build(self, member: int) -> MemberKernel:
        linearised, n = self.linearised, self.examples
        gradients = example_gradients(linearised.ensemble, member, self.x, self.y, self._cotangent)
        kernel = gram(gradients, gradients).cpu()
        slope, weight = margin_derivatives(linearised, member, self.x, self.y)
        if self.counts is not None:
            weight[:n] *= self.counts
        root = weight[:n].sqrt()
        system = root[:, None] * kernel[:n, :n] * root
        system.diagonal().add_(self.ridge)
        return MemberKernel(kernel, slope, weight, torch.linalg.cholesky(system), self.ridge)

    def _cotangent(self, logits: Tensor, y: Tensor) -> Tensor:
        if isinstance(self.linearised.loss, SquaredError):
            if logits.shape[-1] != 1:
                raise InputError(f"the model has {logits.shape[-1]} outputs, expected 1 with squared error.")
            return torch.ones_like(logits)
        return margin_cotangent(logits, y)


def margin_derivatives(linearised: Linearised, member: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return c and w, first and second derivative of the loss by the margin, each (examples,), float64.

    Args:
        linearised: The stack.
        member: Which member, from 0.
        x: Inputs (examples, ...).
        y: Labels (examples,), or targets with squared error.
    """
    logits = linearised.ensemble[member : member + 1].logits(x)[0].double()
    if isinstance(linearised.loss, SquaredError):
        return logits[:, 0] - y.double(), torch.ones(len(y), dtype=torch.float64)
    own = logits.log_softmax(-1).gather(1, y[:, None].long())[:, 0]
    wrong = -torch.expm1(own)
    return -wrong, own.exp() * wrong


def check_room(members: int, examples: int, rows: int) -> None:
    """Refuse kernels that would not fit."""
    needed = 8 * members * (rows**2 + 2 * examples**2)
    if needed > KEEP_BYTES:
        raise InputError(
            f"the kernels of {members} members on {rows} examples take {needed / 2**30:.1f} GiB, expected at most "
            f"{KEEP_BYTES / 2**30:.0f} GiB; use fewer members, or Projection (memory does not grow with the examples)."
        )
