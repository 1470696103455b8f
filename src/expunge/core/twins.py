"""Rows that stay and are those to be forgotten again, equal or nearly so: what retraining would learn from them anyway.

Two rows are twins when their inputs are equal, or nearer than rows of the retain set are to their nearest neighbours:
nearer than the 0.1 % quantile of the distance between a retain row and its nearest other retain row, which counts as at
least a quarter and at most half of the median of these distances. Distances are Euclidean: between images as they are,
between rows of a table in standard deviations of each column. Between rows of whole numbers (tokens) it is the share of
places that differ. 1,000 retain rows stand for all in the median and the quantile.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from expunge.core.seeds import generator
from expunge.core.stopping import check_stopped
from expunge.core.task import Split

QUANTILE = 0.001
"""Quantile of the distances between nearest neighbours below which rows are twins."""
LEAST, MOST = 0.25, 0.5
"""Shares of the median of these distances between which the limit lies."""
SAMPLE = 1000
"""Retain rows whose nearest neighbours are looked for."""
ROOM = 2**24
"""Numbers of a block of distances."""


@dataclass(frozen=True)
class Twins:
    """Pairs of a forget row and a retain row that are twins, the nearest first."""

    forget: np.ndarray[tuple[int], np.dtype[np.int64]]
    """Positions of forget rows in the training data, (pairs,)."""
    retain: np.ndarray[tuple[int], np.dtype[np.int64]]
    """Positions of their twins, (pairs,)."""
    distance: np.ndarray[tuple[int], np.dtype[np.float64]]
    """Distances in medians of the distance between a retain row and its nearest neighbour, (pairs,); 0 for equal."""
    same_target: np.ndarray[tuple[int], np.dtype[np.bool_]]
    """Whether their targets are equal, (pairs,)."""
    limit: float
    """Distance below which rows count as twins, in the same medians."""


def find_twins(train: Split, forget: Tensor, retain: Tensor) -> Twins:
    """Return which rows of the retain set are twins of forget rows.

    Args:
        train: All training examples.
        forget: Positions of the forget set.
        retain: Positions of the retain set.
    """
    rows, whole = _prepared(train.x)
    ours, theirs = rows[forget], rows[retain]
    some = torch.randperm(len(retain), generator=generator(0, "twins"))[:SAMPLE].sort().values
    nearest = torch.empty(len(some), dtype=torch.float64)
    for start, block in _distances(theirs[some], theirs, whole):
        block[torch.arange(len(block)), some[start : start + len(block)]] = math.inf
        nearest[start : start + len(block)] = block.min(1).values.double()
    usual = float(nearest.median()) if len(retain) > 1 else 0.0
    low = float(torch.quantile(nearest, QUANTILE)) if len(retain) > 1 else 0.0
    limit = min(max(low, LEAST * usual), MOST * usual)
    pairs, distances = [], []
    # Rounding: what a product of matrices says of equal rows is not quite 0, so pairs are measured again.
    for start, block in _distances(ours, theirs, whole):
        for row, other in (block <= limit + 1e-2 * usual).nonzero():
            exact = _one(ours[start + row], theirs[other], whole)
            if exact == 0 or exact < limit:
                pairs.append((int(forget[start + row]), int(retain[other])))
                distances.append(exact / usual if usual > 0 else 0.0)
    order = np.argsort(distances, kind="stable")
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2)[order]
    one, two = train.y[torch.from_numpy(found[:, 0])], train.y[torch.from_numpy(found[:, 1])]
    same = (one == two).reshape(len(found), -1).all(1) if len(found) else torch.zeros(0, dtype=torch.bool)
    return Twins(
        found[:, 0],
        found[:, 1],
        np.asarray(distances, dtype=np.float64)[order],
        same.numpy(),
        limit / usual if usual > 0 else 0.0,
    )


def _prepared(x: Tensor) -> tuple[Tensor, bool]:
    """Return rows (examples, numbers) between which distances are meant, and whether they are whole numbers."""
    flat = x.detach().cpu().reshape(len(x), math.prod(x.shape[1:]))
    if not flat.is_floating_point() and flat.dtype != torch.uint8:
        return flat, True
    flat = flat.float()
    if x.ndim > 2:
        return flat, False
    spread = flat.std(0)
    return flat[:, spread > 0] / spread[spread > 0], False


def _distances(ours: Tensor, theirs: Tensor, whole: bool) -> Iterator[tuple[int, Tensor]]:
    """Yield blocks of distances (rows of ours, all of theirs), each with the place of its first row."""
    step = max(1, ROOM // max(1, len(theirs) * (ours.shape[1] if whole else 1)))
    for start in range(0, len(ours), step):
        check_stopped()
        part = ours[start : start + step]
        if whole:
            yield start, (part[:, None] != theirs[None]).float().mean(-1)
        else:
            yield start, torch.cdist(part, theirs, compute_mode="use_mm_for_euclid_dist")


def _one(row: Tensor, other: Tensor, whole: bool) -> float:
    return float((row != other).double().mean() if whole else (row.double() - other.double()).norm())
