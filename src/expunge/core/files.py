"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from expunge.core.errors import InputError

WRITING: set[Path] = set()
"""Temporary files of this process, which must not outlive it."""


def write_atomically(path: Path, content: bytes | Iterable[bytes], *, private: bool = False) -> Path:
    """Write a file so that a crash leaves the old one or the new one, never a part: temporary file, fsync, rename.

    Args:
        path: The file.
        content: What is in it, or its parts one after the other, which need not fit into memory together.
        private: Whether only its owner may read it, where the system knows such a thing.

    Raises:
        InputError: If it cannot be written; nothing is left of the attempt.
    """
    if not path.name:  # such as "", which a path makes "."
        raise InputError(f"{path} is a folder, expected the name of a file that is to be written.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    WRITING.add(temporary)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb") as file:  # never through a link that somebody left there
            if private:
                os.chmod(temporary, 0o600)
            for part in [content] if isinstance(content, bytes) else content:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}); {_cure(path, error)}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        WRITING.discard(temporary)
    with contextlib.suppress(OSError):  # a system or a file system that cannot flush a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return path


def _cure(path: Path, error: OSError) -> str:
    if path.is_dir():
        return "move that folder away, then go on"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "make room for it, then go on"
    places = [place for place in path.parents if place.exists() and not place.is_dir()]
    if places:
        return f"{places[0]} is a file where a folder should be: move it away, then go on"
    return "make its folder writable, then go on"
