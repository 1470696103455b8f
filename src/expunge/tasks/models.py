"""Model factories: small networks for two cores, and the two residual networks of the image experiments.

All are written with module layers and `+`, so that `torch.fx` can trace them and `expunge.ensembles` can stack them by
hand. Without normalisation (`norm=None`) a model has no running statistics, and property 3 of an audit is moot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from expunge.core import InputError
from expunge.core.checks import whole

Norm = Literal["batch"] | None
"""Normalisation after each linear or convolutional layer but the last: `"batch"` (batch norm) or None."""


def mlp(inputs: int, hidden: Sequence[int] = (128,), classes: int = 10, norm: Norm = None) -> nn.Module:
    """Return a fully connected network with ReLU: inputs - hidden ... - classes.

    Args:
        inputs: Numbers in one example; examples of any shape are flattened.
        hidden: Widths of the hidden layers; empty gives multinomial logistic regression.
        classes: Outputs K, at least 2.
        norm: Normalisation of the hidden layers.

    >>> import torch
    >>> mlp(64)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    whole(inputs=inputs, **{f"hidden[{i}]": width for i, width in enumerate(hidden)})
    whole(2, classes=classes)
    _check_norm(norm)
    layers: list[nn.Module] = [nn.Flatten()]
    for width in hidden:
        layers.append(nn.Linear(inputs, width))
        if norm == "batch":
            layers.append(nn.BatchNorm1d(width))
        layers.append(nn.ReLU())
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, classes))


def small_cnn(
    size: int = 28,
    channels: int = 1,
    classes: int = 10,
    widths: Sequence[int] = (8, 16),
    norm: Norm = None,
) -> nn.Module:
    """Return a small convolutional network: 3x3 convolutions of stride 2, each with a ReLU, then a linear layer.

    Args:
        size: Height and width of the square inputs in pixels, such as 28 (MNIST) or 8 (digits).
        channels: Channels of the inputs, 1 for grey.
        classes: Outputs K, at least 2.
        widths: Output channels of the convolutions; each halves the height and width (rounded up).
        norm: Normalisation after each convolution.

    >>> import torch
    >>> small_cnn(8)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    whole(size=size, channels=channels, **{f"widths[{i}]": width for i, width in enumerate(widths)})
    whole(2, classes=classes)
    _check_norm(norm)
    layers: list[nn.Module] = []
    for width in widths:
        layers += [*_convolution(channels, width, norm, kernel=3, stride=2), nn.ReLU()]
        channels, size = width, (size + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * size * size, classes))


def resnet9(classes: int = 10, channels: int = 3, norm: Norm = "batch", width: int = 64) -> nn.Module:
    """Return the ResNet-9 of the image experiments, for inputs of at least 16x16 pixels.

    64 - 128 (5x5, stride 2) - residual - 256 - max-pool 2 - residual - 128 (no padding) - global max-pool - linear
    without bias, times 0.2; each step is convolution, normalisation, ReLU. The network is the one of the FFCV tutorial
    on CIFAR-10 (Leclerc et al., "FFCV", arXiv 2306.12517), which the KLoM experiments with ResNet-9 train (EasyDUB,
    arXiv 2602.16400).

    Args:
        classes: Outputs K, at least 2.
        channels: Channels of the inputs, 3 for colour.
        norm: Normalisation after each convolution; with None the convolutions have a bias.
        width: Channels of the first convolution; those of the others are in proportion.

    >>> import torch
    >>> resnet9(width=8)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    whole(channels=channels, width=width)
    whole(2, classes=classes)
    _check_norm(norm)

    def step(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> list[nn.Module]:
        return [*_convolution(inputs, outputs, norm, kernel=kernel, stride=stride, padding=padding), nn.ReLU()]

    return nn.Sequential(
        *step(channels, width),
        *step(width, 2 * width, kernel=5, stride=2, padding=2),
        _Residual(nn.Sequential(*step(2 * width, 2 * width), *step(2 * width, 2 * width))),
        *step(2 * width, 4 * width),
        nn.MaxPool2d(2),
        _Residual(nn.Sequential(*step(4 * width, 4 * width), *step(4 * width, 4 * width))),
        *step(4 * width, 2 * width, padding=0),
        nn.AdaptiveMaxPool2d((1, 1)),
        nn.Flatten(),
        nn.Linear(2 * width, classes, bias=False),
        _Scale(0.2),
    )


def resnet18(classes: int = 10, channels: int = 3, norm: Norm = "batch", width: int = 64) -> nn.Module:
    """Return a ResNet-18 with the 3x3 stem that is usual on 32x32 images (no max-pool after the stem).

    He et al., "Deep Residual Learning for Image Recognition" (arXiv 1512.03385), table 1, with the stem replaced by a
    3x3 convolution of stride 1; 11,173,962 parameters for 10 classes and batch norm.

    Args:
        classes: Outputs K, at least 2.
        channels: Channels of the inputs, 3 for colour.
        norm: Normalisation after each convolution; with None the convolutions have a bias.
        width: Channels of the stem; those of the blocks are in proportion.
    """
    whole(channels=channels, width=width)
    whole(2, classes=classes)
    _check_norm(norm)
    layers: list[nn.Module] = [*_convolution(channels, width, norm), nn.ReLU()]
    inputs = width
    for outputs, stride in ((width, 1), (2 * width, 2), (4 * width, 2), (8 * width, 2)):
        layers += [_BasicBlock(inputs, outputs, stride, norm), _BasicBlock(outputs, outputs, 1, norm)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(inputs, classes))


class _Residual(nn.Module):
    """Adds what its branch returns to the input."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.branch(x)
        return out


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut around them; a 1x1 convolution where the shapes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_convolution(inputs, outputs, norm, stride=stride), nn.ReLU(), *_convolution(outputs, outputs, norm)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(*_convolution(inputs, outputs, norm, kernel=1, stride=stride, padding=0))
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.branch(x) + self.shortcut(x))
        return out


class _Scale(nn.Module):
    """Multiplies its input by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def extra_repr(self) -> str:
        return str(self.factor)


def _convolution(
    inputs: int, outputs: int, norm: Norm, *, kernel: int = 3, stride: int = 1, padding: int = 1
) -> list[nn.Module]:
    # Batch norm subtracts the mean, so a bias before it would do nothing.
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=norm is None)]
    if norm == "batch":
        layers.append(nn.BatchNorm2d(outputs))
    return layers


def _check_norm(norm: str | None) -> None:
    if norm not in (None, "batch"):
        raise InputError(f"norm = {norm!r}, expected 'batch' or None.")
