"""Seeds: every random number of a member follows from the study's seed, the member's own index, and a purpose.

Nothing is drawn from a shared stream, so member 7 is the same member in a stack of 8 or of 800, on one worker or on
twenty, before or after a crash.
"""

from __future__ import annotations

import hashlib
import threading

import torch

DRAWING = threading.RLock()
"""Held while the global generators, which all threads share, are seeded for somebody."""


def derive(seed: int, *path: object) -> int:
    """Return a 63-bit seed that depends on `seed` and on every part of `path`.

    Args:
        seed: The study's seed, any integer.
        path: What the seed is for, such as `("initialisation", member)`; parts are told apart by their text.

    >>> derive(0, "order", 7) == derive(0, "order", 7)
    True
    >>> derive(0, "order", 7) == derive(0, "order", 8)
    False
    """
    text = "\x1f".join([str(int(seed)), *(str(part) for part in path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *path: object) -> torch.Generator:
    """Return a CPU generator seeded by `derive(seed, *path)`."""
    return torch.Generator().manual_seed(derive(seed, *path))


def seed_torch(seed: int) -> None:
    """Do what `torch.manual_seed` does, at once where there is no accelerator.

    For devices that may be started later it keeps the caller's stack as text, and that takes longer than a small model.

    >>> seed_torch(3)
    >>> drawn = torch.rand(4)
    >>> torch.equal(torch.manual_seed(3) and torch.rand(4), drawn)
    True
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def numpy_seed(seed: int) -> int:
    """Return what NumPy's generators take for a seed: itself, or what follows from it where it is below 0."""
    return seed if seed >= 0 else derive(seed, "below 0")
