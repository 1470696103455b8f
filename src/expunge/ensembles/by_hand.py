"""Forward and backward passes written out, for networks that are a chain of known layers; no autograd graph is built.

Values have the examples last: rows (members, features, batch), images (members, channels, height, width, batch). Every
step then runs along whole batches, and every product has a wide right-hand side. With g the gradient of the output y:

    linear        y = W x + b          dW = g xᵀ          db = sum g    dx = Wᵀ g
    convolution   y = W cols(x) + b    dW = g cols(x)ᵀ    db = sum g    dx = fold(Wᵀ g)
    ReLU          y = max(x, 0)        dx = g where y > 0

cols and fold are explained in `columns.py`; where installation could compile `direct.c`, convolutions are summed
without them, together with the ReLU that follows (see `direct.py`); so are linear layers (`dense.py`), and chains of
these take many steps in one call (`chain.py`). Batch norm and other activations are differentiated by autograd, one at
a time. Gradients are written where the optimiser reads them, and most other memory is used again in every step.

A module that is not a chain, or has another layer, is left to autograd over the stacked network (see `layers.py`),
which stays differentiable as often and in whichever mode one likes; a `Pass` only trains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from expunge.ensembles.columns import ColumnConvolution
from expunge.ensembles.dense import DirectLinear
from expunge.ensembles.direct import Compiled, DirectConvolution, library
from expunge.ensembles.layers import (
    ELEMENTWISE_FUNCTIONS,
    ELEMENTWISE_METHODS,
    ELEMENTWISE_MODULES,
    Unsupported,
    plain_activation,
)
from expunge.ensembles.linear import Linear
from expunge.ensembles.pooling import GlobalAverage, Pooling
from expunge.ensembles.written import Layer, Memory, Setting

POOLING: dict[type[nn.Module], Callable[..., Layer]] = {
    nn.MaxPool2d: Pooling,
    nn.AvgPool2d: Pooling,
    nn.AdaptiveAvgPool2d: GlobalAverage,
}

Make = Callable[[], "Layer"]
"""Makes a layer with memory of its own; every `Pass` needs its own, since passes run side by side."""


class Pass:
    """A chain in training: one stack's weights, gradients and memory."""

    def __init__(self, layers: Sequence[Layer], setting: Setting) -> None:
        """Join layers to the weights they read and the places of their gradients."""
        self.layers, self.setting = joined(layers), setting
        # Nothing below the first layer that learns needs a gradient.
        self.first = min((n for n, layer in enumerate(self.layers) if layer.learns(setting)), default=len(self.layers))
        for before, layer in zip([None, *self.layers[:-1]], self.layers, strict=True):
            if isinstance(layer, ReLU):
                layer.in_place = before is not None and before.lends

    @torch.no_grad()
    def forward(self, x: Tensor, *, update: bool, noise: Sequence[torch.Generator] | None) -> Tensor:
        """Return logits (members, batch, classes) for inputs (members or 1, batch, ...)."""
        setting = self.setting
        setting.update, setting.noise = update, noise
        members = len(next(iter(setting.params.values())))
        value = self.layers[0].load(x.expand(members, *x.shape[1:]).movedim(1, -1))
        following: list[Layer | None] = [*self.layers[1:], None]
        for layer, after in zip(self.layers, following, strict=True):
            out = None if after is None else after.place(layer.shape(value.shape), value)
            result = layer.forward(setting, value, out)
            value = result if out is None or result is out else out.copy_(result)
        return value.transpose(1, 2)

    @torch.no_grad()
    def backward(self, gradient: Tensor) -> None:
        """Write the gradients of all parameters, given that of the logits (members, batch, classes)."""
        g: Tensor | None = gradient.transpose(1, 2).contiguous()
        for number in range(len(self.layers) - 1, self.first - 1, -1):
            assert g is not None
            g = self.layers[number].backward(self.setting, g, inputs=number > self.first)


def joined(layers: Sequence[Layer]) -> list[Layer]:
    """Let compiled layers do the ReLU that follows them."""
    found: list[Layer] = []
    for layer in layers:
        before = found[-1] if found else None
        if isinstance(layer, ReLU) and isinstance(before, Compiled):
            # Which outputs were cut off is read from them on the way back.
            before.clamp, before.lends = True, False
        else:
            found.append(layer)
    return found


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


class BatchNorm(Layer):
    """Batch norm: with examples last, each channel's numbers lie side by side, and all members go through at once."""

    lends = True

    def __init__(self, name: str, module: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        """Remember names and constants."""
        self.name, self.momentum, self.eps = name, module.momentum, module.eps
        self.parameters = (f"{name}.weight", f"{name}.bias") if module.affine else ()

    def forward(self, setting: Setting, x: Tensor, out: Tensor | None) -> Tensor:
        """Return the normalised values; with `update` the running statistics move."""
        mean, variance = (setting.buffers[f"{self.name}.running_{kind}"].view(-1) for kind in ("mean", "var"))
        share = 0.0
        if setting.update:
            tracked = setting.buffers[f"{self.name}.num_batches_tracked"].add_(1)
            # Without a momentum the layer keeps the plain average of all batches; members have seen equally many.
            share = 1.0 / float(tracked[0]) if self.momentum is None else self.momentum
        with torch.enable_grad():
            self.x = x.reshape(1, len(mean), -1).detach().requires_grad_(True)
            self.own = [setting.params[key].detach().flatten().requires_grad_(True) for key in self.parameters]
            weight, bias = self.own if self.parameters else (None, None)
            self.y = F.batch_norm(self.x, mean, variance, weight, bias, setting.update, share, self.eps)
        return self.y.detach().view(x.shape)

    def backward(self, setting: Setting, g: Tensor, inputs: bool) -> Tensor | None:
        """Write the gradients of scale and shift; return that of the input."""
        dx, *own = torch.autograd.grad(self.y, [self.x, *self.own], g.reshape(self.y.shape))
        for key, gradient in zip(self.parameters, own, strict=True):
            if key in setting.gradients:
                setting.gradients[key].copy_(gradient.view_as(setting.gradients[key]))
        del self.x, self.y, self.own
        return dx.view(g.shape)


def write_out(module: nn.Module) -> list[Make]:
    """Return what makes the layers of a chain.

    Args:
        module: A module that `compile_layers` accepts.

    Raises:
        Unsupported: If it is not a chain, uses a layer twice, or has one without a written-out gradient.
    """
    modules = dict(module.named_modules())
    makers: list[Make] = []
    names: list[str] = []
    before: fx.Node | None = None
    for node in fx.symbolic_trace(module.eval()).graph.nodes:
        if node.op == "output":
            if node.args[0] is not before:
                raise Unsupported("it does not return its last layer")
            break
        if node.op != "placeholder":
            if node.all_input_nodes != [before]:
                raise Unsupported("it is not a chain")
            makers.append(_maker(node, modules))
            names += [str(node.target)] if node.op == "call_module" and _has_parameters(modules[node.target]) else []
        before = node
    used = {name for layer in names for name in _own_parameters(layer, modules[layer])}
    if len(set(names)) < len(names) or used != {name for name, _ in module.named_parameters()}:
        raise Unsupported("a layer is used twice or not at all")
    if not makers:
        raise Unsupported("it has no layers")
    return makers


def _maker(node: fx.Node, modules: Mapping[str, nn.Module]) -> Make:
    target: Any = node.target
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
            return lambda: BatchNorm(name, module)  # type: ignore[arg-type]
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


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _own_parameters(name: str, module: nn.Module) -> list[str]:
    return [f"{name}.{own}" for own, _ in module.named_parameters(recurse=False)]
