"""Entanglement score (ES): how little the features of F and of R are separated, against random sets of the same kind.

    ES = [ mean_R |phi - mu_R|^2 + mean_F |phi - mu_F|^2 ] / [ (|mu_R - mu|^2 + |mu_F - mu|^2) / 2 ],
    mu = (mu_R + mu_F) / 2,  so that the denominator is |mu_R - mu_F|^2 / 4

Higher is more entangled, which its authors take for harder. For a random F the denominator is sampling noise and
E[ES] is about 8 |F| whatever the model: the raw score mainly reads the size. `normalised` compares its logarithm with
those of random sets that have the same size and as many examples of each class, in standard deviations: 0 for a random
set, negative for a set that lies apart from its classes, positive for one closer to them than chance.

Source: Zhao et al., "What makes unlearning hard and what to do about it" (arXiv 2406.01257), sec. 3 and the published
code (`surgical_plugins/overlap.py` of kairanzhao/RUM).
Differs from the source: means over examples, where the code takes means of means over batches (the last is smaller).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from expunge.core import InputError
from expunge.core.checks import whole
from expunge.core.seeds import derive


class Entanglement(NamedTuple):
    """The score and where it stands among random sets."""

    score: float
    """Raw ES, at least 0; infinite where the two means coincide."""
    normalised: float
    """(log ES - mean) / standard deviation over random sets of the same size and class mix."""
    p_value: float
    """Share of random sets with an ES at most this one, (1 + count) / (1 + sets)."""


def entanglement(features: Tensor, labels: Tensor, index: Tensor, *, sets: int = 100, seed: int = 0) -> Entanglement:
    """Return the score and its standing among random sets of the same size and class mix.

    Args:
        features: Shape (examples, features).
        labels: Classes (examples,).
        index: Positions of the forget set (size,).
        sets: Random sets, at least 2.
        seed: Of the random sets.
    """
    whole(2, sets=sets)
    masks = torch.cat([_mask(index, len(features)), random_masks(labels, index, sets, seed)])
    scores = _scores(features, masks).numpy()
    logs = np.log(np.maximum(scores, np.finfo(float).tiny))
    spread = logs[1:].std(ddof=1)
    # A class mix that leaves one set only (whole classes) has no spread: nothing to compare with.
    normalised = float((logs[0] - logs[1:].mean()) / spread) if spread > 1e-12 else float("nan")
    return Entanglement(float(scores[0]), normalised, float((1 + (scores[1:] <= scores[0]).sum()) / (1 + sets)))


def random_masks(labels: Tensor, index: Tensor, sets: int, seed: int) -> Tensor:
    """Return random sets with as many examples of each class as `index`, as masks (sets, examples)."""
    rng = np.random.default_rng(derive(seed, "class-matched sets"))
    masks = torch.zeros(sets, len(labels), dtype=torch.bool)
    classes = labels.numpy()
    wanted = np.bincount(classes[index.numpy()])
    for label in np.flatnonzero(wanted):
        pool = np.flatnonzero(classes == label)
        order = np.argsort(rng.random((sets, len(pool))), axis=1)[:, : wanted[label]]
        masks[torch.arange(sets)[:, None], torch.from_numpy(pool[order])] = True
    return masks


def _mask(index: Tensor, examples: int) -> Tensor:
    mask = torch.zeros(1, examples, dtype=torch.bool)
    mask[0, index] = True
    return mask


def _scores(features: Tensor, masks: Tensor) -> Tensor:
    """Return the score of every set, (sets,), float64."""
    if features.ndim != 2 or masks.shape[1] != len(features):
        raise InputError(f"features have shape {tuple(features.shape)}, expected ({masks.shape[1]}, features).")
    phi = features.double()
    chosen = masks.double()
    sizes = chosen.sum(1, keepdim=True)
    if bool((sizes == 0).any()) or bool((sizes == len(phi)).any()):
        raise InputError("a set is empty or holds all examples, expected two sides to compare.")
    rest = len(phi) - sizes
    squares = (phi**2).sum(1, keepdim=True)
    sums, total = chosen @ phi, phi.sum(0)
    mean_f, mean_r = sums / sizes, (total - sums) / rest
    within_f = (chosen @ squares) / sizes - (mean_f**2).sum(1, keepdim=True)
    within_r = (squares.sum() - chosen @ squares) / rest - (mean_r**2).sum(1, keepdim=True)
    apart = ((mean_r - mean_f) ** 2).sum(1, keepdim=True) / 4
    return ((within_f + within_r).clamp_min(0) / apart)[:, 0]
