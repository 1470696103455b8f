"""The Gauss-Newton matrix of chosen examples as an operator, for every member at once.

    H v = sum_{i in S} J_i^T (diag p_i - p_i p_i^T) J_i v + (decay |S| + damping) v

`decay` is the L2 coefficient of the recipe (its loss is a mean, so a sum over |S| examples carries decay |S|).

Source: Martens, "Deep learning via Hessian-free optimization" (ICML 2010).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from expunge.core.checks import non_negative
from expunge.core.tree import State
from expunge.dependence.linearised import Linearised, combine

Operator = Callable[[State], State]


def damped(linearised: Linearised, x: Tensor, ridge: float, each: float = 1.0) -> Operator:
    """Return v -> (each * Gauss-Newton matrix of the examples + ridge) v.

    Args:
        linearised: The stack.
        x: Inputs (examples, ...) of the examples that the matrix sums over.
        ridge: Added to the diagonal, at least 0: weight decay times the number of examples, plus damping.
        each: How many examples each stands for, at least 1 (see `representatives`).
    """
    non_negative(ridge=ridge)
    weights = None if each == 1 else torch.full((len(x),), each)
    return lambda v: combine(linearised.curvature(x, v, weights), v, ridge)
