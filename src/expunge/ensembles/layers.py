"""Hand-stacked forms of known layers: one kernel call serves every member.

A module is traced once with `torch.fx`; each node becomes a step that works on all members. Values live in one of two
layouts, and move between them only where a layer needs it:

    rows    (members, batch, ...)                          linear layers: one batched matrix product
    images  (batch, members * channels, height, width)     convolutions: one grouped convolution, channels last

A leading axis of 1 in `rows` is the same batch for every member; the first layer then needs no copies of it.
A module with a layer or an operation that is not listed here is left to `torch.vmap` (see `network.py`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F


class Unsupported(Exception):  # noqa: N818
    """The module has something that has no hand-stacked form; the reason is in the message."""


@dataclass(frozen=True)
class Value:
    """A stacked activation and its layout."""

    tensor: Tensor
    images: bool = False
    """True for (batch, members * channels, height, width), False for (members or 1, batch, ...)."""


@dataclass
class Context:
    """What a step may read besides its inputs."""

    params: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    members: int
    update: bool
    """Whether normalisation uses the statistics of the batch and stores them."""
    noise: Sequence[torch.Generator] | None


Step = Callable[[Context, list[Value]], Value]

ELEMENTWISE_MODULES: tuple[type[nn.Module], ...] = (
    nn.ReLU,
    nn.GELU,
    nn.Tanh,
    nn.Sigmoid,
    nn.SiLU,
    nn.ELU,
    nn.LeakyReLU,
    nn.Softplus,
    nn.Hardtanh,
    nn.ReLU6,
    nn.Identity,
)
POOLING_MODULES: tuple[type[nn.Module], ...] = (
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
)
ELEMENTWISE_FUNCTIONS: set[Any] = {torch.relu, F.relu, torch.tanh, F.tanh, torch.sigmoid, F.gelu, F.silu, operator.neg}
ELEMENTWISE_METHODS = {"relu", "tanh", "sigmoid", "contiguous"}
ARITHMETIC = {
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    torch.add,
    torch.mul,
    operator.iadd,
    operator.imul,
}
PLAIN: dict[Any, Any] = {operator.iadd: operator.add, operator.imul: operator.mul}
"""By an operation that works in place the one that does not."""


def to_rows(value: Value, members: int) -> Tensor:
    """Return a value as (members, batch, ...)."""
    if not value.images:
        return value.tensor
    batch, stacked, height, width = value.tensor.shape
    # By way of channels last, so that the gradient comes back in that order too: the backward passes of activations and
    # convolutions are several times slower on gradients in another order than their outputs.
    last = value.tensor.permute(0, 2, 3, 1).reshape(batch, height, width, members, stacked // members)
    return last.permute(3, 0, 4, 1, 2)


def to_images(value: Value, members: int) -> Tensor:
    """Return a value as (batch, members * channels, height, width), channels last in memory."""
    if value.images:
        return value.tensor
    x = value.tensor
    if len(x) == 1 and members > 1:
        x = x.expand(members, *x.shape[1:])
    _, batch, channels, height, width = x.shape
    last = x.permute(1, 3, 4, 0, 2).reshape(batch, height, width, members * channels)
    return last.permute(0, 3, 1, 2)


def compile_layers(module: nn.Module) -> Callable[[Context, Tensor], Tensor]:
    """Return a function from a context and inputs (members or 1, batch, ...) to logits (members, batch, classes).

    Raises:
        Unsupported: If the module cannot be traced or has no hand-stacked form.
    """
    try:
        graph = fx.symbolic_trace(module.eval()).graph
        in_training = fx.symbolic_trace(module.train()).graph
    except Exception as error:
        raise Unsupported(f"torch.fx cannot trace it ({type(error).__name__}: {error})") from error
    if str(graph) != str(in_training):
        raise Unsupported("its forward does different things in training and in evaluation")
    modules = dict(module.named_modules())
    program: list[tuple[fx.Node, Step | None, list[fx.Node]]] = []
    for node in graph.nodes:
        if node.op == "placeholder":
            program.append((node, None, []))
        elif node.op == "output":
            result = node.args[0]
            if not isinstance(result, fx.Node):
                raise Unsupported("it returns something other than one tensor")
        else:
            step, inputs = _step_for(node, modules)
            program.append((node, step, inputs))
    if sum(step is None for _, step, _ in program) != 1:
        raise Unsupported("its forward takes more than one argument")
    last_use = {source: position for position, (_, _, inputs) in enumerate(program) for source in inputs}

    def run(context: Context, x: Tensor) -> Tensor:
        values: dict[fx.Node, Value] = {}
        for position, (node, step, inputs) in enumerate(program):
            values[node] = Value(x) if step is None else step(context, [values[source] for source in inputs])
            for source in inputs:
                if last_use[source] == position and source is not result:
                    values.pop(source, None)
        out = to_rows(values[result], context.members)
        return out.expand(context.members, *out.shape[1:]) if len(out) != context.members else out

    return run


def _step_for(node: fx.Node, modules: Mapping[str, nn.Module]) -> tuple[Step, list[fx.Node]]:
    inputs = [argument for argument in node.args if isinstance(argument, fx.Node)]
    if node.op == "call_module":
        return _module_step(str(node.target), modules[str(node.target)]), inputs
    if any(isinstance(value, fx.Node) for value in node.kwargs.values()):
        raise Unsupported(f"tensor passed by keyword in {node.format_node()}")
    if node.op == "call_function" and node.target in ARITHMETIC and not node.kwargs:
        return _arithmetic(node), inputs
    if node.op == "call_function" and node.target in ELEMENTWISE_FUNCTIONS and len(inputs) == len(node.args) == 1:
        function: Any = node.target
        options = dict(node.kwargs)
        options.pop("inplace", None)
        return _elementwise(lambda tensor: function(tensor, **options)), inputs
    if node.op == "call_method" and node.target in ELEMENTWISE_METHODS and len(node.args) == 1 and not node.kwargs:
        name = str(node.target)
        return _elementwise(lambda tensor: getattr(tensor, name)()), inputs
    flatten = node.target is torch.flatten or (node.op == "call_method" and node.target == "flatten")
    if flatten and (node.args[1:] or tuple(node.kwargs.values())) in ((1,), (1, -1)):
        return _flatten, inputs
    raise Unsupported(f"no stacked form of {node.op} {node.target}")


def _module_step(name: str, module: nn.Module) -> Step:
    if isinstance(module, nn.Linear):
        return _linear(name, module)
    if type(module) is nn.Conv2d and module.padding_mode == "zeros":
        return _convolution(name, module)
    if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d) and module.track_running_stats:
        return _batch_norm(name, module)  # type: ignore[arg-type]
    if type(module) in ELEMENTWISE_MODULES:
        return _elementwise(plain_activation(module))
    if type(module) in POOLING_MODULES:
        return _pooling(module)
    if isinstance(module, nn.Flatten) and module.start_dim == 1 and module.end_dim == -1:
        return _flatten
    if type(module) is nn.Dropout:
        return _dropout(module.p)
    raise Unsupported(f"no stacked form of layer {name!r} ({type(module).__name__})")


def plain_activation(module: nn.Module) -> nn.Module:
    """Return an activation that does not work in place, which would overwrite what the backward pass needs."""
    if isinstance(module, nn.Softplus | nn.Hardtanh):
        return module
    return type(module)(**{k: v for k, v in vars(module).items() if k in ("alpha", "negative_slope", "approximate")})


def _linear(name: str, module: nn.Linear) -> Step:
    has_bias = module.bias is not None

    def step(context: Context, values: list[Value]) -> Value:
        x = to_rows(values[0], context.members)
        weight = context.params[f"{name}.weight"]
        bias = context.params[f"{name}.bias"] if has_bias else None
        if x.ndim != 3:
            raise ValueError(f"layer {name!r} got inputs of shape {tuple(x.shape[1:])}, expected (batch, features)")
        if len(x) == 1 and context.members > 1:
            members, out, _ = weight.shape
            flat = F.linear(x[0], weight.reshape(members * out, -1), None if bias is None else bias.reshape(-1))
            return Value(flat.view(len(flat), members, out).transpose(0, 1))
        # Written as weight @ inputs, so that the gradient of the weight comes out in the weight's own memory order.
        if bias is None:
            return Value(torch.bmm(weight, x.transpose(1, 2)).transpose(1, 2))
        return Value(torch.baddbmm(bias.unsqueeze(2), weight, x.transpose(1, 2)).transpose(1, 2))

    return step


def _convolution(name: str, module: nn.Conv2d) -> Step:
    has_bias = module.bias is not None
    stride, padding, dilation, groups = module.stride, module.padding, module.dilation, module.groups

    def step(context: Context, values: list[Value]) -> Value:
        weight = context.params[f"{name}.weight"].flatten(0, 1)
        bias = context.params[f"{name}.bias"].flatten() if has_bias else None
        value = values[0]
        if not value.images and len(value.tensor) == 1 and groups == 1:
            shared = value.tensor[0].contiguous(memory_format=torch.channels_last)
            return Value(F.conv2d(shared, weight, bias, stride, padding, dilation), images=True)
        x = to_images(value, context.members)
        return Value(F.conv2d(x, weight, bias, stride, padding, dilation, groups * context.members), images=True)

    return step


def _batch_norm(name: str, module: nn.BatchNorm1d | nn.BatchNorm2d) -> Step:
    momentum, eps, affine = module.momentum, module.eps, module.affine

    def step(context: Context, values: list[Value]) -> Value:
        value = values[0]
        images = value.images or value.tensor.ndim == 5
        if images:
            x = to_images(value, context.members)
        else:
            rows = value.tensor
            if len(rows) == 1 and context.members > 1:
                rows = rows.expand(context.members, *rows.shape[1:])
            if rows.ndim != 3:
                raise ValueError(
                    f"layer {name!r} got inputs of shape {tuple(rows.shape[1:])}, expected (batch, features)"
                )
            x = rows.transpose(0, 1).reshape(rows.shape[1], -1)
        weight = context.params[f"{name}.weight"].flatten() if affine else None
        bias = context.params[f"{name}.bias"].flatten() if affine else None
        mean, variance = context.buffers[f"{name}.running_mean"], context.buffers[f"{name}.running_var"]
        share = 0.0
        if context.update:
            tracked = context.buffers[f"{name}.num_batches_tracked"].add_(1)
            # Without a momentum the layer keeps the plain average of all batches; members have seen equally many.
            share = 1.0 / float(tracked[0]) if momentum is None else momentum
        out = F.batch_norm(x, mean.view(-1), variance.view(-1), weight, bias, context.update, share, eps)
        if images:
            return Value(out, images=True)
        return Value(out.view(len(out), context.members, -1).transpose(0, 1))

    return step


def _pooling(module: nn.Module) -> Step:
    def step(context: Context, values: list[Value]) -> Value:
        return Value(module(to_images(values[0], context.members)), images=True)

    return step


def _flatten(context: Context, values: list[Value]) -> Value:
    rows = to_rows(values[0], context.members)
    return Value(rows.flatten(2) if rows.ndim > 3 else rows)


def _elementwise(function: Callable[[Tensor], Tensor]) -> Step:
    def step(context: Context, values: list[Value]) -> Value:
        return Value(function(values[0].tensor), values[0].images)

    return step


def _arithmetic(node: fx.Node) -> Step:
    function: Any = node.target
    arguments = node.args
    function = PLAIN.get(function, function)
    if not all(isinstance(argument, fx.Node | int | float) for argument in arguments):
        raise Unsupported(f"no stacked form of {node.format_node()}")

    def step(context: Context, values: list[Value]) -> Value:
        images = any(value.images for value in values)
        change = to_images if images else to_rows
        tensors = iter([change(value, context.members) for value in values])
        return Value(function(*(next(tensors) if isinstance(a, fx.Node) else a for a in arguments)), images)

    return step


def _dropout(p: float) -> Step:
    def step(context: Context, values: list[Value]) -> Value:
        if context.noise is None or p == 0:
            return values[0]
        rows = to_rows(values[0], context.members)
        keep = torch.stack([torch.rand(rows.shape[1:], generator=g) >= p for g in context.noise]).to(rows.device)
        out = Value(rows * keep / (1 - p) if p < 1 else rows * keep)
        return Value(to_images(out, context.members), images=True) if values[0].images else out

    return step
