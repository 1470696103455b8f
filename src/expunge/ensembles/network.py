"""One architecture evaluated for a whole stack of members: hand-stacked layers if possible, `torch.vmap` otherwise."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core import InputError, Interface, Network, Outcome, Statistics, Task
from expunge.core.outcomes import Classes
from expunge.ensembles.by_hand import Make, write_out
from expunge.ensembles.layers import Context, Unsupported, compile_layers
from expunge.ensembles.outputs_alone import OutputsNetwork


class LayerNetwork:
    """A stack evaluated by hand-stacked layers (see `layers.py`)."""

    kind = "layers"
    outcome: Outcome = Classes()

    def __init__(self, template: nn.Module, example: Tensor, interface: Interface | None = None) -> None:
        """Compile a module.

        Args:
            template: The architecture.
            example: One example, shape (1, ...), for measuring activations.
            interface: How the module is called; by default with one tensor.

        Raises:
            Unsupported: If the module has no hand-stacked form.
        """
        self.template = template
        self.interface = interface or Interface()
        if self.interface.fields:
            raise Unsupported("it takes inputs by name")
        self._run = compile_layers(copy.deepcopy(template))
        self.widest = widest_activation(template, example, self.interface)
        self.columns = _columns(template, example, self.interface)
        self.noisy = any(isinstance(layer, nn.Dropout) for layer in template.modules())
        self.by_hand: list[Make] | None = None
        """What makes the layers of a pass with written-out gradients, where there is one (see `by_hand.py`)."""
        with contextlib.suppress(Unsupported):
            self.by_hand = write_out(copy.deepcopy(template))

    def __call__(
        self,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        x: Tensor,
        *,
        statistics: Statistics = "frozen",
        noise: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """Return logits (members, batch, classes); see `expunge.core.Network`."""
        members = len(next(iter(params.values())))
        context = Context(params, buffers, members, statistics == "updated", noise)
        return self._run(context, self.interface.prepare(x))


class VmapNetwork:
    """A stack evaluated by `torch.vmap` over `torch.func.functional_call`: slower, and right for any module."""

    kind = "vmap"
    outcome: Outcome = Classes()

    def __init__(self, template: nn.Module, example: Tensor, interface: Interface | None = None) -> None:
        """Wrap a module; the arguments are those of `LayerNetwork`."""
        self.template = template
        self.interface = interface or Interface()
        self.widest = widest_activation(template, example, self.interface)
        self._local = threading.local()

    def _module(self, statistics: Statistics, noisy: bool) -> nn.Module:
        # functional_call swaps the module's tensors while it runs, so every thread needs modules of its own.
        cache: dict[str, nn.Module] = self._local.__dict__
        key = f"{statistics}-{noisy}"
        if key not in cache:
            module = copy.deepcopy(self.template).train(noisy)
            for layer in module.modules():
                if getattr(layer, "running_mean", None) is not None:
                    layer.train(statistics == "updated")
            cache[key] = module
        return cache[key]

    def __call__(
        self,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        x: Tensor,
        *,
        statistics: Statistics = "frozen",
        noise: Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """Return logits (members, batch, classes); see `expunge.core.Network`."""
        module = self._module(statistics, noise is not None)
        members = len(next(iter(params.values())))
        batch = x.expand(members, *x.shape[1:]) if len(x) != members else x

        def one(p: dict[str, Tensor], b: dict[str, Tensor], inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            own = {name: tensor.clone() for name, tensor in b.items()}

            def call(*args: Tensor, **named: Tensor) -> Any:
                return torch.func.functional_call(module, (p, own), args, named)

            return self.interface.run(call, inputs), own

        try:
            logits, moved = torch.vmap(one, randomness="error")(dict(params), dict(buffers), batch)
        except RuntimeError as error:
            if "random" not in str(error):
                raise
            raise InputError(
                "the model draws random numbers while training (dropout?) and has a layer that cannot be hand-stacked, "
                "so its noise cannot be drawn member by member; expected known layers (linear, convolution, batch "
                "norm, pooling, nn.Dropout), or a model without noise."
            ) from error
        if statistics == "updated":
            for name, tensor in moved.items():
                buffers[name].copy_(tensor.detach())
        return logits


def build_network(task: Task, kind: str = "auto") -> Network:
    """Return the network of a task's model.

    Args:
        task: Whose model.
        kind: `layers` (hand-stacked, fails if impossible), `vmap`, or `auto` (layers if possible).

    Raises:
        InputError: If `kind` is `layers` and the model has no hand-stacked form; the message says why.
    """
    if task.model is None:
        return OutputsNetwork(task)
    network = _choose(task, kind)
    network.outcome = task.outcome
    return network


def _choose(task: Task, kind: str) -> Network:
    template, example = task.build(0).eval(), task.train.x[:1]
    if kind == "vmap":
        return VmapNetwork(template, example, task.interface)
    try:
        network = LayerNetwork(template, example, task.interface)
        _check_against_module(network, task)
        return network
    except Unsupported as reason:
        if kind == "layers":
            raise InputError(f"the model cannot be hand-stacked: {reason}; use kind='vmap'.") from reason
        return VmapNetwork(template, example, task.interface)


def _check_against_module(network: LayerNetwork, task: Task) -> None:
    """Refuse a compiled form that does not reproduce the module itself, such as one that branches on its input."""
    module = task.build(1).eval()
    x = task.train.x[:3]
    # As in training, a tensor that two layers share has one name only; a form that looks for the other one fails here.
    params = {name: tensor.detach().unsqueeze(0) for name, tensor in module.named_parameters()}
    buffers = {name: tensor.detach().unsqueeze(0) for name, tensor in module.named_buffers()}
    with torch.no_grad():
        expected = task.interface.run(module, x)
        try:
            found = network(params, buffers, x.unsqueeze(0))[0]
        except Exception as error:
            raise Unsupported(f"the stacked form fails ({error})") from error
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise Unsupported("the stacked form gives other outputs than the module")


def _columns(module: nn.Module, example: Tensor, interface: Interface) -> int:
    """Return how many numbers the convolutions of one example read in all, each as often as it is read."""
    total = 0

    def note(layer: nn.Module, _: object, output: object) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d) and isinstance(output, Tensor):
            reads = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
            total += reads * output[0, 0].numel()

    _observe(module, example, interface, note)
    return total


def widest_activation(module: nn.Module, example: Tensor, interface: Interface) -> int:
    """Return the largest number of values that any layer puts out for one example."""
    widest = example[0].numel()

    def note(_: nn.Module, __: object, output: object) -> None:
        nonlocal widest
        if isinstance(output, Tensor):
            widest = max(widest, output.numel() // 2)

    _observe(module, example, interface, note)
    return widest


def _observe(
    module: nn.Module, example: Tensor, interface: Interface, note: Callable[[nn.Module, object, object], None]
) -> None:
    """Call `note` with each layer, its inputs and its output for two copies of an example."""
    probe = copy.deepcopy(module).eval()
    for layer in probe.modules():
        layer.register_forward_hook(note)
    with torch.no_grad():
        # Twice, because a batch norm without running statistics cannot normalise a single example.
        interface.run(probe, torch.cat([example, example]))
