"""Which form of a stack is used: each is held against plain modules of two seeds before anything is trained.

Two steps in training mode, on real examples of the task and with each member's own noise: losses, gradients, buffers
afterwards; then outputs in evaluation mode, and the module taken out of the stack. A form that differs anywhere is not
used, and the next is tried: written-out gradients, hand-stacked layers, `torch.vmap`, the module itself one member at a
time. The last differs only where a module keeps things from batch to batch that are in none of its tensors; that is an
error.
"""

from __future__ import annotations

import random
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core import Ensemble, InputError, Interface, Network, Task
from expunge.core.modules import differing, plain_attributes, same, state
from expunge.core.seeds import DRAWING, derive, generator
from expunge.ensembles.descent import Descent, Steps
from expunge.ensembles.layers import Unsupported
from expunge.ensembles.network import LayerNetwork, VmapNetwork
from expunge.ensembles.one import OneNetwork
from expunge.ensembles.outputs_alone import OutputsNetwork
from expunge.ensembles.skeleton import Traits, following, own_dropout
from expunge.ensembles.voting import VotingNetwork

EXAMPLES = 8
"""Examples of a batch of the trial, at most."""

MEMBERS, STEPS = 2, 2

TRYING = threading.Lock()

RATE = 0.01
"""Rate of its steps."""

NAMES = {"layers": "hand-stacked", "vmap": "stacked by torch.vmap", "one": "run one at a time"}

FAILURES = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, NotImplementedError)
"""What a module raises that cannot do what is asked of it."""


def build_network(task: Task, kind: str = "auto") -> Network:
    """Return the network of a task's model.

    Args:
        task: Whose model.
        kind: `layers` (hand-stacked), `vmap`, `one` (one member at a time), or `auto`: the first that is the module.

    Raises:
        InputError: If the form asked for is not the module, or no form is; the message says why.
    """
    if task.model is None:
        return OutputsNetwork(task)
    if task.voting is not None:
        voter = task.voting.task
        return VotingNetwork(task, voter.network if kind == "auto" else build_network(voter, kind))
    # torch.fx must not trace in two threads at once.
    with TRYING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _choose(task, kind)


def network_of(task: Task, kind: str) -> Network:
    """Return the network of a task's model in a form that was found elsewhere, so that the numbers are the same.

    Args:
        task: Whose model.
        kind: The form, as in `build_network`.
    """
    found: Network = task.network
    return found if found.kind == kind else build_network(task, kind)


def _choose(task: Task, kind: str) -> Network:
    steps = STEPS
    try:
        traits = find_traits(task)
    except InputError:
        if task.fit is None:
            raise
        # Its own loop may train it by other means; here it is only evaluated.
        traits, steps = Traits(), 0
    expected: dict[torch.dtype, list[Seen]] = {}
    dropped: dict[str, str] = {}
    network: Network
    for form, make in _forms(task, traits):
        if kind not in ("auto", form):
            continue
        try:
            network = make()
            network.outcome = task.outcome
            _check(network, task, traits, expected, steps)
        except Unsupported as reason:
            dropped[form] = dropped.get(form) or textwrap.shorten(str(reason), 160, placeholder=" ...")
            continue
        network.reason = "; ".join(
            f"not {NAMES[form]}: {said}" for form, said in dropped.items() if form != network.kind
        )
        return network
    last = list(dropped)[-1]
    if last == "one":
        raise InputError(
            "the model does not train like itself when parameters, buffers and attributes are put back before every "
            f"step ({dropped[last]}); keep what it carries from batch to batch in buffers (register_buffer), so that a "
            "member can be stored."
        )
    raise InputError(f"the model cannot be {NAMES[last]}: {dropped[last]}; use kind='auto'.")


def _forms(task: Task, traits: Traits) -> Iterator[tuple[str, Callable[[], Network]]]:
    template, example = task.build(0).eval(), task.train.x[:1]

    def layers(written: bool) -> LayerNetwork:
        if traits.attributes:
            raise Unsupported(f"models differ in the plain attribute {traits.attributes[0]!r}")
        network = LayerNetwork(template, example, task.interface)
        if not written:
            if network.by_hand is None:
                raise Unsupported("no other form")
            network.by_hand = None
        return network

    yield "layers", lambda: layers(True)
    yield "layers", lambda: layers(False)
    yield "vmap", lambda: VmapNetwork(template, example, task.interface, traits)
    yield "one", lambda: OneNetwork(template, example, task.interface, traits)


def find_traits(task: Task) -> Traits:
    """Return what a task's modules hold and draw beside their registered weights.

    Raises:
        InputError: If a module fails in training mode.
    """
    traits = Traits()
    module = task.build(derive(0, "trial", 0))
    differ = set().union(*(differing(module, task.build(seed)) for seed in (derive(0, "trial", 1), 0, 1)))
    slots = {name: slot.read() for name, slot in plain_attributes(module).items()}
    before = {(path, key): value for path, layer in module.named_modules() for key, value in vars(layer).items()}
    own_dropout(module)
    x, y = _batch(task, 0)
    with DRAWING, torch.random.fork_rng(devices=[]):
        states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
        try:
            _loss(task, task.interface, module.train(), x, y).backward()
        except FAILURES as error:
            said = str(error).strip().partition("\n")[0] or type(error).__name__
            raise InputError(
                f"model().train() failed for a batch of {len(x)} training examples (it said: {said}), while in "
                "evaluation mode it works; expected a model that can be trained: a loss that has gradients."
            ) from error
        finally:
            after = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
            random.setstate(states[2])
            np.random.set_state(states[1])  # noqa: NPY002
    traits.draws = frozenset(
        name
        for name, moved in (
            ("torch", not torch.equal(states[0], after[0])),
            ("numpy", any(not np.array_equal(a, b) for a, b in zip(states[1], after[1], strict=True))),
            ("random", states[2] != after[2]),
        )
        if moved
    )
    now = {name: slot.read() for name, slot in plain_attributes(module).items()}
    # What a pass computes anew is no state of its own.
    kept = {name: value for name, value in slots.items() if name in now and now[name].shape == value.shape}
    traits.attributes = tuple(name for name in kept if name in differ or not same(kept[name], now[name]))
    traits.passing = tuple(
        (path, key)
        for path, layer in module.named_modules()
        for key, value in vars(layer).items()
        if (path, key) in before
        and before[path, key] is not value
        and key not in ("training", "forward")
        and (f"{path}.{key}" if path else key) not in traits.attributes
    )
    return traits


@dataclass(frozen=True)
class Seen:
    """What one module did in the trial."""

    start: tuple[dict[str, Tensor], dict[str, Tensor]]
    """Parameters and buffers before it."""
    losses: list[Tensor]
    gradients: list[dict[str, Tensor]]
    """For each step the gradient of every parameter that has one."""
    params: dict[str, Tensor]
    buffers: dict[str, Tensor]
    """After the steps."""
    outputs: Tensor
    """In evaluation mode, after the steps."""


def _check(network: Any, task: Task, traits: Traits, expected: dict[torch.dtype, list[Seen]], steps: int) -> None:
    """Raise `Unsupported` if a form is not the module."""
    dtype = task.interface.dtype
    try:
        _judge(network, task, traits, dtype, expected, steps)
    except Differs as difference:
        if dtype == torch.float64:
            raise
        # In single precision a number at the kink of an activation may fall to either side; in double it does not.
        try:
            _judge(network, task, traits, torch.float64, expected, steps)
        except (Unsupported, *FAILURES):
            raise difference from None


class Differs(Unsupported):
    """A form runs, and is not the module."""


def _judge(
    network: Any, task: Task, traits: Traits, dtype: torch.dtype, expected: dict[torch.dtype, list[Seen]], steps: int
) -> None:
    if dtype not in expected:
        expected[dtype] = [_plain(task, traits, dtype, member, steps) for member in range(MEMBERS)]
    network.interface = replace(task.interface, dtype=dtype)
    try:
        with warnings.catch_warnings():
            # Where vmap has no rule for an operation it runs it member by member, and says so.
            warnings.filterwarnings("error", ".*batching rule.*")
            _compare_stack(network, task, dtype, expected[dtype])
    except (Warning, *FAILURES) as error:
        raise Unsupported(f"it fails ({str(error).strip().partition(chr(10))[0] or type(error).__name__})") from error
    finally:
        network.interface = task.interface


def _plain(task: Task, traits: Traits, dtype: torch.dtype, member: int, steps: int) -> Seen:
    """Train a plain module for two steps, as a loop of one's own would."""
    interface = replace(task.interface, dtype=dtype)
    module = task.build(derive(0, "trial", member)).to(dtype)
    start = state(module, traits.attributes)
    dropouts, own = own_dropout(module), generator(0, "trial noise", member)
    losses, gradients = [], []
    for step in range(steps):
        x, y = (_cast(tensor, dtype) for tensor in _batch(task, member, step))
        module.train().zero_grad()
        with following(own, traits.draws, x.device):
            for dropout in dropouts:
                dropout.generator = torch.default_generator if traits.draws else own
            loss = _loss(task, interface, module, x, y)
            loss.backward()
        losses.append(loss.detach())
        gradients.append({n: p.grad.to_dense().clone() for n, p in module.named_parameters() if p.grad is not None})
        with torch.no_grad():
            for name, tensor in module.named_parameters():
                if tensor.grad is not None:
                    tensor.sub_(gradients[-1][name], alpha=RATE)
    module.eval()
    params, buffers = state(module, traits.attributes)
    with torch.no_grad():
        outputs = interface.run(module, _cast(task.train.x[:EXAMPLES].clone(), dtype)).clone()
    return Seen(start, losses, gradients, params, buffers, outputs)


def _compare_stack(network: Any, task: Task, dtype: torch.dtype, expected: list[Seen]) -> None:
    """Train a stack of the same modules for the same steps, and raise `Differs` at the first difference."""
    params, buffers = (
        {name: torch.stack([seen.start[part][name] for seen in expected]) for name in expected[0].start[part]}
        for part in (0, 1)
    )
    noise = [generator(0, "trial noise", member) for member in range(MEMBERS)]
    descent = Descent(network, params, buffers, Steps(statistics="updated"))
    for step in range(len(expected[0].losses)):
        pairs = [_batch(task, member, step) for member in range(MEMBERS)]
        x, y = (_cast(torch.stack([pair[part] for pair in pairs]), dtype) for part in (0, 1))
        losses, gradients = descent.gradients(x, y, noise=noise)
        for member, seen in enumerate(expected):
            _compare("the loss in training", losses[member], seen.losses[step])
            _compare_gradients(gradients, member, seen.gradients[step], lenient=network.kind == "one")
        descent.apply(gradients, RATE)
    params, buffers = descent.state()
    ensemble = Ensemble(network, params, buffers, tuple(range(MEMBERS)), 0)
    inputs = _cast(task.train.x[:EXAMPLES].clone(), dtype)
    outputs = ensemble.logits(inputs)
    for member, seen in enumerate(expected):
        # A bias under a batch norm is moved by rounding alone: its size is to be seen beside the others.
        scale = max(_size(tensor) for tensor in seen.params.values())
        for name, tensor in {**seen.params, **seen.buffers}.items():
            _compare(f"{name} after training", {**params, **buffers}[name][member], tensor, scale)
        _compare("the output in evaluation", outputs[member], seen.outputs)
        with torch.no_grad():
            alone = network.interface.run(ensemble.module(member), inputs)
        _compare("the output of a module taken out of the stack", alone, seen.outputs)


def _compare_gradients(found: Mapping[str, Tensor], member: int, expected: Mapping[str, Tensor], lenient: bool) -> None:
    scale = max((_size(tensor) for tensor in expected.values()), default=0.0)
    for name in {**found, **expected}:
        own = found[name][member] if name in found else None
        if own is not None and name not in expected and lenient and not bool(own.any()):
            continue  # in its own pass the other member had a gradient
        if own is None or name not in expected:
            raise Differs(
                f"{name} has {'no' if own is None else 'a'} gradient, the module {'one' if own is None else 'none'}"
            )
        _compare(f"the gradient of {name}", own, expected[name], scale)


def _compare(what: str, found: Tensor, expected: Tensor, scale: float = 0.0) -> None:
    """Raise `Differs` where two tensors differ by more than rounding.

    Args:
        what: Said in the message.
        found: In the stack.
        expected: In the plain module.
        scale: Size of the numbers among which the tensor's own are to be seen.
    """
    if found.shape != expected.shape:
        raise Differs(f"{what} has shape {tuple(found.shape)}, the module's {tuple(expected.shape)}")
    if expected.numel() == 0:
        return
    rounding = torch.finfo(expected.dtype if expected.is_floating_point() else torch.float64).eps ** 0.5
    a, b = found.double(), expected.double()
    largest = _size(b)
    close = (a - b).abs() <= 4 * rounding * largest + rounding * max(scale, largest) / 100
    if not bool((close | (a == b) | ((a != a) & (b != b))).all()):
        raise Differs(f"{what} differs from the module's")


def _size(tensor: Tensor) -> float:
    return float(tensor.double().abs().nan_to_num(0, 0, 0).max()) if tensor.numel() else 0.0


def _batch(task: Task, member: int, step: int = 0) -> tuple[Tensor, Tensor]:
    """Return examples of the task for one member and step; every member and step has others, where there are enough."""
    n = len(task.train)
    size = min(EXAMPLES, n)
    order = torch.randperm(n, generator=generator(0, "trial"))
    index = order[(torch.arange(size) + (MEMBERS * step + member) * size) % n]
    return task.train.x[index], task.train.y[index]


def _loss(task: Task, interface: Interface, module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return task.outcome.loss(interface.run(module, x).unsqueeze(0), y.unsqueeze(0)).mean()


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
