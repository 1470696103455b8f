"""The nine forget sets of App. K, each with a calibration set of its kind, and the benchmark's own lists.

    1, 2, 3    random examples
    4, 5, 6    first principal component of the datamodel matrix: top, top, top and bottom
    7, 8, 9    second component, likewise

Sizes are 10, 100 and 500 of the paper's 50,000 examples; on other data the same shares, and at least 10, 20 and 40. A
component set's calibration set are the next examples along the component.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from expunge.core import ForgetSet, InputError, Task
from expunge.dependence import Components, component_forget_set
from expunge.dependence.components import PAPER
from expunge.tasks import Choice, choose

NINE = tuple(map(str, range(1, 10)))
PUBLISHED = tuple(f"published-{number}" for number in range(1, 11))
"""The benchmark's lists of rows of CIFAR-10; its third has 1,000 rows where the text says 500."""


def component_of(number: str) -> int:
    """Return the component from which one of the nine sets comes; 0 is none.

    >>> [component_of(number) for number in ("3", "4", "9", "published-4")]
    [0, 1, 2, 0]
    """
    return (int(number) - 1) // 3 if number in NINE else 0


def words(number: str) -> str:
    """Return how a page calls a set.

    >>> words("6")
    '6: component 1, top and bottom, large'
    """
    if number not in NINE:
        return f"published set {number.rpartition('-')[2]}"
    place = (int(number) - 1) % 3
    size = ("small", "middle", "large")[place]
    component = component_of(number)
    if not component:
        return f"{number}: random, {size}"
    return f"{number}: component {component}, {'top and bottom' if PAPER[place][0] == 'both' else 'top'}, {size}"


def size_of(number: str, examples: int) -> int:
    """Return the size of one of the nine sets.

    >>> [size_of("1", 50_000), size_of("6", 50_000), size_of("3", 1437)]
    [10, 500, 40]
    """
    _, share, fewest = PAPER[(int(number) - 1) % 3]
    return max(fewest, round(share * examples))


def read_sets(given: Sequence[str]) -> tuple[str, ...]:
    """Return numbers of forget sets in their order, each once.

    Raises:
        InputError: If one is unknown.
    """
    known = (*NINE, *PUBLISHED)
    unknown = [number for number in given if number not in known]
    if unknown:
        raise InputError(f"forget set {unknown[0]!r} is unknown, expected 1 to 9, or published-1 to published-10.")
    return tuple(number for number in known if number in given)


def choice(
    number: str, task: Task, seed: int, components: Callable[[], Components], benchmark: Callable[[], Path]
) -> Choice:
    """Return one of the sets.

    Args:
        number: One of `NINE` or `PUBLISHED`.
        task: The task.
        seed: The study's seed.
        components: Returns the components of the datamodel matrix, where they are needed.
        benchmark: Returns the folder of the benchmark's lists, where it is needed.

    Raises:
        InputError: If a list is not there or is of other data.
    """
    if number in PUBLISHED:
        return _published(number, task, seed, benchmark)
    size, component = size_of(number, len(task.train)), component_of(number)
    if not component:
        found = choose(task, f"random:{size}", seed=seed)
        return replace(found, forget=_named(task, number, found.forget))
    side = PAPER[(int(number) - 1) % 3][0]
    made = components()
    return Choice(
        task,
        _named(task, number, component_forget_set(task, made, component, side, size)),
        component_forget_set(task, made, component, side, size, skip=size),
    )


def _published(number: str, task: Task, seed: int, benchmark: Callable[[], Path]) -> Choice:
    from expunge.tasks import from_file

    if task.name != "cifar10" or len(task.train) != 50_000:
        raise InputError(
            f"{number} is a list of rows of all 50,000 images of CIFAR-10, expected one of 1 to 9 for {task.name}."
        )
    path = benchmark() / f"forget_set_{number.rpartition('-')[2]}.npy"
    return choose(task, _named(task, number, from_file(task, path)), seed=seed)


def _named(task: Task, number: str, forget: ForgetSet) -> ForgetSet:
    name = f"set-{number}" if number in NINE else number
    return ForgetSet.of(task, forget.indices, name=name, how=forget.how, chooser=forget.chooser, options=forget.options)
