"""How fast a stack of models trains, against training them one at a time; everything is measured in this run.

    python benchmarks/ensembles.py                 two tables: digits MLP and small CNN; a third where CUDA exists
    python benchmarks/ensembles.py --tasks own     a loop of one's own: in this process, and on two cores
    python benchmarks/ensembles.py --tasks one     models that run one at a time, beside the same loop
    python benchmarks/ensembles.py --tasks narrow full     ResNet-9 of width 8 and 16, and of full width
    python benchmarks/ensembles.py --tasks costs   what a member costs on 50,000 images of 32x32, for small networks
    python benchmarks/ensembles.py --out FILE      the numbers as JSON too

What is compared. `expunge.train` makes all members, choosing its chunk size first (that time counts). The loops train
one model after another with plain PyTorch (torch.optim.SGD, the same recipe): a few models are timed after a first one
that is not counted, and the time of one is multiplied by the number of members. "as PyTorch comes" is the loop with the
default number of threads; the best of one and two threads is shown as well, and with one thread a loop could run once
on each core: that bound is the row "one process a core".

On a machine that others use too, look at "processor time": it leaves out the time that a program waited for a core. The
loop of one thread is compared with all threads of `expunge.train`, so twice this ratio is what two cores give.

What the limit is. The matrix products of a step (forward, gradients of the weights, gradients of the inputs but for the
first layer) are timed alone with torch.bmm at the same shapes: in chunks on one thread each, as the trainer runs them,
and all members at once on all threads; and in chunks by the kernels that the trainer picks (`ensembles/products.py`).
What a step costs besides its products is shown layer by layer, measured while every core trains a chunk.

ResNet-9 is trained for some steps only: the chunk size is chosen before the clock starts, since in a real run that
time is nothing. Its loops hold the data in memory; one has images and weights in channels-last order. Narrow ones are
to be 2.5 times as fast as the plain loop, the full one 0.95 times as fast as the channels-last loop, a core.

A loop of one's own (`Task(fit=...)`) is the plain in-memory loop itself, called for each member. Its price over the
bare loop is that of the data set, the seeds and the store; the goals are at most 1.15 times, and 1.8 times on two
cores. Processor times of all processes are beside the seconds, for machines that others use too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from expunge import Recipe, Task, train
from expunge.ensembles import build_network
from expunge.ensembles.batches import gather
from expunge.ensembles.chunks import run_chunks, split, worker_count
from expunge.ensembles.initialise import initialise
from expunge.ensembles.network import LayerNetwork
from expunge.ensembles.products import affine, input_gradient, weight_gradient
from expunge.ensembles.train import fastest_chunk, new_descent
from expunge.tasks.models import mlp, resnet9, small_cnn


def digits_task() -> Task:
    """Digits: 1,437 training images of 8x8, an MLP 64-128-10, batch 64, 30 epochs."""
    x, y = load_digits(return_X_y=True)
    x = torch.tensor(x / 16, dtype=torch.float32)
    y = torch.tensor(y)
    recipe = Recipe(epochs=30, batch_size=64, lr=0.1)
    return Task(
        name="digits MLP 64-128-10",
        train=(x[:1437], y[:1437]),
        validation=(x[1437:], y[1437:]),
        model=lambda: mlp(64, (128,), 10),
        recipe=recipe,
    )


def image_task(model: Callable[[], nn.Module], name: str, n: int, shape: tuple[int, ...], recipe: Recipe) -> Task:
    """Random images: timing does not depend on what they show."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, *shape, generator=g), torch.randint(0, 10, (n,), generator=g)
    return Task(name=name, train=(x, y), validation=(x[:64] + 1, y[:64]), model=model, recipe=recipe, classes=10)


def train_one(task: Task, loader: bool, device: torch.device, amp: bool = False, last: bool = False) -> float:
    """Train one model by a plain loop, with channels last in memory if `last`, and return the seconds it took."""
    x, y, recipe = task.train.x.to(device), task.train.y.to(device), task.recipe
    order = torch.channels_last if last else torch.preserve_format
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    batches = DataLoader(TensorDataset(x, y), batch_size=recipe.batch_size, shuffle=True) if loader else None
    begin = time.perf_counter()
    module = task.model().to(device, memory_format=order).train()
    optimiser = torch.optim.SGD(
        module.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    steps = recipe.steps_per_epoch(len(x))
    for epoch in range(recipe.epochs):
        parts = batches if batches is not None else torch.randperm(len(x)).to(device).split(recipe.batch_size)
        for number, part in enumerate(parts):
            inputs, labels = part if batches is not None else (x[part], y[part])
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(epoch + (number + 0.5) / steps)
            optimiser.zero_grad()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
                loss = F.cross_entropy(module(inputs), labels)
            loss.backward()
            optimiser.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def seconds_a_model(task: Task, loader: bool, threads: int, models: int) -> float:
    """Return the median seconds of a few models trained one after another."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        train_one(task, loader, torch.device("cpu"))
        times = sorted(train_one(task, loader, torch.device("cpu")) for _ in range(models))
        return times[len(times) // 2]
    finally:
        torch.set_num_threads(before)


def products(task: Task) -> list[tuple[int, int, int, int]]:
    """Return the matrix products of one training step of one member: (rows, inner, columns, how many products)."""
    found: list[tuple[int, int, int]] = []

    def note(layer: nn.Module, _: Any, out: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            found.append((layer.out_features, layer.in_features, out.shape[0]))
        elif isinstance(layer, nn.Conv2d):
            inner = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
            found.append((layer.out_channels, inner, out.shape[0] * out.shape[2] * out.shape[3]))

    module = task.build(0)
    for layer in module.modules():
        layer.register_forward_hook(note)
    with torch.no_grad():
        module(task.train.x[: task.recipe.batch_size])
    return [(*shape, 2 if number == 0 else 3) for number, shape in enumerate(found)]


def flops(task: Task) -> float:
    """Return the floating-point operations of the matrix products of one step of one member."""
    return float(sum(2 * a * b * c * times for a, b, c, times in products(task)))


def bmm_seconds(shapes: list[tuple[int, int, int, int]], members: int, device: torch.device) -> float:
    """Return the seconds that torch.bmm takes for the products of one step of `members` members."""
    total = 0.0
    for rows, inner, columns, times in shapes:
        a = torch.randn(members, rows, inner, device=device)
        b = torch.randn(members, inner, columns, device=device)
        # The three products of a layer, each with its own shape: outputs, gradients of weights, gradients of inputs.
        c = torch.randn(members, rows, columns, device=device)
        kinds = [(a, b), (c, b.transpose(1, 2)), (a.transpose(1, 2), c)][:times]
        for one, other in kinds:
            best = float("inf")
            for _ in range(6):
                begin = time.perf_counter()
                torch.bmm(one, other)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                best = min(best, time.perf_counter() - begin)
            total += best
    return total


def own_seconds(shapes: list[tuple[int, int, int, int]], members: int) -> float:
    """Return the seconds that the trainer's own choice of kernels takes for the products of one step."""
    total = 0.0
    for outputs, inputs, n, times in shapes:
        weight, x, g = (torch.randn(members, *shape) for shape in ((outputs, inputs), (inputs, n), (outputs, n)))
        y, dw, dx = torch.empty_like(g), torch.empty_like(weight), torch.empty_like(x)
        calls: list[Callable[[], object]] = [
            partial(affine, weight, None, x, y),
            partial(weight_gradient, g, x, dw),
            partial(input_gradient, weight, g, dx),
        ]
        for call in calls[:times]:
            best = float("inf")
            for _ in range(6):
                begin = time.perf_counter()
                call()
                best = min(best, time.perf_counter() - begin)
            total += best
    return total


def layer_times(task: Task, chunk: int, workers: int, steps: int = 40) -> dict[str, float]:
    """Return the median microseconds a member that each part of a step takes while every worker trains a chunk."""
    network = build_network(task)

    def work(_part: range) -> dict[str, list[float]]:
        params, buffers = initialise(task, list(range(chunk)))
        descent = new_descent(network, params, buffers, task.recipe)
        spent: dict[str, list[float]] = {}

        def clocked(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any, **kwargs: Any) -> Any:
                begin = time.perf_counter()
                try:
                    return call(*args, **kwargs)
                finally:
                    spent.setdefault(name, []).append(time.perf_counter() - begin)

            return run

        for number, layer in enumerate(descent.written.layers if descent.written else []):
            for way in ("forward", "backward"):
                setattr(layer, way, clocked(f"{number} {type(layer).__name__} {way}", getattr(layer, way)))
        descent.optimizer.step = clocked("optimiser", descent.optimizer.step)  # type: ignore[method-assign]
        index = torch.stack([torch.randperm(len(task.train))[: task.recipe.batch_size] for _ in range(chunk)])
        pick = clocked("batch", lambda: (gather(task.train.x, index), gather(task.train.y, index)))
        whole = clocked("whole step", lambda: descent.step(*pick(), 0.0))
        for _ in range(steps):
            whole()
        return spent

    parts = run_chunks(work, [range(1)] * workers, torch.device("cpu"), workers)
    names = parts[0]
    return {name: 1e6 * statistics.median([t for part in parts for t in part[name]]) / chunk for name in names}


def peak_memory(which: str, members: int) -> tuple[float, float]:
    """Return the peak memory in MiB of a fresh process that only trains, and of one that only builds the task."""
    out = []
    for count in (members, 0):
        command = [sys.executable, __file__, "--only", which, "--members", str(count)]
        out.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]))
    return out[0], out[1]


def compare(which: str, task: Task, members: int, models: int, repeat: int) -> dict[str, Any]:
    """Measure one task on the CPU."""
    cpu = torch.device("cpu")
    workers = worker_count(cpu)
    default = torch.get_num_threads()
    runs, busy = [], []
    for _ in range(repeat):
        begin, used = time.perf_counter(), time.process_time()
        ensemble = train(task, members=members, device="cpu")
        runs.append(time.perf_counter() - begin)
        busy.append(time.process_time() - used)
    chunk = int(ensemble.provenance["chunk"])
    loops = {
        f"{kind}, {threads} threads": members * seconds_a_model(task, kind == "DataLoader", threads, models)
        for kind in ("DataLoader", "in memory")
        for threads in sorted({1, 2, default})
    }
    torch.set_num_threads(1)
    busy_loop = []
    for _ in range(models):
        used = time.process_time()
        train_one(task, False, cpu)
        busy_loop.append((time.process_time() - used) * members)
    torch.set_num_threads(default)
    steps = task.recipe.steps_per_epoch(len(task.train)) * task.recipe.epochs * members
    work = flops(task)
    shapes = products(task)
    parts = split(members, chunk)
    alone = run_chunks(lambda part: bmm_seconds(shapes, len(part), cpu), parts[:workers], cpu, workers)
    chunked = sum(len(part) for part in parts[:workers]) * work / max(alone)
    own = run_chunks(lambda part: own_seconds(shapes, len(part)), parts[:workers], cpu, workers)
    together = members * work / bmm_seconds(shapes, members, cpu)
    seconds = min(runs)
    peak, base = peak_memory(which, members)
    by_kind = {
        kind: {
            "as PyTorch comes": loops[f"{kind}, {default} threads"],
            "best of threads": min(value for name, value in loops.items() if name.startswith(kind)),
            "one process a core (bound)": loops[f"{kind}, 1 threads"] / workers,
        }
        for kind in ("DataLoader", "in memory")
    }
    return {
        "task": task.name,
        "members": members,
        "chunk": chunk,
        "workers": workers,
        "default_threads": default,
        "seconds": seconds,
        "all_runs": runs,
        "cpu_seconds": min(busy),
        "cpu_seconds_in_memory_one_thread": min(busy_loop),
        "loops": loops,
        "loops_by_kind": by_kind,
        "ratios": {kind: {name: value / seconds for name, value in rows.items()} for kind, rows in by_kind.items()},
        "ms_a_member_step": 1e3 * seconds * workers / steps,
        "gflops": work * steps / seconds / 1e9,
        "bmm_gflops_in_chunks": chunked / 1e9,
        "own_products_gflops": sum(len(part) for part in parts[:workers]) * work / max(own) / 1e9,
        "bmm_gflops_together": together / 1e9,
        "layer_us": layer_times(task, chunk, workers),
        "share_of_bmm": work * steps / seconds / max(chunked, together),
        "peak_mib": peak,
        "peak_mib_before_training": base,
        "accuracy": float(ensemble.accuracy(task.validation.x, task.validation.y).mean()),
    }


def compare_cuda(members: int) -> list[dict[str, Any]]:
    """Measure ResNet-9 on 32x32 images on a CUDA device, stacked and one at a time, in float32 and bfloat16."""
    device = torch.device("cuda")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    rows = []
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        recipe = Recipe(epochs=2, batch_size=512, lr=0.1, peak_epoch=1.0, precision=precision)  # type: ignore[arg-type]
        task = image_task(resnet9, "ResNet-9 on 32x32", 10240, (3, 32, 32), recipe)
        train_one(task, False, device, precision == "bfloat16")
        one = train_one(task, False, device, precision == "bfloat16")
        train(task, members=members, epochs=1, device="cuda")
        torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        ensemble = train(task, members=members, device="cuda")
        torch.cuda.synchronize()
        stacked = (time.perf_counter() - begin) / members
        work = flops(task) * recipe.steps_per_epoch(len(task.train)) * recipe.epochs
        side = 8192
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        best = float("inf")
        for _ in range(10):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            torch.mm(a, b)
            torch.cuda.synchronize()
            best = min(best, time.perf_counter() - begin)
        rate = 2 * side**3 / best
        rows.append(
            {
                "task": task.name,
                "precision": precision,
                "device": torch.cuda.get_device_name(),
                "chunk": ensemble.provenance["chunk"],
                "seconds_a_model_stacked": stacked,
                "seconds_a_model_alone": one,
                "ratio": one / stacked,
                "tflops_stacked": work / stacked / 1e12,
                "tflops_alone": work / one / 1e12,
                "tflops_of_a_large_product": rate / 1e12,
                "share_of_matrix_rate": work / stacked / rate,
                "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
            }
        )
    return rows


NARROW = [(8, 64), (8, 128), (16, 64), (16, 128)]
"""Widths and batch sizes."""

STEPS = 6
"""Steps for which ResNet-9 is trained."""


def residual_task(width: int, batch: int) -> Task:
    """ResNet-9 on random 32x32 images."""
    recipe = Recipe(epochs=1, batch_size=batch, lr=0.05, peak_epoch=0.5)
    name = f"ResNet-9 of width {width} on 32x32, batch {batch}"
    return image_task(partial(resnet9, width=width), name, STEPS * batch, (3, 32, 32), recipe)


def tasks() -> dict[str, Callable[[], Task]]:
    """The tasks that are measured on the CPU."""
    recipe = Recipe(epochs=5, batch_size=64, lr=0.05, peak_epoch=1.0)
    return {
        "mlp": digits_task,
        "cnn": partial(image_task, lambda: small_cnn(28), "small CNN on 28x28", 2048, (1, 28, 28), recipe),
        **{f"resnet9-{w}-{b}": partial(residual_task, w, b) for w, b in [*NARROW, (64, 64)]},
    }


def compare_residual(which: str, members: int, repeat: int, one_thread: bool) -> dict[str, Any]:
    """Time ResNet-9 beside loops that train one at a time: seconds and processor seconds, of one member."""
    task, cpu, workers = tasks()[which](), torch.device("cpu"), worker_count(torch.device("cpu"))
    begin = time.perf_counter()
    chunk = fastest_chunk(task, members, cpu)
    choosing = time.perf_counter() - begin

    def timed(work: Callable[[], object], models: int) -> tuple[float, float]:
        found = []
        for _ in range(repeat):
            begin, used = time.perf_counter(), time.process_time()
            work()
            found.append(((time.perf_counter() - begin) / models, (time.process_time() - used) / models))
        return min(one for one, _ in found), min(one for _, one in found)

    # The first steps of a process import and plan.
    train(task, members=1, device="cpu", chunk=1)
    stacked = timed(lambda: train(task, members=members, device="cpu", chunk=chunk), members)
    loops: dict[str, tuple[float, float]] = {}
    default = torch.get_num_threads()
    for threads in [1] if one_thread else sorted({1, workers}):
        torch.set_num_threads(threads)
        loops[f"plain, {threads} threads"] = timed(lambda: train_one(task, False, cpu), 1)
        loops[f"channels last, {threads} threads"] = timed(lambda: train_one(task, False, cpu, last=True), 1)
    torch.set_num_threads(default)
    plain = min(seconds for name, (seconds, _) in loops.items() if name.startswith("plain"))
    written = isinstance(task.network, LayerNetwork) and task.network.by_hand is not None
    peak, base = peak_memory(which, members)
    return {
        "task": task.name,
        "members, chunk, at once": (members, chunk, workers),
        "seconds of choosing the chunk": choosing,
        "form": f"{task.network.kind}, {'written out' if written else 'by autograd'}",
        "expunge.train, s a member, and of a processor": stacked,
        **{f"loop, {name}": times for name, times in loops.items()},
        "times as fast as the best plain loop": plain / stacked[0],
        "the same of one thread, by processor time, x cores": workers * loops["plain, 1 threads"][1] / stacked[1],
        "a core, to the channels-last loop of one thread": loops["channels last, 1 threads"][1] / stacked[1],
        "GFLOP/s of a core in products": STEPS * flops(task) / stacked[1] / 1e9,
        "peak memory, and before training, MiB": (peak, base),
    }


def bare_loop(module: nn.Module, x: Tensor, y: Tensor) -> None:
    """Train a model in memory, in 30 epochs of batches of 64."""
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for _ in range(30):
        for part in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            F.cross_entropy(module(x[part]), y[part]).backward()
            optimiser.step()


class Recurrent(nn.Module):
    """A GRU that reads an image of 8x8 line by line."""

    def __init__(self) -> None:
        super().__init__()
        self.reader, self.head = nn.GRU(8, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.head(self.reader(x.view(-1, 8, 8))[0][:, -1])


class Transformer(nn.Module):
    """Two transformer layers with dropout, on the lines of an image of 8x8."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.enter, self.body, self.head = nn.Linear(8, 32), nn.TransformerEncoder(layer, 2), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.head(self.body(self.enter(x.view(-1, 8, 8))).mean(1))


def compare_own(members: int) -> dict[str, Any]:
    """Time a loop of one's own."""
    task = digits_task().with_fit(lambda module, data, _seed: bare_loop(module, data.x, data.y))
    return beside_a_loop(task, members, lambda n: bare_loop(task.build(n).train(), task.train.x, task.train.y))


def compare_one(model: type[nn.Module], members: int) -> dict[str, Any]:
    """Time models that run one at a time."""
    digits = digits_task()
    pairs = {part: (getattr(digits, part).x, getattr(digits, part).y) for part in ("train", "validation")}
    recipe = Recipe(epochs=6, batch_size=64, lr=0.1)
    task = Task(name=f"digits, {model.__name__}", model=model, recipe=recipe, **pairs)
    assert task.network.kind == "one"
    return beside_a_loop(task, members, lambda _: train_one(task, False, torch.device("cpu")))


def beside_a_loop(task: Task, members: int, loop: Callable[[int], object]) -> dict[str, Any]:
    """Time a bare loop, `expunge.train` in this process, and `expunge.train` on two cores; the best of two."""
    torch.set_num_threads(1)

    def bare() -> None:
        for member in range(members):
            loop(member)

    def timed(work: Callable[[], object]) -> tuple[float, float]:
        begin, before = time.perf_counter(), sum(os.times()[:4])
        work()
        return time.perf_counter() - begin, sum(os.times()[:4]) - before

    train(task, members=1, workers=1)  # PyTorch's optimisers import much at their first step
    one, two, alone = (
        min(timed(work) for _ in range(2))
        for work in (
            lambda: train(task, members=members, workers=1, device="cpu"),
            lambda: train(task, members=members, workers=2, device="cpu"),
            bare,
        )
    )
    return {
        "task": task.name,
        "members": members,
        "bare loop, one core, s (and of a processor)": alone,
        "expunge.train, one core": one,
        "times the bare loop": tuple(mine / its for mine, its in zip(one, alone, strict=True)),
        "two cores": two,
        "times as fast as one; processor time": (one[0] / two[0], two[1] / one[1]),
    }


def show(row: dict[str, Any]) -> None:
    print(f"\n{row['task']}: {row['members']} members, chunks of {row['chunk']}, {row['workers']} at once")
    runs = ", ".join(f"{seconds:.2f}" for seconds in row["all_runs"])
    print(f"  {'expunge.train':<52} {row['seconds']:8.2f} s   (all runs: {runs})")
    for kind, rows in row["loops_by_kind"].items():
        for name, seconds in rows.items():
            print(f"  {f'one at a time, {kind}, {name}':<52} {seconds:8.1f} s   {row['ratios'][kind][name]:6.1f} x")
    each, other = row["cpu_seconds"], row["cpu_seconds_in_memory_one_thread"]
    print(f"  {'processor time, in memory, one thread':<52} {other:8.1f} s   {other / each:6.1f} x  ({each:.1f} s)")
    print(f"  {'a step of one member, on one core':<52} {row['ms_a_member_step'] * 1e3:8.1f} us")
    print(f"  {'matrix products achieved':<52} {row['gflops']:8.1f} GFLOP/s")
    print(f"  {'torch.bmm, same shapes, in chunks':<52} {row['bmm_gflops_in_chunks']:8.1f} GFLOP/s")
    print(f"  {'the kernels the trainer picks, in chunks':<52} {row['own_products_gflops']:8.1f} GFLOP/s")
    print(f"  {'torch.bmm, same shapes, all members at once':<52} {row['bmm_gflops_together']:8.1f} GFLOP/s")
    print(f"  {'share of the better':<52} {row['share_of_bmm']:8.0%}")
    bound = row["seconds"] * row["gflops"] / row["own_products_gflops"]
    print(f"  {'if these products were all there is':<52} {bound:8.2f} s")
    for name, spent in row["layer_us"].items():
        print(f"      {name:<48} {spent:8.1f} us a member")
    print(f"  {'peak memory (before training)':<52} {row['peak_mib']:8.0f} MiB ({row['peak_mib_before_training']:.0f})")


def costs(batch: int, members: int = 4, steps: int = 3) -> dict[str, float]:
    """Return seconds of a core for a member and an epoch of 50,000 colour images of 32x32, from the fastest step."""
    cnn = {
        f"small_cnn(32, 3, widths={widths}, norm={norm!r})": partial(small_cnn, 32, 3, widths=widths, norm=norm)
        for widths in ((16, 32), (32, 64))
        for norm in (None, "batch")
    }
    found = {}
    for name, model in {**cnn, **{f"resnet9(width={w})": partial(resnet9, width=w) for w in (8, 16)}}.items():
        task = image_task(model, name, batch, (3, 32, 32), Recipe(epochs=1, batch_size=batch, lr=0.05))

        def work(_part: range, task: Task = task) -> float:
            descent = new_descent(task.network, *initialise(task, list(range(members))), task.recipe)
            index, times = torch.arange(batch).expand(members, batch), []
            for _ in range(1 + steps):
                begin = time.thread_time()
                descent.step(gather(task.train.x, index), gather(task.train.y, index), 0.01)
                times.append(time.thread_time() - begin)
            return min(times[1:]) / members * 50_000 / batch

        (found[name],) = run_chunks(work, [range(1)], torch.device("cpu"), 1)
    return found


def shown(value: object) -> str:
    """Return numbers with three digits."""
    if isinstance(value, tuple):
        return "   ".join(shown(one) for one in value)
    if isinstance(value, float):
        return f"{value:.3g}" if value < 100 else f"{value:.0f}"
    return str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--models", type=int, default=3, help="models timed one at a time (default 3)")
    parser.add_argument("--repeat", type=int, default=2, help="runs of expunge.train; the best counts (default 2)")
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=["mlp", "cnn", "one"],
        choices=["mlp", "cnn", "one", "own", "narrow", "full", "costs", "cuda"],
    )
    parser.add_argument(
        "--one-thread",
        action="store_true",
        help="ResNet-9: no loops of several threads, which wait for one another where other programs run",
    )
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    parser.add_argument("--only", choices=list(tasks()), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:  # a fresh process, for the peak memory
        task = tasks()[options.only]()
        if options.members:
            train(task, members=options.members, device="cpu")
        # Not getrusage: its maximum is handed on from the process that started this one.
        (peak,) = [row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM")]
        print(int(peak.split()[1]) / 1024)
        return
    results: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "load_before": os.getloadavg()[0],
    }
    print(f"{results['cores']} cores, torch {torch.__version__}, load {results['load_before']:.1f} before the run")
    for which in options.tasks:
        if which in ("own", "one"):
            few = min(options.members, 24)
            kinds = [Recurrent, Transformer]
            results[which] = [compare_own(few)] if which == "own" else [compare_one(kind, few) for kind in kinds]
            for row in results[which]:
                print("\n" + "\n".join(f"  {key:<45} {value}" for key, value in row.items()))
        elif which == "costs":
            for batch in (128, 512):
                results[f"costs, batch {batch}"] = found = costs(batch)
                print(f"\nbatch {batch}: seconds of a core for a member and 50,000 images")
                print("\n".join(f"  {name:<52} {seconds:8.1f}" for name, seconds in found.items()), flush=True)
        elif which in ("narrow", "full"):
            results[which] = []
            for width, batch in NARROW if which == "narrow" else [(64, 64)]:
                row = compare_residual(
                    f"resnet9-{width}-{batch}", min(options.members, 8), options.repeat, options.one_thread
                )
                results[which].append(row)
                print("\n" + "\n".join(f"  {key:<52} {shown(value)}" for key, value in row.items()), flush=True)
        elif which != "cuda":
            results[which] = compare(which, tasks()[which](), options.members, options.models, options.repeat)
            show(results[which])
    if torch.cuda.is_available():
        results["cuda"] = compare_cuda(16)
        for row in results["cuda"]:
            print("\n" + "\n".join(f"  {key:<28} {value}" for key, value in row.items()))
    elif "cuda" in options.tasks:
        print("\nno CUDA device here: the third table was not made")
    if options.out:
        options.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
