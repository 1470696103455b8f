"""Forward and backward passes written out, for chains of known layers and sums of them; no autograd graph is built.

Values have the examples last: rows (members, features, batch), images (members, channels, height, width, batch). Every
step then runs along whole batches, and every product has a wide right-hand side. With g the gradient of the output y:

    linear        y = W x + b          dW = g xᵀ          db = sum g    dx = Wᵀ g
    convolution   y = W cols(x) + b    dW = g cols(x)ᵀ    db = sum g    dx = fold(Wᵀ g)
    ReLU          y = max(x, 0)        dx = g where y > 0
    sum           y = x + z            dx = dz = g

A value that several layers read gets the sum of their gradients: so a residual network is written out too.

cols and fold are explained in `columns.py`; where installation could compile `direct.c`, convolutions are summed
without them, together with the ReLU that follows (see `direct.py`); so are linear layers (`dense.py`), and chains of
these take many steps in one call (`chain.py`), and so is batch norm (`normalised.py`). Other activations are
differentiated by autograd, one at a time. Gradients are written where the optimiser reads them, and most other memory
is used again in every step.

A module that has another layer is left to autograd over the stacked network (see `layers.py`), which stays
differentiable as often and in whichever mode one likes; a `Pass` only trains.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from expunge.ensembles.columns import ColumnConvolution
from expunge.ensembles.dense import DirectLinear
from expunge.ensembles.direct import Compiled, DirectConvolution, library
from expunge.ensembles.layers import (
    ARITHMETIC,
    ELEMENTWISE_FUNCTIONS,
    ELEMENTWISE_METHODS,
    ELEMENTWISE_MODULES,
    PLAIN,
    Unsupported,
    plain_activation,
)
from expunge.ensembles.linear import Linear
from expunge.ensembles.normalised import BatchNorm, DirectBatchNorm
from expunge.ensembles.pooling import GlobalAverage, GlobalLargest, Pooling
from expunge.ensembles.written import Layer, Memory, Setting

POOLING: dict[type[nn.Module], Callable[..., Layer]] = {
    nn.MaxPool2d: Pooling,
    nn.AvgPool2d: Pooling,
    nn.AdaptiveAvgPool2d: GlobalAverage,
    nn.AdaptiveMaxPool2d: GlobalLargest,
}

Make = Callable[[], "Layer"]
"""Makes a layer with memory of its own; every `Pass` needs its own, since passes run side by side."""

INPUTS = -1
"""Number of the network's inputs among the sources of a layer."""


class Written(NamedTuple):
    """A layer to be made."""

    make: Make
    sources: tuple[int, ...]
    """Numbers of the layers whose outputs it reads, all before it; `INPUTS` for the network's inputs."""


class Node(NamedTuple):
    """A layer of a pass."""

    layer: Layer
    sources: tuple[int, ...]


class Pass:
    """A network in training: one stack's weights, gradients and memory."""

    def __init__(self, nodes: Sequence[Node], setting: Setting) -> None:
        """Join layers to the weights they read and the places of their gradients."""
        self.nodes, self.setting = joined(nodes), setting
        self.layers = [layer for layer, _ in self.nodes]
        self.readers = _readers(self.nodes)
        # Nothing below which no layer learns needs a gradient.
        self.learning: list[bool] = []
        for layer, sources in self.nodes:
            self.learning.append(layer.learns(setting) or any(self.learning[s] for s in sources if s != INPUTS))
            if isinstance(layer, ReLU):
                (source,) = sources
                alone = source != INPUTS and len(self.readers[source]) == 1
                layer.in_place = alone and self.layers[source].lends
        self.copies = [[Memory() for _ in sources] for _, sources in self.nodes]

    @torch.no_grad()
    def forward(self, x: Tensor, *, update: bool, noise: Sequence[torch.Generator] | None) -> Tensor:
        """Return logits (members, batch, classes) for inputs (members or 1, batch, ...)."""
        setting = self.setting
        setting.update, setting.noise = update, noise
        members = len(next(iter(setting.params.values())))
        first = self.layers[self.readers[INPUTS][0]]
        values = {INPUTS: first.load(x.expand(members, *x.shape[1:]).movedim(1, -1))}
        for number, (layer, sources) in enumerate(self.nodes):
            value, *others = (values[source] for source in sources)
            place = layer.place(value.shape, value)
            if place is not None and place is not value:
                value = place.copy_(value)
            shape = layer.shape(value.shape)
            wanted = (self.layers[reader].place(shape, value) for reader in self.readers[number])
            out = next((place for place in wanted if place is not None), None)
            # Only a sum has two sources.
            result = layer.add(value, others[-1], out) if isinstance(layer, Sum) else layer.forward(setting, value, out)
            values[number] = result if out is None or result is out else out.copy_(result)
        return values[len(self.nodes) - 1].transpose(1, 2)

    @torch.no_grad()
    def backward(self, gradient: Tensor) -> None:
        """Write the gradients of all parameters, given that of the logits (members, batch, classes)."""
        gradients = {len(self.nodes) - 1: gradient.transpose(1, 2).contiguous()}
        for number in range(len(self.nodes) - 1, -1, -1):
            if not self.learning[number]:
                continue
            layer, sources = self.nodes[number]
            down = [source for source in sources if source != INPUTS and self.learning[source]]
            g = layer.backward(self.setting, gradients.pop(number), inputs=bool(down))
            for source, memory in zip(down, self.copies[number], strict=False):
                assert g is not None
                if source in gradients:
                    gradients[source].add_(g)
                else:
                    # Whoever reads a gradient may overwrite it: all but the first get a copy.
                    gradients[source] = g if source == down[0] else memory.take(g.shape, g).copy_(g)


def joined(nodes: Sequence[Node]) -> list[Node]:
    """Let compiled layers do the ReLU that follows them, where nothing else reads their output."""
    readers, found, moved = _readers(nodes), list[Node](), {INPUTS: INPUTS}
    for number, (layer, sources) in enumerate(nodes):
        source = moved[sources[0]]
        before = None if source == INPUTS else found[source].layer
        if isinstance(layer, ReLU) and isinstance(before, Compiled) and len(readers[sources[0]]) == 1:
            # Which outputs were cut off is read from them on the way back.
            before.clamp, before.lends = True, False
            moved[number] = source
        else:
            moved[number] = len(found)
            found.append(Node(layer, tuple(moved[source] for source in sources)))
    return found


def made(written: Sequence[Written]) -> list[Node]:
    """Return layers with memory of their own."""
    return [Node(make(), sources) for make, sources in written]


def _readers(nodes: Sequence[Node]) -> dict[int, list[int]]:
    """Return by a layer's number those of the layers that read its output."""
    found: dict[int, list[int]] = {number: [] for number in range(INPUTS, len(nodes))}
    for number, (_, sources) in enumerate(nodes):
        for source in sources:
            found[source].append(number)
    return found


class Sum(Layer):
    """x + z, both of the same shape."""

    lends = True

    def __init__(self) -> None:
        """Start without memory."""
        self.memory = Memory()

    def add(self, x: Tensor, z: Tensor, out: Tensor | None) -> Tensor:
        """Return the sum, where the next layer wants it."""
        if x.shape != z.shape:
            raise ValueError(f"a sum of shapes {tuple(x.shape)} and {tuple(z.shape)} has no written-out gradient")
        return torch.add(x, z, out=self.memory.take(x.shape, x) if out is None else out)

    def backward(self, setting: Setting, g: Tensor, inputs: bool) -> Tensor | None:
        """Return g, the gradient of both."""
        return g


class ReLU(Layer):
    """max(x, 0)."""

    lends = False

    def __init__(self) -> None:
        """Start without memory."""
        self.in_place = False
        self.memory = Memory()

    def forward(self, setting: Setting, x: Tensor, out: Tensor | None) -> Tensor:
        """Return max(x, 0), where the next layer wants it."""
        if out is None:
            out = x if self.in_place else self.memory.take(x.shape, x)
        self.y = torch.clamp_min(x, 0, out=out)
        return self.y

    def backward(self, setting: Setting, g: Tensor, inputs: bool) -> Tensor | None:
        """Return g where the output is above 0."""
        return torch.ops.aten.threshold_backward.grad_input(g, self.y, 0, grad_input=g) if inputs else None


class Flatten(Layer):
    """Images to rows; no copy unless the values have gaps."""

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Everything between members and batch becomes features."""
        return (shape[0], math.prod(shape[1:-1]), shape[-1])

    def forward(self, setting: Setting, x: Tensor, out: Tensor | None) -> Tensor:
        """Return the same values in another shape."""
        self.x_shape = x.shape
        return x.flatten(1, -2)

    def backward(self, setting: Setting, g: Tensor, inputs: bool) -> Tensor | None:
        """Return the same gradient in the shape of the input."""
        return g.reshape(self.x_shape)


class Dropout(Layer):
    """Dropout with the noise of each member's own generator, drawn as `layers.py` draws it."""

    def __init__(self, p: float) -> None:
        """Remember the share that is dropped."""
        self.p = p

    def forward(self, setting: Setting, x: Tensor, out: Tensor | None) -> Tensor:
        """Return x times 0 or 1 / (1 - p)."""
        self.scale: Tensor | None = None
        if setting.noise is None or self.p == 0:
            return x
        one = (x.shape[-1], *x.shape[1:-1])
        keep = torch.stack([torch.rand(one, generator=g) >= self.p for g in setting.noise]).movedim(1, -1)
        self.scale = keep.to(x.dtype).div_(1 - self.p) if self.p < 1 else keep.to(x.dtype)
        return x * self.scale

    def backward(self, setting: Setting, g: Tensor, inputs: bool) -> Tensor | None:
        """Return g times the same factors."""
        return g if self.scale is None else g * self.scale


class Differentiated(Layer):
    """An activation that autograd differentiates."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        """Wrap an elementwise function."""
        self.function = function

    def forward(self, setting: Setting, x: Tensor, out: Tensor | None) -> Tensor:
        """Return the function's value and keep its graph."""
        with torch.enable_grad():
            self.x = x.detach().requires_grad_(True)
            self.y = self.function(self.x)
        return self.y.detach()

    def backward(self, setting: Setting, g: Tensor, inputs: bool) -> Tensor | None:
        """Return autograd's gradient and let go of the graph."""
        if not inputs:
            return None
        (dx,) = torch.autograd.grad(self.y, self.x, g)
        del self.x, self.y
        return dx.contiguous()


def write_out(module: nn.Module) -> list[Written]:
    """Return what makes the layers of a network, in the order in which they run.

    Args:
        module: A module that `compile_layers` accepts.

    Raises:
        Unsupported: If it uses a layer twice, or has one without a written-out gradient.
    """
    modules = dict(module.named_modules())
    found: list[Written] = []
    names: list[str] = []
    numbers: dict[fx.Node, int] = {}
    for node in fx.symbolic_trace(module.eval()).graph.nodes:
        if node.op == "output":
            if numbers.get(node.args[0]) != len(found) - 1:
                raise Unsupported("it does not return its last layer")
            break
        if node.op == "placeholder":
            numbers[node] = INPUTS
            continue
        if len(node.users) == 0:
            raise Unsupported(f"nothing reads {node.name}")
        numbers[node] = len(found)
        found.append(Written(_maker(node, modules), tuple(numbers[source] for source in node.all_input_nodes)))
        names += [str(node.target)] if node.op == "call_module" and _has_parameters(modules[node.target]) else []
    used = {name for layer in names for name in _own_parameters(layer, modules[layer])}
    if len(set(names)) < len(names) or used != {name for name, _ in module.named_parameters()}:
        raise Unsupported("a layer is used twice or not at all")
    if not found:
        raise Unsupported("it has no layers")
    return found


def _maker(node: fx.Node, modules: Mapping[str, nn.Module]) -> Make:
    target: Any = node.target
    if target in ARITHMETIC:
        return _arithmetic(node)
    if len(node.all_input_nodes) != 1:
        raise Unsupported(f"{node.op} {target} of several tensors has no written-out gradient")
    if node.op == "call_module":
        name, module = str(target), modules[str(target)]
        if isinstance(module, nn.Linear):
            return lambda: Linear(name, module) if library() is None else DirectLinear(name, module)
        if type(module) is nn.Conv2d:
            ColumnConvolution(name, module)
            return lambda: ColumnConvolution(name, module) if library() is None else DirectConvolution(name, module)
        if type(module) in POOLING:
            kind = POOLING[type(module)]
            kind(module)
            return lambda: kind(module)
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d):
            batch_norm: Any = module
            return lambda: (BatchNorm if library() is None else DirectBatchNorm)(name, batch_norm)
        if type(module) is nn.ReLU:
            return ReLU
        if type(module) is nn.Dropout:
            return lambda: Dropout(module.p)
        if type(module) is nn.Flatten:
            return Flatten
        if type(module) in ELEMENTWISE_MODULES:
            activation = plain_activation(module)
            return lambda: Differentiated(activation)
    if target in (torch.relu, F.relu) or (node.op == "call_method" and target == "relu"):
        return ReLU
    if target is torch.flatten or (node.op == "call_method" and target == "flatten"):
        return Flatten
    if node.op == "call_function" and target in ELEMENTWISE_FUNCTIONS:
        options = {key: value for key, value in node.kwargs.items() if key != "inplace"}
        return lambda: Differentiated(lambda x: target(x, **options))
    if node.op == "call_method" and target in ELEMENTWISE_METHODS:
        return lambda: Differentiated(lambda x: getattr(x, target)())
    raise Unsupported(f"{node.op} {target} has no written-out gradient")


def _arithmetic(node: fx.Node) -> Make:
    """Return what makes a sum of two tensors, or arithmetic with a number."""
    first, second = node.args if len(node.args) == 2 and not node.kwargs else (None, None)
    function: Any = PLAIN.get(node.target, node.target)
    if isinstance(first, fx.Node) and isinstance(second, int | float):
        return lambda: Differentiated(lambda x: function(x, second))
    if isinstance(second, fx.Node) and isinstance(first, int | float):
        return lambda: Differentiated(lambda x: function(first, x))
    if function in (operator.add, torch.add) and len(node.all_input_nodes) == 2:
        return Sum
    raise Unsupported(f"{node.format_node()} has no written-out gradient")


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _own_parameters(name: str, module: nn.Module) -> list[str]:
    return [f"{name}.{own}" for own, _ in module.named_parameters(recurse=False)]
