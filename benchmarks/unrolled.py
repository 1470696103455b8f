"""Unrolled influence by one function of the curvature a segment, beside the form that takes two.

    python benchmarks/unrolled.py [--members 6] [--followed 4]

Digits; a random set, a cluster, and part of a class. Each form, at 16 products a function, against the one of two
functions at 96: relative error of the predicted changes of margins on F, R and V, and processor seconds.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable

import torch
from torch import Tensor

import expunge as ex
from expunge.core import ForgetSet, Task
from expunge.core.tree import State
from expunge.dependence.curvature import damped
from expunge.dependence.krylov import matrix_function
from expunge.dependence.linearised import Linearised, combine
from expunge.dependence.unrolled import STEPS, Segment, _approach, unrolled_removal
from expunge.studies.run.measure import Parts
from expunge.studies.run.prediction import Subject

MANY = 96
"""Products at which either form has converged."""


def two_functions(segments: tuple[Segment, ...], task: Task, forget: ForgetSet, *, steps: int) -> State:
    """Return exp(-t H) d + (1 - exp(-t H)) H^-1 g, segment by segment."""
    x, y, decay = task.train.x, task.train.y, task.recipe.weight_decay
    gone, kept = torch.from_numpy(forget.indices), torch.from_numpy(forget.retain)
    moved: State | None = None

    def remain(h: Tensor, rate: float) -> Tensor:
        return torch.exp(-rate * h)

    for segment in segments:
        linearised, rate = Linearised(segment.ensemble), segment.time / len(kept)
        operator = damped(linearised, x[kept], decay * len(kept))
        pull = combine(linearised.gradient(x[gone], y[gone]), linearised.params, decay * len(gone))
        step = matrix_function(linearised, operator, pull, functools.partial(_approach, rate=rate), steps)
        if moved is not None:
            left = matrix_function(linearised, operator, moved, functools.partial(remain, rate=rate), steps)
            step = combine(left, step, 1.0)
        moved = step
    assert moved is not None
    return moved


def moved(linearised: Linearised, task: Task, forget: ForgetSet, removal: State) -> dict[str, Tensor]:
    """Return the predicted changes of margins by split."""
    splits = Parts.of(task, forget, 0).splits
    return {name: linearised.margins(s.x, s.y, removal)[1].double() for name, s in splits.items()}


def apart(found: Tensor, limit: Tensor) -> float:
    """Return the relative error."""
    return float((found - limit).norm() / limit.norm())


def main() -> None:
    """Print two lines a forget set."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--members", type=int, default=6)
    ask.add_argument("--followed", type=int, default=4)
    given = ask.parse_args()
    torch.set_num_threads(1)
    task = ex.tasks.digits()
    subject = Subject.of(task, ex.train(task, members=given.members, seed=0), followed=given.followed)
    linearised = Linearised(subject.followed)
    forms: dict[str, Callable[..., State]] = {"two functions": two_functions, "one function": unrolled_removal}
    for forget in (
        ex.tasks.random_forget_set(task, 29, seed=0),
        ex.tasks.cluster(task, 29, seed=0),
        ex.tasks.class_part(task, 72, label=3, seed=0),
    ):
        limit = moved(linearised, task, forget, two_functions(subject.segments, task, forget, steps=MANY))
        for name, form in forms.items():
            began = time.process_time()
            removal = form(subject.segments, task, forget, steps=STEPS)
            spent = time.process_time() - began
            found = moved(linearised, task, forget, removal)
            far = moved(linearised, task, forget, form(subject.segments, task, forget, steps=MANY))
            errors = "   ".join(f"{split} {apart(found[split], limit[split]):.4f}" for split in limit)
            twins = max(apart(far[split], limit[split]) for split in limit)
            print(f"{forget.name:22} {name:14} {spent:4.1f} s   {errors}   at {MANY} {twins:.0e}", flush=True)


if __name__ == "__main__":
    main()
