"""DeltaGrad: replay training on R, with gradients that are mostly guessed from those of the training on D.

With w_t the path of full-batch gradient descent on all n rows, G_D its gradients (weight decay included), r = |F|:

    w'_0 = w_0
    exact:    G_R = grad mean_R l(w'_t),    s = w'_t - w_t,    y = G_D(w'_t) - G_D(w_t)   is remembered
    guessed:  G_R = [n (G_D(w_t) + B_t (w'_t - w_t)) - sum_F grad l_i(w'_t)] / (n - r)
    w'_{t+1} = w'_t - lr_t G_R

Steps up to `start`, and every `period`-th from there, are exact; the others take gradients of the forget set alone. B_t
is the L-BFGS approximation of the Hessian from the last `memory` exact pairs (s, y). With a period of 1 it is
retraining from the same initial weights; where the loss is quadratic and the pairs span what moves, it is exact too.

Source: Wu, Dobriban and Davidson, "DeltaGrad: Rapid Retraining of Machine Learning Models" (arXiv 2006.14755): period
5, start 10 (their README says 20), memory 2. Differs from the source: G_D(w_t) is not stored beside w_t, but taken from
the kept states, (w_t - w_{t+1}) / lr_t, which in float32 costs about three digits; a pair without positive curvature
is not remembered, and while there is none, B is 0. Full batches alone: no mini-batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from expunge.core import ForgetSet, InputError, Network, Recipe, Task
from expunge.core.checks import whole
from expunge.core.tree import State
from expunge.ensembles import Descent
from expunge.ensembles.example_gradients import check_separable
from expunge.methods.method import Method, Need
from expunge.methods.problem import Checkpoint, Problem

ROWS = 1024
"""Rows whose gradients are formed at once."""

AGREES = 0.05
"""Relative difference from the gradient that training took at the same weights that rounding can explain."""

Pairs = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class DeltaGrad(Method):
    """Replay full-batch training without the forget set, guessing most gradients from the path that was taken."""

    period: int = 5
    """Steps from one exact gradient to the next, at least 1 (source: 5)."""
    start: int = 10
    """Last of the first steps that are all exact, at least 0 (source: 10)."""
    memory: int = 2
    """Pairs of which the Hessian is made, at least 1 (source: 2)."""

    name: ClassVar[str] = "deltagrad"
    label: ClassVar[str] = "DeltaGrad"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "forget", "states", "recipe", "full_batch"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "enough", "statistics", "finite", "visited")
    shown: ClassVar[tuple[str, ...]] = ("period",)
    forecastable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options."""
        whole(period=self.period, memory=self.memory)
        whole(minimum=0, start=self.start)

    def exact(self, step: int) -> bool:
        """Return whether a step, from 0, has the gradient of the retain set itself."""
        return step <= self.start or (step - self.start) % self.period == 0

    def states(self, recipe: Recipe) -> tuple[int, ...]:
        """Return every epoch, of which each is a step."""
        return tuple(range(recipe.epochs))

    def planned_cost(self, forget: int, retain: int, epochs: int) -> float:
        """Return the gradients on F in every step, and on R in those that are exact."""
        return (epochs * forget + retain * sum(map(self.exact, range(epochs)))) / (retain * epochs)

    def check(self, network: Network, task: Task, forget: ForgetSet) -> None:
        """Refuse a model whose gradient on D is not the sum over its rows, or is drawn."""
        check_separable(network)
        if any(getattr(layer, "running_mean", None) is not None for layer in network.template.modules()):
            raise InputError(
                f"{self.name} takes the forget set's part out of a gradient, and batch norm mixes the rows of a batch; "
                "expected a model with group norm, layer norm or no norm."
            )
        drawing = any(isinstance(layer, nn.modules.dropout._DropoutNd) for layer in network.template.modules())
        if drawing or task.augment is not None:
            raise InputError(
                f"{self.name} takes a gradient again elsewhere, and dropout or augmentation draw another each time; "
                "expected a task without."
            )

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield the models at the end of the replay."""
        recipe, start = problem.recipe, problem.start
        # Steps normalise with nothing and draw nothing, so a frozen descent differentiates what training did.
        descent = problem.descent(statistics="frozen")
        names = list(descent.trainable)
        path = [{name: start.states[t][f"params/{name}"].to(problem.x.device) for name in names} for t in
                range(recipe.epochs)] + [{name: start.params[name] for name in names}]  # fmt: skip
        n, r, k = len(problem.task.train), len(problem.forget), len(problem.retain)
        here = _flat(path[0]).clone()
        pairs: list[Pairs] = [[] for _ in range(len(start))]
        for step in range(recipe.epochs):
            rate = recipe.rate(step + 0.5)
            there = _flat(path[step])
            of_all = (there - _flat(path[step + 1])) / rate
            _put(descent.trainable, here)
            decay = recipe.weight_decay * here
            of_forget = _gradient(descent, problem.forget_batches(step, ROWS), names) / r + decay
            if self.exact(step):
                of_retain = _gradient(descent, problem.retain_batches(step, ROWS), names) / k + decay
                change = (k * of_retain + r * of_forget) / n - of_all
                if step == 0 and bool((change.norm(dim=1) > AGREES * of_all.norm(dim=1)).any()):
                    raise InputError(
                        f"{self.name} found another gradient at the initial weights of {problem.task.name} than its "
                        "training took: the model draws random numbers, or mixes the rows of a batch; expected one "
                        "that does neither."
                    )
                for own, s, y in zip(pairs, here - there, change, strict=True):
                    if float(s @ y) > 0:
                        own.append((s, y))
                        del own[: -self.memory]
            else:
                bent = torch.stack([product(own, v) for own, v in zip(pairs, here - there, strict=True)])
                of_retain = (n * (of_all + bent) - r * of_forget) / k
            here = here - rate * of_retain
        _put(descent.trainable, here)
        yield problem.checkpoint(1, descent, "frozen")

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return periods about the source's."""
        return [cls(period=period) for period in (2, 5, 10, 20)]


def product(pairs: Pairs, vector: Tensor) -> Tensor:
    """Return B v, B the L-BFGS approximation in its compact form (Byrd, Nocedal and Schnabel 1994, eq. 3.5).

    Args:
        pairs: (s, y) with s.y > 0, the oldest first; without any, B is 0.
        vector: Shape (weights,).
    """
    if not pairs:
        return torch.zeros_like(vector)
    steps, changes = (torch.stack(part, 1) for part in zip(*pairs, strict=True))
    inner = steps.T @ changes
    scale = (pairs[-1][0] @ pairs[-1][1]) / (pairs[-1][0] @ pairs[-1][0])
    lower = inner.tril(-1)
    middle = torch.cat(
        [torch.cat([scale * steps.T @ steps, lower], 1), torch.cat([lower.T, -torch.diag(inner.diagonal())], 1)]
    )
    sides = torch.cat([scale * steps, changes], 1)
    inside: Tensor = torch.linalg.pinv(middle, hermitian=True) @ (sides.T @ vector)
    return scale * vector - sides @ inside


def _flat(state: State) -> Tensor:
    return torch.cat([tensor.detach().flatten(1) for tensor in state.values()], 1).double()


def _put(tensors: State, flat: Tensor) -> None:
    with torch.no_grad():
        sizes = [tensor[0].numel() for tensor in tensors.values()]
        for tensor, part in zip(tensors.values(), flat.split(sizes, 1), strict=True):
            tensor.copy_(part.view(tensor.shape))


def _gradient(descent: Descent, batches: Iterator[tuple[Tensor, Tensor, Tensor]], names: Sequence[str]) -> Tensor:
    """Return the gradient of the loss summed over batches, shape (members, weights)."""
    total = torch.zeros(())
    for x, y, index in batches:
        _, found = descent.gradients(x, y)
        own = {name: found.get(name, torch.zeros_like(descent.trainable[name])) for name in names}
        total = total + index.shape[1] * _flat(own)
    return total
