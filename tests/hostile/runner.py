"""Runs hostile cases in forked children with a limit on time and memory, and says how each ended.

right       it returned what it should
clear       it refused, in words that say what to change
poor        it refused in words that do not, or in too many
refused     it refused what it should have taken
wrong       it returned something else, or took what it should have refused
traceback   an error of another library came out
hang, memory, crash
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from expunge.core import DamagedFileError, DivergedError, InputError

Expect = Literal["taken", "refused", "either"]
OUTCOMES = ("right", "clear", "poor", "refused", "wrong", "traceback", "hang", "memory", "crash")
BAD = OUTCOMES[2:]

NAMED = (InputError, DamagedFileError, DivergedError)
ADVICE = re.compile(
    r"expected|choose|give|write|leave|save|restore|train|run |make|remove|delete|install|pick|rename|get it again|"
    r"move|change|should be|add |no such command",
    re.IGNORECASE,
)
LONGEST = 700
"""Characters of a message that somebody still reads."""
SECONDS = 30.0
MEMORY = 3 * 2**30
"""Bytes that a case may take beyond what was there."""
BATCH = 40
"""Cases a child runs one after the other; they change nothing that another would see."""


@dataclass(frozen=True)
class Case:
    """Something given to a door, and what must become of it."""

    door: str
    given: str
    call: Callable[[], Any]
    """Gives it; what comes back is handed to `sound`."""
    expect: Expect = "either"
    sound: Callable[[Any], bool] = lambda result: True
    """Whether what came back is right."""
    shell: bool = False
    """Whether it is a command: it ends by SystemExit, and its words are what it printed."""
    codes: tuple[int, ...] = (0,)
    """Exit codes of a command that are an answer, such as 1 where a bundle differs."""


@dataclass(frozen=True)
class Ending:
    """How a case ended."""

    door: str
    given: str
    outcome: str
    text: str = ""


def run(cases: Sequence[Case], progress: Callable[[list[Ending]], None] = lambda found: None) -> list[Ending]:
    """Run cases in children and return their endings, in order; `progress` sees all so far, after every child."""
    found: list[Ending] = []
    while len(found) < len(cases):
        first = cases[len(found)]
        several = [case for case in cases[len(found) : len(found) + BATCH] if not case.shell]
        found += _child([first] if first.shell else several)
        progress(found)
    return found


def _child(cases: Sequence[Case]) -> list[Ending]:
    """Run cases until one ends the child; at least one ending comes back."""
    inlet, outlet = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(inlet)
        with contextlib.suppress(BaseException):
            _limit()
            for case in cases:
                os.write(outlet, json.dumps(_ended(case)).encode() + b"\n")
        os._exit(0)
    os.close(outlet)
    endings, said, last = [], b"", time.monotonic()
    try:
        while True:
            ready, _, _ = select.select([inlet], [], [], 0.5)
            if ready:
                piece = os.read(inlet, 2**16)
                if not piece:
                    break
                said, last = said + piece, time.monotonic()
            elif time.monotonic() - last > SECONDS:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                child = 0
                break
    finally:
        os.close(inlet)
    lines = said.split(b"\n")[:-1]
    for case, line in zip(cases, lines, strict=False):
        outcome, text = json.loads(line)
        endings.append(Ending(case.door, case.given, outcome, text))
    status = os.waitpid(child, 0)[1] if child else -1
    if len(lines) < len(cases):
        lost = cases[len(lines)]
        endings.append(Ending(lost.door, lost.given, "crash" if child else "hang", f"wait status {status}"))
    return endings


def _limit() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    warnings.simplefilter("ignore")


def _ended(case: Case) -> tuple[str, str]:
    with tempfile.TemporaryFile() as file, _redirected(file):
        try:
            result = case.call()
            code: Any = None
        except SystemExit as error:
            result, code = None, error.code
            if not case.shell:
                return "traceback", f"SystemExit({error.code})"
        except MemoryError as error:
            return "memory", str(error)[:300]
        except NAMED as error:
            return _worded(case, str(error))
        except BaseException as error:
            if "memory" in str(error).lower():
                return "memory", str(error)[:300]
            own = [f for f in traceback.extract_tb(error.__traceback__) if "/expunge/" in f.filename]
            where = f"{own[-1].filename.rpartition('/expunge/')[2]}:{own[-1].lineno}" if own else ""
            return "traceback", f"{type(error).__name__} {where} {str(error)[:200]}"
        if case.shell:
            for stream in filter(None, (sys.stdout, sys.stderr)):  # a task file may have taken one away
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            file.seek(0)
            printed = file.read().decode(errors="replace")
            if "Traceback (most recent call last)" in printed or "This is a fault of expunge" in printed:
                return "traceback", printed[-400:]
            if code not in (None, *case.codes):
                lines = [line for line in printed.splitlines() if line.strip(" ╭╮╰╯─")]
                tail = next((n for n, line in enumerate(lines) if line.startswith(("error", "Error"))), -3)
                return _worded(case, "\n".join(lines[tail:]))
            result = printed
        try:
            good = case.expect != "refused" and case.sound(result)
        except Exception as error:
            return "wrong", f"{type(error).__name__}: {error} on {result!r}"[:300]
        return ("right", "") if good else ("wrong", repr(result)[:300])


def _worded(case: Case, text: str) -> tuple[str, str]:
    if case.expect == "taken":
        return "refused", text[:400]
    poor = len(text) > LONGEST or text.count("\n") > 4 or not ADVICE.search(text)
    return ("poor" if poor else "clear"), text[:400]


@contextlib.contextmanager
def _redirected(file: Any) -> Iterator[None]:
    """Send what is printed, by whatever means, into a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept, streams = [os.dup(1), os.dup(2)], (sys.stdout, sys.stderr)
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    sys.stdout = io.TextIOWrapper(os.fdopen(os.dup(1), "wb"), encoding="utf-8", errors="backslashreplace")
    sys.stderr = sys.stdout
    try:
        yield
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        sys.stdout, sys.stderr = streams
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)
