"""The inner loop: one gradient step of every member of a stack at once, each on its own batch.

The losses of the members are added before differentiating; since a member's loss depends on its own weights only, the
gradient of the sum is the stack of the members' own gradients. Optimisers are PyTorch's: their updates are elementwise,
so a stack of members is updated exactly as each would be alone. Nothing here mixes members.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.core import Network, Statistics
from expunge.core.recipe import Optimiser, Precision
from expunge.core.tree import State

LANES = 64
"""Numbers that every vectorised loop of the optimisers divides evenly."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits (members, batch, classes) and targets (members, batch, ...) to one loss a member, (members,)."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How steps are taken; a learning rate is given with each step."""

    optimiser: Optimiser = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    precision: Precision = "float32"
    statistics: Statistics = "frozen"


@dataclass
class Descent:
    """A stack of members in training: parameters, buffers, and the optimiser's own state, all (members, ...)."""

    network: Network
    params: State
    """Leaf tensors, changed in place by every step."""
    buffers: State
    """Changed in place when statistics are updated."""
    steps: Steps
    optimiser: torch.optim.Optimizer = field(init=False)
    trainable: dict[str, Tensor] = field(init=False)
    flat: dict[str, Tensor] = field(init=False)
    """The memory of the trainable parameters as the optimiser sees it: one axis, padded to a multiple of `LANES`."""

    def __post_init__(self) -> None:
        """Build the optimiser over the parameters that the template declares trainable."""
        wanted = {name for name, p in self.network.template.named_parameters() if p.requires_grad}
        self.flat = {}
        for name, tensor in self.params.items():
            if name in wanted:
                self.flat[name] = _padded(tensor.detach())
                own = self.flat[name][: tensor.numel()].view(tensor.shape)
                self.params[name] = own.detach().requires_grad_(True)
            else:
                self.params[name] = tensor.detach()
        self.trainable = {name: tensor for name, tensor in self.params.items() if name in wanted}
        self.optimiser = _optimiser(list(self.flat.values()), self.steps)

    def step(
        self,
        x: Tensor,
        target: Tensor,
        lr: float,
        loss: Loss | None = None,
        *,
        ascend: bool = False,
        noise: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """Take one step with every member and return the losses before it.

        Args:
            x: Inputs, shape (members, batch, ...).
            target: What the loss compares with, shape (members, batch, ...); labels for cross-entropy.
            lr: Learning rate, at least 0.
            loss: From logits and target to (members,); cross-entropy averaged over the batch by default.
            ascend: Climb the loss instead of descending it.
            noise: One generator a member for dropout.

        Returns:
            Losses, shape (members,), detached.
        """
        with autocast(self.steps.precision, x.device):
            logits = self.network(self.params, self.buffers, x, statistics=self.steps.statistics, noise=noise)
        tensors = list(self.trainable.values())
        if loss is None:
            # The usual loss has its gradient written out: differentiating it took a tenth of a small model's time.
            losses, gradient = cross_entropy_with_gradient(logits.detach(), target)
            gradient = gradient.neg_() if ascend else gradient
            gradients = torch.autograd.grad(logits, tensors, gradient.to(logits.dtype), allow_unused=True)
        else:
            losses = loss(logits.float() if logits.dtype == torch.bfloat16 else logits, target)
            total = -losses.sum() if ascend else losses.sum()
            gradients = torch.autograd.grad(total, tensors, allow_unused=True)
        for tensor, gradient in zip(self.flat.values(), gradients, strict=True):
            # The fused optimisers read gradients in the memory order of the parameters, without checking.
            tensor.grad = None if gradient is None else _padded(gradient)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.step()
        return losses.detach()

    def state(self) -> tuple[State, State]:
        """Return detached copies of parameters and buffers."""
        return (
            {name: tensor.detach().clone() for name, tensor in self.params.items()},
            {name: tensor.detach().clone() for name, tensor in self.buffers.items()},
        )

    def optimiser_state(self) -> State:
        """Return the optimiser's tensors under flat names, so that they can be written to a file."""
        out: State = {}
        for name, tensor in self.flat.items():
            for key, value in self.optimiser.state.get(tensor, {}).items():
                if isinstance(value, Tensor):
                    out[f"{name}/{key}"] = value.detach().clone()
        return out

    def load_optimiser_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `optimiser_state` returned."""
        for name, tensor in self.flat.items():
            own: dict[str, Any] = self.optimiser.state[tensor]
            for key, value in state.items():
                if key.rpartition("/")[0] == name:
                    own[key.rpartition("/")[2]] = value.to(tensor.device, copy=True)


def _padded(tensor: Tensor) -> Tensor:
    """Return a tensor's values along one axis of a multiple of `LANES`, without a copy where the length fits already.

    The fused optimisers work on vectors and finish the rest one number at a time, rounding differently. Which numbers
    are in the rest depends on how many members are stacked; with no rest, a member's weights do not.
    """
    values = tensor.contiguous().view(-1)
    missing = -len(values) % LANES
    return F.pad(values, (0, missing)) if missing else values


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


def cross_entropy_with_gradient(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `cross_entropy` returns, and its gradient (softmax - one-hot) / batch.

    Args:
        logits: Shape (members, batch, classes); bfloat16 is raised to float32.
        labels: Shape (members, batch).

    Returns:
        Losses (members,), in nats, and gradients (members, batch, classes).
    """
    # Classes before examples: stacked linear layers put them out like that, and log-softmax along a short last axis is
    # several times slower.
    columns = logits.transpose(1, 2)
    log_p = F.log_softmax(columns, 1, dtype=torch.float32 if logits.dtype == torch.bfloat16 else None)
    index = labels.unsqueeze(1)
    losses = -log_p.gather(1, index).squeeze(1).mean(1)
    gradient = log_p.exp_()
    minus_one = gradient.new_full((1, 1, 1), -1.0).expand(index.shape)
    gradient.scatter_add_(1, index, minus_one).div_(labels.shape[1])
    return losses, gradient.transpose(1, 2)


@contextlib.contextmanager
def autocast(precision: Precision, device: torch.device) -> Iterator[None]:
    """Run the forward pass in bfloat16 where the recipe asks for it; otherwise do nothing."""
    if precision != "bfloat16":
        yield
        return
    with torch.autocast(device.type, dtype=torch.bfloat16):
        yield


def _optimiser(tensors: list[Tensor], steps: Steps) -> torch.optim.Optimizer:
    # The learning rate is set before every step; the value here is only a placeholder that PyTorch accepts.
    if steps.optimiser == "sgd":
        return torch.optim.SGD(tensors, lr=1.0, momentum=steps.momentum, weight_decay=steps.weight_decay, fused=True)
    kind = torch.optim.Adam if steps.optimiser == "adam" else torch.optim.AdamW
    betas = (steps.momentum, 0.999)
    return kind(tensors, lr=1.0, betas=betas, weight_decay=steps.weight_decay, fused=True)
