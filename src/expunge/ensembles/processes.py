"""Work side by side in processes, for code that is not ours: it holds the interpreter's lock, and global state.

On Linux the processes are forks of this one, so that functions typed at a prompt, lambdas and data in memory need no
pickling. Where forking is not safe (another system, CUDA in use) the work is done here, one item after another.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from threadpoolctl import threadpool_limits

from expunge.core import DamagedFileError, InputError
from expunge.core.children import die_with_parent
from expunge.ensembles.chunks import one_thread_each

if TYPE_CHECKING:  # only systems that can fork have it
    from multiprocessing.context import ForkProcess

T = TypeVar("T")

GRACE_SECONDS = 1.5
"""How long processes that are to end may take to keep what they have done."""


def may_fork() -> bool:
    """Return whether a fork of this process can compute."""
    return sys.platform.startswith("linux") and not torch.cuda.is_initialized()


def run_each(
    work: Callable[[int], T],
    items: Sequence[int],
    workers: int,
    finished: Callable[[int, T], None] | None = None,
    *,
    steps: bool = True,
    stops: bool = False,
) -> None:
    """Do `work(item)` for every item, with one thread for each kernel; the first error stops all and is raised.

    Args:
        work: Called in another process, or in this one; what it returns is pickled and should be small.
        items: What there is to do, in this order.
        workers: Processes at once; with 1, or where forking is not safe, the work is done in this process.
        finished: Called here with each item that is done and what its work returned.
        steps: Whether the work takes steps of PyTorch's optimisers.
        stops: Whether the work ends by itself soon after a `KeyboardInterrupt`, when it has kept what it has done;
            other work is ended at once.
    """
    done = finished or (lambda _item, _result: None)
    if min(workers, len(items)) < 2 or not may_fork():
        with one_thread_each(), threadpool_limits(1):
            for item in items:
                done(item, work(item))
        return
    if steps:
        # Optimisers import it at their first step, for seconds; every process would anew.
        importlib.import_module("torch._dynamo")
    with _processes(work, min(workers, len(items)), stops) as running:
        _deal(list(items), running, done)


def _deal(items: list[int], running: dict[Connection, ForkProcess], done: Callable[[int, Any], None]) -> None:
    """Give each process an item, and the next one when it is done with it."""
    at: dict[Connection, int] = {}
    items.reverse()
    for pipe in running:
        at[pipe] = items.pop()
        pipe.send(at[pipe])
    while at:
        for pipe in cast(list[Connection], wait(list(at))):
            item = at.pop(pipe)
            try:
                result, error = pipe.recv()
            except (EOFError, OSError):
                raise _died(item, running[pipe]) from None
            if error is not None:
                raise error
            done(item, result)
            if items:
                at[pipe] = items.pop()
                pipe.send(at[pipe])


@contextlib.contextmanager
def _processes(work: Callable[[int], Any], count: int, stops: bool) -> Iterator[dict[Connection, ForkProcess]]:
    """Start processes that wait for items, and end them whatever happens."""
    fork = multiprocessing.get_context("fork")
    running: dict[Connection, ForkProcess] = {}
    try:
        for _ in range(count):
            ours, theirs = fork.Pipe()
            process = fork.Process(target=_serve, args=(work, theirs, os.getpid(), [ours, *running], stops))
            with warnings.catch_warnings():
                # Other threads of this process wait, or draw progress; what they hold is not used in the fork.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            theirs.close()
            running[ours] = process
        yield running
    finally:
        try:
            for process in running.values():
                process.terminate()
            until = time.monotonic() + GRACE_SECONDS
            for process in running.values():
                process.join(max(0.0, until - time.monotonic()))
        finally:
            for pipe, process in running.items():
                process.kill()
                pipe.close()
            for process in running.values():
                process.join()


def _serve(
    work: Callable[[int], Any], pipe: Connection, parent: int, others: Sequence[Connection], stops: bool
) -> None:
    """Do what comes through the pipe, until it is closed."""
    signal.set_wakeup_fd(-1)  # which is the parent's
    for number in (signal.SIGINT, signal.SIGTERM):
        # Ctrl-C ends it at once, whatever it is in, or makes it stop.
        signal.signal(number, signal.default_int_handler if stops else signal.SIG_DFL)
    die_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    for other in others:
        other.close()
    torch.set_num_threads(1)
    # What many members print at once, progress bars above all, would cover ours.
    nowhere = open(os.devnull, "w")  # noqa: SIM115
    sys.stdout = sys.stderr = nowhere
    try:
        with threadpool_limits(1):
            while True:
                try:
                    item = pipe.recv()
                except EOFError:
                    os._exit(0)
                pipe.send(_answer(work, item))
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


def _answer(work: Callable[[int], Any], item: int) -> tuple[Any, Exception | None]:
    try:
        return work(item), None
    except (InputError, DamagedFileError) as error:
        return None, type(error)(str(error))
    except Exception as error:
        return None, RuntimeError("".join(traceback.format_exception(error)))


def _died(item: int, process: ForkProcess) -> BaseException:
    process.join(5)
    code = process.exitcode or 0
    if code == -signal.SIGINT:
        return KeyboardInterrupt()
    how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
    hint = "; was there too little memory? fewer workers need less" if code == -signal.SIGKILL else ""
    return InputError(f"the process that computed member {item} was ended by {how}{hint}.")
