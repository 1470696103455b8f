"""Run a method on an ensemble: chunk by chunk, measured at every stopping time, and checked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from expunge.core import Ensemble, ForgetSet, InputError, Network, Task
from expunge.core.checkpoints import Architecture
from expunge.core.checks import described, instance, non_negative, plain_arguments, seeds, whole
from expunge.core.claim import Claim, worst
from expunge.core.errors import noted
from expunge.core.reading import as_tensor
from expunge.core.record import CheckRecord
from expunge.core.same_form import like_module, member_state
from expunge.core.tree import concatenate
from expunge.ensembles.chunks import even, run_chunks, split, worker_count
from expunge.ensembles.own_loop import row_digest
from expunge.ensembles.plan import TASK_EXPECTED
from expunge.methods.checks import run_checks
from expunge.methods.method import Method, check_complete, lacking
from expunge.methods.problem import Problem
from expunge.methods.retrain import FromScratch

Models = TypeVar("Models", Ensemble, nn.Module)

Evaluate = Callable[[Ensemble], Mapping[str, Tensor]]
"""From some members to what shall be known of each, every tensor (members, ...)."""

LARGEST_CHUNK = 50
"""Members unlearned together, when the ensemble does not say how it was trained."""


@dataclass(frozen=True)
class Stop:
    """What is known about one stopping time of a run."""

    epoch: int
    """Epochs of the method so far."""
    cost: float
    """Examples through forward and backward so far, relative to retraining on R."""
    measured: Mapping[str, Tensor]
    """What `evaluate` returned, joined over members."""
    facts: Mapping[str, Tensor]
    """The ledger's facts, joined over members."""
    checks: tuple[CheckRecord, ...]
    """The runtime checks."""
    claim: Claim | None = None
    """What is certified of all members, with the assumptions behind it; None if nothing is."""


@dataclass(frozen=True)
class Trace:
    """A run of one method: every stopping time in order."""

    method: Method
    stops: tuple[Stop, ...]

    @property
    def cost(self) -> float:
        """Cost of the whole run, relative to retraining on R."""
        return self.stops[-1].cost

    @property
    def claim(self) -> Claim | None:
        """What is certified at the last stopping time; None if nothing is."""
        return self.stops[-1].claim

    @property
    def failed_checks(self) -> list[CheckRecord]:
        """The checks that failed at the last stopping time."""
        return [check for check in self.stops[-1].checks if not check.passed]


def check_fits(
    method: Method,
    network: Network,
    task: Task,
    forget: ForgetSet,
    *,
    targets: bool = False,
    start: Ensemble | None = None,
) -> None:
    """Refuse, before any work, a method whose batches the network cannot take on this forget set.

    Args:
        method: The method.
        network: Of the pretrained ensemble.
        task: Its task.
        forget: The forget set.
        targets: Whether predicted oracle margins will be given.
        start: The pretrained ensemble, where it is there already; without it, kept states are not asked for.

    Raises:
        InputError: If updated batch norm would meet a batch of one, the recipe has no full batch of the retain set, or
            the method needs predicted oracle margins, kept states of training or something else that there is not.
    """
    check_complete(method)
    for need, why in lacking(task).items():
        if need in method.needs:
            raise InputError(f"{method.name} needs {why}; choose another method, such as retrain.")
    if "targets" in method.needs and not targets:
        raise InputError(
            f"{method.name} needs predicted oracle margins and got none, expected unlearn(..., targets=...), shape "
            "(members, training examples): pretrained margins plus the change that a datamodel predicts."
        )
    if "states" in method.needs and start is not None:
        _check_states(method, task, start)
    method.check(network, task, forget)


def _check_states(method: Method, task: Task, start: Ensemble) -> None:
    """Refuse an ensemble without the kept states that a method needs, or whose training cannot be gone on with."""
    wanted = method.states(task.recipe)
    how = start.provenance.get("specification")
    asked = f"ex.train(task, ..., keep={list(wanted)})"
    if not isinstance(how, dict) or "trainer" not in how:
        raise InputError(
            f"{method.name} goes on with the training of the models from earlier states, and how these models were "
            f"trained is not known; expected an ensemble of {asked}."
        )
    row = row_digest(torch.arange(len(task.train)))
    if (how.get("task"), how.get("recipe"), how.get("examples")) != (task.fingerprint, task.recipe.to_dict(), row):
        raise InputError(
            f"{method.name} goes on with the training of the models, which were trained on other rows than all of "
            f"{task.name}, or by another recipe; expected an ensemble of {asked} with the task's own recipe."
        )
    missing = [epoch for epoch in wanted if epoch not in start.states]
    if missing:
        raise InputError(
            f"{method.describe()} needs the state of training after epoch {missing[0]}, and the ensemble has "
            f"{f'those after {sorted(start.states)}' if start.states else 'none'}; expected one of {asked}. With the "
            "same seed and store it keeps the members there are, and trains them again only as far as needed."
        )


@plain_arguments
def unlearn(
    pretrained: Models,
    task: Task,
    forget: ForgetSet,
    method: Method,
    *,
    seed: int = 0,
    evaluate: Evaluate | None = None,
    chunk: int | None = None,
    workers: int | None = None,
    targets: Tensor | None = None,
    targets_cost: float = 0.0,
    stop: int | None = None,
    store: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Models:
    """Return the unlearned ensemble; its `trace` holds every stopping time. For one module, the unlearned module.

    Args:
        pretrained: The ensemble to start from, or one trained module of the task's architecture; it is not changed.
            The module that comes back is of the same class, types, device and mode (training or evaluation), with the
            numbers of member 0 of an ensemble; checks that fail are warned of.
        task: Its task.
        forget: What to forget.
        method: The algorithm and its options, from `expunge.methods`.
        seed: Decides the batch orders; different methods draw different orders.
        evaluate: Called with some members at every stopping time; its results are joined over members in the trace.
        chunk: Members that go through together; by default as in training.
        workers: Chunks that run at once on the CPU; by default every core.
        targets: Predicted oracle margins of each member on the training examples, shape (members, training examples),
            NaN where unknown; only methods that need them read them.
        targets_cost: What the prediction cost, relative to retraining one member on R, at least 0; it enters the cost
            of the methods that read the targets.
        stop: The epoch of the method, one of its stopping times, after which it stops; None runs it to its end.
        store: Folder in which members that the task's own `fit` retrains are kept and found again.
        progress: Called with members that it retrained and all of them.

    What `evaluate` or `progress` raises ends the run and comes through as it is, with a note of who called it.

    Raises:
        InputError: If ensemble, task and forget set do not fit, a batch is too small for batch norm in training, or
            targets are missing, of another shape, or unknown on the whole forget set, or the method does not stop at
            `stop`.
    """
    expected = "an expunge.Ensemble, such as expunge.train(task) returns, or a trained torch.nn.Module"
    instance((Ensemble, nn.Module), expected, pretrained=pretrained)
    instance(Task, TASK_EXPECTED, task=task)
    instance(ForgetSet, "an expunge.ForgetSet, such as expunge.tasks.random_forget_set(task, size=70)", forget=forget)
    seeds(seed=seed)
    if chunk is not None:
        whole(chunk=chunk)
    if workers is not None:
        whole(minimum=0, workers=workers)
    if stop is not None:
        whole(minimum=0, stop=stop)
    forget.check(task)
    if isinstance(pretrained, nn.Module):
        options = {"seed": seed, "evaluate": evaluate, "targets": targets, "targets_cost": targets_cost, "stop": stop}
        return _one(pretrained, task, forget, method, **options, store=store)
    _check_architecture(pretrained, task)
    if not isinstance(method, Method):
        raise InputError(
            f"method is a {type(method).__name__}, expected one of expunge.methods, such as GradientAscent(...)."
        )
    check_fits(method, pretrained.network, task, forget, targets=targets is not None, start=pretrained)
    if evaluate is not None:
        evaluate = noted(evaluate, f"evaluate, which unlearn called at a stopping time of {method.describe()}")
    if progress is not None:
        progress = noted(progress, f"progress, which unlearn called for {method.describe()}")
    members, device = len(pretrained), pretrained.device
    non_negative(targets_cost=targets_cost)
    aims = _check_targets(targets, pretrained, task, forget) if "targets" in method.needs else None
    at_once = worker_count(device, workers)
    kept = None if store is None else Path(store)
    size = members_at_once(pretrained, method, chunk, workers)

    def work(part: range) -> tuple[list[Stop], Ensemble]:
        start = pretrained[part.start : part.stop]
        own = None if aims is None else aims[part.start : part.stop]
        problem = Problem(start, task, forget, seed, method.order or method.name, own, targets_cost, kept, at_once)
        problem.progress = progress
        seen, last = [], start
        before = problem.forget_margins(start) if "enough" in method.checks else None
        for checkpoint in method.stops(problem):
            last = checkpoint.ensemble
            measured = _measured(evaluate(last), len(last)) if evaluate else {}
            facts = dict(checkpoint.facts)
            if before is not None:
                facts |= {"forget-margins-start": before, "forget-margins": problem.forget_margins(last)}
            # Only the last state is kept; a caller that wants others measures or copies them in `evaluate`.
            seen.append(Stop(checkpoint.epoch, checkpoint.cost, measured, facts, (), checkpoint.claim))
            if checkpoint.epoch == stop:
                break
        if stop is not None and seen[-1].epoch != stop:
            times = ", ".join(str(each.epoch) for each in seen)
            raise InputError(f"stop = {stop}, and {method.describe()} stops at {times}; choose one of these, or none.")
        return seen, last

    # Plain modules, and a task's own fit, have processes of their own, which are no chunks' threads to start.
    parts = (
        [work(range(members))]
        if all_together(method, task)
        else run_chunks(work, split(members, size), device, at_once)
    )
    stops = joined_stops(method, [seen for seen, _ in parts])
    finals = [last for _, last in parts]
    return pretrained.with_state(
        concatenate([final.params for final in finals]),
        concatenate([final.buffers for final in finals]) if finals[0].buffers else {},
        trace=Trace(method, stops),
        provenance={"method": method.name, "options": method.options(), "seed": seed, "from": pretrained.provenance},
    )


def members_at_once(pretrained: Ensemble, method: Method, chunk: int | None = None, workers: int | None = None) -> int:
    """Return how many members of an ensemble go through a method together; see `unlearn`."""
    chunk = 1 if pretrained.network.kind == "one" else chunk
    trained = int(pretrained.provenance.get("chunk", 0))
    # Voters that stay and voters that are retrained must come from kernels of one size to be those of one training.
    fixed = chunk or (trained if "voters" in method.needs else 0)
    return fixed or even(len(pretrained), trained or LARGEST_CHUNK, worker_count(pretrained.device, workers))


def all_together(method: Method, task: Task) -> bool:
    """Return whether a method takes all members at once, because it shares them among processes by itself."""
    return "modules" in method.needs or (task.fit is not None and isinstance(method, FromScratch))


def joined_stops(method: Method, parts: Sequence[Sequence[Stop]]) -> tuple[Stop, ...]:
    """Return the stopping times of all members, checked, from those of some members each.

    Args:
        method: What was run.
        parts: Of each group of members, in order; checks are made anew from the facts of all.
    """
    stops = []
    for row in zip(*parts, strict=True):
        facts = {name: torch.cat([stop.facts[name] for stop in row]) for name in row[0].facts}
        measured = {name: torch.cat([stop.measured[name] for stop in row]) for name in row[0].measured}
        claims = [stop.claim for stop in row if stop.claim is not None]
        claim = worst(claims) if claims else None
        stops.append(Stop(row[0].epoch, row[0].cost, measured, facts, tuple(run_checks(method, facts)), claim))
    return tuple(stops)


def _one(module: nn.Module, task: Task, forget: ForgetSet, method: Method, **options: Any) -> nn.Module:
    """Return one module unlearned: an ensemble of one, in the form of the module."""
    if task.model is None:
        raise InputError(
            f"models of task {task.name!r} are known by their outputs alone, so no module can be unlearned; expected a "
            "task with model=..."
        )
    one = Ensemble.from_modules([module], task)
    done = unlearn(one.to(next(module.parameters()).device), task, forget, method, **options)
    claim = done.trace.stops[-1].claim
    if claim is not None and not claim.holds:
        warnings.warn(f"{method.describe()}: {claim.sentence}.", stacklevel=4)
    for check in done.trace.failed_checks:
        warnings.warn(f"{method.describe()}: the check {check.name!r} failed ({check.detail}).", stacklevel=4)
    return like_module(module, member_state(done), Architecture.of(task))


def _measured(found: Any, members: int) -> Mapping[str, Tensor]:
    """Return what `evaluate` found, or raise `InputError` if that cannot be joined over members."""
    if not isinstance(found, Mapping) or not all(
        isinstance(value, Tensor) and value.ndim and len(value) == members for value in found.values()
    ):
        raise InputError(
            f"evaluate returned {described(found)}, expected a mapping from names to tensors (members, ...) for the "
            f"{members} members that it was given."
        )
    return found


def _check_architecture(pretrained: Ensemble, task: Task) -> None:
    """Refuse an ensemble whose weights are not those of the task's model: it was trained for another task."""
    expected = {name: tuple(p.shape) for name, p in task.build(0).named_parameters()}
    if task.model is None:
        expected = {part: (len(getattr(task, part)), *task.output_shape) for part in ("train", "validation")}
    came = {name: tuple(p.shape[1:]) for name, p in pretrained.params.items()}
    if came == expected:
        return
    name = next(name for name in [*expected, *came] if came.get(name) != expected.get(name))
    raise InputError(
        f"the ensemble does not fit the task {task.name!r}: parameter {name!r} has shape {came.get(name, 'none')} in "
        f"the ensemble, {expected.get(name, 'none')} in the task's model; expected an ensemble that was trained on "
        "this task, as expunge.train(task) returns."
    )


def _check_targets(targets: Tensor | None, pretrained: Ensemble, task: Task, forget: ForgetSet) -> Tensor | None:
    """Return targets in the precision of the weights, or raise `InputError`."""
    if targets is None:
        return None
    expected = (len(pretrained), len(task.train))
    targets = as_tensor(targets, "targets")
    if tuple(targets.shape) != expected or not targets.is_floating_point():
        raise InputError(
            f"targets are {targets.dtype} of shape {tuple(targets.shape)}, expected floating-point margins "
            f"(members, training examples) = {expected}."
        )
    if bool(torch.isinf(targets).any()):
        raise InputError("targets hold infinities, expected margins, or NaN where unknown.")
    known = ~torch.isnan(targets)
    sound = pretrained.finite()
    lacking = torch.nonzero(sound & ~known[:, torch.from_numpy(forget.indices)].any(1)).flatten()
    if len(lacking):
        raise InputError(
            f"targets are unknown (NaN) on the whole forget set for {len(lacking)} members (first: position "
            f"{int(lacking[0])}), expected at least one known margin a member."
        )
    return targets.to(next(iter(pretrained.params.values())).dtype)
