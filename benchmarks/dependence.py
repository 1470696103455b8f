"""What the spectral norm of the retain <- forget cross-influence costs, without forming the block and by forming it.

    python benchmarks/dependence.py             2,000 training x 50 forget examples, every way measured
    python benchmarks/dependence.py --large     50,000 x 500: the ways whose memory is bounded; forming it is estimated
    python benchmarks/dependence.py --digits    all measures of four forget sets of 70 on digits, and what they cost;
                                                predictions against projections and against retraining

Images of MNIST's size (784 numbers, 10 classes: Gaussian clouds, since what they show does not matter), an MLP
784-128-10 (101,770 parameters), one member, one thread. Every way runs in a process of its own; memory is the highest
resident size above that with data and model alone (read from /proc, Linux).

    explicit       one solve a forget example and all gradients of R side by side (n x P numbers), then the block
    matrix-free    CrossInfluence.spectral_norm: solves, forward and reverse products; nothing of size n x |F|
    projection     Projection(dims=2048): one pass over the data, two 2048 x 2048 matrices; curvature through the margin
    kernel         Kernel: exact, n x n matrices (small sizes only); curvature through the margin

The first two share their curvature (Gauss-Newton of the cross-entropy), and so do the last two; compare norms in pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge import Recipe, Task, train
from expunge.core import Ensemble, ForgetSet
from expunge.dependence import (
    MEASURES,
    Kernel,
    Linearised,
    blocks,
    damped,
    default_damping,
    largest_singular_value,
    measure_dependence,
    measure_kernel,
)
from expunge.dependence.inputs import complement
from expunge.dependence.linearised import margin_cotangent
from expunge.ensembles.example_gradients import gradient_batches
from expunge.papers.ascent_fails_to_forget.dependence import CrossInfluence, Projection, conjugate_gradients
from expunge.tasks import class_part, cluster, digits, mislabelled, random_forget_set
from expunge.tasks.models import mlp

DAMPING = 20.0
TOLERANCE = 1e-2
DIMS = 2048
WAYS = ("explicit", "matrix-free", "projection", "kernel")


def problem(n: int, forget: int) -> tuple[Task, Ensemble, Tensor]:
    """Return clouds of n images, one briefly trained member, and the forget set."""
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(10, 784, generator=g)
    y = torch.randint(0, 10, (n,), generator=g)
    x = 0.2 * centres[y] + 0.5 * torch.randn(n, 784, generator=g)
    recipe = Recipe(epochs=max(1, 20_000 // n), batch_size=100, lr=0.02, schedule="constant")
    task = Task(name="clouds", train=(x, y), validation=(x[:100] + 1, y[:100]), model=lambda: mlp(784), recipe=recipe)
    return task, train(task, members=1, seed=0, chunk=1), torch.randperm(n, generator=g)[:forget].sort().values


def explicit(task: Task, ensemble: Ensemble, index: Tensor, columns: int) -> float:
    """Form the block from `columns` of the forget examples, and return its spectral norm."""
    x, y, rest = task.train.x, task.train.y, complement(index, len(task.train))
    linearised = Linearised(ensemble)
    operator = damped(linearised, x, ridge(task))
    solved = []
    for position in index[:columns]:
        own = linearised.gradient(x[position : position + 1], y[position : position + 1])
        found = conjugate_gradients(operator, own, iterations=100, tolerance=TOLERANCE)
        solved.append(linearised.flatten(found.x)[0])
    batches = gradient_batches(ensemble, 0, x[rest], y[rest], margin_cotangent)
    gradients = torch.cat([torch.cat([part.flatten(1) for part in batch.values()], 1) for batch in batches])
    return largest_singular_value(gradients @ torch.stack(solved).T)


def matrix_free(task: Task, ensemble: Ensemble, index: Tensor) -> float:
    """Return the spectral norm by products."""
    x, y, rest = task.train.x, task.train.y, complement(index, len(task.train))
    rows, columns = (x[rest], y[rest]), (x[index], y[index])
    operator = CrossInfluence(Linearised(ensemble), x, ridge(task), rows, columns, iterations=100, tolerance=TOLERANCE)
    return float(operator.spectral_norm(steps=8, change=TOLERANCE).norm[0])


def ridge(task: Task) -> float:
    """Return weight decay and damping together."""
    return task.recipe.weight_decay * len(task.train) + DAMPING


def work(way: str, n: int, forget: int, columns: int) -> dict[str, Any]:
    """Run one way in this process and return norm, seconds and peak memory in MiB."""
    torch.set_num_threads(1)
    task, ensemble, index = problem(n, forget)
    before = peak_memory(reset=True)
    begin, wall = time.process_time(), time.perf_counter()
    norm = float("nan")
    if way == "explicit":
        norm = explicit(task, ensemble, index, columns)
    elif way == "matrix-free":
        norm = matrix_free(task, ensemble, index)
    elif way == "projection":
        norm = Projection(ensemble, task, dims=DIMS, damping=DAMPING).forget(index)[0].spectral_retain
    elif way == "kernel":
        kernel = Kernel(ensemble, (task.train.x, task.train.y), decay=task.recipe.weight_decay, damping=DAMPING)
        norm = largest_singular_value(blocks(kernel.members[0], index).retain)
    cpu, seconds = time.process_time() - begin, time.perf_counter() - wall
    return {
        "way": way,
        "norm": norm,
        "cpu": cpu,
        "wall": seconds,
        "memory": peak_memory() - before,
    }


def peak_memory(reset: bool = False) -> float:
    """Return the highest resident size of this process in MiB, after setting it back to the present one if asked."""
    if reset:
        # Linux only: without it, what making the data took would hide what follows.
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return float(line.split()[1]) / 1024


def in_a_process(way: str, n: int, forget: int, columns: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--only", way, "--size", str(n), str(forget), str(columns)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def show(rows: list[dict[str, Any]], baseline: dict[str, Any]) -> None:
    print(f"{'way':<14}{'norm':>9}{'CPU s':>9}{'MiB':>9}{'time ratio':>12}{'memory ratio':>14}")
    for row in rows:
        time_ratio = baseline["cpu"] / row["cpu"]
        memory_ratio = baseline["memory"] / max(row["memory"], 1.0)
        print(
            f"{row['way']:<14}{row['norm']:>9.4g}{row['cpu']:>9.1f}{row['memory']:>9.0f}{time_ratio:>11.1f}x"
            f"{memory_ratio:>13.1f}x"
        )


def small(n: int = 2000, forget: int = 50) -> None:
    print(f"\n{n:,} training x {forget} forget examples, MLP 784-128-10, 1 member, 1 thread")
    rows = [in_a_process(way, n, forget, forget) for way in WAYS]
    show(rows, rows[0])


def large(n: int = 50_000, forget: int = 500) -> None:
    print(f"\n{n:,} training x {forget} forget examples, MLP 784-128-10, 1 member, 1 thread")
    rows = [in_a_process(way, n, forget, 0) for way in ("matrix-free", "projection")]
    few, none = (in_a_process("columns", n, forget, columns) for columns in (3, 0))
    estimate = {
        "way": "(explicit)",
        "norm": float("nan"),
        "cpu": (few["cpu"] - none["cpu"]) / 3 * forget,
        "memory": 4 * (n - forget) * 101_770 / 2**20,
    }
    show([*rows, estimate], estimate)
    print("(explicit): not run; three of the solves, times |F| / 3, and 4 bytes x |R| x parameters of gradients.")


def columns_only(n: int, forget: int, columns: int) -> dict[str, Any]:
    """Time a few columns of the explicit way: its solves, without the gradients of R."""
    torch.set_num_threads(1)
    task, ensemble, index = problem(n, forget)
    linearised = Linearised(ensemble)
    operator = damped(linearised, task.train.x, ridge(task))
    begin = time.process_time()
    for position in index[:columns]:
        own = linearised.gradient(task.train.x[position : position + 1], task.train.y[position : position + 1])
        conjugate_gradients(operator, own, iterations=100, tolerance=TOLERANCE)
    return {"way": "columns", "cpu": time.process_time() - begin}


def on_digits(members: int = 20) -> None:
    torch.set_num_threads(1)
    task = digits()
    ensemble = train(task, members=members, seed=0)
    begin = time.process_time()
    kernel = measure_kernel(ensemble, task, members=members)
    print(f"\ndigits, MLP 64-128-10 (9,610 parameters), 1,437 training examples, {members} members, 1 thread")
    print(f"kernels of all members, once an ensemble: {time.process_time() - begin:.1f} CPU s")
    cases = [
        (task, ensemble, kernel, forget)
        for forget in (random_forget_set(task, 70), cluster(task, 70), class_part(task, 70))
    ]
    wrong, forget = mislabelled(task, 70)
    trained = train(wrong, members=members, seed=0)
    cases.append((wrong, trained, measure_kernel(trained, wrong, members=members), forget))
    found = {}
    for own, stack, its_kernel, forget in cases:
        begin = time.process_time()
        found[forget.name] = measure_dependence(stack, own, forget, kernel=its_kernel).values
        print(f"{forget.name:<24} {len(found[forget.name])} measures: {time.process_time() - begin:.1f} CPU s")
    print("\nmeasures, means over members\n" + " " * 26 + "".join(f"{name[:14]:>16}" for name in found))
    for name, measure in MEASURES.items():
        print(f"{name:<26}" + "".join(f"{values[name]:>16.4g}" for values in found.values()) + f"  {measure.harder}")
    against_projection(task, ensemble, kernel)
    for case in cases:
        against_retraining(*case)


def against_projection(task: Task, ensemble: Ensemble, kernel: Kernel) -> None:
    """Print how close projected influence is to exact influence, and what it costs."""
    index = torch.from_numpy(cluster(task, 70).indices)
    exact = torch.stack([member.removal(index)[index] for member in kernel])
    norms = torch.tensor([largest_singular_value(blocks(member, index).retain) for member in kernel])
    print("\nprojection against exact, cluster-70: shift of forget margins, spectral norm (mean over members)")
    for dims in (256, 512, 1024, 2048):
        begin = time.process_time()
        sets = Projection(ensemble, task, dims=dims, damping=default_damping(task)).forget(index)
        shift = torch.stack([own.shift_forget for own in sets])
        ratio = torch.tensor([own.spectral_retain for own in sets]) / norms
        correlation = float(torch.corrcoef(torch.stack([shift.flatten(), exact.flatten()]))[0, 1])
        print(
            f"dims {dims:>5}: shift ratio {float(shift.mean() / exact.mean()):.3f}, correlation {correlation:.4f}, "
            f"norm ratio {float(ratio.mean()):.3f}, {time.process_time() - begin:.1f} CPU s"
        )


def against_retraining(task: Task, ensemble: Ensemble, kernel: Kernel, forget: ForgetSet) -> None:
    """Print how well predicted changes of margins (means over members) match those of retraining."""
    members, n = len(ensemble), len(task.train)
    oracles = train(task, without=forget, members=members, seed=1).margins(kernel.x, kernel.y).double().mean(0)
    # Other pretrained members with the oracles' seed: their difference to the oracles is the removal, without the seeds
    # of the members that the prediction was made from.
    others = train(task, members=members, seed=1).margins(kernel.x, kernel.y).double().mean(0)
    true = oracles - others
    rows = {
        "F": torch.from_numpy(forget.indices),
        "R": torch.from_numpy(forget.retain),
        "V": torch.arange(n, len(true)),
    }
    print(f"\n{forget.name}: change of margins, predicted from the pretrained members against retraining")
    for damping in (0.0, default_damping(task)):
        own = kernel if damping else Kernel(ensemble, task, damping=0.0)
        for order in ("first", "newton"):
            mean = own.removal(forget, order=order).mean(0)
            parts = []
            for name, index in rows.items():
                p, t = mean[index], true[index]
                correlation = float(torch.corrcoef(torch.stack([p, t]))[0, 1])
                parts.append(f"{name} {float(p.mean()):+.2f} / {float(t.mean()):+.2f}, r {correlation:.2f}")
            print(f"  damping {damping:>4.1f} {order:<7}" + " | ".join(parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="50,000 x 500")
    parser.add_argument("--digits", action="store_true", help="the cost of all measures on digits")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--size", nargs=3, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        run = columns_only(*options.size) if options.only == "columns" else work(options.only, *options.size)
        print(json.dumps(run))
        return
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    if options.digits:
        on_digits()
    elif options.large:
        large()
    else:
        small()


if __name__ == "__main__":
    main()
