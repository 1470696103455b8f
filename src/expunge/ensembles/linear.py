"""A linear layer of stacked models with its gradients written out (see `by_hand.py`)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from expunge.ensembles.products import affine, input_gradient
from expunge.ensembles.written import Layer, Memory, Setting, parameter_gradients


class Linear(Layer):
    """A linear layer: one batched product forwards, two backwards."""

    lends = True

    def __init__(self, name: str, module: nn.Linear) -> None:
        """Remember the names of the parameters."""
        self.weight, self.bias = f"{name}.weight", f"{name}.bias" if module.bias is not None else ""
        self.parameters = (self.weight, self.bias)
        self.inputs, self.outputs = module.in_features, module.out_features
        self.y, self.dx = Memory(), Memory()

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Features become outputs."""
        return (shape[0], self.outputs, shape[-1])

    def forward(self, setting: Setting, x: Tensor, out: Tensor | None) -> Tensor:
        """Return W x + b."""
        self.x = x
        y = self.y.take(self.shape(x.shape), x)
        return affine(setting.params[self.weight], setting.params[self.bias] if self.bias else None, x, y)

    def backward(self, setting: Setting, g: Tensor, inputs: bool) -> Tensor | None:
        """Write g xᵀ and the sum of g; return Wᵀ g."""
        parameter_gradients(setting, self.weight, self.bias, g, self.x)
        if not inputs:
            return None
        return input_gradient(setting.params[self.weight], g, self.dx.take(self.x.shape, g))
