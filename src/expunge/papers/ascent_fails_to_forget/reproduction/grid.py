"""The three methods of the paper, over its grid and above it, in rates of the recipe at hand.

The paper's rates belong to a recipe that peaks at .4; here they are scaled by (peak rate) / .4.
"""

from __future__ import annotations

from typing import Any

from expunge.core import Recipe
from expunge.methods import EarlyStoppedRetrain, FineTune, GradientAscent, GradientDescentAscent, Method, Scrub
from expunge.papers.ascent_fails_to_forget.reproduction.presets import UPWARD_ASCENT, UPWARD_JOINT, Grid

PEAK = 0.4
"""Peak rate of the paper's recipe."""


def controls(grid: Grid, recipe: Recipe) -> list[Method]:
    """Return two controls in place of an audit's whole grids of them, which would cost more than the methods.

    Half of retraining, and as many epochs on R as the joint methods have, at a tenth of the recipe's rate.
    """
    return [
        EarlyStoppedRetrain(cost=0.5),
        FineTune(lr=0.1 * recipe.lr, epochs=grid.joint_stop, batch_size=recipe.batch_size),
    ]


def ascents(grid: Grid, recipe: Recipe) -> list[Method]:
    """Return the controls, and gradient ascent at every rate, plain SGD in batches of 64."""
    rates = (rate * (recipe.lr / PEAK) for rate in (*grid.ascent_rates, *UPWARD_ASCENT))
    climbs = [GradientAscent(lr=rate, epochs=grid.ascent_stop, optimizer="sgd") for rate in rates]
    return [*controls(grid, recipe), *climbs]


def methods(grid: Grid, recipe: Recipe) -> list[Method]:
    """Return every run of the three methods, of each of which every epoch is a stopping time, and the controls."""
    found = ascents(grid, recipe)
    for rate in (*grid.joint_rates, *UPWARD_JOINT):
        for epochs in grid.ascent_epochs:
            for size in grid.forget_batch_sizes:
                shared: dict[str, Any] = {
                    "lr": rate * (recipe.lr / PEAK),
                    "epochs": grid.joint_stop,
                    "forget_batch_size": size,
                }
                found += [
                    GradientDescentAscent(ascent_epochs=epochs, optimizer="sgd", **shared),
                    Scrub(msteps=epochs, optimizer="sgd", **shared),
                ]
    return found


def upward(lr: float, method: str, grid: Grid, recipe: Recipe) -> bool:
    """Return whether a rate lies above the paper's grid."""
    rates = grid.ascent_rates if method == "gradient_ascent" else grid.joint_rates
    return lr > 1.001 * max(rates) * recipe.lr / PEAK
