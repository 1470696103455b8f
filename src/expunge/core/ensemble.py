"""The ensemble: M models of one architecture, stacked along the leading axis of every parameter and buffer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn

from expunge.core import tree
from expunge.core.checks import described, instance, plain, whole
from expunge.core.errors import InputError
from expunge.core.interface import Interface
from expunge.core.modules import copied, fill
from expunge.core.outcomes import Outcome
from expunge.core.stopping import check_stopped
from expunge.core.tree import State

if TYPE_CHECKING:
    from expunge.core.task import Task

Statistics = Literal["frozen", "updated"]


class Network(Protocol):
    """One architecture, evaluated for a whole stack of members at once."""

    template: nn.Module
    """A module of the architecture; only its structure is used, never its weights."""
    kind: str
    """How the stack is evaluated: `layers` (hand-stacked), `vmap`, or `one` (one member at a time)."""
    reason: str
    """Why no earlier form is used; empty for the first."""
    attributes: tuple[str, ...]
    """Paths of plain attributes that belong to a member and travel among its buffers."""
    widest: int
    """Numbers in the largest activation of one example and one member, for sizing batches."""
    interface: Interface
    """How the module is called."""
    outcome: Outcome
    """What its outputs mean."""

    def __call__(
        self,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        x: Tensor,
        *,
        statistics: Statistics = "frozen",
        noise: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """Return outputs (members, batch, ...) for packed inputs (members or 1, batch, ...): logits, for classes.

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
    states: Mapping[int, State] = field(default_factory=dict)
    """Kept states of training by the epochs done then: `params/...`, `buffers/...` and `optimiser/...`, each
    (members, ...), on the CPU; empty unless `expunge.train(..., keep=...)` was asked for them."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, members: slice) -> Ensemble:
        """Return the members of a slice; tensors are views.

        Raises:
            InputError: If it is no slice, or there is no member in it.
        """
        if not isinstance(members, slice):
            raise InputError(
                f"ensemble[...] got {described(members)}, expected a slice such as ensemble[0:5]; "
                "ensemble.module(0) is one member."
            )
        try:
            chosen = self.ids[members]
        except (TypeError, ValueError) as error:
            raise InputError(f"ensemble[...] got a slice that cannot be read ({error}), expected [0:5].") from error
        if not chosen or (members.step or 1) < 0:
            raise InputError(
                f"ensemble[{members.start}:{members.stop}:{members.step or 1}] holds no members in order, expected "
                f"positions from 0 to {len(self)}."
            )
        return replace(
            self,
            params=tree.take(self.params, members),
            buffers=tree.take(self.buffers, members),
            ids=chosen,
            states={epoch: tree.take(state, members) for epoch, state in self.states.items()},
        )

    def with_state(self, params: State, buffers: State, **changes: Any) -> Ensemble:
        """Return an ensemble of the same members with other weights, and without kept states of their training."""
        return replace(self, params=params, buffers=buffers, **{"states": {}, **changes})

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.params.values())).device

    def to(self, device: torch.device | str) -> Ensemble:
        """Return the ensemble on a device."""
        instance((str, torch.device), "a device such as 'cpu' or 'cuda'", device=device)
        try:
            if torch.device(device).type == "meta":
                raise RuntimeError("it holds no numbers")
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            said = str(error).partition("\n")[0]
            raise InputError(
                f"device = {str(device)!r} cannot be used ({said}); choose cpu, or cuda:NUMBER."
            ) from error
        move = {name: t.to(device) for name, t in self.params.items()}
        return self.with_state(move, {name: t.to(device) for name, t in self.buffers.items()}, states=self.states)

    def clone(self) -> Ensemble:
        """Return a copy that shares no memory with this one."""
        states = {epoch: tree.clone(state) for epoch, state in self.states.items()}
        return self.with_state(tree.clone(self.params), tree.clone(self.buffers), states=states)

    def module(self, member: int) -> nn.Module:
        """Return one member as an ordinary module in evaluation mode, with its own copy of the weights.

        Args:
            member: Position in the stack, from 0 to members - 1.

        Raises:
            InputError: If there is no such member, or models are known by their outputs alone.
        """
        member = self.position(member)
        if getattr(self.network, "kind", "") == "outputs":
            raise InputError(
                "these models are known by their outputs alone, so there is no module; train with a model."
            )
        own = {name: tensor[member] for name, tensor in {**self.params, **self.buffers}.items()}
        module = copied(self.network.template).to(next(iter(self.params.values())).dtype)
        return fill(module, own, getattr(self.network, "attributes", ())).eval()

    def position(self, member: int) -> int:
        """Return a member's position as Python's own number; refuse one that is not from 0 to members - 1."""
        whole(minimum=0, member=member)
        if member >= len(self):
            raise InputError(f"member = {member}, expected a position from 0 to {len(self) - 1}.")
        return int(plain(member))

    @classmethod
    def from_modules(cls, modules: Sequence[nn.Module], task: Task) -> Ensemble:
        """Return trained modules as an ensemble; they are copied.

        Args:
            modules: Modules of the task's architecture, each trained on its own.
            task: Whose `model` makes such a module.

        Raises:
            InputError: If one is of another architecture or has other outputs, is not finite, or two are the same.
        """
        from expunge.core import checkpoints

        return checkpoints.from_modules(modules, task)

    @classmethod
    def from_files(cls, files: Any, task: Task) -> Ensemble:
        """Return checkpoints as an ensemble, one member a file, in the order of their names.

        Args:
            files: A folder, a pattern such as `"oracle/*.safetensors"`, or a list of files. Files of PyTorch (`.pt`,
                `.pth`) hold a `state_dict`, alone or in a mapping; pickled objects are never loaded.
            task: Whose `model` makes the module that was saved.

        Raises:
            InputError: If there is no file, one is no checkpoint or of another architecture, is not finite or cannot
                be held exactly in the task's precision, or two hold the same weights.
        """
        from expunge.core import checkpoints

        return checkpoints.from_files(files, task)

    def save(self, folder: Path | str) -> Path:
        """Write the ensemble into a new folder, one safetensors file a member, and return the folder.

        Kept states of training are not written; a store of `expunge.train` holds them.

        Raises:
            InputError: If the folder is not empty.
        """
        from expunge.core import checkpoints

        return checkpoints.save(self, folder)

    @classmethod
    def load(cls, folder: Path | str, task: Task | None = None) -> Ensemble:
        """Return an ensemble that `save` wrote.

        Args:
            folder: The folder.
            task: Its task; without it the weights alone are there, and nothing can be evaluated.

        Raises:
            InputError: If there is no saved ensemble, or it is of another architecture.
            DamagedFileError: If a file is missing or altered.
        """
        from expunge.core import checkpoints

        return checkpoints.load(folder, task)

    def export(self, member: int, path: Path | str) -> Path:
        """Write one member's `state_dict` as a checkpoint that its module loads, and return the path.

        Args:
            member: Position in the stack, from 0 to members - 1.
            path: A file; `.safetensors`, or `.pt` or `.pth` for PyTorch's own format.
        """
        from expunge.core import checkpoints

        return checkpoints.export(self, member, path)

    def logits(self, x: Any, *, budget: int = 2**24) -> Tensor:
        """Return the outputs of every member on the same examples, with stored statistics and without dropout.

        Args:
            x: Inputs, shape (examples, ...), or a mapping from names to them.
            budget: Numbers that the largest activation may hold at once; sets how many examples go through together.

        Returns:
            Shape (members, examples, classes), on the CPU; for other outcomes than classes what the models put out.

        Raises:
            InputError: If the network cannot take inputs of this shape.
        """
        whole(budget=budget)
        return torch.cat(list(self._batched_logits(x, plain(budget))), dim=1)

    def margins(self, x: Any, y: Any, *, budget: int = 2**24) -> Tensor:
        """Return the number of every member and example that metrics compare: the margin, for classes.

        Args:
            x: Inputs, shape (examples, ...), or a mapping from names to them.
            y: Targets, shape (examples, ...).
            budget: As in `logits`.

        Returns:
            Shape (members, examples), on the CPU; NaN where a member is not finite.

        Raises:
            InputError: If the network cannot take inputs of this shape, or targets do not fit inputs or outcome.
        """
        whole(budget=budget)
        x, y, outcome = self.network.interface.pack(x), self.network.outcome.read(y, "y"), self.network.outcome
        _check_pairs(x, y)
        parts, start = [], 0
        for logits in self._batched_logits(x, plain(budget)):
            if start == 0:
                outcome.check(logits[0], y)
            stop = start + logits.shape[1]
            parts.append(outcome.statistic(logits, y[start:stop]).to(logits.dtype))
            start = stop
        return torch.cat(parts, dim=1)

    def accuracy(self, x: Any, y: Any) -> Tensor:
        """Return the utility of each member, shape (members,): the share classified correctly, for classes."""
        x, y, outcome = self.network.interface.pack(x), self.network.outcome.read(y, "y"), self.network.outcome
        _check_pairs(x, y)
        logits = self.logits(x)
        outcome.check(logits[0], y)
        return outcome.utility(logits, y.cpu())

    def finite(self) -> Tensor:
        """Return which members have only finite weights and statistics, shape (members,), boolean."""
        return tree.finite_members({**self.params, **self.buffers}).cpu()

    @torch.no_grad()
    def _batched_logits(self, x: Any, budget: int) -> Iterator[Tensor]:
        x = self.network.interface.pack(x)
        if x.ndim == 0 or len(x) == 0:
            raise InputError("x has no examples, expected at least one.")
        reference = next(iter(self.params.values()))
        if x.is_floating_point():
            x = x.to(reference.dtype)
        examples = max(1, budget // max(1, self.network.widest * len(self)))
        for start in range(0, len(x), examples):
            check_stopped()
            batch = x[start : start + examples].to(self.device)
            try:
                # A form of network may have a quicker way where nothing is differentiated.
                run = getattr(self.network, "predict", self.network)
                logits = run(self.params, self.buffers, batch.unsqueeze(0))
            except InputError:
                raise
            except Exception:
                self._check_inputs(x)
                raise
            yield logits.cpu()

    def _check_inputs(self, x: Tensor) -> None:
        """Raise `InputError` if a single member cannot take one example either: then the inputs are to blame."""
        try:
            self.network.interface.run(self.module(0), x[:1].cpu())
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            said = str(error).strip().partition("\n")[0] or type(error).__name__
            raise InputError(
                f"x of shape {tuple(x.shape)} and type {x.dtype} does not fit the models (they said: {said}); expected "
                "(examples, ...) with examples shaped as those of their task, such as task.validation.x."
            ) from error


def _check_pairs(x: Tensor, y: Tensor) -> None:
    examples = len(x) if x.ndim else 0
    if examples != len(y):
        raise InputError(f"x has {examples} examples but y has {len(y)} targets, expected the same number.")
