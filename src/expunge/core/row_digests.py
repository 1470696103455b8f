"""Digests of single rows of data: what a run keeps of its data, so that it can be said later which they were."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.core.task import Split

SIZE = 32
"""Bytes of a digest."""


def digest_rows(split: Split) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the SHA-256 of each row (types, shapes and bytes of its inputs and its target).

    A digest without a key can be guessed: who knows what rows may look like computes theirs. It belongs where the data
    are; elsewhere only a keyed one (`keyed_rows`).

    Args:
        split: The rows, inputs (examples, ...) and targets (examples, ...).

    Returns:
        Digests (examples, 32).
    """
    head = f"{split.x.dtype}|{tuple(split.x.shape[1:])}|{split.y.dtype}|{tuple(split.y.shape[1:])}|".encode()
    x, y = _rows_of_bytes(split.x), _rows_of_bytes(split.y)
    found = b"".join(
        hashlib.sha256(head + one.tobytes() + other.tobytes()).digest() for one, other in zip(x, y, strict=True)
    )
    return np.frombuffer(found, dtype=np.uint8).reshape(len(split), SIZE)


def keyed_rows(digests: np.ndarray[Any, Any], key: bytes, part: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return digests that say nothing to those without the key: HMAC-SHA256 (RFC 2104) of place and digest.

    The place is in it, so that equal rows cannot be seen either.

    Args:
        digests: Of the rows (examples, 32).
        key: 32 random bytes.
        part: `train` or `validation`.
    """
    found = b"".join(
        hmac.digest(key, f"{part}/{place}|".encode() + row.tobytes(), "sha256")
        for place, row in enumerate(np.ascontiguousarray(digests, dtype=np.uint8))
    )
    return np.frombuffer(found, dtype=np.uint8).reshape(len(digests), SIZE)


def keyed_text(text: str, key: bytes) -> str:
    """Return the keyed digest (hex) of a text."""
    return hmac.digest(key, b"text|" + text.encode(), "sha256").hex()


def _rows_of_bytes(tensor: Tensor) -> np.ndarray[Any, Any]:
    flat = tensor.detach().cpu().contiguous().reshape(len(tensor), -1)
    return np.asarray(flat.view(torch.uint8).numpy() if flat.shape[1] else np.zeros((len(tensor), 0), np.uint8))
