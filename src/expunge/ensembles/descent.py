"""The inner loop: one gradient step of every member of a stack at once, each on its own batch.

The losses of the members are added before differentiating; since a member's loss depends on its own weights only, the
gradient of the sum is the stack of the members' own gradients. Optimisers are PyTorch's: their updates are elementwise,
so a stack of members is updated exactly as each would be alone. Nothing here mixes members.

On a CPU, networks of known layers, in chains or with sums, are differentiated by written-out formulas (see
`by_hand.py`), all others by autograd.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.core import Network, Split, Statistics
from expunge.core.outcomes import Classes
from expunge.core.recipe import Optimizer, Precision
from expunge.core.renamed import renamed
from expunge.core.stopping import check_stopped
from expunge.core.tree import State
from expunge.ensembles.batches import gather
from expunge.ensembles.by_hand import Pass, Written, made
from expunge.ensembles.chain import Chain, Known
from expunge.ensembles.dense import KINDS, Update, move
from expunge.ensembles.direct import at, library
from expunge.ensembles.losses import USUAL, Loss, Objective, loss_and_gradient
from expunge.ensembles.network import LayerNetwork
from expunge.ensembles.rule import LaidOut, Rule
from expunge.ensembles.written import Setting

LANES = 64
"""Numbers that every vectorised loop of the optimisers divides evenly."""

SQUARES, LEAST = 0.999, 1e-8
"""Of Adam: share of the second moments that is kept, and what is added to their root."""

WHOLE = ""
"""Name of the block that holds all trainable parameters, where there is one."""


@renamed("optimiser")
@dataclass(frozen=True, kw_only=True)
class Steps:
    """How steps are taken; a learning rate is given with each step."""

    optimizer: Optimizer = "sgd"
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
    by_hand: bool = True
    """Whether written-out gradients are used where there are any; False is for comparing."""
    only: Collection[str] | None = None
    """Names of the parameters that move, of those that the template declares trainable; None is all of these."""
    optimizer: torch.optim.Optimizer = field(init=False)
    trainable: dict[str, Tensor] = field(init=False)
    flat: dict[str, Tensor] = field(init=False)
    """The memory of each trainable parameter: one axis, padded to a multiple of `LANES`."""
    written: Pass | None = field(init=False, default=None)
    chain: Chain | None = field(init=False, default=None)
    """Takes many steps in one call, where the network allows it."""
    rule: LaidOut = field(init=False)

    def __post_init__(self) -> None:
        """Build the optimiser over the parameters that move: nothing of it (momentum, decay) can reach the others."""
        wanted = {name for name, p in self.network.template.named_parameters() if p.requires_grad}
        wanted &= wanted if self.only is None else set(self.only)
        self.flat = {name: padded(tensor.detach()) for name, tensor in self.params.items() if name in wanted}
        written = self._written()
        if written:
            # One block for all parameters, so that the optimiser has one tensor to update.
            block = torch.cat(list(self.flat.values()))
            self.flat = self._parts(block)
        for name, tensor in self.params.items():
            if name in wanted:
                own = self.flat[name][: tensor.numel()].view(tensor.shape)
                self.params[name] = own.detach().requires_grad_(True)
            else:
                self.params[name] = tensor.detach()
        self.trainable = {name: tensor for name, tensor in self.params.items() if name in wanted}
        self._updated = self.flat
        if written:
            block.grad = torch.zeros_like(block)
            parts = self._parts(block.grad)
            gradients = {name: parts[name][: own.numel()].view(own.shape) for name, own in self.trainable.items()}
            weights = {name: tensor.detach() for name, tensor in self.params.items()}
            self.written = Pass(made(written), Setting(weights, gradients, self.buffers))
            self._updated = {WHOLE: block}
            ends = itertools.accumulate(len(tensor) for tensor in self.flat.values())
            places = {name: end - len(self.flat[name]) for name, end in zip(self.flat, ends, strict=True)}
            members = len(next(iter(self.params.values())))
            self.chain = Chain.of(self.written, block.detach(), places, members)
        self.follow(Rule())
        self.optimizer = _optimizer(list(self._updated.values()), self.steps)

    def follow(self, rule: Rule) -> None:
        """Take the steps from here on by a rule, which replaces the one before.

        Args:
            rule: Its tensors are copied.
        """

        def lay_out(values: State) -> State:
            flat = {name: padded(values[name]) for name in self.flat}
            return flat if self.written is None else {WHOLE: torch.cat(list(flat.values()))}

        self.rule = LaidOut(rule, self.trainable, lay_out)

    def _written(self) -> Sequence[Written]:
        """Return what makes the layers with written-out gradients, or nothing where autograd is to be used."""
        kinds = {(tensor.dtype, tensor.device.type) for tensor in self.params.values()}
        known = len(kinds) == 1 and kinds <= {(torch.float32, "cpu"), (torch.float64, "cpu")}
        if not (self.by_hand and self.flat and known) or self.steps.precision == "bfloat16":
            return []
        return self.network.by_hand or [] if isinstance(self.network, LayerNetwork) else []

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
            loss: From outputs and target to (members,); the outcome's loss averaged over the batch by default.
            ascend: Climb the loss instead of descending it.
            noise: One generator a member for dropout.

        Returns:
            Losses, shape (members,), detached.
        """
        losses = self._differentiate(x, target, loss, ascend, noise)
        self._move(lr)
        return losses

    def run(
        self,
        data: Split,
        order: Tensor,
        batch_size: int | Sequence[int],
        rates: Sequence[float],
        *,
        labels: Tensor | None = None,
        objective: Objective = USUAL,
        first: int = 0,
        ascend: bool = False,
        noise: Sequence[torch.Generator] | None = None,
        before: Callable[[int], None] | None = None,
    ) -> None:
        """Take a step on each batch of an order.

        Args:
            data: Inputs and targets that the order names.
            order: Positions in the data, shape (members, k); batches are consecutive.
            batch_size: Examples of a batch, of which the last may be smaller; or those of each.
            rates: Learning rate of each step, at least 0.
            labels: Targets at each position, shape (members, k, ...), where they are not those of the data.
            objective: What the steps descend; the outcome's loss by default.
            first: Number of the batch to begin with.
            ascend: Climb the loss instead of descending it.
            noise: One generator a member for dropout.
            before: Called with the number of the batch before work that can be interrupted; may raise.

        Raises:
            StoppedError: Between two steps, if the caller of this thread was interrupted.
        """
        ends = _ends(order.shape[1], batch_size)
        largest = max((end - begin for begin, end in itertools.pairwise(ends)), default=0)
        many = self.chain if self.takes_many(data, largest, objective, labels) else None
        shares, at_once = objective.shares(order, ends), 1
        if many is not None:
            shares, at_once = (-shares if ascend else shares).to(data.x.dtype).contiguous(), many.steps_a_call(largest)
            labels = (gather(data.y, order) if labels is None else labels).contiguous()
        done = 0
        while done < len(rates):
            number, some = first + done, rates[done : done + at_once]
            if before is not None:
                before(number)
            check_stopped()
            if many is not None and labels is not None:
                known, between = cast(Known, objective.known), ends[number : number + len(some) + 1]
                many.run(data.x, labels, order, between, some, shares, known, self._update())
                self._taken(len(some))
            else:
                part = slice(ends[number], ends[number + 1])
                index = order[:, part]
                own_labels = gather(data.y, index) if labels is None else labels[:, part]
                loss, target = objective.of_batch(index, own_labels, shares[:, part])
                self._differentiate(gather(data.x, index), target, loss, ascend, noise, read=False)
                self._move(some[0])
            done += len(some)

    def takes_many(
        self, data: Split, batch_size: int, objective: Objective = USUAL, labels: Tensor | None = None
    ) -> bool:
        """Return whether many steps on such data go into one call: a chain, a loss and labels that it knows.

        Args:
            data: Inputs and labels.
            batch_size: Of the steps, the largest.
            objective: What they descend.
            labels: Of each position, any shape, where they are not those of the data.
        """
        if (
            self.chain is None
            or objective.known is None
            or not isinstance(self.network.outcome, Classes)
            or not self.chain.takes(data, batch_size, objective.known)
        ):
            return False
        read = data.y if labels is None else labels
        return read.dtype == torch.int64 and bool(((read >= 0) & (read < self.chain.sizes[-1])).all())

    def _update(self) -> Update:
        """Return how the compiled kernels move the block of all parameters, with the optimiser's own tensors."""
        ((name, block),) = self._updated.items()
        own, state, rule = self.steps, cast(dict[str, Any], self.optimizer.state[block]), self.rule
        adam = own.optimizer != "sgd"
        moments = ["exp_avg", "exp_avg_sq"] if adam else ["momentum_buffer"] if own.momentum else []
        for key in moments:
            if state.get(key) is None:
                state[key] = torch.zeros_like(block)
        first, second = [at(state[key]) for key in moments] + [None] * (2 - len(moments))
        return Update(
            kind=KINDS.index(own.optimizer),
            taken=int(state.setdefault("step", torch.zeros(()))) if adam else 0,
            momentum=own.momentum,
            decay=own.weight_decay,
            squares=SQUARES,
            least=LEAST,
            penalty=rule.penalty,
            anchor=rule.anchor,
            first=first,
            second=second,
            penalised=at(rule.penalised.get(name)),
            factors=at(rule.factors.get(name)),
            moving=at(rule.moving.get(name)),
            start=at(rule.start.get(name)),
        )

    def _taken(self, steps: int) -> None:
        """Count steps that the compiled kernels took, as Adam does."""
        (block,) = self._updated.values()
        if "step" in self.optimizer.state[block]:
            self.optimizer.state[block]["step"] += steps

    def gradients(
        self,
        x: Tensor,
        target: Tensor,
        loss: Loss | None = None,
        *,
        ascend: bool = False,
        noise: Sequence[torch.Generator] | None = None,
    ) -> tuple[Tensor, State]:
        """Return the losses and each member's own gradients, without a step; the arguments are those of `step`.

        Returns:
            Losses (members,), and gradients by name, each (members, ...); parameters without a gradient are left out.
        """
        losses = self._differentiate(x, target, loss, ascend, noise)
        if self.written is not None:
            return losses, {name: tensor.clone() for name, tensor in self.written.setting.gradients.items()}
        found = {name: tensor.grad for name, tensor in self.flat.items()}
        own = {n: g[: self.params[n].numel()].view(self.params[n].shape) for n, g in found.items() if g is not None}
        return losses, {name: tensor.clone() for name, tensor in own.items()}

    def apply(self, gradients: Mapping[str, Tensor], rate: float | Tensor) -> None:
        """Take the optimiser's step along given gradients.

        Args:
            gradients: By name, each (members, ...); a parameter that is left out stays where it is.
            rate: Learning rate, at least 0; one number, or one a member, shape (members,).
        """
        if self.written is not None:
            for name, place in self.written.setting.gradients.items():
                place.copy_(gradients[name]) if name in gradients else place.zero_()
        else:
            for name, tensor in self.flat.items():
                tensor.grad = padded(gradients[name]) if name in gradients else None
        if not isinstance(rate, Tensor):
            self._move(rate)
            return
        # What an optimiser adds is proportional to its rate.
        before = {name: tensor.detach().clone() for name, tensor in self.trainable.items()}
        self._move(1.0)
        with torch.no_grad():
            for name, tensor in self.trainable.items():
                own = rate.to(tensor).view(-1, *[1] * (tensor.ndim - 1))
                tensor.copy_(torch.lerp(before[name], tensor, own))

    def _move(self, lr: float) -> None:
        if self.written is not None and library() is not None:
            (block,) = self._updated.values()
            move(block, block.grad, self._update(), lr)
            self._taken(1)
            return
        self.rule.before(self._updated)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if self.steps.optimizer == "sgd" and self.steps.momentum:
            # A parameter may get its first gradient late; the fused optimiser wants all buffers or none.
            moved = [tensor for tensor in self._updated.values() if tensor.grad is not None]
            new = [tensor for tensor in moved if self.optimizer.state[tensor].get("momentum_buffer") is None]
            for tensor in new if len(new) < len(moved) else []:
                self.optimizer.state[tensor]["momentum_buffer"] = torch.zeros_like(tensor)
        self.optimizer.step()
        self.rule.after(self._updated)

    def _differentiate(
        self,
        x: Tensor,
        target: Tensor,
        loss: Loss | None,
        ascend: bool,
        noise: Sequence[torch.Generator] | None,
        read: bool = True,
    ) -> Tensor:
        """Set the gradients and return the losses, detached; without `read` they may be NaN."""
        if self.written is not None:
            inputs = self.network.interface.prepare(x)
            logits = self.written.forward(inputs, update=self.steps.statistics == "updated", noise=noise)
            losses, gradient = loss_and_gradient(logits, target, loss, ascend, self.network.outcome, read)
            self.written.backward(gradient)
            return losses
        with autocast(self.steps.precision, x.device):
            logits = self.network(self.params, self.buffers, x, statistics=self.steps.statistics, noise=noise)
        losses, gradient = loss_and_gradient(logits.detach(), target, loss, ascend, self.network.outcome, read)
        tensors = list(self.trainable.values())
        gradients = torch.autograd.grad(logits, tensors, gradient, allow_unused=True)
        for tensor, own in zip(self.flat.values(), gradients, strict=True):
            # The fused optimisers read gradients in the memory order of the parameters, without checking.
            tensor.grad = None if own is None else padded(own)
        return losses

    def state(self) -> tuple[State, State]:
        """Return detached copies of parameters and buffers."""
        return (
            {name: tensor.detach().clone() for name, tensor in self.params.items()},
            {name: tensor.detach().clone() for name, tensor in self.buffers.items()},
        )

    def optimizer_state(self) -> State:
        """Return the optimiser's tensors under flat names, so that they can be written to a file."""
        out: State = {}
        for whole, tensor in self._updated.items():
            for key, value in self.optimizer.state.get(tensor, {}).items():
                if isinstance(value, Tensor):
                    parts = self._parts(value) if whole == WHOLE else {whole: value}
                    out.update({f"{name}/{key}": part.detach().clone() for name, part in parts.items()})
        return out

    def load_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `optimizer_state` returned."""
        for whole, tensor in self._updated.items():
            own: dict[str, Any] = self.optimizer.state[tensor]
            kept: dict[str, dict[str, Tensor]] = {}
            for name_and_key, value in state.items():
                name, _, key = name_and_key.rpartition("/")
                kept.setdefault(key, {})[name] = value
            for key, values in kept.items():
                if whole == WHOLE:
                    parts = [values[name] for name in self.flat]
                    own[key] = (torch.cat(parts) if parts[0].ndim else parts[0]).to(tensor.device, copy=True)
                elif whole in values:
                    own[key] = values[whole].to(tensor.device, copy=True)

    def _parts(self, value: Tensor) -> dict[str, Tensor]:
        """Return the parts of a tensor over all parameters that belong to each; a single number belongs to all."""
        if value.ndim == 0:
            return dict.fromkeys(self.flat, value)
        return dict(zip(self.flat, torch.split(value, [len(tensor) for tensor in self.flat.values()]), strict=True))


def _ends(length: int, batch_size: int | Sequence[int]) -> list[int]:
    """Return 0, and where each batch of an order ends."""
    if isinstance(batch_size, int):
        return [*range(0, length, batch_size), length]
    return [0, *itertools.accumulate(batch_size)]


def padded(tensor: Tensor) -> Tensor:
    """Return a tensor's values along one axis of a multiple of `LANES`, without a copy where the length fits already.

    The fused optimisers work on vectors and finish the rest one number at a time, rounding differently. Which numbers
    are in the rest depends on how many members are stacked; with no rest, a member's weights do not.
    """
    values = tensor.contiguous().view(-1)
    missing = -len(values) % LANES
    return F.pad(values, (0, missing)) if missing else values


@contextlib.contextmanager
def autocast(precision: Precision, device: torch.device) -> Iterator[None]:
    """Run the forward pass in bfloat16 where the recipe asks for it; otherwise do nothing."""
    if precision != "bfloat16":
        yield
        return
    with torch.autocast(device.type, dtype=torch.bfloat16):
        yield


def _optimizer(tensors: list[Tensor], steps: Steps) -> torch.optim.Optimizer:
    # The learning rate is set before every step; the value here is only a placeholder that PyTorch accepts.
    if steps.optimizer == "sgd":
        return torch.optim.SGD(tensors, lr=1.0, momentum=steps.momentum, weight_decay=steps.weight_decay, fused=True)
    kind = torch.optim.Adam if steps.optimizer == "adam" else torch.optim.AdamW
    betas = (float(steps.momentum), SQUARES)  # both of one type
    return kind(tensors, lr=1.0, betas=betas, eps=LEAST, weight_decay=steps.weight_decay, fused=True)
