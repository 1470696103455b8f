"""FADE: how far the outputs of unlearned and oracle models are as laws, in both directions.

    FADE(c) = E_{y ~ U(.|c)}[log U(y|c) - log R(y|c)] + E_{y ~ R(.|c)}[log R(y|c) - log U(y|c)]

averaged over prompts c; U is the unlearned, R the retrained model. For a classifier the expectations are sums over
classes,

    FADE(x) = sum_k (u_k - r_k)(log u_k - log r_k)

and need no sampling. For sequence models `fade_from_samples` takes log-probabilities of generations under both models.
The constants of the paper's own definition are not pinned: this one is the sum of both directions, in nats a sample
(not a token). It is 0 when both are equal, has no upper bound, and reads more than 0 between two oracles: the floor.

Source: Cho et al., "Reference-Specific Unlearning Metrics Can Hide the Truth" (arXiv 2510.12981).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.core import InputError, Result
from expunge.metrics.arrays import CACHED, Array, log_probabilities, pair, slices, to_array
from expunge.metrics.reading import compare, mean_interval


def fade(unlearned: Any, oracle: Any) -> Array:
    """Return the symmetric KL divergence of outputs between every unlearned member and every oracle.

    Args:
        unlearned: Logits (members, examples, classes).
        oracle: Logits (oracles, examples, classes).

    Returns:
        Nats, shape (members, oracles), mean over examples, at least 0, accurate to about 1e-8; infinite for a failed
        member.
    """
    ours, theirs = pair(unlearned, oracle, ndim=3, minimum=1)
    total = np.zeros((len(ours), len(theirs)))
    for piece in slices(ours.shape[1], (len(ours) + len(theirs)) * ours.shape[2], 8 * CACHED):
        a, b = log_probabilities(ours[:, piece]), log_probabilities(theirs[:, piece])
        u, r = np.exp(a), np.exp(b)
        # sum_k (u - r)(a - b) = u.a + r.b - u.b - r.a: four products of matrices.
        a, b, u, r = (part.reshape(len(part), -1) for part in (a, b, u, r))
        total += (u * a).sum(1)[:, None] + (r * b).sum(1)[None, :] - u @ b.T - a @ r.T
    values = np.maximum(total / ours.shape[1], 0)
    return np.where(np.isnan(values), np.inf, values)


def fade_reading(unlearned: Any, oracle: Any) -> Result:
    """Return FADE of the unlearned members beside its floor, FADE of each oracle against the other oracles.

    Args:
        unlearned: Logits (members, examples, classes).
        oracle: Logits (oracles, examples, classes), at least 2 oracles.
    """
    ours, theirs = pair(unlearned, oracle, ndim=3)
    between = fade(theirs, theirs)
    np.fill_diagonal(between, 0.0)
    return compare(
        "fade",
        fade(ours, theirs).mean(1),
        between.sum(1) / (len(theirs) - 1),
        examples=ours.shape[1],
        smallest=0,
        largest=float("inf"),
        over="neither",
        unit="nats, sum of both directions",
        ideal="the value between two oracles; closer is better",
    )


@dataclass(frozen=True)
class SampledFade:
    """FADE from generations of one pair of models."""

    value: float
    """Mean over prompts, nats a sample; infinite when a model gives a generation of the other no probability."""
    low: float
    """Lower end of the 95 % interval over prompts."""
    high: float
    """Upper end of the 95 % interval over prompts."""
    per_prompt: Array
    """Shape (prompts,); noise can make it negative."""
    prompts: int
    """Prompts."""
    samples: tuple[int, int]
    """Generations a prompt, of the unlearned and of the oracle model."""


def fade_from_samples(
    unlearned_on_unlearned: Any, oracle_on_unlearned: Any, oracle_on_oracle: Any, unlearned_on_oracle: Any
) -> SampledFade:
    """Return FADE from log-probabilities of generations, for models whose outputs cannot be enumerated.

    Args:
        unlearned_on_unlearned: log U(y|c) for generations y of the unlearned model, shape (prompts, samples).
        oracle_on_unlearned: log R(y|c) for the same generations, the same shape.
        oracle_on_oracle: log R(y|c) for generations of the oracle, shape (prompts, samples').
        unlearned_on_oracle: log U(y|c) for those, the same shape.

    Returns:
        The estimate, unbiased when generations are plain samples (temperature 1, no truncation), with an interval over
        prompts. A NaN of the unlearned model counts as infinite.

    Raises:
        InputError: If shapes disagree, or the oracle's own log-probabilities are NaN or above 0.
    """
    names = ("unlearned_on_unlearned", "oracle_on_unlearned", "oracle_on_oracle", "unlearned_on_oracle")
    parts = [
        to_array(values, name, ndim=2)
        for name, values in zip(
            names, (unlearned_on_unlearned, oracle_on_unlearned, oracle_on_oracle, unlearned_on_oracle), strict=True
        )
    ]
    uu, ru, rr, ur = parts
    if uu.shape != ru.shape or rr.shape != ur.shape or len(uu) != len(rr):
        raise InputError(
            f"log-probabilities have shapes {[part.shape for part in parts]}, expected (prompts, samples) twice for "
            "generations of the unlearned and twice for those of the oracle model, with the same prompts."
        )
    for name, part in zip(names, parts, strict=True):
        if (part > 1e-6).any():
            raise InputError(f"{name} has values up to {np.nanmax(part):g}, expected log-probabilities (at most 0).")
    if np.isnan(ru).any() or np.isnan(rr).any():
        raise InputError(
            "the oracle's log-probabilities hold NaN, expected numbers: the reference must not have failed."
        )
    with np.errstate(invalid="ignore"):
        per_prompt = (uu - ru).mean(1) + (rr - ur).mean(1)
    per_prompt = np.where(np.isnan(per_prompt), np.inf, per_prompt)
    finite = np.isfinite(per_prompt).all()
    value, low, high = mean_interval(per_prompt) if finite else (float("inf"), float("nan"), float("inf"))
    return SampledFade(value, low, high, per_prompt, len(uu), (uu.shape[1], rr.shape[1]))
