from __future__ import annotations

import ctypes
import functools
import os
import threading
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import ThreadpoolController, threadpool_limits

from expunge.core import InputError
from expunge.core.stopping import Pool, StoppedError, check_stopped
from expunge.ensembles import chunks
from expunge.ensembles.chunks import even, measure_chunk, one_thread_each, pick_device, run_chunks, split, worker_count

CPU = torch.device("cpu")
counts = st.integers(1, 400)


@given(counts, counts)
def test_split_covers_every_member_once_in_order(members, chunk):
    parts = split(members, chunk)
    assert [member for part in parts for member in part] == list(range(members))
    assert all(len(part) == chunk for part in parts[:-1])
    assert 1 <= len(parts[-1]) <= chunk


@given(counts, counts, st.integers(1, 16))
def test_even_gives_workers_equal_shares(members, chunk, workers):
    size = even(members, chunk, workers)
    assert 1 <= size <= chunk
    parts = split(members, size)
    loads = [sum(len(part) for part in parts[worker::workers]) for worker in range(workers)]
    # No worker has more than a fair share and one rounding of it.
    rounds = -(-len(parts) // workers)
    assert max(loads) <= rounds * size
    assert (
        rounds * size <= -(-members // workers) + rounds * (1 + size * (size < 2 * rounds)) or members < workers * size
    )


@given(st.integers(2, 200), st.integers(1, 50), st.integers(1, 8))
def test_even_never_needs_more_rounds_than_the_chunk_asked_for(members, chunk, workers):
    def rounds(size):
        return -(-len(split(members, size)) // workers)

    assert rounds(even(members, chunk, workers)) <= rounds(min(chunk, members))


def measured(monkeypatch, cost):
    """What is chosen where a step of `size` members takes cost(round, size), and the sizes that were tried."""
    tried = []

    def time_of(trial, size, device, workers):
        tried.append(size)
        return cost(tried.count(size), size)

    monkeypatch.setattr(chunks, "_time_of", time_of)
    return measure_chunk(lambda size: lambda: None, 100, CPU, 2, limit=10**6), tried


def test_the_fastest_chunk_a_member_is_found(monkeypatch):
    # Cheap up to 12 members, then steeply dearer: 12 has the least time a member.
    cost = {1: 0.004, 4: 0.006, 12: 0.008, 25: 0.040, 50: 0.120}
    assert measured(monkeypatch, lambda number, size: cost[size])[0] == even(100, 12, 2)


def test_sizes_beyond_one_that_is_clearly_slower_are_not_tried(monkeypatch):
    size, tried = measured(monkeypatch, lambda number, size: 0.002 * size if size > 12 else 0.004)
    assert size == even(100, 12, 2)
    assert max(tried) == 25
    assert tried.count(25) == 1


def test_a_round_in_which_another_program_had_the_core_does_not_decide(monkeypatch):
    slow = {(1, 50): 1.2, (2, 25): 9.0, (3, 12): 9.0}
    assert measured(monkeypatch, lambda number, size: size * slow.get((number, size), 1.0))[0] == 50


def test_of_sizes_that_are_as_good_the_largest_is_taken(monkeypatch):
    cost = {1: 1.5, 4: 1.2, 12: 1.0, 25: 1.04, 50: 1.1}
    assert measured(monkeypatch, lambda number, size: size * cost[size])[0] == 25


def test_steps_are_timed_by_the_processor_time_that_they_take():
    def trial(size):
        def step():
            time.sleep(0.01 if size == 50 else 0)  # as if another program had the core
            end = time.thread_time() + 1e-4 * size + 2e-4
            while time.thread_time() < end:
                pass

        return step

    assert measure_chunk(trial, 100, CPU, 2, limit=10**6) == 50


def test_a_chunk_never_exceeds_the_memory_limit_nor_a_workers_share(monkeypatch):
    monkeypatch.setattr(chunks, "TRIAL_SECONDS", 0.0)  # a step of nothing would be repeated 50,000 times
    tried = []

    def trial(size):
        tried.append(size)
        return lambda: None

    for members, workers, limit in ((100, 2, 10), (10, 2, 1000), (1, 2, 1000), (7, 1, 3)):
        tried.clear()
        size = measure_chunk(trial, members, CPU, workers, limit)
        assert size <= limit
        assert size <= -(-members // workers)
        assert all(one <= limit for one in tried)


def test_results_come_in_order_and_run_side_by_side():
    barrier = threading.Barrier(2, timeout=10)

    def work(part):
        barrier.wait()  # passes only if two run at once
        return list(part)

    assert run_chunks(work, split(8, 2), CPU, 2) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_kernels_use_one_thread_inside_and_the_setting_is_restored():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        seen = run_chunks(lambda part: torch.get_num_threads(), split(3, 1), CPU, 2)
        assert seen == [1, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_denormals_are_flushed_in_workers():
    def work(part):
        # A run-time product, so that no constant is folded: 1e-30 * 1e-10 is below the smallest normal float32.
        return float(torch.tensor([1e-30]).mul(torch.tensor([1e-10])))

    if not torch.set_flush_denormal(False):  # tells whether this machine can
        pytest.skip("this machine cannot flush denormals")
    assert run_chunks(work, split(2, 1), CPU, 2) == [0.0, 0.0]
    assert work(range(1)) != 0.0


def test_the_first_error_stops_the_rest():
    done = []

    def work(part):
        if part.start == 0:
            raise ZeroDivisionError
        time.sleep(0.02)
        done.append(part.start)

    with pytest.raises(ZeroDivisionError):
        run_chunks(work, split(100, 1), CPU, 2)
    assert len(done) < 20


@pytest.mark.parametrize("device", ["tpu", "gpu", "cuda:", "cuda:x", "mps", "", "CPU", torch.device("meta")])
def test_a_device_of_another_kind_is_refused(device):
    with pytest.raises(InputError, match="expected one of: auto, cpu, cuda, cuda:NUMBER"):
        pick_device(device)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:0", torch.device("cuda")):
        with pytest.raises(InputError, match="no CUDA device here; choose auto or cpu"):
            pick_device(device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InputError, match="'cuda:2', but there are 2 CUDA devices, expected cuda:0 to cuda:1"):
        pick_device("cuda:2")


def test_devices_and_workers():
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert worker_count(CPU, 3) == 3
    assert worker_count(CPU, 0) == 1
    assert worker_count(CPU) >= 1
    assert worker_count(torch.device("cuda"), 3) == 1
    assert tuple(sorted(chunks.CANDIDATES)) == chunks.CANDIDATES


def test_libraries_with_threads_of_their_own_use_one_inside_and_get_theirs_back():
    def threads():
        return [library["num_threads"] for library in ThreadpoolController().info() if library["user_api"] == "blas"]

    with threadpool_limits(limits=2, user_api="blas"):
        with chunks.one_thread_each():
            assert set(threads()) == {1}
            assert torch.get_num_threads() == 1
        assert set(threads()) == {2}


def test_work_within_work_ends_when_nobody_waits_for_it():
    """What shares work among threads may itself be work of a thread; an error outside reaches all of it."""
    begun, ended = threading.Event(), []

    def step_by_step(number):
        begun.set()
        try:
            while True:
                check_stopped()
                time.sleep(0.001)
        except StoppedError:
            ended.append(number)
            raise

    def outer():
        return run_chunks(step_by_step, [0, 1, 2], torch.device("cpu"), 3)

    def interrupted():
        with Pool(1) as pool:
            pool.submit(outer)
            begun.wait()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert ended
    check_stopped()  # this thread goes on
    with Pool(1) as pool:
        assert pool.submit(check_stopped).result() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_forked_process_wakes_autograd_before_its_threads_do():
    """A crash inside PyTorch, seen in one of 3,000 forks: two threads were the first to use autograd in the child."""
    with one_thread_each():
        pass
    inlet, outlet = os.pipe()
    child = os.fork()
    if child == 0:
        order: list[str] = []
        wake = chunks._wake_autograd.__wrapped__
        chunks._wake_autograd = functools.lru_cache(maxsize=1)(lambda process: [order.append("woken"), wake(process)])
        run_chunks(lambda part: order.append("thread"), [0, 1], torch.device("cpu"), 2)
        os.write(outlet, " ".join(order).encode())
        os._exit(0)
    os.close(outlet)
    assert os.read(inlet, 100) == b"woken thread thread"
    assert os.waitpid(child, 0)[1] == 0
    os.close(inlet)
    before = chunks._wake_autograd.cache_info().misses
    with one_thread_each():
        pass
    assert chunks._wake_autograd.cache_info().misses == before


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists() or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="only Linux says what a process has, and only its newer C library what was freed",
)
def test_freed_memory_is_given_back_when_chunks_are_done(monkeypatch):
    monkeypatch.setattr(chunks, "MUCH_FREED", 2**26)
    monkeypatch.setattr(chunks, "OFTEN", 0.0)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def work(part: int) -> torch.Tensor:
        many = [torch.ones(2**22) for _ in range(24)]  # 16 MB each
        kept = torch.ones(2**18)  # lies behind them, so that they are not at the end of what the process has
        del many
        return kept

    run_chunks(lambda part: None, [0], CPU, 1)
    before = resident()
    kept = run_chunks(work, [0, 1], CPU, 2)
    assert resident() - before < 2**28, "of 800 MB at most a third may be left"
    assert len(kept) == 2
