"""What a step does besides the optimiser's own rule: gradients that are changed, weights that stay."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.core.tree import State


@dataclass(frozen=True)
class Rule:
    """A step goes along factors * gradient + penalty * sign(weights) + anchor * (weights - weights when it began).

    It moves the weights that may move.
    """

    penalty: float = 0.0
    """l1 coefficient."""
    penalised: Collection[str] | None = None
    """Names of the parameters under the penalty; None is all."""
    anchor: float = 0.0
    """Of the pull back to where the weights are when the rule begins."""
    factors: Mapping[str, Tensor] | None = None
    """Of gradients by parameter, each (members, ...); one that is left out has 1."""
    moving: Mapping[str, Tensor] | None = None
    """Which weights move by parameter, boolean, each (members, ...); the others stay to the last bit. A parameter that
    is left out moves."""


class LaidOut:
    """A rule as numbers that lie as those of the optimiser's tensors do; what is empty changes nothing."""

    def __init__(self, rule: Rule, weights: State, lay_out: Callable[[State], State]) -> None:
        """Lay out a rule.

        Args:
            rule: The rule.
            weights: Parameters that the optimiser moves, each (members, ...).
            lay_out: From such tensors to tensors like those of the optimiser.
        """

        def numbers(values: Mapping[str, Tensor]) -> State:
            return lay_out({n: values[n].to(w) if n in values else torch.ones_like(w) for n, w in weights.items()})

        self.penalty, self.anchor = rule.penalty, rule.anchor
        spared = set() if rule.penalised is None else weights.keys() - set(rule.penalised)
        self.penalised = numbers({name: torch.zeros_like(weights[name]) for name in spared}) if spared else {}
        self.factors = {} if rule.factors is None else numbers(rule.factors)
        self.moving = {} if rule.moving is None else numbers(rule.moving)
        kept = bool(self.moving) or self.anchor != 0
        self.start = lay_out({name: tensor.detach().clone() for name, tensor in weights.items()}) if kept else {}
        """Where the weights are now."""

    def before(self, tensors: State) -> None:
        """Change the gradients of the optimiser's tensors, before a step."""
        for name, weight in tensors.items():
            if weight.grad is None:
                continue
            if self.factors:
                weight.grad.mul_(self.factors[name])
            if self.penalty:
                sign = weight.detach().sign()
                sign = sign.mul_(self.penalised[name]) if self.penalised else sign
                weight.grad.add_(sign, alpha=self.penalty)
            if self.anchor:
                weight.grad.add_(weight.detach() - self.start[name], alpha=self.anchor)

    def after(self, tensors: State) -> None:
        """Put the weights back that do not move, after a step."""
        for name in self.moving:
            weight = tensors[name].detach()
            torch.where(self.moving[name] != 0, weight, self.start[name], out=weight)
