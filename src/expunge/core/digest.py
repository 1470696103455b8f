"""Digests: short names for data and specifications, equal exactly when the bytes are equal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hex) of names, dtypes, shapes and bytes of tensors, in the order of their names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        sha.update(
            np.ascontiguousarray(tensor.reshape(-1).view(torch.uint8).numpy()).tobytes() if tensor.numel() else b""
        )
    return sha.hexdigest()


def digest_json(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON value, independent of the order of keys.

    >>> digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
