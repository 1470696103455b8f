"""A method of the user's own: a function on plain modules and data loaders, run member by member.

    fn(model, retain_loader, forget_loader, validation_loader) -> model | None

Source of the signature: the NeurIPS 2023 Machine Unlearning Challenge's starting kit (Triantafillou et al., "Are we
making progress in unlearning?", arXiv 2406.09073), which most public code follows.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn
from torch.utils.data import DataLoader

from expunge.core import ForgetSet, InputError, Network, Split, Task
from expunge.core.checkpoints import Architecture
from expunge.core.checks import described, instance, plain, whole
from expunge.core.digest import digest_function
from expunge.core.errors import told
from expunge.core.examples import Examples
from expunge.core.outputs_alone import read_outputs
from expunge.core.seeds import derive
from expunge.core.task import seeded
from expunge.core.tree import State
from expunge.ensembles.own_loop import fit_seed, member_seeds
from expunge.ensembles.plan import check_batch_norm
from expunge.ensembles.processes import run_each
from expunge.methods.method import Method, Need
from expunge.methods.problem import FORWARD_SHARE, Checkpoint, Problem

Function = Callable[..., nn.Module | None]

PLAIN = (bool, int, float, str, type(None))
"""What options can be: they are written into records."""


@dataclass(frozen=True, kw_only=True, repr=False)
class FromFunction(Method):
    """What `from_function` returns."""

    function: Function
    title: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    source: str = ""
    """Digest of what the function does: runs of other functions, or of this one changed, are other runs."""

    label: ClassVar[str] = "Own function"
    statistics: ClassVar[str] = "updated"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "forget", "modules"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite")
    forecastable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Take the function's name as that of the method, and digest it."""
        object.__setattr__(self, "name", self.title)
        object.__setattr__(self, "label", self.title)
        object.__setattr__(self, "source", digest_function(self.function)[:12])

    def __repr__(self) -> str:
        """Return the call that makes it."""
        inside = "".join(f", {key}={value!r}" for key, value in self.options().items())
        return f"from_function({self.title}{inside})"

    def options(self) -> dict[str, Any]:
        """Return the function's own options, and the batch size where it is not the recipe's."""
        return {**self.arguments, **({} if self.batch_size is None else {"batch_size": self.batch_size})}

    def defaults(self) -> dict[str, Any]:
        """Return none: whatever a function was given is shown."""
        return {}

    def describe(self) -> str:
        """Return the method with its options and the digest of its source."""
        return f"{super().describe()} of source {self.source}"

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse batches of one under batch norm."""
        for rows in (forget.indices, forget.retain):
            check_batch_norm(network, len(rows), self.batch_size or task.recipe.batch_size)

    def planned_cost(self, forget: int, retain: int, epochs: int) -> float:
        """Return the cost of one pass over R and F: what a function will read is not known."""
        return (forget + retain) / (retain * epochs)

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Call the function with each member, and yield the stack of what came back."""
        if problem.task.model is None:
            yield self._of_estimators(problem)
            return
        task, start, device = problem.task, problem.start, problem.x.device
        size, like = self.batch_size or problem.recipe.batch_size, Architecture.of(task)
        retain, forget = problem.retain.to(device), problem.forget.to(device)
        train, validation = Split(problem.x, problem.y), task.validation

        def work(position: int) -> tuple[bytes, float, list[int]]:
            # Copies: what a function writes into its examples is seen by no other member.
            copied = Split(validation.x.clone().to(device), validation.y.clone().to(device))
            data = [Examples(split, task.interface) for split in (train[retain], train[forget], copied)]
            loaders = [DataLoader(each, batch_size=size, shuffle=each is not data[-1]) for each in data]
            module = start.module(position).to(device).train()
            who = f"member {start.ids[position]}"
            # Global generators are the only ones that such functions know.
            with seeded(derive(problem.seeds[position], "function")), torch.enable_grad():
                made = self._call(who, module, *loaders)
            state = like.fit(made, f"what {self.name} made of {who}", finite=False)
            read = [int(each.reads.sum()) for each in data]
            return save_tensors(state), read[0] + read[1] + FORWARD_SHARE * read[2], data[1].reads.tolist()

        done: dict[int, tuple[bytes, float, list[int]]] = {}
        run_each(work, range(len(start)), problem.workers, done.__setitem__)
        states: list[State] = []
        for position in range(len(start)):
            content, read, visits = done.pop(position)
            states.append(load_tensors(content))
            problem.ledger.examples += read / len(start)
            problem.ledger.visits[position] = torch.tensor(visits)
        stacked = {name: torch.stack([state[name] for state in states]).to(device) for name in states[0]}
        params = {name: stacked[name] for name in start.params}
        yield problem.stop(1, start.with_state(params, {name: stacked[name] for name in start.buffers}))

    def _of_estimators(self, problem: Problem) -> Checkpoint:
        """Fit each estimator again, call the function with it and arrays, and return the stack of new outputs."""
        task, start = problem.task, problem.start
        fit: Any = task.fit
        every = [torch.arange(len(task.train))] * len(start)
        seeds = [fit_seed(seed) for seed in member_seeds(start.seed, every, start.ids)]
        sizes = (len(task.train), len(task.validation))

        def work(position: int) -> bytes:
            who = f"member {start.ids[position]}"
            with seeded(derive(problem.seeds[position], "function")):
                call = functools.partial(self._call, who)
                was, now = fit.unlearned(call, task, problem.retain, problem.forget, seeds[position])
            before, after = (read_outputs(made, sizes, task.output_shape, who) for made in (was, now))
            if not all(torch.allclose(start.params[part][position].cpu(), before[part]) for part in before):
                raise InputError(
                    f"{who} is not what task {task.name!r} fits, so {self.name} cannot be given it; expected models "
                    "that expunge.train fitted."
                )
            return save_tensors(after)

        done: dict[int, bytes] = {}
        run_each(work, range(len(start)), problem.workers, done.__setitem__, steps=False)
        problem.ledger.examples += len(problem.retain) + len(problem.forget)  # given whole; what is read is not known
        states = [load_tensors(done[position]) for position in range(len(start))]
        return problem.stop(
            1, start.with_state({part: torch.stack([s[part] for s in states]) for part in states[0]}, {})
        )

    def _call(self, who: str, module: Any, *data: Any) -> Any:
        kind: type = nn.Module if isinstance(module, nn.Module) else type(module)
        try:
            made = self.function(module, *data, **self.arguments)
        except (Exception, SystemExit) as error:
            raise InputError(f"method {self.name} failed for {who}: {told(error, self.function)}") from error
        if made is not None and not isinstance(made, kind):
            expected = "torch.nn.Module" if kind is nn.Module else kind.__name__
            raise InputError(
                f"method {self.name} returned {described(made)} for {who}, expected the unlearned {expected}, or None "
                "if the model was changed in place."
            )
        return module if made is None else made

    @classmethod
    def grid(cls, recipe: Any) -> Sequence[Method]:
        """Refuse: only a function of the user's has settings."""
        raise InputError("a method of one's own has no grid, expected from_function(fn, ...) for each setting.")


def from_function(
    fn: Function, name: str | None = None, *, batch_size: int | None = None, **options: Any
) -> FromFunction:
    """Return a method that runs a function of the user's on each member, a plain module.

    Args:
        fn: Called as `fn(model, retain_loader, forget_loader, validation_loader, **options)` with a copy of the member
            in training mode and `DataLoader`s of the task's data, (inputs, targets) a batch; inputs by name come as
            a mapping. Returns the unlearned model, or None if it changed the one it was given. PyTorch's, NumPy's and
            Python's generators are seeded for each member; members run side by side in processes, so what it
            prints or writes elsewhere is lost. What the loaders give out is its cost. For a task of an estimator:
            `fn(estimator, (x, y), (x, y), (x, y), **options)`, with the arrays of the three sets.
        name: Name in tables and records; by default the function's, after `own_` where a method of the registry has it.
        batch_size: Examples a batch of the loaders; by default the recipe's.
        options: Passed to the function, and shown beside its name; give several methods to try several settings.

    Raises:
        InputError: If it is no function, or the name cannot be one. When run: if it raises, or returns something else
            than a module of the task's architecture.

    >>> def forget_head(model, retain_loader, forget_loader, validation_loader, scale=0.0):
    ...     list(model.parameters())[-1].data.mul_(scale)
    >>> from_function(forget_head), from_function(forget_head, scale=0.5)
    (from_function(forget_head, scale=0.0), from_function(forget_head, scale=0.5))
    """
    if not callable(fn) or isinstance(fn, type | nn.Module | Method):
        raise InputError(
            f"fn is {described(fn)}, expected a function fn(model, retain_loader, forget_loader, validation_loader)."
        )
    bare = fn.func if isinstance(fn, functools.partial) else fn
    title = name or getattr(bare, "__name__", type(bare).__name__).strip("<>")
    if not isinstance(title, str) or not re.fullmatch(r"[A-Za-z_][\w.-]*", title):
        raise InputError(f"name = {title!r}, expected letters, digits, '_', '-' and '.', beginning with a letter.")
    from expunge.methods import METHODS  # the registry, whose file imports this one

    title = f"own_{title}" if title in METHODS else title
    if batch_size is not None:
        whole(batch_size=batch_size)
    for key, value in options.items():
        instance(PLAIN, "a number or a text; bind others by functools.partial", **{key: plain(value)})
    arguments = {**_defaults(fn), **{key: plain(value) for key, value in options.items()}}
    return FromFunction(function=fn, title=title, arguments=arguments, batch_size=batch_size)


def _defaults(fn: Function) -> dict[str, Any]:
    """Return the options that the function has besides the model and the loaders, as far as they can be written."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())[4:]
    except ValueError:  # a built-in function without a signature
        return {}
    return {each.name: each.default for each in parameters if isinstance(each.default, PLAIN)}
