"""Failed members: models that are not models any more, whatever their average score says.

A member has failed when one of these holds on the examples given:

    non-finite   a margin is NaN or infinite
    collapsed    its output does not depend on the input: far fewer different margins than examples
    exploded     its margins are absurd: with oracles, typically 100 times further from the oracles' centre than any
                 oracle is, and further than their largest margin is from 0; without, above a million

They are counted, named, and placed where they do most harm in every score; see `expunge.metrics.klom`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge.core import InputError
from expunge.metrics.arrays import Array, failed_rows, to_array
from expunge.metrics.copies import Copies

ABSURD = 1e6
"""Margin that no sane model gives: float32 logits lose the differences between classes near it."""
EXPLODED = 100.0
"""How many times further from the oracles' centre than any oracle a member's typical margin may lie."""
DISTINCT = 0.1
"""Share of distinct margins at or below which a member's output no longer depends on its input."""
FAILED_SHARE = 0.05
"""Share of failed members above which an ensemble has failed: no score of the others speaks for it."""
FEWEST = 20
"""Examples needed to say that a member has collapsed."""


def failed_members(margins: Any, reference: Any | None = None) -> NDArray[np.bool_]:
    """Return which members are non-finite, collapsed or exploded.

    A model that ignores its input has at most as many different margins as there are classes. It counts as collapsed
    when at most a tenth of its margins differ (in six digits), there are at least 20 examples, and, if a reference is
    given, most of the reference's members do not look like that themselves.

    Args:
        margins: Shape (members, examples).
        reference: Margins of sound members, usually the oracles, on the same examples, (oracles, examples); or a
            `Reference` made from them, when many ensembles are compared with the same ones.

    Returns:
        Shape (members,), boolean.

    Raises:
        InputError: If shapes disagree.

    >>> failed_members([[1.0, 2.0], [float("nan"), 2.0], [1.0, 1e9]]).tolist()
    [False, True, True]
    """
    values = to_array(margins, "margins", ndim=2)
    known = reference if reference is None or isinstance(reference, Reference) else Reference.of(reference)
    if known is not None and len(known.centre) != values.shape[1]:
        raise InputError(
            f"margins has shape {values.shape} and reference has {len(known.centre)} examples; expected the "
            "same examples on both sides."
        )
    failed = failed_rows(values)
    alive = values if not failed.any() else values[~failed]
    failed[~failed] = _collapsed(alive, known) | _exploded(alive, known)
    return failed


@dataclass(frozen=True)
class Reference:
    """What failures are told by, from sound members, so that it is worked out once for many ensembles."""

    centre: Array
    """Median margin of each example, (examples,)."""
    usual: float
    """Largest typical distance of a sound member from the centre; NaN with fewer than 3 members."""
    largest: float
    """Largest absolute margin."""
    distinct: float
    """Median share of distinct margins of a member."""

    @classmethod
    def of(cls, reference: Any) -> Reference:
        """Return the reference of margins (oracles, examples); members that are not finite are left out."""
        known = to_array(reference, "reference", ndim=2)
        known = known[~failed_rows(known)]
        if len(known) == 0:
            raise InputError("no member of reference is finite, expected at least one sound model to compare with.")
        centre = np.median(known, axis=0)
        usual = float(np.median(np.abs(known - centre), axis=1).max()) if len(known) >= 3 else float("nan")
        return cls(centre, usual, float(np.abs(known).max()), float(np.median(_distinct(known))))


def sound_held_out(held_out: Any, oracle: Any) -> Array:
    """Return margins of held-out oracles, checked to be as sound as oracles must be.

    Args:
        held_out: Margins (held-out oracles, examples).
        oracle: Margins of the oracles on the same examples (oracles, examples), finite.

    Raises:
        InputError: If examples differ, there is only one, one is an oracle again, or one is non-finite, collapsed or
            exploded: it would raise the floor, and with it everything that passes for the floor.
    """
    others, theirs = to_array(held_out, "held_out", ndim=2), to_array(oracle, "oracle", ndim=2)
    if others.shape[1] != theirs.shape[1]:
        raise InputError(
            f"held_out has shape {others.shape} and oracle {theirs.shape}; expected the same number of examples: both "
            "must be evaluated on the same examples, in the same order."
        )
    if len(others) < 2:
        raise InputError(f"held_out has {len(others)} member, expected at least 2: train more held-out oracles.")
    copies = Copies(theirs).of_oracles(others)
    if copies.any():
        raise InputError(
            f"held_out holds {copies.sum()} of the oracles again (first {copies.argmax()}); expected other members: "
            "against themselves oracles read 0, and that is no floor. Train them with another seed."
        )
    bad = failed_members(others, theirs)
    if bad.any():
        raise InputError(
            f"held_out has non-finite, collapsed or exploded margins in {int(bad.sum())} of {len(others)} members "
            f"(first {int(np.argmax(bad))}); expected sound oracles, because they are the floor. Leave these members "
            "out, or retrain them."
        )
    return others


def _collapsed(values: Array, known: Reference | None) -> NDArray[np.bool_]:
    if values.shape[1] < FEWEST or (known is not None and known.distinct <= 2 * DISTINCT):
        return np.zeros(len(values), dtype=bool)
    return np.asarray(_distinct(values) <= DISTINCT)


def _exploded(values: Array, known: Reference | None) -> NDArray[np.bool_]:
    if known is None or known.largest <= ABSURD:
        absurd = np.asarray((np.abs(values) > ABSURD).any(1))
    else:
        absurd = np.zeros(len(values), dtype=bool)
    if known is not None and known.usual > 0:
        # Oracles of a convex problem hardly differ: what lies within the size of their margins is no explosion.
        limit = max(EXPLODED * known.usual, known.largest)
        absurd |= np.median(np.abs(values - known.centre), axis=1) > limit
    return absurd


def _distinct(values: Array, most: int = 2000) -> Array:
    """Share of distinct margins in six digits, of each member; on the first examples, which is enough to tell."""
    some = values[:, :most]
    scale = np.abs(some).max(1, keepdims=True, initial=0)
    digits = np.sort(np.round(some / np.where(scale > 0, scale, 1), 6), axis=1)
    return np.asarray((1 + (np.diff(digits, axis=1) > 0).sum(1)) / some.shape[1])
