"""Clipped noisy fine-tuning: shrink the model into a ball, then take clipped steps on the retain set that noise hides.

    theta <- clip(theta, C0)
    theta <- theta - step_size (clip(g_R(theta), C1) + weight_decay theta) + N(0, sigma^2 I)      T times

clip(v, C) = v min(1, C / |v|). Run from a model that never saw F with the same batches, a step adds at most
s = 2 step_size C1 to a distance that it shrinks by rho = 1 - step_size weight_decay, and T noises hide the rest:

    mu = (2 C0 rho^T + s sum_k rho^k) / (sigma sqrt(sum_k rho^2k))        k = 0 ... T - 1

as a Gaussian trade-off (shifted interpolation), which is solved for sigma at (epsilon, delta) exactly. What follows,
`fine_tune_epochs` without clipping and noise, reads R alone and costs nothing of it. Nothing is assumed of the loss.

Sources: Koloskova et al. (arXiv 2506.06985), the variant that clips gradients; Bok, Su and Altschuler (arXiv
2403.00278) for the trade-off. Differs from the source: its public code holds a Renyi bound constant over all orders on
its way to epsilon, so that epsilon 1 stands for 6.57 (10.0 without weight decay); here the trade-off is exact. Noise is
that of the parameters, and is not multiplied by the rate. Clipping takes the mean gradient of a batch, since the models
compared share R and differ in their start alone. Normalisation statistics, which F has had a part in, are computed
afresh on R.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from expunge.core import Recipe
from expunge.core.checks import between, non_negative, plain_arguments, positive, whole
from expunge.core.claim import Assumption, Claim
from expunge.core.errors import InputError
from expunge.core.seeds import generator
from expunge.core.trade_off import gaussian_epsilon, gaussian_shift
from expunge.core.tree import State
from expunge.ensembles import recalibrate
from expunge.methods.method import Method, Need
from expunge.methods.problem import Checkpoint, Problem


@dataclass(frozen=True, kw_only=True)
class ClippedNoisy(Method):
    """Shrink the model into a ball, and fine-tune it on the retain set with clipped steps and noise."""

    epsilon: float = 8.0
    """Of the claim, above 0."""
    delta: float = 1e-5
    """Of the claim, above 0 and below 1."""
    clip_model: float = 0.1
    """C0, the norm that a start is shrunk to at most, above 0 (paper: 0.1)."""
    clip_gradient: float = 10.0
    """C1, the norm that the mean gradient of a batch is shrunk to at most, above 0 (paper: 10)."""
    step_size: float = 0.001
    """Of the clipped steps, above 0 (paper: 0.001)."""
    weight_decay: float = 50.0
    """Of the clipped steps, at least 0, and below 1 / step_size (paper: 50)."""
    epochs: int = 2
    """Epochs of clipped noisy steps, at least 1."""
    fine_tune_epochs: int = 5
    """Epochs of the recipe's own steps afterwards, at a third of its peak rate, at least 0."""
    batch_size: int = 64
    """Of both."""

    name: ClassVar[str] = "clipped_noisy"
    label: ClassVar[str] = "Clipped noisy fine-tuning"
    needs: ClassVar[frozenset[Need]] = frozenset({"retain", "weights"})
    checks: ClassVar[tuple[str, ...]] = ("moved", "finite")
    certificate: ClassVar[str | None] = "(epsilon, delta) against the same method run on a model that never saw F"
    shown: ClassVar[tuple[str, ...]] = ("epsilon",)
    forecastable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the options, and how they fit."""
        positive(
            epsilon=self.epsilon,
            clip_model=self.clip_model,
            clip_gradient=self.clip_gradient,
            step_size=self.step_size,
        )
        non_negative(weight_decay=self.weight_decay)
        between(1e-300, 1 - 1e-12, delta=self.delta)
        whole(epochs=self.epochs, batch_size=self.batch_size)
        whole(0, fine_tune_epochs=self.fine_tune_epochs)
        if self.step_size * self.weight_decay >= 1:
            raise InputError(
                f"step_size * weight_decay = {self.step_size * self.weight_decay:g}, expected less than 1: a step "
                "would pass the origin."
            )

    @property
    def statistics(self) -> str:
        """They are those of R."""
        return "recalibrated"

    @property
    def batch_sizes(self) -> dict[str, int]:
        """Batches of R."""
        return {"retain": self.batch_size}

    def planned_cost(self, forget: int, retain: int, epochs: int) -> float:
        """Return the epochs of both kinds, and the pass that computes statistics."""
        return (self.epochs + self.fine_tune_epochs + 1 / 3) / epochs

    def sigma(self, steps: int) -> float:
        """Return the noise of each step that the claim takes.

        Args:
            steps: T, at least 1.
        """
        unit = clipped_noisy_mu(
            self.clip_model, self.clip_gradient, self.step_size, self.weight_decay, steps=steps, sigma=1.0
        )
        return unit / gaussian_shift(self.epsilon, self.delta)

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield the one result."""
        recipe = problem.recipe
        descent = problem.descent(statistics="frozen")
        steps = self.epochs * math.ceil(len(problem.retain) / self.batch_size)
        sigma = self.sigma(steps)
        names = list(descent.trainable)
        fixed = sum(tensor[0].numel() for name, tensor in problem.start.params.items() if name not in names)
        noises = [generator(seed, "clipped noise") for seed in problem.seeds]
        begun = _clipped({name: descent.params[name].detach() for name in names}, self.clip_model)
        _write(descent.params, begun)
        ball, taken, largest = float(_norm(begun).max()), 0, 0.0
        for epoch in range(self.epochs):
            for x, y, _ in problem.retain_batches(epoch, self.batch_size):
                _, gradients = descent.gradients(x, y)
                pull = _clipped({name: gradients[name] for name in names if name in gradients}, self.clip_gradient)
                largest = max(largest, float(_norm(pull).max()))
                moved = {}
                for name in names:
                    w = descent.params[name].detach()
                    draw = torch.stack([torch.randn(w.shape[1:], generator=g, dtype=torch.float64) for g in noises])
                    slope = self.weight_decay * w + pull.get(name, 0.0)
                    moved[name] = w - self.step_size * slope + (sigma * draw).to(w)
                _write(descent.params, moved)
                taken += 1
        made = problem.start.with_state(*descent.state())
        # From here on R alone is read: statistics first, so that the steps that follow do not see those of D.
        made = recalibrate(made, problem.x[problem.retain.to(problem.x.device)])
        problem.forward_only(len(problem.retain))
        if self.fine_tune_epochs:
            after = problem.descent(
                start=made,
                statistics="frozen",
                momentum=recipe.momentum,
                weight_decay=recipe.weight_decay,
                optimizer=recipe.optimizer,
            )
            for epoch in range(self.fine_tune_epochs):
                problem.take_pass(after, "retain", self.epochs + epoch, self.batch_size, recipe.lr / 3)
            made = made.with_state(*after.state())
        mu = clipped_noisy_mu(
            self.clip_model, self.clip_gradient, self.step_size, self.weight_decay, steps=taken, sigma=sigma
        )
        claim = Claim(
            epsilon=gaussian_epsilon(mu, self.delta) if math.isfinite(mu) else math.inf,
            delta=self.delta,
            mechanism=f"{taken} clipped steps with Gaussian noise of {sigma:.3g} on every weight",
            reference="the same method run on a model that never saw F (not retraining)",
            retraining=False,
            assumptions=[
                Assumption(
                    name="norm of the start after clipping", value=ball, side="at most",
                    bound=self.clip_model * (1 + 1e-6),
                ),
                Assumption(
                    name="norm of the largest step's gradient after clipping", value=largest, side="at most",
                    bound=self.clip_gradient * (1 + 1e-6),
                ),
                Assumption(name="noisy steps", value=taken, side="at least", bound=steps),
                Assumption(name="weights that stay as they were trained", value=fixed, side="at most", bound=0),
            ],
        )  # fmt: skip
        done = problem.stop(1, made)
        yield Checkpoint(done.epoch, done.ensemble, done.cost, done.facts, claim)

    @classmethod
    def grid(cls, recipe: Recipe) -> Sequence[Method]:
        """Return small to large claims."""
        return [cls(epsilon=epsilon) for epsilon in (1.0, 8.0, 64.0)]


@plain_arguments
def clipped_noisy_mu(
    clip_model: float, clip_gradient: float, step_size: float, weight_decay: float, *, steps: int, sigma: float
) -> float:
    """Return the Gaussian shift mu that T noisy steps leave of two starts.

    Args:
        clip_model: C0, at least 0.
        clip_gradient: C1, at least 0.
        step_size: Above 0.
        weight_decay: At least 0.
        steps: T, at least 1.
        sigma: Noise of a step, above 0.

    >>> clipped_noisy_mu(1.0, 0.0, 0.1, 0.0, steps=4, sigma=1.0)
    1.0
    """
    non_negative(clip_model=clip_model, clip_gradient=clip_gradient, weight_decay=weight_decay)
    positive(step_size=step_size, sigma=sigma)
    whole(steps=steps)
    rho = 1 - step_size * weight_decay
    powers = [rho**k for k in range(steps)]
    reach = 2 * clip_model * rho**steps + 2 * step_size * clip_gradient * math.fsum(powers)
    return reach / (sigma * math.sqrt(math.fsum(p * p for p in powers)))


def _norm(state: State) -> torch.Tensor:
    return torch.stack([tensor.double().flatten(1).square().sum(1) for tensor in state.values()]).sum(0).sqrt()


def _clipped(state: State, most: float) -> State:
    """Return a state no longer than `most`, member by member; NaN stays NaN."""
    factor = (most / _norm(state)).clamp(max=1.0)
    factor = torch.where(factor.isnan(), torch.ones_like(factor), factor)  # 0 / 0, or a member that has failed
    return {name: tensor * factor.to(tensor).view(-1, *[1] * (tensor.ndim - 1)) for name, tensor in state.items()}


def _write(params: State, values: State) -> None:
    with torch.no_grad():
        for name, value in values.items():
            params[name].copy_(value)
