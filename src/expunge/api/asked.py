"""What the main jobs are asked, checked before a study meets it somewhere inside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from expunge.core import ForgetSet, InputError, Task
from expunge.core.checks import described, instance, positive, seeds
from expunge.ensembles.plan import TASK_EXPECTED
from expunge.methods import Method

ForgetItem = ForgetSet | str | Path
"""How a forget set is asked for."""

FORGET_EXPECTED = (
    "a forget set: text such as 'random:70', the path of a file of indices, or ForgetSet.of(task, indices, name=..., "
    "how=...)"
)
METHOD_EXPECTED = (
    "a method: a name such as 'gradient_ascent', one with its options such as GradientAscent(lr=0.01), or a function "
    "of your own as expunge.methods.from_function(fn)"
)


def check_request(task: Task, out: Path | str, seed: int, tolerance: float | None) -> None:
    """Refuse what is of the wrong kind, in words, before a study meets it somewhere inside."""
    instance(Task, TASK_EXPECTED, task=task)
    instance((str, Path), "the path of a folder", out=out)
    seeds(seed=seed)
    if tolerance is not None:
        positive(tolerance=tolerance)


def forget_sets(given: ForgetItem | Sequence[ForgetItem]) -> list[ForgetItem]:
    """Return forget sets as a list."""
    return listed(given, (ForgetSet, str, Path), "forget", FORGET_EXPECTED)


def method_list(given: str | Method | Sequence[str | Method] | None) -> list[str | Method] | None:
    """Return methods as a list; None stands for the default."""
    return None if given is None else listed(given, (str, Method), "methods", METHOD_EXPECTED)


def listed(given: Any, kinds: tuple[type, ...], name: str, expected: str) -> list[Any]:
    """Return one item, or several, as a list; a text is one item, never a sequence of letters."""
    if isinstance(given, kinds):
        return [given]
    if isinstance(given, type) or not isinstance(given, Iterable):
        raise InputError(f"{name} is {described(given)}, expected {expected}; or a list of them.")
    items = list(given)
    for place, item in enumerate(items):
        if not isinstance(item, kinds):
            raise InputError(f"{name}[{place}] is {described(item)}, expected {expected}.")
    return items
