"""Stopping between two steps: work in other threads ends soon, and whole, when nobody waits for it any longer.

Python interrupts the main thread only. Whoever shares work among threads gives each what is set when it is to end; the
loops of the work look at it before each step.
"""

from __future__ import annotations

import threading


class StoppedError(Exception):
    """The work of this thread is not waited for: the caller was interrupted, or another part of the work failed."""


_thread = threading.local()


def stops() -> tuple[threading.Event, ...]:
    """Return what is set when the work of this thread is to end."""
    found: tuple[threading.Event, ...] = getattr(_thread, "stops", ())
    return found


def stop_at(*events: threading.Event) -> None:
    """Let the work of this thread end when one of these is set."""
    _thread.stops = events


def stop_asked() -> bool:
    """Return whether the work of this thread is to end."""
    return any(event.is_set() for event in stops())


def check_stopped() -> None:
    """Raise `StoppedError` if the work of this thread is to end; called between two steps, each of which is whole."""
    if stop_asked():
        raise StoppedError
