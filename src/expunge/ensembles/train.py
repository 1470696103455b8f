"""Training: M members of a task's model as stacked models, each with its own weights, examples and batch order."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.core import DivergedError, Ensemble, ForgetSet, InputError, Network, Recipe, Split, Task
from expunge.core import tree as trees
from expunge.core.checks import as_path, between, described, instance, plain_arguments, seeds, whole
from expunge.core.errors import noted
from expunge.core.modules import state
from expunge.core.seeds import derive, generator
from expunge.core.stopping import StoppedError, stop_asked
from expunge.ensembles.batches import gather
from expunge.ensembles.chunks import USUAL, even, measure_chunk, pick_device, run_chunks, split, worker_count
from expunge.ensembles.descent import Descent
from expunge.ensembles.epoch import DRAWS, Begun, Draws, train_epoch
from expunge.ensembles.initialise import initialise
from expunge.ensembles.own_loop import fit_ensemble, member_seeds
from expunge.ensembles.plan import TASK_EXPECTED, Plan, check_members, check_size, check_trainable, example_sets, groups
from expunge.ensembles.processes import may_fork, run_each
from expunge.ensembles.runners import Runner, read_runner
from expunge.ensembles.states import new_descent, snapshot
from expunge.ensembles.store import Shelf
from expunge.ensembles.trial import network_of
from expunge.ensembles.voting import VotingNetwork, joined, voter_plans

PARTIAL_SECONDS = 30.0
"""How often training in progress is written to the store."""

Progress = Callable[[int, int], None]
"""Called with member-epochs done and member-epochs in all."""


@plain_arguments
def train(
    task: Task,
    *,
    members: int = 100,
    without: ForgetSet | None = None,
    examples: Any = None,
    seed: int = 0,
    first: int = 0,
    recipe: Recipe | None = None,
    epochs: int | None = None,
    keep: Collection[int] = (),
    store: Path | str | None = None,
    device: str | torch.device = "auto",
    chunk: int | None = None,
    workers: int | None = None,
    runner: str | Runner | None = None,
    network: Network | None = None,
    progress: Progress | None = None,
) -> Ensemble:
    """Train an ensemble from scratch.

    Args:
        task: Data, model and recipe.
        members: Number of members M, 1 to 10,000.
        without: A forget set that no member may see (this makes oracles); None trains on all examples.
        examples: Examples of each member: positions (members, k) or a mask (members, examples). Members with
            different numbers of examples are allowed. Cannot be given together with `without`.
        seed: The study's seed. Ensembles with different examples are independent even under the same seed; where
            models vote (`expunge.tasks.sisa`), voters with the same rows are the same under the same seed.
        first: Index of the first member; members `first` to `first + members - 1` are made.
        recipe: Instead of the task's recipe.
        epochs: Stop after so many epochs of the recipe's schedule, from 0 (untrained) to all of them (the default).
        keep: Epochs after which the state of training is kept, each from 0 to `epochs`; they are in the ensemble's
            `states`, and in the store. Members that the store holds without them are trained again as far as needed.
        store: Folder in which finished members are kept and found again; None keeps nothing.
        device: `auto`, `cpu`, `cuda`, or a torch device.
        chunk: Members that go through together; None measures the fastest.
        workers: Chunks that run at once on the CPU; None uses every core.
        runner: Where members are trained: `local`, or `ray`, `ray:ADDRESS` or a `RayRunner` for a cluster that shares
            the store. The numbers are the same wherever they come from.
        network: How the stack is evaluated; None is the task's own (see `build_network`).
        progress: Called with member-epochs done and in all; with members, where the task has its own `fit`.
            What it raises ends the training and comes through as it is, with a note; the store keeps what is finished.

    Returns:
        The ensemble, on the device; `provenance` holds its specification, `chunk`, `seconds` and `reused`.

    Raises:
        InputError: If the request cannot be carried out; before any training.
        DivergedError: If every member became non-finite.
        DamagedFileError: If a file in the store is altered.
    """
    instance(Task, TASK_EXPECTED, task=task)
    check_members(members)
    whole(minimum=0, first=first)
    seeds(seed=seed)
    if recipe is not None:
        instance(Recipe, "an expunge.Recipe, or None for the task's own", recipe=recipe)
    if workers is not None:
        whole(minimum=0, workers=workers)
    begin = time.perf_counter()
    recipe = recipe or task.recipe
    if chunk is not None:
        whole(chunk=chunk)
    length = recipe.epochs if epochs is None else epochs
    whole(minimum=0, epochs=length)
    between(0, recipe.epochs, epochs=length)
    if (recipe.precision == "float64") != (task.recipe.precision == "float64"):
        raise InputError(
            f"recipe.precision is {recipe.precision} but the task's data were read for {task.recipe.precision}; "
            "build the task with a recipe of the same precision."
        )
    where = pick_device(device)
    if network is not None and not hasattr(network, "template"):
        raise InputError(f"network is {described(network)}, expected what build_network returns; leave it out.")
    network = network or task.network
    store = None if store is None else as_path(store, "store")
    elsewhere = read_runner(runner)
    if elsewhere is not None:
        if store is None:
            raise InputError("runner was given and no store, expected store=FOLDER that all machines see.")
        store = store.resolve()  # where it is does not depend on where a worker is started
        elsewhere.check(store)
    own = task.model is None or (task.fit is not None and epochs != 0)
    if not own:
        check_size(task, network, members)
    progress = None if progress is None else noted(progress, "progress, which train called")
    sets = example_sets(task, members, without, examples)
    keep = _check_keep(task, keep, length)
    if own:
        return _train_own(
            task, network, sets, first, seed, recipe, epochs, store, where, workers, elsewhere, progress, begin
        )
    plans = [
        Plan(
            task,
            recipe,
            torch.stack([row for _, row in rows]),
            tuple(first + index for index, _ in rows),
            seed,
            length,
        )
        for rows in groups(sets)
    ]
    for plan in plans:
        check_trainable(plan, network)
    shelves = [None if store is None else Shelf(Path(store), plan.specification()) for plan in plans]
    made: list[Ensemble] = []
    total, offset = members * length, 0
    for plan, shelf in zip(plans, shelves, strict=True):
        report = None if progress is None else (lambda done, _, before=offset: progress(before + done, total))
        with _states(plan, keep, store) as states:
            if task.voting is not None:
                one = _run_voters(plan, network, store, where, chunk, workers, elsewhere, report)
            else:
                one = run_plan(plan, network, shelf, where, chunk, workers, report, states, elsewhere)
            kept = {epoch: each.load(list(plan.ids), mapped=store is not None)[0] for epoch, each in states.items()}
        made.append(replace(one, states=kept))
        offset += len(plan.ids) * length
    ensemble = made[0] if len(made) == 1 else _in_order(made)
    return _finished(ensemble, task, f"lower the recipe's lr ({recipe.lr}) or check the data", begin)


def _train_own(
    task: Task,
    network: Network,
    sets: Sequence[Tensor],
    first: int,
    seed: int,
    recipe: Recipe,
    epochs: int | None,
    store: Path | str | None,
    device: torch.device,
    workers: int | None,
    runner: Runner | None,
    progress: Progress | None,
    begin: float,
) -> Ensemble:
    """Return members that the task's own `fit` trained, on the device."""
    for name, given in (("recipe", None if recipe is task.recipe else recipe), ("epochs", epochs)):
        if given is not None:
            raise InputError(
                f"{name} = {given} was given, and task {task.name!r} trains by its own fit, which reads no recipe; "
                f"leave {name} out, or make a task whose fit does what you want."
            )
    ids = range(first, first + len(sets))
    ensemble = fit_ensemble(
        task,
        network,
        sets,
        ids,
        seed,
        member_seeds(seed, sets, ids),
        store=None if store is None else Path(store),
        workers=worker_count(device, workers),
        runner=runner,
        progress=progress,
    )
    return _finished(ensemble.to(device), task, "lower the rate in its fit, or check the data", begin)


def _finished(ensemble: Ensemble, task: Task, advice: str, begin: float) -> Ensemble:
    if not bool(ensemble.finite().any()):
        raise DivergedError(
            f"all {len(ensemble)} members of task {task.name!r} became non-finite while training; {advice}."
        )
    provenance = {**ensemble.provenance, "seconds": time.perf_counter() - begin}
    return replace(ensemble, provenance=provenance)


def _check_keep(task: Task, keep: Collection[int], epochs: int) -> list[int]:
    """Return the epochs after which states are kept, in order, or raise `InputError`."""
    try:
        asked = sorted({int(epoch) for epoch in keep if int(epoch) == epoch and not isinstance(epoch, bool)})
        sound = len(asked) == len(set(keep)) and not isinstance(keep, str)
    except (TypeError, ValueError):
        asked, sound = [], False
    if not sound or any(not 0 <= epoch <= epochs for epoch in asked):
        raise InputError(
            f"keep = {keep!r}, expected whole numbers of epochs from 0 to {epochs}, such as [{epochs // 2}]."
        )
    if asked and task.voting is not None:
        raise InputError(
            f"keep = {keep!r} was given, and the models of task {task.name!r} vote: states of voters are not kept; "
            "leave keep out."
        )
    if asked and task.fit is not None:
        raise InputError(
            f"keep = {keep!r} was given, and task {task.name!r} trains by its own fit, whose states are not seen; "
            "leave keep out."
        )
    return asked


@contextlib.contextmanager
def _states(plan: Plan, keep: Sequence[int], store: Path | None) -> Iterator[dict[int, Shelf]]:
    """Yield a shelf for the state after each epoch, for the time being where there is no store."""
    with contextlib.ExitStack() as held:
        root = store
        if root is None and keep:
            root = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="expunge-")))
        yield {} if root is None else {epoch: Shelf(root, plan.state_specification(epoch)) for epoch in keep}


def run_plan(
    plan: Plan,
    network: Network,
    shelf: Shelf | None,
    device: torch.device,
    chunk: int | None,
    workers: int | None,
    progress: Progress | None,
    states: Mapping[int, Shelf] | None = None,
    runner: Runner | None = None,
) -> Ensemble:
    """Train the members of a plan that the store lacks, and return all of them.

    Args:
        plan: What they will be.
        network: Evaluates the stack.
        shelf: Where they are kept, if anywhere.
        device: Where they are trained.
        chunk: Members that go through together; None measures the fastest.
        workers: Chunks at once on the CPU; None uses every core.
        progress: Called with member-epochs done and in all.
        states: By an epoch, where the state after it is kept. Members that are there without are trained again so far.
        runner: Trains members elsewhere, into the shelf.
    """
    states = states or {}
    at_once = worker_count(device, workers)
    # Plain modules hold the interpreter's lock: in threads they would wait for one another.
    processes = network.kind == "one" and device.type == "cpu" and min(at_once, len(plan.ids)) > 1 and may_fork()
    if processes and shelf is None:
        with tempfile.TemporaryDirectory(prefix="expunge-") as scratch:
            shelf = Shelf(Path(scratch), plan.specification())
            return run_plan(plan, network, shelf, device, chunk, workers, progress, states)
    kept = shelf.members() if shelf else set()
    missing = [position for position, member in enumerate(plan.ids) if member not in kept]
    size = 0
    counter = _Counter(len(plan.ids) * plan.epochs, progress)
    counter.add((len(plan.ids) - len(missing)) * plan.epochs)
    results: list[tuple[trees.State, trees.State]] = []
    if missing:
        data = Split(plan.task.train.x.to(device), plan.task.train.y.to(device))
        # Rounding can depend on how many members share a kernel, so a resumed run keeps the chunks it began with.
        asked = None if network.kind == "one" else chunk
        size = (shelf.chunk if shelf else 0) or asked or choose_chunk(plan, network, data, device, at_once)
        if shelf is not None:
            size = shelf.begin(size)
        seeds = plan.member_seeds()

        def work(part: Sequence[int]) -> tuple[trees.State, trees.State]:
            if shelf is None:
                return _train_chunk(plan, network, data, part, seeds, None, counter, states)
            with shelf.claim([plan.ids[position] for position in part]) as mine:
                own = [position for position in part if plan.ids[position] in mine]
                if own:
                    _train_chunk(plan, network, data, own, seeds, shelf, counter, states)
            return {}, {}

        wanted = set(missing)
        while wanted:
            # Members that are kept are never made again, so asking for more leaves those there are as they are.
            parts = [[position for position in part if position in wanted] for part in split(len(plan.ids), size)]
            chunks = [part for part in parts if part]
            if runner is not None:
                _by_runner(runner, plan, network, shelf, states, chunks, counter)
            elif processes:
                _in_processes(work, chunks, at_once, lambda part: counter.add(len(part) * plan.epochs))
            else:
                results = run_chunks(work, chunks, device, at_once)
            left = set() if shelf is None else shelf.left(plan.ids)  # by another process, which ended
            wanted = {position for position in wanted if plan.ids[position] in left}
        counter.add(counter.total - counter.done)  # what other processes made
    without = [p for p, member in enumerate(plan.ids) if any(member not in each.refresh() for each in states.values())]
    if without:
        ids = tuple(plan.ids[position] for position in without)
        again = replace(plan, examples=plan.examples[without], ids=ids, epochs=max(states))
        run_plan(again, network, None, device, size or (shelf.chunk if shelf else 0) or chunk, workers, None, states)
    if shelf is not None:
        params, buffers = shelf.load(list(plan.ids), like=state(plan.task.build(0), plan.task.network.attributes))
        params, buffers = _move(params, device), _move(buffers, device)
    else:
        params = trees.concatenate([result[0] for result in results])
        buffers = trees.concatenate([result[1] for result in results])
    provenance = {
        "specification": plan.specification(),
        "chunk": size or (shelf.chunk if shelf else 0),
        "network": network.kind,
        "reused": not missing,
        "device": str(device),
    }
    return Ensemble(network, params, buffers, plan.ids, plan.seed, provenance)


def _run_voters(
    plan: Plan,
    network: Network,
    store: Path | None,
    device: torch.device,
    chunk: int | None,
    workers: int | None,
    runner: Runner | None,
    progress: Progress | None,
) -> Ensemble:
    """Train the voters of all members, one after another, each as a stack; the arguments are those of `run_plan`."""
    made: list[Ensemble] = []
    done = 0
    plans = voter_plans(plan, groups)
    for voter in plans:
        parts: list[Ensemble] = []
        for part in voter:
            shelf = None if store is None else Shelf(store, part.specification())
            # Of a model's epochs, what its voters have done so far, shared among them.
            report = None if progress is None else (lambda n, _, before=done: progress((before + n) // len(plans), 0))
            own = network.voter if isinstance(network, VotingNetwork) else part.task.network
            parts.append(run_plan(part, own, shelf, device, chunk, workers, report, runner=runner))
            # One size for all voters, so that a voter which is trained again alone shares its kernels with as many.
            chunk = chunk or parts[-1].provenance["chunk"]
            done += len(part.ids) * part.epochs
        made.append(parts[0] if len(parts) == 1 else _in_order(parts))
    return joined(plan, network, made)


@dataclass(frozen=True)
class _Elsewhere:
    """The training of some members into a store, for a runner."""

    plan: Plan
    form: str
    """How the stack is evaluated where this was asked for."""
    root: Path
    specification: Mapping[str, Any]
    """Of the shelf."""
    states: Mapping[int, Mapping[str, Any]]
    """Of the shelves of kept states, by epoch."""
    device: torch.device

    def __call__(self, positions: Sequence[int]) -> None:
        """Train the members at these places of the plan, unless they are there, or somebody is at them."""
        shelf, ids = self.shelf(), self.plan.ids
        with shelf.claim([ids[position] for position in positions]) as mine:
            self.make(shelf, [position for position in positions if ids[position] in mine])

    def beside(self, positions: Sequence[int]) -> None:
        """Train them though somebody is at them, who is late."""
        shelf = self.shelf()
        self.make(shelf, [position for position in positions if self.plan.ids[position] not in shelf.members()])

    def shelf(self) -> Shelf:
        """Return where the members are kept."""
        return Shelf(self.root, self.specification)

    def make(self, shelf: Shelf, positions: Sequence[int]) -> None:
        """Train the members at these places."""
        plan = self.plan
        if not positions:
            return
        network = network_of(plan.task, self.form)
        data = Split(plan.task.train.x.to(self.device), plan.task.train.y.to(self.device))
        states = {epoch: Shelf(self.root, each) for epoch, each in self.states.items()}
        _train_chunk(plan, network, data, positions, plan.member_seeds(), shelf, _Counter(0, None), states)


def _by_runner(
    runner: Runner,
    plan: Plan,
    network: Network,
    shelf: Shelf | None,
    states: Mapping[int, Shelf],
    chunks: Sequence[Sequence[int]],
    counter: _Counter,
) -> None:
    """Have a runner train every chunk into the shelf."""
    assert shelf is not None
    kept = {epoch: each.specification for epoch, each in states.items()}
    work = _Elsewhere(plan, network.kind, shelf.folder.parent, shelf.specification, kept, runner.device)

    def name(part: Sequence[int]) -> str:
        return f"members {plan.ids[part[0]]} to {plan.ids[part[-1]]} of {plan.task.name}"

    runner.run(work, chunks, name=name, finished=lambda part: counter.add(len(part) * plan.epochs))
    shelf.refresh()


def _in_processes(
    work: Callable[[Sequence[int]], object],
    chunks: Sequence[Sequence[int]],
    workers: int,
    finished: Callable[[Sequence[int]], None],
) -> None:
    """Do `work(chunk)` for every chunk in processes, which leave what they made in the store."""

    def one(number: int) -> None:
        # In a thread of its own: what denormals are is a setting of a thread, and this may be the caller's process.
        run_chunks(work, [chunks[number]], torch.device("cpu"), 1)

    run_each(one, range(len(chunks)), workers, lambda number, _: finished(chunks[number]), stops=True)


def _train_chunk(
    plan: Plan,
    network: Network,
    data: Split,
    positions: Sequence[int],
    all_seeds: Sequence[int],
    shelf: Shelf | None,
    counter: _Counter,
    states: Mapping[int, Shelf],
) -> tuple[trees.State, trees.State]:
    recipe, device = plan.recipe, data.x.device
    ids = [plan.ids[position] for position in positions]
    seeds = [all_seeds[position] for position in positions]
    examples = plan.examples[positions]
    params, buffers = initialise(plan.task, [derive(seed, "initialisation") for seed in seeds])
    descent = new_descent(network, _move(params, device), _move(buffers, device), recipe)
    done, begun = 0, None
    partial = shelf.load_partial(ids) if shelf else None
    if partial is not None:
        done, steps, kept = partial
        _restore(descent, kept)
        begun = Begun(steps, {name: kept[f"draws/{name}"] for name in DRAWS if f"draws/{name}" in kept})
    counter.add(done * len(ids))
    saved = time.monotonic()

    def keep(epoch: int, step: int, draws: Draws) -> None:
        """Write how far it is, from time to time and when it is to end; called before each step."""
        nonlocal saved
        stopped = stop_asked()
        if shelf is not None and epoch + step > 0 and (stopped or time.monotonic() - saved > PARTIAL_SECONDS):
            drawn = {f"draws/{n}": torch.stack([own.get_state() for own in those]) for n, those in draws.items()}
            shelf.save_partial(ids, epoch, {**_flat(descent), **(drawn if step else {})}, step)
            saved = time.monotonic()
        if stopped:
            raise StoppedError

    if done == 0 and begun is None and 0 in states:
        states[0].save(ids, snapshot(descent), {})
    for epoch in range(done, plan.epochs):
        train_epoch(descent, data, examples, seeds, epoch, recipe, plan.task, begun, keep)
        begun = None
        if epoch + 1 in states:
            states[epoch + 1].save(ids, snapshot(descent), {})
        counter.add(len(ids))
    params, buffers = descent.state()
    if shelf is not None:
        shelf.save(ids, params, buffers)
    return params, buffers


def choose_chunk(plan: Plan, network: Network, data: Split, device: torch.device, workers: int) -> int:
    """Return the fastest number of members to train together, found by measuring, within the memory there is."""
    if network.kind == "one":
        return 1
    params, buffers = initialise(plan.task, [0])
    batch = min(plan.recipe.batch_size, plan.examples.shape[1])
    one = new_descent(network, trees.clone(params), trees.clone(buffers), plan.recipe)
    if plan.task.augment is None and one.takes_many(data, batch):
        return even(len(plan.ids), USUAL, workers)

    def trial(size: int) -> Callable[[], None]:
        own = {name: tensor.expand(size, *tensor.shape[1:]).clone().to(device) for name, tensor in params.items()}
        other = {name: tensor.expand(size, *tensor.shape[1:]).clone().to(device) for name, tensor in buffers.items()}
        descent = new_descent(network, own, other, plan.recipe)
        index = plan.examples[:1, :batch].expand(size, batch).to(device)
        noise = [generator(0, "noise", member) for member in range(size)] if getattr(network, "noisy", True) else None
        return lambda: void(descent.step(gather(data.x, index), gather(data.y, index), 0.0, noise=noise))

    numbers = sum(tensor[0].numel() for tensor in params.values())
    # Weights, gradients and optimiser state, and about a dozen activations of the widest layer, at 4 bytes each; what a
    # written-out step keeps can be more than that.
    kept = max(12 * network.widest, getattr(network, "kept", 0))
    bytes_each = 4 * (4 * numbers + batch * kept)
    gpu = device.type == "cuda"
    free = int(0.6 * torch.cuda.mem_get_info(device)[0]) if gpu else 4 * 2**30 // workers
    return measure_chunk(trial, len(plan.ids), device, workers, limit=max(1, free // bytes_each))


def fastest_chunk(task: Task, members: int, device: torch.device) -> int:
    """Return how many members of a task are best computed together, by trying.

    Args:
        task: One that trains by its recipe.
        members: How many there will be.
        device: Where.
    """
    if task.voting is not None:
        return fastest_chunk(task.voting.task, members, device)
    examples = torch.arange(len(task.train)).expand(members, len(task.train))
    plan = Plan(task, task.recipe, examples, tuple(range(members)), 0, task.recipe.epochs)
    data = Split(task.train.x.to(device), task.train.y.to(device))
    return choose_chunk(plan, task.network, data, device, worker_count(device))


def void(_: object) -> None:
    """Drop a value."""


class _Counter:
    """Adds up member-epochs over threads and reports them."""

    def __init__(self, total: int, report: Progress | None) -> None:
        import threading

        self.total, self.report, self.done = total, report, 0
        self.lock = threading.Lock()

    def add(self, amount: int) -> None:
        with self.lock:
            self.done += amount
            if self.report is not None and amount:
                self.report(self.done, self.total)


def _in_order(parts: Sequence[Ensemble]) -> Ensemble:
    ids = [member for part in parts for member in part.ids]
    order = sorted(range(len(ids)), key=lambda position: ids[position])
    params = trees.concatenate([part.params for part in parts])
    buffers = trees.concatenate([part.buffers for part in parts]) if parts[0].buffers else {}
    provenance = {
        **parts[0].provenance,
        "specification": [part.provenance["specification"] for part in parts],
        "reused": all(part.provenance["reused"] for part in parts),
        "chunk": max(part.provenance["chunk"] for part in parts),
    }
    joined = {epoch: trees.concatenate([part.states[epoch] for part in parts]) for epoch in parts[0].states}
    return Ensemble(
        parts[0].network,
        {name: tensor[order] for name, tensor in params.items()},
        {name: tensor[order] for name, tensor in buffers.items()},
        tuple(ids[position] for position in order),
        parts[0].seed,
        provenance,
        states={epoch: {name: tensor[order] for name, tensor in state.items()} for epoch, state in joined.items()},
    )


def _move(state: trees.State, device: torch.device) -> trees.State:
    return {name: tensor.to(device) for name, tensor in state.items()}


def _flat(descent: Descent) -> trees.State:
    params, buffers = descent.state()
    out = {f"params/{name}": tensor for name, tensor in params.items()}
    out.update({f"buffers/{name}": tensor for name, tensor in buffers.items()})
    out.update({f"optimiser/{name}": tensor for name, tensor in descent.optimizer_state().items()})
    return out


def _restore(descent: Descent, state: trees.State) -> None:
    with torch.no_grad():
        for name, tensor in descent.params.items():
            tensor.copy_(state[f"params/{name}"])
        for name, tensor in descent.buffers.items():
            tensor.copy_(state[f"buffers/{name}"])
    kept = {name[len("optimiser/") :]: t for name, t in state.items() if name.startswith("optimiser/")}
    descent.load_optimizer_state(kept)
