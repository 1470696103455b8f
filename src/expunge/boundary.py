"""The boundary of the command line: whatever happens inside ends soon, in one line and an exit code.

    2               something that a person can correct; the line says what
    70              a fault of expunge; the line says what happened, a number by which to report it, and which file
                    holds the traceback
    130, 143, 129   Ctrl-C, SIGTERM, SIGHUP: what is done is kept, and the line says how to go on

With EXPUNGE_TRACEBACK=1 the traceback is printed above the line.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import multiprocessing
import os
import platform
import re
import shlex
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from expunge.core.errors import DamagedFileError, DivergedError, InputError
from expunge.core.files import WRITING
from expunge.version import __version__

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What ends a command in order. SIGQUIT is left to the system, for what hangs."""

GRACE_SECONDS = 2.0
"""How long it may take to end: after the step that runs, to write what is done."""

CORRECTABLE, FAULT = 2, 70
"""Exit codes."""

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_NAME = {errno.ENAMETOOLONG, errno.ELOOP}
NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}

LONGEST_LINE = 2000
"""Characters of what is said at the end."""

PACKAGE = Path(__file__).parent

if TYPE_CHECKING:
    from rich.console import Console


class EndedError(BaseException):
    """A signal asks to end; raised in the main thread, and caught by nobody but the boundary."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints names as they are: not as markup, not as emoji."""
    from rich.console import Console  # which a command that says nothing need not wait for

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def guarded(work: Callable[[], object], *, resumable: bool) -> None:
    """Do the work of a command; end the process with one line if it does not end by itself.

    Args:
        work: The command.
        resumable: Whether it takes `--resume`, so that a line may name it.
    """
    with _signals(resumable):
        try:
            work()
        except (EndedError, KeyboardInterrupt) as error:
            _end(error.number if isinstance(error, EndedError) else signal.SIGINT, resumable)
        except (InputError, DamagedFileError, DivergedError) as error:
            _say(f"error: {error}", error)
            sys.exit(CORRECTABLE)
        except Exception as error:
            _fail(error, resumable)
        finally:
            _flush()


@contextlib.contextmanager
def _signals(resumable: bool) -> Iterator[None]:
    """Raise `EndedError` here when a signal comes, and end the process for good if that takes too long.

    A handler runs when the main thread comes back from what it computes, and what it raises can get lost on the way. So
    another thread watches a pipe, into which the system writes each signal at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over, (reader, writer) = threading.Event(), os.pipe()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, _frame: object) -> None:
        for each in SIGNALS:
            signal.signal(each, lambda again, _: _end(again, resumable))  # a second one does not wait
        raise EndedError(number)

    def watch() -> None:
        number = next(iter(os.read(reader, 1)), 0)
        if number and not over.wait(GRACE_SECONDS):
            _end(number, resumable)

    with contextlib.suppress(OSError, ValueError, AttributeError):  # a system without this
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    for number, earlier in before.items():
        if earlier is not None and earlier is not signal.SIG_IGN:  # such as nohup asks for
            signal.signal(number, handle)
    _ACTIVE.append(os.getpid())
    try:
        yield
    finally:
        over.set()
        _ACTIVE.pop()
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(-1)
        for number, earlier in before.items():
            if earlier is not None:  # else not set by Python, and not changed here
                signal.signal(number, earlier)
        os.close(writer)


_ACTIVE: list[int] = []
"""Processes whose signals are handled here: this one or none."""


def _forked() -> None:
    """Give a fork of this process the system's handlers: signals that reach it are no reason to end this one."""
    if _ACTIVE:
        _ACTIVE.clear()
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _end(number: int, resumable: bool) -> NoReturn:
    """End now: whatever is finished was kept, and no file is ever half written."""
    for child in multiprocessing.active_children():
        child.kill()
    for path in tuple(WRITING):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    _flush()
    hint = "; add --resume to go on where it was" if resumable else ""
    with contextlib.suppress(OSError):  # the terminal may be gone
        cursor = "\x1b[?25h" if os.isatty(2) else ""  # the progress bar hides it
        os.write(2, f"{cursor}\nstopped{hint}\n".encode())
    os._exit(128 + number)


def _fail(error: Exception, resumable: bool) -> NoReturn:
    """Say in one line what nobody caught, and exit."""
    go_on = ", then add --resume" if resumable else ""
    if _of_memory(error) or "can't allocate memory" in str(error):
        _say(
            f"error: there is too little memory; take fewer members, or a smaller chunk where there is one{go_on}.",
            error,
        )
        sys.exit(CORRECTABLE)
    if isinstance(error, OSError) and error.errno in NO_ROOM | NOT_WRITABLE:
        where = f"{error.filename}: " if error.filename else ""
        cure = "make room" if error.errno in NO_ROOM else "make it accessible"
        _say(f"error: {where}{error.strerror}; {cure}{go_on}.", error)
        sys.exit(CORRECTABLE)
    if isinstance(error, OSError) and error.errno in NO_NAME:
        _say(f"error: {error.filename}: {error.strerror}; choose another name.", error)
        sys.exit(CORRECTABLE)
    number = fault_number(error)
    said = " ".join(str(error).split())
    what = type(error).__name__ + (f": {said[:300]}" if said else "")
    kept = _write_fault(error, number)
    there = f"the traceback is in {kept}" if kept else "run it again with EXPUNGE_TRACEBACK=1 for the traceback"
    _say(f"error: {what}. This is a fault of expunge; report it as {number}: {there}.", error)
    sys.exit(FAULT)


def _of_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")  # where it is not loaded, it raises nothing
    return isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError))


def fault_number(error: BaseException) -> str:
    """Return a short number for where in expunge an error arose, the same on every machine."""
    digest = hashlib.sha256(f"{__version__} {type(error).__qualname__}".encode())
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename).is_relative_to(PACKAGE):
            place = Path(frame.filename).relative_to(PACKAGE).as_posix()
            digest.update(f"{place}:{frame.lineno}:{frame.name}\n".encode())
    return digest.hexdigest()[:8]


def _write_fault(error: BaseException, number: str) -> Path | None:
    """Write the traceback into the folder of the run, or a temporary one, and return the file."""
    lines = [
        f"expunge {__version__}, torch {metadata.version('torch')}, Python {platform.python_version()}, "
        f"{platform.platform()}",
        shlex.join(["expunge", *sys.argv[1:]]),
        "".join(traceback.format_exception(error)),
    ]
    for folder in filter(None, (vars(error).get("run_folder"), Path(tempfile.gettempdir()))):
        with contextlib.suppress(OSError):
            path = Path(folder) / f"fault-{number}.txt"
            path.unlink(missing_ok=True)  # nothing is written through a link that somebody left there
            path.write_text("\n".join(lines), encoding="utf-8", errors="backslashreplace")
            return path
    return None


def _say(line: str, error: BaseException) -> None:
    with contextlib.suppress(OSError):
        if os.environ.get("EXPUNGE_TRACEBACK", "") not in ("", "0"):
            traceback.print_exception(error)
        console(stderr=True).print(_short(line), soft_wrap=True)


def _short(line: str) -> str:
    """Return a line that can be read: of a word, or a line, that goes on and on, beginning and end are left.

    >>> _short("x" * 100_000 + " is no path") == "x" * 200 + " [...] " + "x" * 100 + " is no path"
    True
    """
    line = re.sub(r"(\S{200})\S{200,}(\S{100})", r"\1 [...] \2", line)
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]} [...] {line[-LONGEST_LINE // 2 :]}"


def _flush() -> None:
    """Write what was printed; where nobody reads it any longer, that is no error."""
    stream: Any
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
