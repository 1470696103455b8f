"""Locks of open files, which the system takes away from a process that ends, however it ends."""

from __future__ import annotations

from typing import IO, Any


def hold(file: IO[Any], *, wait: bool = True) -> bool:
    """Lock an open file until it is closed, which the end of the process does too; return whether it could be had.

    Where there are no such locks (Windows, some network file systems) it is always had.

    Args:
        file: Open for writing.
        wait: Whether to wait for whoever has it.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # a system or a file system without locks
        pass
    return True
