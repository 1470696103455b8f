"""Squared gradients of single examples, summed over examples, for every member of a stack.

For example i, with x the input of a layer and g the gradient of its output, the gradient of a linear layer's weight is
the outer product g_i x_i^T, so that the sum of its squares needs no gradient of a single example:

    linear        sum_i (g_i x_i^T)^2 = (g^2) (x^2)^T                            squares elementwise, examples along n
    convolution   sum_i (sum_p g_ip cols(x)_ip^T)^2                              p positions: one product an example
    batch norm    sum_i (sum_p g_ip (x_ip - mean) / sd)^2                        statistics stored

All members go through together where the network consists of such layers (see `by_hand.py`); in any other, every
example has a gradient of its own, member by member (see `example_gradients.py`), which takes many times as long.

Source: the identity for linear layers is used by Goodfellow, "Efficient Per-Example Gradient Computations" (arXiv
1510.01799).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from expunge.core import Ensemble, InputError
from expunge.core.stopping import check_stopped
from expunge.core.tree import State
from expunge.ensembles.by_hand import Node, Pass, made
from expunge.ensembles.columns import ColumnConvolution
from expunge.ensembles.dense import DirectLinear
from expunge.ensembles.example_gradients import CHUNK, Cotangent, check_separable, gradient_batches, trainable
from expunge.ensembles.linear import Linear
from expunge.ensembles.network import LayerNetwork
from expunge.ensembles.normalised import BatchNorm
from expunge.ensembles.written import Setting

ROWS = 64
"""Examples that go through together at most: what lies between the products stays in the cache."""


def squared_gradients(ensemble: Ensemble, x: Tensor, y: Tensor, cotangent: Cotangent) -> State:
    """Return squared gradients summed over examples, by trainable parameter, each (members, ...).

    Args:
        ensemble: The stack.
        x: Inputs (examples, ...).
        y: Targets (examples, ...).
        cotangent: Derivative of the quantity by the outputs, such as that of the loss.

    Raises:
        InputError: If there are no examples, or an example has no gradient of its own.
    """
    if len(x) == 0:
        raise InputError("x has no examples, expected at least one.")
    check_separable(ensemble.network)
    found = {name: torch.zeros_like(ensemble.params[name]) for name in trainable(ensemble)}
    network, nodes = ensemble.network, _nodes(ensemble)
    if nodes is None or not isinstance(network, LayerNetwork):
        for member in range(len(ensemble)):
            for batch in gradient_batches(ensemble, member, x, y, cotangent):
                for name, own in batch.items():
                    found[name][member] += own.square().sum(0)
        return found
    weights = {name: tensor.detach() for name, tensor in ensemble.params.items()}
    gradients = {name: torch.zeros_like(tensor) for name, tensor in found.items()}
    run = Pass(nodes, Setting(weights, gradients, dict(ensemble.buffers)))
    precision = next(iter(weights.values())).dtype
    # Convolutions form the gradients of single examples; all else is as wide as an activation.
    formed = [found[layer.weight][0].numel() for layer in run.layers if isinstance(layer, SquaredConvolution)]
    rows = min(ROWS, max(1, CHUNK // (max(network.widest, *formed, 1) * len(ensemble))))
    for start in range(0, len(x), rows):
        check_stopped()
        inputs = network.interface.prepare(x[start : start + rows].to(precision).unsqueeze(0))
        outputs = run.forward(inputs, update=False, noise=None)
        run.backward(cotangent(outputs, y[start : start + rows]).to(precision))
        for name, own in gradients.items():
            found[name] += own
    return found


class Squared(Linear):
    """A linear layer whose gradients are squared example by example: those of a layer with squared numbers."""

    def backward(self, setting: Setting, g: Tensor, inputs: bool) -> Tensor | None:
        """Write (g^2) (x^2)^T and the sum of g^2; return W^T g."""
        g = g.contiguous()  # a ReLU that belongs to the layer cuts it off in place
        own, setting.gradients = setting.gradients, {}
        dx = super().backward(setting, g, inputs)
        x, setting.gradients, self.x = self.x, own, self.x.square()
        super().backward(setting, g.square(), inputs=False)
        self.x = x
        return dx


class SquaredLinear(Squared, Linear):
    """By PyTorch's products."""


class SquaredDirectLinear(Squared, DirectLinear):
    """By the compiled kernels."""


class SquaredConvolution(ColumnConvolution):
    """A convolution whose gradients are squared example by example."""

    def backward(self, setting: Setting, g: Tensor, inputs: bool) -> Tensor | None:
        """Write the sum of squares of one product an example; return fold(W^T g)."""
        members, outputs, *_, examples = g.shape
        each = g.reshape(members, outputs, -1, examples)
        if self.weight in setting.gradients:
            columns = self.flat.view(members, -1, each.shape[2], examples)
            gradients = torch.einsum("mope,mkpe->moke", each, columns)
            place = setting.gradients[self.weight]
            place.copy_(gradients.square_().sum(3).view_as(place))
        if self.bias in setting.gradients:
            setting.gradients[self.bias].copy_(each.sum(2).square_().sum(2))
        own, setting.gradients = setting.gradients, {}  # what is above stands; only the way down is left
        try:
            return super().backward(setting, g, inputs) if inputs else None
        finally:
            setting.gradients = own


class SquaredBatchNorm(BatchNorm):
    """Batch norm with stored statistics whose gradients are squared example by example."""

    def backward(self, setting: Setting, g: Tensor, inputs: bool) -> Tensor | None:
        """Write the sums of squares for scale and shift; return the gradient of the input."""
        each = g.reshape(*g.shape[:2], -1, g.shape[-1])
        mean, variance = (setting.buffers[f"{self.name}.running_{kind}"] for kind in ("mean", "var"))
        normal = self.x.detach().view_as(each).sub(mean[..., None, None])
        normal /= (variance + self.eps).sqrt()[..., None, None]
        for key, product in zip(self.parameters, (each * normal, each), strict=False):
            if key in setting.gradients:
                setting.gradients[key].copy_(product.sum(2).square_().sum(2))
        own, setting.gradients = setting.gradients, {}
        try:
            return super().backward(setting, g, inputs)
        finally:
            setting.gradients = own


def _nodes(ensemble: Ensemble) -> Sequence[Node] | None:
    """Return the layers with those that learn in their squared form, or None where one has none."""
    network = ensemble.network
    kinds = {(tensor.dtype, tensor.device.type) for tensor in ensemble.params.values()}
    if not isinstance(network, LayerNetwork) or not network.by_hand:
        return None
    if len(kinds) != 1 or not kinds <= {(torch.float32, "cpu"), (torch.float64, "cpu")}:
        return None
    nodes: list[Node] = []
    for layer, sources in made(network.by_hand):
        if layer.parameters or isinstance(layer, BatchNorm):
            name = layer.name if isinstance(layer, BatchNorm) else layer.parameters[0].rpartition(".")[0]
            module = network.template.get_submodule(name)
            if isinstance(module, nn.Linear):
                layer = (SquaredDirectLinear if isinstance(layer, DirectLinear) else SquaredLinear)(name, module)
            elif isinstance(module, nn.Conv2d):
                layer = SquaredConvolution(name, module)
            elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                layer = SquaredBatchNorm(name, module)
            else:
                return None
        nodes.append(Node(layer, sources))
    return nodes
