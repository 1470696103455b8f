"""Stopping between two steps: work in other threads ends soon, and whole, when nobody waits for it any longer.

Python interrupts the main thread only. Whoever shares work among threads gives each what is set when it is to end; the
loops of the work look at it before each step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType


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


class Pool(ThreadPoolExecutor):
    """Threads whose work is asked to end, and not waited for in full, when the block of the pool ends by an error.

    Args:
        workers: Threads.
        prepare: Called in each at its beginning.
    """

    def __init__(self, workers: int, prepare: Callable[[], None] | None = None) -> None:
        outer, self._stop = stops(), threading.Event()

        def begin() -> None:
            stop_at(*outer, self._stop)
            if prepare is not None:
                prepare()

        super().__init__(workers, initializer=begin)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the threads, each at most until the end of its step after an error or an interrupt."""
        if kind is not None:
            self._stop.set()
        self.shutdown(wait=True, cancel_futures=kind is not None)
