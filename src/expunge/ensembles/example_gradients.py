"""Per-example gradients of one member, kept small: a rank-one gradient is stored as its two factors.

The gradient of a linear layer's weight for one example is an outer product (signal times input), as long as the layer
sees the example once. So is any gradient that turns out to be one: this is checked on the numbers, not on the type of
the layer. Inner products of outer products are products of inner products,

    <a b^T, c d^T> = (a.c) (b.d)

so that a Gram matrix of gradients needs neither the memory nor the arithmetic of the gradients themselves.

Source: the identity is used by Goodfellow, "Efficient Per-Example Gradient Computations" (arXiv 1510.01799).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.core import Ensemble, InputError, Network
from expunge.core.stopping import check_stopped
from expunge.core.tree import State

CHUNK = 2**22
"""Numbers of per-example gradients that are formed at once."""

Cotangent = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Factor:
    """Per-example gradients of one parameter tensor."""

    left: Tensor
    """(examples, out), or all of the gradient (examples, numbers) where `right` is None."""
    right: Tensor | None = None
    """(examples, in); the gradient is left right^T."""

    def gram(self, other: Factor) -> Tensor:
        """Return inner products (examples, other examples), float64."""
        out = self.left.double() @ other.left.double().T
        if self.right is not None and other.right is not None:
            out *= self.right.double() @ other.right.double().T
        return out


def gram(a: dict[str, Factor], b: dict[str, Factor]) -> Tensor:
    """Return inner products of gradients (examples of a, examples of b), float64.

    Args:
        a: Gradients by parameter.
        b: Gradients of the same member, with the same parameters.
    """
    total = torch.zeros(())
    for name, factor in a.items():
        total = total + factor.gram(b[name])
    return total


def example_gradients(
    ensemble: Ensemble, member: int, x: Tensor, y: Tensor, cotangent: Cotangent, *, compress: bool = True
) -> dict[str, Factor]:
    """Return the gradient of every example, by parameter.

    Args:
        ensemble: The stack.
        member: Which member, from 0.
        x: Inputs (examples, ...).
        y: Labels (examples,).
        cotangent: Derivative of the quantity by the logits, such as `margin_cotangent`.
        compress: Keep rank-one gradients as two factors.
    """
    parts: dict[str, list[Factor]] = {name: [] for name in trainable(ensemble)}
    dense: set[str] = set() if compress else set(parts)
    for batch in gradient_batches(ensemble, member, x, y, cotangent):
        for name, own in batch.items():
            factor = None if name in dense else _outer(own)
            if factor is None and name not in dense:
                dense.add(name)
                parts[name] = [Factor(_expand(part)) for part in parts[name]]
            parts[name].append(factor or Factor(own.flatten(1)))
    return {name: _join(found) for name, found in parts.items()}


def gradient_batches(ensemble: Ensemble, member: int, x: Tensor, y: Tensor, cotangent: Cotangent) -> Iterator[State]:
    """Yield per-example gradients batch by batch, each tensor (batch, ...): memory stays bounded.

    The weights are repeated, so that every example has a member of its own: then the stack's ordinary backward pass
    returns gradients example by example, for any network. The arguments are those of `example_gradients`.
    """
    if len(x) == 0:
        raise InputError("x has no examples, expected at least one.")
    check_separable(ensemble.network)
    network, wanted = ensemble.network, trainable(ensemble)
    params = {name: ensemble.params[name].detach() for name in wanted}
    fixed = {name: tensor.detach() for name, tensor in ensemble.params.items() if name not in params}
    frozen = {**fixed, **ensemble.buffers}
    precision = next(iter(params.values())).dtype
    rows = max(1, CHUNK // max(sum(tensor[0].numel() for tensor in params.values()), network.widest))
    for start in range(0, len(x), rows):
        check_stopped()
        batch = x[start : start + rows].to(ensemble.device)
        batch = batch.to(precision) if batch.is_floating_point() else batch
        # Batch norm reads its statistics as one flat row, which a view of repeated numbers is not.
        own = {name: t[member].expand(len(batch), *t.shape[1:]).contiguous() for name, t in frozen.items()}
        buffers = {name: own[name] for name in ensemble.buffers}
        leaves = {name: t[member].expand(len(batch), *t.shape[1:]).requires_grad_(True) for name, t in params.items()}
        with torch.enable_grad():
            logits = network({**leaves, **{name: own[name] for name in fixed}}, buffers, batch.unsqueeze(1))
        labels = y[start : start + len(batch)]
        pull = cotangent(logits.detach().transpose(0, 1), labels.to(batch.device)).transpose(0, 1)
        found = torch.autograd.grad(logits, list(leaves.values()), pull.to(logits.dtype), allow_unused=True)
        yield {
            name: torch.zeros_like(leaf) if grad is None else grad
            for (name, leaf), grad in zip(leaves.items(), found, strict=True)
        }


def trainable(ensemble: Ensemble) -> list[str]:
    """Return the names of the parameters that the model declares trainable.

    They come in the order of its template: members that a store returns have theirs in any, and sums would be rounded
    accordingly.
    """
    declared = ensemble.network.template.named_parameters()
    return [name for name, tensor in declared if tensor.requires_grad and name in ensemble.params]


def check_separable(network: Network) -> None:
    """Refuse a model whose output for one example depends on the other examples even with stored statistics."""
    for name, layer in network.template.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            raise InputError(
                f"layer {name!r} is a {type(layer).__name__} without running statistics, so that an example has no "
                "gradient of its own; expected track_running_stats=True (the statistics are then frozen here), group "
                "norm, layer norm or no norm."
            )


def _outer(gradient: Tensor) -> Factor | None:
    """Return the two factors if every gradient (batch, out, in) is an outer product to rounding, else None."""
    if gradient.ndim != 3 or min(gradient.shape[1:]) < 2:
        return None
    heaviest = (gradient**2).sum(2).argmax(1)
    right = gradient[torch.arange(len(gradient), device=gradient.device), heaviest]
    weight = (right**2).sum(1, keepdim=True)
    left = torch.einsum("boi,bi->bo", gradient, right) / weight.clamp_min(torch.finfo(weight.dtype).tiny)
    missing = (gradient - left[:, :, None] * right[:, None, :]).flatten(1).norm(dim=1)
    whole = gradient.flatten(1).norm(dim=1)
    return Factor(left, right) if bool((missing <= 1e-5 * whole).all()) else None


def _expand(factor: Factor) -> Tensor:
    if factor.right is None:
        return factor.left
    return (factor.left[:, :, None] * factor.right[:, None, :]).flatten(1)


def _join(parts: list[Factor]) -> Factor:
    left = torch.cat([part.left for part in parts])
    right = None if parts[0].right is None else torch.cat([part.right for part in parts if part.right is not None])
    return Factor(left, right)
