"""Where members are computed: chunks that fit the cache, side by side on the cores, or one after another on a GPU.

On the CPU every chunk runs its kernels on one thread, and as many chunks run at once as there are cores. That is faster
than sharing each small kernel among the cores, and it makes the arithmetic independent of the number of cores.

The caller's thread only waits, so that Ctrl-C reaches it at any moment. The threads that work look between two steps
whether they were stopped, and then write what they have.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController

from expunge.core import InputError
from expunge.core.stopping import Pool, check_stopped

P = TypeVar("P")
T = TypeVar("T")

CANDIDATES = (1, 4, 12, 25, 50, 100)
"""Chunk sizes that are tried on the CPU."""

TRIAL_SECONDS = 0.02
"""Least time that a chunk size is tried for: long enough for all workers to be at it together."""

ROUNDS = 3
"""How often every chunk size is tried."""

HOPELESS, ALIKE = 1.25, 1.05
"""How many times the least cost of a member make a chunk size hopeless, and are still as good."""

USUAL = 25
"""Members of a chunk where their number makes no difference."""


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device to use: `auto` is CUDA where there is one, else the CPU.

    Raises:
        InputError: If it is not `auto`, `cpu`, `cuda` or `cuda:NUMBER`, or there is no such device here.
    """
    name = str(device)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", name):
        raise InputError(f"device = {name!r}, expected one of: auto, cpu, cuda, cuda:NUMBER.")
    if name != "cpu":
        _check_cuda(name)
    return torch.device(name)


def _check_cuda(name: str) -> None:
    if not torch.cuda.is_available():
        raise InputError(
            f"device = {name!r}, but PyTorch finds no CUDA device here; choose auto or cpu, or install a driver and a "
            "PyTorch with CUDA."
        )
    count = torch.cuda.device_count()
    if ":" in name and int(name.partition(":")[2]) >= count:
        raise InputError(f"device = {name!r}, but there are {count} CUDA devices, expected cuda:0 to cuda:{count - 1}.")


def worker_count(device: torch.device, workers: int | None = None) -> int:
    """Return how many chunks run at once: the usable cores on the CPU, 1 on a GPU."""
    if device.type != "cpu":
        return 1
    if workers is not None:
        return max(1, workers)
    with contextlib.suppress(AttributeError):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def split(members: int, chunk: int) -> list[range]:
    """Return consecutive ranges of `chunk` members; the last may be smaller.

    >>> split(10, 4)
    [range(0, 4), range(4, 8), range(8, 10)]
    """
    return [range(start, min(start + chunk, members)) for start in range(0, members, chunk)]


def even(members: int, chunk: int, workers: int) -> int:
    """Return the chunk size, at most `chunk`, that gives every worker about equally many members.

    >>> even(100, 32, 2)
    25
    """
    parts = -(-members // chunk)
    parts = min(members, -(-parts // workers) * workers)
    return -(-members // parts)


def run_chunks(work: Callable[[P], T], chunks: Sequence[P], device: torch.device, workers: int) -> list[T]:
    """Return `work(chunk)` for every chunk, in order; the first error or interrupt stops the rest and is raised."""
    cpu = device.type == "cpu"

    def one(chunk: P) -> T:
        check_stopped()
        return work(chunk)

    with (
        one_thread_each() if cpu else contextlib.nullcontext(),
        Pool(min(workers, len(chunks)) if cpu else 1, prepare_thread if cpu else None) as pool,
    ):
        return [future.result() for future in [pool.submit(one, chunk) for chunk in chunks]]


def measure_chunk(
    trial: Callable[[int], Callable[[], None]], members: int, device: torch.device, workers: int, limit: int
) -> int:
    """Return the chunk size with the least time a member, found by running a few steps of each.

    Args:
        trial: From a chunk size to a function that takes one step with that many members.
        members: How many members there are.
        device: Where they run.
        workers: How many chunks run at once.
        limit: Largest chunk that memory allows.
    """
    largest = max(1, min(limit, -(-members // workers)))
    sizes = [size for size in CANDIDATES if size < largest] + [largest]
    if device.type != "cpu":
        sizes = sorted({largest, max(1, largest // 2), max(1, largest // 4)})
    if len(sizes) == 1:
        return even(members, sizes[0], workers)
    # Several rounds, since another program may have slowed one down: what counts is the least of each size.
    costs = dict.fromkeys(sizes, float("inf"))
    for _ in range(ROUNDS if device.type == "cpu" else 1):
        for size in list(costs):
            costs[size] = min(costs[size], _time_of(trial, size, device, workers) / size)
            best = min(costs, key=lambda one: costs[one])
            if size > best and costs[size] > HOPELESS * costs[best] and device.type == "cpu":
                # Past the cache it only gets slower, and trying the largest sizes would cost most.
                costs = {one: cost for one, cost in costs.items() if one < size}
                break
    # Of sizes that are as good the largest: it calls the interpreter least, for whose lock workers wait.
    best = max(size for size, cost in costs.items() if cost <= ALIKE * min(costs.values()))
    return even(members, best, workers)


def _time_of(trial: Callable[[int], Callable[[], None]], size: int, device: torch.device, workers: int) -> float:
    # On a CPU the processor time of the thread, which other programs lengthen little.
    clock = time.thread_time if device.type == "cpu" else time.perf_counter

    def timed(_part: range) -> float:
        step = trial(size)
        step()
        _wait(device)
        times: list[float] = []
        while len(times) < 5 or sum(times) < TRIAL_SECONDS:
            check_stopped()
            begin = clock()
            step()
            _wait(device)
            times.append(clock() - begin)
        return statistics.median(times)

    return max(run_chunks(timed, [range(1)] * workers, device, workers))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Let kernels called inside use one thread, NumPy's and SciPy's too, and restore their numbers afterwards.

    Workers that each call a library with threads of its own keep every core busy with waiting.
    """
    before = torch.get_num_threads()
    _keep_freed_memory()
    _wake_autograd(os.getpid())
    try:
        torch.set_num_threads(1)
        with _libraries().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
        give_back_memory()


@functools.cache
def _libraries() -> ThreadpoolController:
    """Return the loaded libraries that have threads of their own; looking for them takes milliseconds."""
    return ThreadpoolController()


@functools.lru_cache(maxsize=1)
def _wake_autograd(process: int) -> None:
    """Use autograd once in a process, before several of its threads do.

    PyTorch makes its engine anew in a forked process, at the first use and without a lock: where two threads come to it
    at the same time it is destroyed twice, and the process dies (one in some thousands of the hostile cases).

    Args:
        process: The number of this process.
    """
    with torch.inference_mode(False), torch.enable_grad():
        one = torch.ones((), requires_grad=True)
        one.mul(one)  # what is kept for the way back asks for the engine


def prepare_thread() -> None:
    """Let the kernels of this thread use one core, and treat denormals as 0."""
    torch.set_num_threads(1)
    # A run that saturates produces denormals, which are up to ten times slower than ordinary numbers on a CPU.
    torch.set_flush_denormal(True)


@functools.cache
def _keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks: returning each activation to the system costs a page fault at every step."""
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mmap_threshold, trim_threshold = -3, -1
        mallopt(mmap_threshold, 2**30)
        mallopt(trim_threshold, 2**31 - 1)


MUCH_FREED, OFTEN = 2**31, 5.0
"""Bytes of freed memory that are given back when chunks are done; seconds between two looks for them."""


class _Allocated(ctypes.Structure):
    """What glibc's `mallinfo2` says; the ninth number is the bytes that were freed and are kept."""

    _fields_ = [(f"_{place}", ctypes.c_size_t) for place in range(8)] + [
        ("freed", ctypes.c_size_t),
        ("_9", ctypes.c_size_t),
    ]


_looked = 0.0


def give_back_memory() -> None:
    """Give memory that was freed, and that `_keep_freed_memory` keeps, back to the system where it is much."""
    global _looked
    if not sys.platform.startswith("linux") or time.monotonic() - _looked < OFTEN:
        return
    _looked = time.monotonic()
    with contextlib.suppress(OSError, AttributeError):  # an older or another C library
        libc = ctypes.CDLL(None)
        libc.mallinfo2.restype = _Allocated
        if libc.mallinfo2().freed > MUCH_FREED:
            libc.malloc_trim(0)
