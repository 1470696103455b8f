"""A metric as it is registered: what it needs, how it is read from a sample, which way is better.

A sample is what a study knows of one split: the unlearned members and the oracles there, and on the other splits. What
several metrics of a sample need is made once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from expunge.core import Result
from expunge.core.schema import SPLITS, SplitName
from expunge.core.seeds import derive
from expunge.metrics.arrays import Array
from expunge.metrics.failures import Reference, failed_members
from expunge.metrics.ruler import Prepared, Ruler

KLOM_EXAMPLES = 5000
"""Examples of a split at most for KLoM and the verdict, whose intervals take hundreds of readings."""
SUBSAMPLES = 8
"""Draws over which a reading at fewer members is averaged."""

T = TypeVar("T")


@dataclass
class Side:
    """The arrays of one set of models by split, each of the same members."""

    margins: dict[SplitName, Array] = field(default_factory=dict)
    """Margins (members, examples)."""
    logits: dict[SplitName, Array] = field(default_factory=dict)
    """Logits (members, examples, classes), where they are known."""


@dataclass(frozen=True)
class Sample:
    """What metrics read: the unlearned members beside the oracles on one split."""

    split: SplitName
    unlearned: Side
    oracle: Side
    held_out: Array | None = None
    """Margins of other oracles on the split (members, examples), for floors; None where there are none."""
    labels: Mapping[SplitName, NDArray[Any] | None] = field(default_factory=dict)
    """Labels by split, where there are logits."""
    seed: int = 0
    """Seed of all that a metric draws."""
    made: dict[Any, Any] = field(default_factory=dict)
    """What was made of this sample; see `once`."""
    shared: dict[Any, Any] = field(default_factory=dict)
    """What was made of oracles alone; samples with the same oracles on the same split may share it."""

    @property
    def u(self) -> Array:
        """Margins of the unlearned members on the split."""
        return self.unlearned.margins[self.split]

    @property
    def o(self) -> Array:
        """Margins of the oracles on the split."""
        return self.oracle.margins[self.split]

    @property
    def failed(self) -> int:
        """Unlearned members that failed on the split."""
        sound = self.once_of_oracles("sound", lambda: Reference.of(self.o))
        return self.once("failed", lambda: int(failed_members(self.u, sound).sum()))

    def has(self, need: str) -> bool:
        """Return whether both sides have what is needed: `margins` or `logits`, on the split or `.../retain`."""
        kind, _, split = need.partition("/")
        where = cast(SplitName, split or self.split)
        return all(where in getattr(side, kind) for side in (self.unlearned, self.oracle))

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """Return what `make` makes of this sample, made once."""
        if key not in self.made:
            self.made[key] = make()
        return cast(T, self.made[key])

    def once_of_oracles(self, key: Any, make: Callable[[], T]) -> T:
        """Return what `make` makes of the oracles alone, made once for all samples that share them."""
        if key not in self.shared:
            self.shared[key] = make()
        return cast(T, self.shared[key])

    def drawn(self, split: SplitName, most: int, what: str) -> NDArray[np.int64]:
        """Return which examples of a split to use: all, or `most` of them at random, in order."""
        return drawn(self.oracle.margins[split].shape[1], most, self.seed, what)

    @property
    def ruler(self) -> Ruler:
        """The oracle side of KLoM on at most `KLOM_EXAMPLES` examples."""

        def make() -> Ruler:
            rows = self.klom_rows
            held_out = None if self.held_out is None else self.held_out[:, rows]
            return Ruler(self.o[:, rows], held_out, seed=self.seed, resample_examples=self.split != "forget")

        return self.once_of_oracles("ruler", make)

    @property
    def ready(self) -> Prepared:
        """The unlearned members as the ruler sees them."""
        return self.once("ready", lambda: self.ruler.prepare(self.u[:, self.klom_rows]))

    @property
    def klom_rows(self) -> NDArray[np.int64]:
        """The examples that KLoM and the verdict see."""
        return self.drawn(self.split, KLOM_EXAMPLES, f"klom {self.split}")


@dataclass(frozen=True)
class Metric:
    """A metric in the registry."""

    name: str
    """Its name in tables."""
    group: str
    """The heading under which tables show it."""
    read: Callable[[Sample], Result | None]
    """Reads it; None where these arrays allow no number (too few examples for halves, say)."""
    direction: Literal["lower", "higher", "closer"]
    """`lower` and `higher` are better up to the floor; `closer` to the floor from either side."""
    about: str
    """What it says, in a sentence."""
    needs: tuple[str, ...] = ("margins",)
    """`margins` or `logits` (with labels) on the split that is read; `margins/validation` and so on elsewhere."""
    splits: tuple[SplitName, ...] = SPLITS
    """Splits on which it is read."""
    published: bool = False
    """Whether it is somebody else's definition, defects included, for comparison with their tables."""
    audited: bool = False
    """Whether an audit reads it for every configuration, to show it beside KLoM."""

    def measured(self, sample: Sample) -> Result | None:
        """Read it where it is read on the sample's split and has what it needs, else return None."""
        possible = sample.split in self.splits and all(sample.has(need) for need in self.needs)
        return self.read(sample) if possible else None


def drawn(examples: int, most: int, seed: int, what: str) -> NDArray[np.int64]:
    """Return which of a number of examples to use: all, or `most` of them at random, in order."""
    if examples <= most:
        return np.arange(examples)
    return np.sort(np.random.default_rng(derive(seed, what)).permutation(examples)[:most])


def at_equal_counts(
    unlearned: Array, held_out: Array | None, oracle: Array, read: Callable[[Array], Sequence[float]], seed: int
) -> tuple[float, ...]:
    """Return readings of the unlearned members at the number of held-out oracles, if these are fewer.

    A divergence of few members is larger, whatever they are: a value is comparable with a floor at equal numbers only.
    Where there are more unlearned members, several subsets of them are read and averaged. Failed members are in each,
    so that leaving members out never improves a reading.

    Args:
        unlearned: Margins (members, examples).
        held_out: Margins of the held-out oracles on the same examples; None reads all members.
        oracle: Margins of the oracles, to tell failed members by.
        read: Returns numbers from margins (members, examples).
        seed: Draws the subsets.
    """
    if held_out is None or len(held_out) >= len(unlearned):
        return tuple(read(unlearned))
    rng = np.random.default_rng(derive(seed, "equal counts"))
    failed = failed_members(unlearned, oracle)
    found = []
    for _ in range(SUBSAMPLES):
        order = rng.permutation(len(unlearned))
        first = np.argsort(~failed[order], kind="stable")
        found.append(tuple(read(unlearned[np.sort(order[first][: len(held_out)])])))
    return tuple(float(np.mean(values)) for values in zip(*found, strict=True))


def with_side(result: Result) -> Result:
    """Return a result with the side that its interval lies on, beside that of the floor."""
    if not np.isfinite(result.value):
        side = "failed"
    elif np.isnan([result.low, result.floor_high]).any():
        side = "undecided"
    elif result.low > result.floor_high:
        side = "off the oracle"
    else:
        side = "not told from the oracle"
    return replace(result, side=side)
