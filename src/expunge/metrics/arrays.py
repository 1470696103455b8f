"""Reading what callers give: numpy arrays or torch tensors of any precision in, checked float64 arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp

from expunge.core import InputError

Array = NDArray[np.float64]

CHUNK = 2**23
"""Numbers that a temporary array may hold; larger work goes through in pieces along the examples."""
CACHED = 2**17
"""Numbers of float64 that stay in a core's cache, for work that reads a temporary array several times."""


def to_array(values: Any, what: str, *, ndim: int | None = None, flags: bool = False) -> Array:
    """Return values as a float64 array, checked to be numeric, of the expected number of axes, and not empty.

    Args:
        values: A numpy array, a torch tensor (any device and precision), or nested lists of numbers.
        what: How the message calls it.
        ndim: Number of axes expected; None accepts any.
        flags: Whether true and false are numbers here, as in labels; they are no margins.

    Raises:
        InputError: If it is not numeric, is complex, hides values behind a mask, has other axes, or is empty.
    """
    raw = _plain(values, what)
    if raw.dtype.kind == "b" and not flags:
        raise InputError(
            f"{what} has true and false alone, expected numbers: margins or logits, not whether answers were right."
        )
    if raw.dtype.kind == "c":
        raise InputError(f"{what} is complex, expected real numbers.")
    # A duration is a number to NumPy, in a unit of its own.
    if raw.dtype.kind not in "biuf":
        raise InputError(f"{what} has dtype {raw.dtype}, expected numbers.")
    if ndim is not None and raw.ndim != ndim:
        axes = {
            1: "(values,)",
            2: "(members, examples)",
            3: "(members, examples, classes)",
        }[ndim]
        raise InputError(f"{what} has shape {raw.shape}, expected {ndim} axes {axes}.")
    if raw.size == 0:
        raise InputError(f"{what} is empty (shape {raw.shape}), expected at least one value.")
    return raw.astype(np.float64, copy=False)


def _plain(values: Any, what: str) -> NDArray[Any]:
    """Return values as a plain array of the type that they have."""
    if isinstance(values, torch.Tensor):
        if values.layout != torch.strided or values.device.type == "meta":
            raise InputError(
                f"{what} is a {values.layout} tensor on {values.device}, expected a dense one with values."
            )
        held = values.detach().cpu().resolve_conj().resolve_neg()
        return held.numpy() if held.is_complex() or held.dtype == torch.bool else held.to(torch.float64).numpy()
    for part in (values, *(values if isinstance(values, list | tuple) else ())):
        if isinstance(part, np.ma.MaskedArray) and np.ma.is_masked(part):
            raise InputError(
                f"{what} has {int(np.ma.getmaskarray(part).sum())} masked values, expected a number everywhere; leave "
                "these examples out, or write NaN for members that failed."
            )
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{what} is no array of numbers ({error}), expected rows of the same length.") from error


def refuse_probabilities(logits: Array, what: str) -> None:
    """Refuse softmax outputs in the place of logits: rows within 0 to 1 that all sum to 1.

    Args:
        logits: Shape (members, examples, classes).
        what: How the message calls it.

    Raises:
        InputError: If every finite row is a law over the classes.
    """
    rows = logits[np.isfinite(logits).all(-1)]
    # Zeros and ones alone are votes, of which the accuracy is as good as any.
    if not len(rows) or rows.min() < 0 or rows.max() > 1 or np.isin(rows, (0, 1)).all():
        return
    # Half precision rounds each of the probabilities to 5e-4.
    if np.all(np.abs(rows.sum(-1) - 1) <= 2e-3):
        raise InputError(
            f"{what} holds probabilities (rows within 0 to 1 that sum to 1), expected logits; give the outputs before "
            "the softmax, or numpy.log of these where none is 0."
        )


def pair(unlearned: Any, oracle: Any, *, ndim: int = 2, minimum: int = 2) -> tuple[Array, Array]:
    """Return both sides as checked float64 arrays; oracles must be finite, unlearned members may have failed.

    Args:
        unlearned: Shape (members, examples) or (members, examples, classes).
        oracle: Shape (oracles, examples) or (oracles, examples, classes).
        ndim: 2 for margins, 3 for logits.
        minimum: Smallest number of oracles that the metric can work with.

    Raises:
        InputError: If axes disagree, a side has too few members, or an oracle holds a NaN or an infinity.
    """
    ours, theirs = to_array(unlearned, "unlearned", ndim=ndim), to_array(oracle, "oracle", ndim=ndim)
    if ours.shape[1:] != theirs.shape[1:]:
        raise InputError(
            f"unlearned has shape {ours.shape} and oracle {theirs.shape}; expected the same after the first axis: "
            "both sides must be evaluated on the same examples, in the same order."
        )
    if len(theirs) < minimum:
        raise InputError(f"oracle has {len(theirs)} members, expected at least {minimum}: train more oracles.")
    if ndim == 3:
        refuse_probabilities(ours, "unlearned")
        refuse_probabilities(theirs, "oracle")
    bad = ~np.isfinite(theirs).reshape(len(theirs), -1).all(1)
    if bad.any() and not np.isnan(theirs).any():
        where = np.isinf(theirs).reshape(*theirs.shape[:2], -1).any(2) if ndim > 1 else np.isinf(theirs)[:, None]
        raise InputError(
            f"oracle has infinities in {int(bad.sum())} of {len(theirs)} members (first {int(np.argmax(bad))}), at "
            f"{int(where.any(0).sum())} of {where.shape[1]} examples; expected finite values. Confidences "
            "log(p / (1 - p)) saturate where p rounds to 0 or 1, and classes may be masked with -inf: then no model is "
            "at fault. Give margins made from logits in float64, or leave these examples or classes out on both sides."
        )
    if bad.any():
        raise InputError(
            f"oracle has non-finite values in {int(bad.sum())} of {len(theirs)} members (first {int(np.argmax(bad))}); "
            "expected finite oracles, because they are the reference. Leave these members out, or retrain them."
        )
    return ours, theirs


def to_labels(labels: Any, examples: int, classes: int | None = None) -> NDArray[np.int64]:
    """Return labels as int64, checked against the number of examples and classes.

    Raises:
        InputError: If the shape differs from (examples,), or a label is fractional or out of range.
    """
    raw = to_array(labels, "labels", ndim=1, flags=True)
    if len(raw) != examples:
        raise InputError(f"labels has {len(raw)} entries for {examples} examples, expected the same number.")
    if not np.all(np.isfinite(raw)) or np.any(raw != np.floor(raw)):
        raise InputError("labels holds values that are not whole numbers, expected class numbers 0, 1, 2, ...")
    high = np.inf if classes is None else classes - 1
    if raw.min() < 0 or raw.max() > high:
        raise InputError(f"labels run from {raw.min():.9g} to {raw.max():.9g}, expected 0 to {high}.")
    return raw.astype(np.int64)


def failed_rows(values: Array) -> NDArray[np.bool_]:
    """Return which members hold a NaN or an infinity anywhere, shape (members,)."""
    return np.asarray(~np.isfinite(values).reshape(len(values), -1).all(1))


def deviations(oracle: Array) -> Array:
    """Return the standard deviation of each example (examples,); one that does not vary has the others' median."""
    spread = oracle.std(0, ddof=1)
    varying = spread > 1e-12 * np.maximum(1.0, np.abs(oracle.mean(0)))
    usual = float(np.median(spread[varying])) if varying.any() else 1.0
    return np.where(varying, spread, usual)


def log_probabilities(logits: Array) -> Array:
    """Return log-softmax over the last axis in float64; NaN where a logit is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        logs = logits - logits.max(-1, keepdims=True)
        logs -= np.log(np.exp(logs).sum(-1, keepdims=True))
    logs[~np.isfinite(logits).all(-1)] = np.nan
    return np.asarray(logs)


def log_complement(logs: Array) -> Array:
    """Return log(1 - p) of every class from log-probabilities, exact where p rounds to 1.

    Args:
        logs: Log-probabilities, shape (..., classes).

    Returns:
        The same shape. The largest class takes the log-sum-exp of the others; the rest use log1p(-p).
    """
    top = np.argmax(logs, -1)[..., None]
    others = logs.copy()
    np.put_along_axis(others, top, -np.inf, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = np.log1p(-np.exp(logs))
        np.put_along_axis(rest, top, np.asarray(logsumexp(others, axis=-1, keepdims=True)), -1)
    return np.asarray(rest)


def slices(examples: int, numbers_per_example: int, most: int | None = None) -> list[slice]:
    """Return slices over the examples such that each holds about `most` numbers, by default `CHUNK`."""
    step = max(1, (most or CHUNK) // max(1, numbers_per_example))
    return [slice(start, min(start + step, examples)) for start in range(0, examples, step)]
