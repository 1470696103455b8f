"""What steps descend: losses of a batch, and objectives of many steps, of which the compiled kernels know some.

A loss that is differentiated at every step of a small model costs what the model costs, so those that many methods use
have their gradients written out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.core.outcomes import Classes, Outcome
from expunge.ensembles.chain import Known

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits (members, batch, classes) and targets (members, batch, ...) to one loss a member, (members,)."""


class WrittenLoss:
    """A `Loss` whose gradient is written out: autograd over a few small tensors costs what a small model costs.

    A subclass writes `with_gradient`; or, where the loss takes what the gradient does not, `__call__` and `slope`.
    """

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return one loss a member, (members,)."""
        return self.with_gradient(logits, target)[0]

    def slope(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the gradient of the sum of the losses, shaped like the logits."""
        return self.with_gradient(logits, target)[1]

    def with_gradient(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses (members,), and the gradient of their sum."""
        return self(logits, target), self.slope(logits, target)


class Objective:
    """What many steps descend where it is not the outcome's loss, such as one that compares with rows of a table."""

    @property
    def known(self) -> Known | None:
        """How the compiled kernel is told; None where it does not know such a loss."""
        return None

    def of_batch(self, index: Tensor, labels: Tensor, shares: Tensor) -> tuple[Loss | None, Tensor]:
        """Return the loss of one step, and what it compares with.

        Args:
            index: Positions in the data, shape (members, batch).
            labels: Targets there, shape (members, batch, ...).
            shares: Of these positions, from `shares`, shape (members, batch).
        """
        raise NotImplementedError

    def shares(self, order: Tensor, ends: Sequence[int]) -> Tensor:
        """Return the weight of each position of an order in the sum of its step, (members, k): here, in its mean.

        Args:
            order: Positions in the data, shape (members, k).
            ends: 0, and where each step ends.
        """
        sizes = torch.tensor(ends, device=order.device).diff()
        return (1 / sizes.double()).repeat_interleave(sizes).expand(len(order), -1)


class Usual(Objective):
    """The loss of the outcome, averaged over the batch."""

    @property
    def known(self) -> Known:
        """Cross-entropy: outcomes of another loss never come to the kernel."""
        return Known()

    def of_batch(self, index: Tensor, labels: Tensor, shares: Tensor) -> tuple[Loss | None, Tensor]:
        """Return that there is no other loss, and the labels."""
        return None, labels


USUAL = Usual()


@dataclass(frozen=True)
class Weighted(Objective):
    """The losses of the outcome, each times the share of its position: a subclass says which."""

    outcome: Outcome

    @property
    def known(self) -> Known:
        """Cross-entropy, as for `Usual`."""
        return Known()

    def of_batch(self, index: Tensor, labels: Tensor, shares: Tensor) -> tuple[Loss, Tensor]:
        """Return the weighted sum, and the labels."""
        return weighted(self.outcome, shares), labels


@dataclass(frozen=True)
class WeightedCrossEntropy(WrittenLoss):
    """The weighted sum of the cross-entropies of a batch, with its gradient."""

    weights: Tensor
    """Of the examples, shape (batch,) or (members, batch), any sign."""

    def with_gradient(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses against labels (members, batch), and their gradient."""
        return cross_entropy_with_gradient(logits, target, self.weights)


def weighted(outcome: Outcome, weights: Tensor) -> Loss:
    """Return the weighted sum of the losses of a batch as a loss.

    Args:
        outcome: Whose losses.
        weights: Of the examples, shape (batch,) or (members, batch), any sign.
    """
    if isinstance(outcome, Classes):
        return WeightedCrossEntropy(weights)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        each = outcome.loss(outputs, targets)
        return (each * weights.to(each.dtype)).sum(1)

    return loss


def loss_and_gradient(
    logits: Tensor, target: Tensor, loss: Loss | None, ascend: bool, outcome: Outcome, read: bool = True
) -> tuple[Tensor, Tensor]:
    """Return the losses (members,) and the gradient of what is descended, shaped and typed like the outputs.

    Without `read` nobody reads the losses, and NaN may stand for them.
    """
    if loss is None and isinstance(outcome, Classes):
        # The usual loss has its gradient written out: differentiating it took a tenth of a small model's time.
        losses, gradient = cross_entropy_with_gradient(logits, target)
    elif isinstance(loss, WrittenLoss):
        wide = logits.float() if logits.dtype == torch.bfloat16 else logits
        unread = wide.new_full((len(wide),), float("nan"))
        losses, gradient = loss.with_gradient(wide, target) if read else (unread, loss.slope(wide, target))
    else:
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_(True)
            wide = leaf.float() if leaf.dtype == torch.bfloat16 else leaf
            losses = outcome.loss(wide, target).mean(1) if loss is None else loss(wide, target)
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach(), (-gradient if ascend else gradient).to(logits.dtype)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each member averaged over its batch.

    Args:
        logits: Shape (members, batch, classes).
        labels: Shape (members, batch).

    Returns:
        Shape (members,), in nats.
    """
    members, batch, _ = logits.shape
    flat = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return flat.view(members, batch).mean(1)


def cross_entropy_with_gradient(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return what `cross_entropy` returns, and its gradient (softmax - one-hot) / batch.

    Args:
        logits: Shape (members, batch, classes); bfloat16 is raised to float32.
        labels: Shape (members, batch).
        weights: Of the examples in the sum, shape (batch,) or (members, batch), any sign; 1 / batch by default.

    Returns:
        Losses (members,), in nats, and gradients (members, batch, classes).
    """
    # Classes before examples: stacked linear layers put them out like that, and log-softmax along a short last axis is
    # several times slower.
    columns = logits.transpose(1, 2)
    log_p = F.log_softmax(columns, 1, dtype=torch.float32 if logits.dtype == torch.bfloat16 else None)
    index = labels.unsqueeze(1)
    each = -log_p.gather(1, index).squeeze(1)
    factors = None if weights is None else weights.to(each.dtype)
    losses = each.mean(1) if factors is None else (each * factors).sum(1)
    gradient = log_p.exp_()
    minus_one = gradient.new_full((1, 1, 1), -1.0).expand(index.shape)
    gradient.scatter_add_(1, index, minus_one)
    gradient = gradient.div_(labels.shape[1]) if factors is None else gradient.mul_(factors.unsqueeze(-2))
    return losses, gradient.transpose(1, 2)
