"""What every metric reads: what is no array of real numbers is refused in words, never read as something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge import metrics
from expunge.core import InputError
from expunge.metrics.arrays import to_array

READS: dict[str, Callable[[Any, Any], Any]] = {
    "klom": metrics.klom,
    "wasserstein": metrics.wasserstein,
    "ulira": metrics.ulira,
    "mmd": metrics.mmd,
    "challenge": metrics.challenge_score,
    "ruler": lambda u, o: metrics.Ruler(o).klom(u),
}

MASKED = np.ma.masked_array(np.ones((6, 4)), mask=np.eye(6, 4, dtype=bool))
STRANGE: dict[str, tuple[Any, str]] = {
    "complex tensor": (torch.ones(6, 4, dtype=torch.complex64), "is complex, expected real numbers"),
    "complex array": (np.ones((6, 4), complex), "is complex"),
    "true and false": (np.eye(6, 4, dtype=bool), "true and false alone, expected numbers"),
    "a tensor of true and false": (torch.eye(6, 4, dtype=torch.bool), "true and false alone, expected numbers"),
    "masked": (MASKED, "has 4 masked values, expected a number everywhere"),
    "list of masked": (list(MASKED), "masked values"),
    "durations": (np.ones((6, 4), "timedelta64[s]"), r"dtype timedelta64\[s\], expected numbers"),
    "dates": (np.ones((6, 4), "datetime64[s]"), "dtype datetime64"),
    "text": (np.full((6, 4), "1"), "dtype <U1, expected numbers"),
    "objects": (np.full((6, 4), None), "dtype object"),
    "ragged": ([[1.0, 2.0], [1.0]], "is no array of numbers"),
    "sparse": (torch.eye(6, 4).to_sparse(), "sparse_coo tensor"),
    "without values": (torch.ones(6, 4, device="meta"), "meta, expected a dense one"),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_array_of_real_numbers_is_refused_on_either_side(read: str, kind: str) -> None:
    value, said = STRANGE[kind]
    sound = np.random.default_rng(0).normal(size=(6, 4))
    with pytest.raises(InputError, match=said):
        READS[read](value, sound)
    with pytest.raises(InputError, match=said):
        READS[read](sound, value)


@given(
    dtype=st.sampled_from(["bool", "int8", "uint8", "int64", "float16", "float32", "float64", "complex64", "complex128",
                           "timedelta64[s]", "datetime64[D]", "U3", "S3", "O"]),
    masked=st.booleans(),
    seed=st.integers(0, 1000),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_an_array_comes_back_as_it_was_or_is_refused(dtype: str, masked: bool, seed: int) -> None:
    whole = np.random.default_rng(seed).integers(0, 2, (3, 4))
    values = whole.astype(dtype)
    if masked:
        values = np.ma.masked_array(values, mask=whole > 0)
    refused = values.dtype.kind not in "iuf" or (masked and whole.any())
    if refused:
        with pytest.raises(InputError, match=r"^margins (has|is) "):
            to_array(values, "margins")
    else:
        assert np.array_equal(to_array(values, "margins"), whole)


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits)
    return np.asarray(odds / odds.sum(-1, keepdims=True))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("side", [0, 1])
def test_probabilities_are_not_taken_for_logits(dtype: str, side: int) -> None:
    sides = list(np.random.default_rng(0).normal(size=(2, 8, 9, 5)))
    sides[side] = softmax(3 * sides[side]).astype(dtype)
    sides[side][3, 4] = np.nan if side == 0 else sides[side][3, 4]
    who = ("unlearned", "oracle")[side]
    with pytest.raises(InputError, match=f"^{who} holds probabilities .*expected logits; give the outputs before"):
        metrics.activation_distance(*sides)
    with pytest.raises(InputError, match=f"^{who} forget holds probabilities"):
        metrics_of_score(*sides)
    # Their logarithms are logits.
    with np.errstate(divide="ignore"):
        sides[side] = np.log(softmax(np.random.default_rng(1).normal(size=(8, 9, 5))))
    metrics.activation_distance(*sides)


def metrics_of_score(u: np.ndarray, o: np.ndarray) -> None:
    import expunge as ex

    ex.score(u, oracle=o, labels=np.arange(9) % 5)


def test_infinities_of_oracles_are_said_for_what_they_are() -> None:
    draw = np.random.default_rng(0)
    u, o = draw.normal(size=(2, 8, 6))
    o[:7, 2] = np.inf
    with pytest.raises(
        InputError, match=r"infinities in 7 of 8 members .* at 1 of 6 examples; .*saturate.*leave these"
    ):
        metrics.klom(u, o)
    o[0, 0] = np.nan
    with pytest.raises(InputError, match="non-finite values in 7 of 8 members"):
        metrics.klom(u, o)
    logits = draw.normal(size=(2, 8, 6, 3))
    logits[1, :, :, 2] = -np.inf
    with pytest.raises(InputError, match=r"8 of 8 members .* at 6 of 6 examples; .*classes may be masked with -inf"):
        metrics.activation_distance(*logits)
