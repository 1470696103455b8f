"""Processes that must not outlive the one that started them."""

from __future__ import annotations

import contextlib
import ctypes
import signal

DEATH_SIGNAL = 1
"""Number of the request in `prctl`: which signal comes when the parent ends."""


def die_with_parent() -> None:
    """Ask the system to end this process when the one that started it ends (on Linux; elsewhere do nothing)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)
