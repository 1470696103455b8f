"""The ensemble: M models of one architecture, stacked along the leading axis of every parameter and buffer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from expunge.core import tree
from expunge.core.checks import described
from expunge.core.errors import InputError
from expunge.core.margins import margins_from_logits
from expunge.core.tree import State

Statistics = Literal["frozen", "updated"]


class Network(Protocol):
    """One architecture, evaluated for a whole stack of members at once."""

    template: nn.Module
    """A module of the architecture; only its structure is used, never its weights."""
    kind: str
    """How the stack is evaluated: `layers` (hand-stacked) or `vmap`."""
    widest: int
    """Numbers in the largest activation of one example and one member, for sizing batches."""

    def __call__(
        self,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        x: Tensor,
        *,
        statistics: Statistics = "frozen",
        noise: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """Return logits (members, batch, classes) for inputs (members or 1, batch, ...).

        Args:
            params: Stacked parameters, each (members, ...).
            buffers: Stacked buffers, each (members, ...); changed in place when statistics are updated.
            x: Inputs; a leading axis of 1 means the same batch for every member.
            statistics: `frozen` normalises with the stored statistics; `updated` with those of the batch, and stores.
            noise: One generator a member for dropout; None switches dropout off.
        """
        ...


@dataclass(frozen=True)
class Ensemble:
    """M models of one architecture, with where they came from."""

    network: Network
    """Evaluates the stack."""
    params: State
    """Trainable tensors, each (members, ...)."""
    buffers: State
    """Other state such as normalisation statistics, each (members, ...)."""
    ids: tuple[int, ...]
    """The index of each member in its study; a member keeps it in every selection."""
    seed: int
    """The study's seed that the members were made with."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """The specification that the members came from."""
    trace: Any = None
    """What happened while unlearning (`expunge.methods.Trace`), or None."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, members: slice) -> Ensemble:
        """Return the members of a slice; tensors are views."""
        return replace(
            self,
            params=tree.take(self.params, members),
            buffers=tree.take(self.buffers, members),
            ids=self.ids[members],
        )

    def with_state(self, params: State, buffers: State, **changes: Any) -> Ensemble:
        """Return an ensemble of the same members with other weights."""
        return replace(self, params=params, buffers=buffers, **changes)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.params.values())).device

    def to(self, device: torch.device | str) -> Ensemble:
        """Return the ensemble on a device."""
        move = {name: t.to(device) for name, t in self.params.items()}
        return self.with_state(move, {name: t.to(device) for name, t in self.buffers.items()})

    def clone(self) -> Ensemble:
        """Return a copy that shares no memory with this one."""
        return self.with_state(tree.clone(self.params), tree.clone(self.buffers))

    def module(self, member: int) -> nn.Module:
        """Return one member as an ordinary module in evaluation mode, with its own copy of the weights.

        Args:
            member: Position in the stack, from 0 to members - 1.
        """
        import copy

        module = copy.deepcopy(self.network.template)
        state = {**self.params, **self.buffers}
        own = {name: tensor[member].detach().cpu().clone() for name, tensor in state.items()}
        module.load_state_dict(own, strict=False)
        return module.eval()

    def logits(self, x: Tensor, *, budget: int = 2**24) -> Tensor:
        """Return logits of every member on the same examples, with stored statistics and without dropout.

        Args:
            x: Inputs, shape (examples, ...).
            budget: Numbers that the largest activation may hold at once; sets how many examples go through together.

        Returns:
            Shape (members, examples, classes), on the CPU.

        Raises:
            InputError: If the network cannot take inputs of this shape.
        """
        return torch.cat(list(self._batched_logits(x, budget)), dim=1)

    def margins(self, x: Tensor, y: Tensor, *, budget: int = 2**24) -> Tensor:
        """Return margins of every member: logit of the true class minus log-sum-exp of the others.

        Args:
            x: Inputs, shape (examples, ...).
            y: Labels, shape (examples,).
            budget: As in `logits`.

        Returns:
            Shape (members, examples), on the CPU; NaN where a member is not finite.

        Raises:
            InputError: If the network cannot take inputs of this shape, or labels do not fit inputs or classes.
        """
        x, y = _as_tensor(x, "x"), _as_tensor(y, "y")
        _check_pairs(x, y)
        parts, start = [], 0
        for logits in self._batched_logits(x, budget):
            if start == 0:
                _check_labels(y, logits.shape[-1])
            stop = start + logits.shape[1]
            parts.append(margins_from_logits(logits, y[start:stop]))
            start = stop
        return torch.cat(parts, dim=1)

    def accuracy(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the share of examples that each member classifies correctly, shape (members,), from 0 to 1.

        An example whose logits are not all finite counts as wrong: argmax would call it class 0.
        """
        x, y = _as_tensor(x, "x"), _as_tensor(y, "y")
        _check_pairs(x, y)
        logits = self.logits(x)
        _check_labels(y, logits.shape[-1])
        correct = (logits.argmax(-1) == y.cpu()) & torch.isfinite(logits).all(-1)
        return correct.double().mean(1)

    def finite(self) -> Tensor:
        """Return which members have only finite weights and statistics, shape (members,), boolean."""
        return tree.finite_members({**self.params, **self.buffers}).cpu()

    @torch.no_grad()
    def _batched_logits(self, x: Tensor, budget: int) -> Iterator[Tensor]:
        x = _as_tensor(x, "x")
        if x.ndim == 0 or len(x) == 0:
            raise InputError("x has no examples, expected at least one.")
        reference = next(iter(self.params.values()))
        if x.is_floating_point():
            x = x.to(reference.dtype)
        examples = max(1, budget // max(1, self.network.widest * len(self)))
        for start in range(0, len(x), examples):
            batch = x[start : start + examples].to(self.device)
            try:
                logits = self.network(self.params, self.buffers, batch.unsqueeze(0))
            except Exception:
                self._check_inputs(x)
                raise
            yield logits.cpu()

    def _check_inputs(self, x: Tensor) -> None:
        """Raise `InputError` if a single member cannot take one example either: then the inputs are to blame."""
        try:
            self.module(0)(x[:1].cpu())
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            said = str(error).strip().partition("\n")[0] or type(error).__name__
            raise InputError(
                f"x of shape {tuple(x.shape)} and type {x.dtype} does not fit the models (they said: {said}); expected "
                "(examples, ...) with examples shaped as those of their task, such as task.validation.x."
            ) from error


def _as_tensor(values: Any, name: str) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} is {described(values)}, expected a tensor or an array of numbers.") from error


def _check_pairs(x: Tensor, y: Tensor) -> None:
    if y.ndim != 1:
        raise InputError(f"y has shape {tuple(y.shape)}, expected one class number an example, shape (examples,).")
    examples = len(x) if x.ndim else 0
    if examples != len(y):
        raise InputError(f"x has {examples} examples but y has {len(y)} labels, expected the same number.")


def _check_labels(y: Tensor, classes: int) -> None:
    if y.is_floating_point() and not bool((y == y.round()).all()):
        raise InputError("y is fractional, expected class numbers 0, 1, 2, ...")
    low, high = int(y.long().min()), int(y.long().max())
    if low < 0 or high >= classes:
        raise InputError(
            f"y runs from {low} to {high}, expected 0 to {classes - 1}: the models tell {classes} classes apart."
        )
