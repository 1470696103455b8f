"""The forget sets of the proof: seven families and a dial, each in a development half and a judged half.

Sizes are shares of the training examples, so that the same list serves every task. Families that rank examples
(principal components, memorisation) give their extremes to one half and the next-ranked, or the other extreme, to the
other. Duplicates and wrong labels change the data, so each has a task of its own; the dial of the teacher mixture turns
the overlap of what the forgotten group teaches with what the others teach.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from expunge import tasks
from expunge.core import ForgetSet, InputError, Task
from expunge.core.seeds import derive
from expunge.dependence import component_forget_set, fit_ridge, principal_components, train_subsets
from expunge.dependence.components import Side
from expunge.papers.ascent_fails_to_forget.dependence.memorisation import memorisation
from expunge.papers.ascent_fails_to_forget.proof import Half

FEWEST = 200
"""Training examples below which two of the sets would be one."""

SUBSETS = 1000
"""Half-data models behind principal components and memorisation."""

DIAL = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0)
"""Overlaps of the two rules of the teacher mixture."""

CHUNK = 50
"""Fixed, so that subset models are the same on every machine."""


@dataclass(frozen=True)
class Case:
    """One forget set of the proof."""

    task: Task
    forget: ForgetSet
    family: str
    half: Half
    dial: float | None = None


def check_size(task: Task) -> None:
    """Raise `InputError` if a task is too small for the forget sets of the proof to differ."""
    if len(task.train) < FEWEST:
        raise InputError(
            f"task {task.name!r} has {len(task.train)} training examples, expected at least {FEWEST} for the forget "
            "sets of the proof; choose a larger task."
        )


def cases(task: Task, store: Path, seed: int = 0) -> list[Case]:
    """Return the forget sets of the proof for a task.

    Args:
        task: Any task with at least `FEWEST` training examples.
        store: Where the subset models are kept.
        seed: Another seed gives other sets.

    Raises:
        InputError: If the task is too small.
    """
    check_size(task)
    found = [*_chosen(task, seed), *_ranked(task, store, seed), *_planted(task, seed)]
    return found


def dial_cases(seed: int = 0) -> list[Case]:
    """Return teacher mixtures of which a third of the smaller group is forgotten, by overlap of the two rules."""
    out = []
    for position, similarity in enumerate(DIAL):
        # The correlation of both rules with the direction between groups is kept small enough for every overlap.
        problem = tasks.teacher_mixture(
            similarity=similarity, correlation=(0.2, 0.2), weight_decay=1e-3, seed=seed, validation=360
        )
        forget = _renamed(problem.forget, f"dial-{similarity:g}")
        out.append(Case(problem.task, forget, "dial", "judged" if position % 2 else "development", similarity))
    return out


def _chosen(task: Task, seed: int) -> Iterator[Case]:
    n = len(task.train)
    both: tuple[Half, Half] = ("development", "judged")
    for share in (0.014, 0.03, 0.05, 0.1):
        for half in both:
            forget = tasks.random_forget_set(task, max(5, round(share * n)), seed=derive(seed, "random", half) % 1000)
            yield Case(task, forget, "random", half)
    room = int(torch.bincount(task.train.y, minlength=task.classes).min())
    labels = np.random.default_rng(derive(seed, "classes")).permutation(task.classes)
    sizes = (0.05, 0.05, 0.09) if task.classes > 2 else (0.05, 0.1, 0.15)
    for position, share in enumerate(sizes):
        for number, half in enumerate(both):
            label = int(labels[(2 * position + number) % task.classes])
            size = min(round(share * n), room - 5)
            yield Case(task, tasks.class_part(task, size, label=label, seed=seed + 7), "class part", half)
    for share, draws in ((0.014, 1), (0.05, 3), (0.1, 1)):
        for draw in range(draws):
            for half in both:
                own = derive(seed, "cluster", half, draw) % 1000
                yield Case(task, tasks.cluster(task, max(5, round(share * n)), seed=own), "cluster", half)


def _ranked(task: Task, store: Path, seed: int) -> Iterator[Case]:
    n = len(task.train)
    size = round(0.05 * n)
    subsets = train_subsets(task, subsets=SUBSETS, targets="train", seed=seed, store=store, chunk=CHUNK)
    components = principal_components(fit_ridge(subsets))
    for component in (1, 2):
        sides: tuple[tuple[Side, Half], ...] = (
            ("top", "development"),
            ("bottom", "judged"),
            ("both", "judged" if component == 1 else "development"),
        )
        for side, half in sides:
            yield Case(task, component_forget_set(task, components, component, side, size), "component", half)
    order = np.argsort(-memorisation(subsets, of="margins").value, kind="stable")
    middle = (n - size) // 2
    small = max(5, size // 3)
    picks: tuple[tuple[str, int, int, Half], ...] = (
        ("most", 0, size, "development"),
        ("next-most", size, size, "judged"),
        ("few-most", 0, small, "judged"),
        ("middle", middle, size, "development"),
        ("least", n - size, size, "judged"),
    )
    for word, start, count, half in picks:
        how = f"{count} training examples ranked {start + 1} to {start + count} by memorisation of the margin"
        forget = ForgetSet.of(task, order[start : start + count], name=f"memorised-{word}-{count}", how=how)
        yield Case(task, forget, "memorisation", half)


def _planted(task: Task, seed: int) -> Iterator[Case]:
    n = len(task.train)
    wrong: tuple[tuple[float, Half], ...] = ((0.05, "development"), (0.02, "judged"), (0.05, "judged"))
    for share, half in wrong:
        size = max(5, round(share * n))
        changed, forget = tasks.mislabelled(task, size, seed=derive(seed, "mislabelled", half, share) % 1000)
        yield Case(changed, forget, "mislabelled", half)
    twins: tuple[tuple[float, Half], ...] = ((0.05, "development"), (0.1, "judged"))
    for share, half in twins:
        yield Case(*_duplicates(task, max(5, round(share * n)), seed, share), "duplicates", half)


def _duplicates(task: Task, size: int, seed: int, share: float) -> tuple[Task, ForgetSet]:
    """Return a task with exact copies of some examples, and the copies as forget set: their twins stay in R."""
    rng = np.random.default_rng(derive(seed, "duplicates", share))
    twins = torch.from_numpy(np.sort(rng.choice(len(task.train), size, replace=False)))
    x, y = task.train.x, task.train.y
    changed = Task(
        name=f"{task.name}, {size} duplicates",
        train=(torch.cat([x, x[twins]]), torch.cat([y, y[twins]])),
        validation=(task.validation.x, task.validation.y),
        model=task.model,
        recipe=task.recipe,
        classes=task.classes,
    )
    how = f"copies of {size} training examples chosen at random; the originals stay in the retain set"
    return changed, ForgetSet.of(changed, np.arange(len(y), len(y) + size), name=f"duplicates-{size}", how=how)


def _renamed(forget: ForgetSet, name: str) -> ForgetSet:
    return ForgetSet(name, forget.indices, forget.examples, forget.how, forget.chooser, forget.options)
