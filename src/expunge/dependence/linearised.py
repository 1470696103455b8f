"""The stack linearised at its weights: Jacobian products of every member's outputs, without ever forming a Jacobian.

For member m with weights theta and logits z(x), J = d z / d theta:

    outputs      J v                    how logits and margins move along a direction (forward mode)
    pullback     J^T c                  the direction that a change of logits asks for (reverse mode)
    gradient     sum_i w_i J_i^T (p_i - e_{y_i})          of the summed cross-entropy
    curvature    sum_i w_i J_i^T (diag p_i - p_i p_i^T) J_i v     Gauss-Newton (Fisher) matrix times a direction

Directions live in weight space and are states: dictionaries of tensors (members, ...), as the weights themselves. All
sums run over examples and are not divided by their number (the convention of influence functions). Normalisation
statistics are those stored in the ensemble and dropout is off, whatever the recipe does in training: with statistics of
the batch, a margin depends on the other examples and an example has no gradient of its own.

Source: Pearlmutter, "Fast exact multiplication by the Hessian" (Neural Computation 6, 1994); Schraudolph, "Fast
curvature matrix-vector products for second-order gradient descent" (Neural Computation 14, 2002).
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.nn import functional as F

from expunge.core import Ensemble, InputError, margins_from_logits
from expunge.core.stopping import check_stopped
from expunge.core.tree import State
from expunge.dependence.losses import CrossEntropy, Loss
from expunge.ensembles.example_gradients import check_separable, trainable

BUDGET = 2**22
"""Numbers that the largest activation of a batch may hold; sets how many examples go through together."""


_LEVEL = threading.Lock()
_users = 0
_attention: contextlib.AbstractContextManager[None] = contextlib.nullcontext()


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Let attention be computed by its definition: PyTorch's faster forms of it have no forward mode."""
    before, fast = torch.backends.cuda.flash_sdp_enabled(), torch.backends.mha.get_fastpath_enabled()
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_flash_sdp(before)
        torch.backends.mha.set_fastpath_enabled(fast)


@contextlib.contextmanager
def _forward_mode() -> Iterator[None]:
    """Open forward-mode differentiation, or join the threads that have: a process has only one level of it."""
    global _users, _attention
    with _LEVEL:
        if _users == 0:
            _attention = _plain_attention()
            _attention.__enter__()
            forward_ad.enter_dual_level()
        _users += 1
    try:
        yield
    finally:
        with _LEVEL:
            _users -= 1
            if _users == 0:
                forward_ad.exit_dual_level()
                _attention.__exit__(None, None, None)


class Linearised:
    """Jacobian products of an ensemble at its weights.

    Args:
        ensemble: Whose weights; they are not changed. Parameters that its model declares untrainable stay fixed.
        budget: Numbers that the largest activation may hold at once.
        loss: Whose gradient and curvature; `CrossEntropy` by default, `SquaredError` for regression.

    Raises:
        InputError: If the model normalises with the statistics of the batch even in evaluation (batch norm without
            running statistics): an example then has no gradient of its own.
    """

    def __init__(self, ensemble: Ensemble, *, budget: int = BUDGET, loss: Loss | None = None) -> None:
        check_separable(ensemble.network)
        _load_forward_mode()
        wanted = trainable(ensemble)
        self.ensemble = ensemble
        self.loss: Loss = CrossEntropy() if loss is None else loss
        self.params: State = {name: ensemble.params[name].detach() for name in wanted}
        self.fixed: State = {name: t.detach() for name, t in ensemble.params.items() if name not in wanted}
        self.buffers: State = {name: t.detach() for name, t in ensemble.buffers.items()}
        self.members = len(ensemble)
        self.sizes = {name: tensor[0].numel() for name, tensor in self.params.items()}
        self._batch = max(1, budget // max(1, ensemble.network.widest * self.members))

    @property
    def parameters(self) -> int:
        """Trainable parameters of one member."""
        return sum(self.sizes.values())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.ensemble.device

    def forward(self, params: State, x: Tensor) -> Tensor:
        """Return logits (members, batch, classes) of any weights on one batch (batch, ...)."""
        return self.ensemble.network({**params, **self.fixed}, self.buffers, x.unsqueeze(0))

    def logits(self, x: Tensor) -> Tensor:
        """Return logits (members, examples, classes) at the weights."""
        with torch.no_grad():
            return torch.cat([self.forward(self.params, batch) for batch in self._batches(x)], dim=1)

    def outputs(self, x: Tensor, direction: State) -> tuple[Tensor, Tensor]:
        """Return logits and their derivatives along a direction, both (members, examples, classes).

        Args:
            x: Inputs (examples, ...).
            direction: In weight space, each tensor (members, ...).
        """
        found = [self._jvp(batch, direction) for batch in self._batches(x)]
        return torch.cat([z for z, _ in found], dim=1), torch.cat([dz for _, dz in found], dim=1)

    def margins(self, x: Tensor, y: Tensor, direction: State) -> tuple[Tensor, Tensor]:
        """Return margins and their derivatives along a direction, both (members, examples).

        Args:
            x: Inputs (examples, ...).
            y: Labels (examples,).
            direction: In weight space, each tensor (members, ...).
        """
        logits, moved = self.outputs(x, direction)
        return margins_from_logits(logits, y), margin_derivative(logits, moved, y)

    def pullback(self, x: Tensor, cotangent: Tensor) -> State:
        """Return sum over examples of J^T c, each tensor (members, ...).

        Args:
            x: Inputs (examples, ...).
            cotangent: A change of logits, shape (members, examples, classes).
        """
        start = 0
        total = self.zeros()
        for batch in self._batches(x):
            part = cotangent[:, start : start + len(batch)]
            self._add(total, self._vjp(batch, part))
            start += len(batch)
        return total

    def weighted_margins(self, x: Tensor, y: Tensor, weights: Tensor) -> State:
        """Return the gradient of sum_i w_i margin_i, each tensor (members, ...).

        Args:
            x: Inputs (examples, ...).
            y: Labels (examples,).
            weights: Shape (examples,) or (members, examples).
        """
        total, start = self.zeros(), 0
        for batch in self._batches(x):
            labels, factor = y[start : start + len(batch)], weights[..., start : start + len(batch)]
            self._add(total, self._vjp(batch, partial(_margin_pull, labels, factor)))
            start += len(batch)
        return total

    def gradient(self, x: Tensor, y: Tensor, weights: Tensor | None = None) -> State:
        """Return the gradient of the summed loss, each tensor (members, ...).

        Args:
            x: Inputs (examples, ...).
            y: Labels (examples,).
            weights: Factor of each example's loss, shape (examples,) or (members, examples); 1 by default.
        """
        total, start = self.zeros(), 0
        for batch in self._batches(x):
            labels = y[start : start + len(batch)]
            factor = None if weights is None else weights[..., start : start + len(batch)]
            self._add(total, self._vjp(batch, partial(self._loss_cotangent, labels, factor)))
            start += len(batch)
        return total

    def curvature(self, x: Tensor, direction: State, weights: Tensor | None = None) -> State:
        """Return the Gauss-Newton matrix of the summed loss times a direction, each tensor (members, ...).

        Args:
            x: Inputs (examples, ...).
            direction: In weight space, each tensor (members, ...).
            weights: Factor of each example, shape (examples,) or (members, examples); 1 by default.
        """
        total, start = self.zeros(), 0
        for batch in self._batches(x):
            logits, moved = self._jvp(batch, direction)
            factor = None if weights is None else weights[..., start : start + len(batch)]
            pulled = weighted(self.loss.curvature(logits, moved), factor)
            self._add(total, self._vjp(batch, pulled))
            start += len(batch)
        return total

    def zeros(self) -> State:
        """Return the direction of length 0."""
        return {name: torch.zeros_like(tensor) for name, tensor in self.params.items()}

    def flatten(self, direction: State) -> Tensor:
        """Return a direction as rows (members, parameters), in the order of `sizes`."""
        return torch.cat([direction[name].reshape(self.members, -1) for name in self.sizes], dim=1)

    def unflatten(self, rows: Tensor) -> State:
        """Return rows (members, parameters) as a direction."""
        parts = torch.split(rows, list(self.sizes.values()), dim=1)
        return {name: part.reshape(self.params[name].shape) for name, part in zip(self.sizes, parts, strict=True)}

    def _jvp(self, batch: Tensor, direction: State) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), _forward_mode():
            dual = {name: forward_ad.make_dual(tensor, direction[name]) for name, tensor in self.params.items()}
            logits, moved = forward_ad.unpack_dual(self.forward(dual, batch))
        return logits, torch.zeros_like(logits) if moved is None else moved

    def _loss_cotangent(self, labels: Tensor, weights: Tensor | None, logits: Tensor) -> Tensor:
        return weighted(self.loss.gradient(logits, labels), weights)

    def _vjp(self, batch: Tensor, cotangent: Tensor | Callable[[Tensor], Tensor]) -> State:
        leaves = {name: tensor.detach().requires_grad_(True) for name, tensor in self.params.items()}
        with torch.enable_grad():
            logits = self.forward(leaves, batch)
        pull = cotangent if isinstance(cotangent, Tensor) else cotangent(logits.detach())
        grads = torch.autograd.grad(logits, list(leaves.values()), pull.to(logits), allow_unused=True)
        return {
            name: torch.zeros_like(leaf) if grad is None else grad
            for (name, leaf), grad in zip(leaves.items(), grads, strict=True)
        }

    def place(self, x: Tensor) -> Tensor:
        """Return inputs on the device, and in the precision, of the weights."""
        reference = next(iter(self.params.values()))
        return x.to(reference.device, reference.dtype if x.is_floating_point() else x.dtype)

    def _batches(self, x: Tensor) -> Iterator[Tensor]:
        if len(x) == 0:
            raise InputError("x has no examples, expected at least one.")
        for start in range(0, len(x), self._batch):
            check_stopped()
            yield self.place(x[start : start + self._batch])

    @staticmethod
    def _add(total: State, part: State) -> None:
        for name, tensor in part.items():
            total[name] += tensor


def _margin_pull(labels: Tensor, weights: Tensor, logits: Tensor) -> Tensor:
    return weighted(margin_cotangent(logits, labels), weights)


@cache
def _load_forward_mode() -> None:
    # PyTorch loads this on the first forward-mode product, and warns about its own use of torch.jit when it does.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("torch._decomp.decompositions_for_jvp")


def weighted(cotangent: Tensor, weights: Tensor | None) -> Tensor:
    """Return a change of logits (members, examples, classes) times a factor an example."""
    return cotangent if weights is None else cotangent * weights.to(cotangent)[..., None]


def margin_cotangent(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the derivative of the margin by the logits: 1 at the true class, minus the softmax of the others."""
    own = F.one_hot(labels.to(logits.device), logits.shape[-1]).bool().expand(logits.shape)
    others = logits.masked_fill(own, float("-inf")).softmax(-1)
    return own.to(logits.dtype) - others


def margin_derivative(logits: Tensor, moved: Tensor, labels: Tensor) -> Tensor:
    """Return the derivative of margins (members, examples) when logits move by `moved` (members, examples, classes)."""
    return (margin_cotangent(logits, labels) * moved).sum(-1)


def dot(a: State, b: State) -> Tensor:
    """Return the inner product of two directions for each member, (members,), float64."""
    parts: list[Any] = [(a[name].double() * b[name].double()).flatten(1).sum(1) for name in a]
    return torch.stack(parts).sum(0)


def combine(a: State, b: State, factor: Tensor | float) -> State:
    """Return a + factor * b, the factor a number or one a member (members,)."""
    if not isinstance(factor, Tensor):
        return {name: a[name] + factor * b[name] for name in a}
    return {name: a[name] + factor.to(b[name].dtype).view(-1, *[1] * (b[name].ndim - 1)) * b[name] for name in a}
