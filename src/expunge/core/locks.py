"""Locks of open files, which the system takes away from a process that ends, however it ends."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO, Any

from expunge.core.errors import InputError


def open_lock(path: Path) -> IO[str]:
    """Open the file of a lock for reading and writing, made if it is not there; its content stays.

    Raises:
        InputError: If a pipe or a device lies there, on which a process would wait for ever.
        OSError: If it cannot be opened.
    """
    # A pipe that nobody reads from is opened at once in this mode; what it is, is then asked of the open file.
    number = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise InputError(f"{path} is a pipe or a device, expected a file that expunge makes itself; move it away.")
    return os.fdopen(number, "r+", encoding="utf-8")


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
