"""How far models are from the oracles of the same request, and how that grows with the number of requests.

Margins are compared row by row, over rows that are never removed. Three readings, with o for the oracles:

    klom      95th percentile over rows of KLoM, in nats, less that of held-out oracles; it has a ceiling
    shift     root of mean over rows of [(mean margin - mean_o)^2 - what the errors of both means add] / variance_o:
              models go one way together
    spread    root of [mean over rows of variance / variance_o, less that of held-out oracles]: models go apart. Where
              each model walks at random from request to request this grows as the root of k

A reading is followed by a k^b: its logarithm by a line in that of k, by least squares over all requests. Intervals
are the middle 95 % of a bootstrap, moved so that its mean is the reading. It draws models (the same at every request:
they are chains), oracles and held-out oracles (which are others at every request).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from expunge.core.seeds import derive
from expunge.metrics.failures import Reference, failed_members
from expunge.metrics.klom import Cells

Array = np.ndarray[Any, np.dtype[np.float64]]

LEAST: Mapping[str, float] = {"klom": 0.01, "shift": 0.05, "spread": 0.05}
"""Smallest value of each reading that counts as drift; what is below is set to it before logarithms are taken."""

REPLICATES = 200


@dataclass(frozen=True)
class Draws:
    """How often each model counts in each replicate, (1 + replicates, models); in the first each counts once."""

    members: Array
    oracles: tuple[Array, ...]
    """One for each request."""
    held_out: tuple[Array, ...]
    """Likewise."""

    @classmethod
    def of(cls, members: int, requests: int, seed: int, replicates: int = REPLICATES) -> Draws:
        """Return draws with replacement; every set of models has as many members."""

        def draw(*who: object) -> Array:
            rng = np.random.default_rng(derive(seed, "drift bootstrap", *who))
            drawn = rng.multinomial(members, np.full(members, 1 / members), size=replicates)
            return np.concatenate([np.ones((1, members)), drawn])

        numbers = range(1, requests + 1)
        return cls(
            draw("members"), tuple(draw("oracle", k) for k in numbers), tuple(draw("held out", k) for k in numbers)
        )


def readings(margins: Array, oracle: Array, mine: Array, theirs: Array) -> dict[str, Array]:
    """Return each reading of one request before the floor is taken off, in every replicate, (1 + replicates,).

    Args:
        margins: Of the models, (members, rows).
        oracle: Of the oracles of that request, (members, rows).
        mine: How often each model counts, (1 + replicates, members).
        theirs: How often each oracle counts, likewise.

    Returns:
        `klom`, and means over rows of the squares under the roots of `shift` and `spread`. Failed models count in
        `klom` alone.
    """
    cells, failed = Cells.of(oracle), failed_members(margins, Reference.of(oracle))
    codes = cells.place(cells.digitise(margins, failed), "jeffreys")
    here, there = (_shares(part, cells.failure + 1) for part in (codes, cells.oracle_codes))
    klom = []
    for ours, others in zip(mine, theirs, strict=True):
        counts, known = (
            (w @ part.reshape(len(part), -1)).reshape(part.shape[1:]) for w, part in ((ours, here), (others, there))
        )
        klom.append(percentile(replace(cells, oracle_counts=known).divergence(counts, len(codes), "jeffreys")))
    sound, weight = np.where(failed[:, None], 0.0, margins), mine * ~failed
    mean, variance = _moments(sound, weight)
    oracle_mean, oracle_variance = _moments(oracle, theirs)
    errors = variance / weight.sum(1, keepdims=True) + oracle_variance / theirs.sum(1, keepdims=True)
    # In a replicate the errors of the drawn models come on top of those of the models themselves.
    errors[1:] *= 2
    unit = np.maximum(oracle.var(0, ddof=1), 1e-12)  # the oracles' own, not that of those drawn: it is a scale
    return {
        "klom": np.array(klom),
        "shift": (((mean - oracle_mean) ** 2 - errors) / unit).mean(1),
        "spread": (variance / unit).mean(1),
    }


def above(found: Mapping[str, Array], floor: Mapping[str, Array]) -> dict[str, Array]:
    """Return readings of one request above those of the held-out oracles; see the module."""
    roots = {"shift": found["shift"], "spread": found["spread"] - floor["spread"]}
    return {"klom": found["klom"] - floor["klom"], **{name: np.sqrt(np.maximum(roots[name], 0.0)) for name in roots}}


def percentile(values: Array) -> float:
    """Return the 95th percentile over rows, as an audit summarises KLoM."""
    return float(np.percentile(values, 95))


def exponents(values: Array, least: float) -> tuple[Array, Array]:
    """Return a and b of the line a k^b through a reading in every replicate, each (replicates,).

    Args:
        values: Readings by replicate and request, (replicates, requests), for k = 1, 2, ...
        least: Smaller readings are set to it.

    >>> a, b = exponents(3 * np.arange(1.0, 9.0)[None] ** 0.5, 0.01)
    >>> round(float(a[0]), 6), round(float(b[0]), 6)
    (3.0, 0.5)
    """
    k = np.log(np.arange(1, values.shape[1] + 1))
    across, logs = k - k.mean(), np.log(np.maximum(values, least))
    slopes = logs @ across / (across @ across)
    return np.exp(logs.mean(1) - slopes * k.mean()), slopes


def growth(low: float, high: float, last_low: float, least: float) -> str:
    """Return how a reading grows, in words, from the interval of its exponent.

    Args:
        low: Lower end of the exponent's interval.
        high: Upper end.
        last_low: Lower end of the reading at the last request.
        least: What counts as drift.

    >>> growth(0.4, 0.6, 2.0, 0.05), growth(0.7, 0.9, 2.0, 0.05), growth(0.4, 0.6, 0.0, 0.05)
    ('grows as the root of k', 'grows faster than the root of k and slower than k', 'is not to be seen')
    """
    if last_low <= least:
        return "is not to be seen"
    if low <= 0 <= high:
        return "does not grow"
    root, line = low <= 0.5 <= high, low <= 1 <= high
    if root and line:
        return "grows as the root of k or as k"
    if root or line:
        return "grows as the root of k" if root else "grows as k"
    if high < 0.5:
        return "grows slower than the root of k" if low > 0 else "falls"
    return "grows faster than the root of k and slower than k" if high < 1 else "grows faster than k"


def middle(values: Array) -> tuple[float, float]:
    """Return the ends of the middle 95 % of replicates, moved by their bias, from a reading and its replicates.

    >>> middle(np.array([1.0, *np.linspace(0.0, 4.0, 41)]))
    (-0.9, 2.9)
    """
    drawn = values[1:]
    low, high = np.percentile(drawn, [2.5, 97.5]) - drawn.mean() + values[0]
    return round(float(low), 12), round(float(high), 12)


def _shares(codes: np.ndarray[Any, Any], cells: int) -> Array:
    """Return 1 where a margin is in a cell, (members, rows, cells)."""
    return np.asarray(codes[:, :, None] == np.arange(cells), dtype=np.float64)


def _moments(margins: Array, weight: Array) -> tuple[Array, Array]:
    """Return mean and unbiased variance over models in every replicate, each (replicates, rows)."""
    total = weight.sum(1, keepdims=True)
    centre = margins.mean(0)  # margins far from 0 would lose digits
    mean = weight @ (margins - centre) / total
    variance = (weight @ (margins - centre) ** 2 / total - mean**2) * total / np.maximum(total - 1, 1)
    return mean + centre, np.maximum(variance, 0.0)
