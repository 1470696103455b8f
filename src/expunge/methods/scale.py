"""Rates in units that mean something: how far one probing epoch moves margins, in deviations between members.

    d = root mean square movement of the forget margins of a few members in the first epoch of the method's own steps,
        at a rate so small that movement is proportional to it, in standard deviations between pretrained members
    a grid is on scale if its largest rate moves them by at least OVERSHOOT over the whole run (d grows with the rate
        and with epochs), and its smallest by at most LEAST in its first epoch
    off scale, all rates of the grid are multiplied by one factor, so that the largest moves TOP in an epoch

Multiples of the rate that trained the models are on scale for every built-in task, and are kept. They are not where a
method steps with another optimiser, or the models come from a loop of their own. No oracle is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from expunge.core import Ensemble, ForgetSet, Task
from expunge.methods.checks import movement
from expunge.methods.method import Trained
from expunge.methods.problem import Problem

PROBED = 5
"""Members that take the probing steps."""
SMALL = (1e-3, 0.3)
"""Movements in which a probing step is read as proportional to its rate: above rounding, below curvature."""
OVERSHOOT, TOP, LEAST = 1.5, 3.0, 10.0
"""See above. Oracles of the built-in tasks are 1 to 4 deviations away from the pretrained members on the forget set."""


def on_scale(runs: Sequence[Trained], pretrained: Ensemble, task: Task, forget: ForgetSet, seed: int) -> list[Trained]:
    """Return the grid of a method with its rates on scale.

    Args:
        runs: One method's grid, in its order.
        pretrained: The ensemble that will be unlearned.
        task: Its task.
        forget: What is to be forgotten.
        seed: Decides the batch orders of the probing steps.
    """
    if not all(run.probed for run in runs):
        return list(runs)
    few = pretrained[:PROBED]
    start = _margins(pretrained, forget, task)
    sound = start[start.isfinite().all(1)]
    if len(sound) < 2:
        return list(runs)
    spread = sound.std(0)

    def probe(run: Trained) -> float:
        problem = Problem(few, task, forget, seed, run.order or run.name, _targets(run, few, task, forget, spread))
        return movement(_margins(next(run.stops(problem)).ensemble, forget, task), start[:PROBED], spread)

    factor = placed(runs, probe)
    return [run if factor == 1 else run.scaled(factor) for run in runs]


def placed(runs: Sequence[Trained], probe: Callable[[Trained], float]) -> float:
    """Return the factor that puts a grid on scale, a power of the square root of 10; 1 where it is already.

    Args:
        runs: The grid.
        probe: From a run to the movement of its first epoch.
    """
    least = min(runs, key=lambda run: run.lr)
    highest = max(run.lr for run in runs)
    if least.lr <= 0:
        return 1.0
    moved = first = probe(least)
    run = least
    for _ in range(12):
        if moved < SMALL[0]:
            run = run.scaled(10.0)
        elif not moved <= SMALL[1]:
            run = run.scaled(0.1)
        else:
            break
        moved = probe(run)
    if not SMALL[0] <= moved:
        return 1.0  # nothing that can be measured moves it: "moved enough" will say so
    each = moved / run.lr
    if each * highest * least.epochs >= OVERSHOOT and first <= LEAST:
        return 1.0
    return float(10 ** (math.ceil(2 * math.log10(TOP / (each * highest))) / 2))


def _margins(ensemble: Ensemble, forget: ForgetSet, task: Task) -> Tensor:
    rows = torch.from_numpy(forget.indices)
    return ensemble.margins(task.train.x[rows], task.train.y[rows])


def _targets(run: Trained, few: Ensemble, task: Task, forget: ForgetSet, spread: Tensor) -> Tensor | None:
    """Return margins TOP deviations down on the forget set, where a method needs targets: theirs are not known yet."""
    if "targets" not in run.needs:
        return None
    targets = few.margins(task.train.x, task.train.y)
    targets[:, torch.from_numpy(forget.indices)] -= TOP * spread
    return targets.to(next(iter(few.params.values())).dtype)
