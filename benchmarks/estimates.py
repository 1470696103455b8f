"""What a dry run says beside what it then takes.

    OMP_NUM_THREADS=1 python benchmarks/estimates.py --readings digits       readings, followed from smaller ones
    OMP_NUM_THREADS=1 python benchmarks/estimates.py digits tabular          a forecast and an audit of 20 members
    OMP_NUM_THREADS=1 python benchmarks/estimates.py --members 100 digits    of 100 members

Processor seconds of readings, wall-clock seconds of studies. On a machine that does other things as well the second say
little. A forecast's share is what it takes in units of training 100 models.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

import expunge as ex
from expunge.studies.audit import estimate_audit
from expunge.studies.audit.reading_costs import reading_cost
from expunge.studies.forecast import estimate_forecast
from expunge.studies.run.measure import Parts


def readings(name):
    """Compare readings that are followed from a few with readings as they are."""
    task = ex.tasks.load_task(name)
    models = ex.train(task, members=20)
    for rows, members in ((70, 1000), (700, 800), (10_000, 20), (10_000, 100)):
        forget = ex.tasks.random_forget_set(task, min(rows, len(task.train) // 2))
        parts = Parts.of(task, forget, 0)
        labels = {split: values.y.numpy() for split, values in parts.splits.items()}
        measured = parts.measure(models)
        if rows > len(forget):  # a data set has fewer: the same ones again
            again = torch.arange(rows) % len(forget)
            measured = {
                name: values[:, again] if name.endswith("/forget") and values.ndim > 1 else values
                for name, values in measured.items()
            }
            labels["forget"] = labels["forget"][again.numpy()]
        told, found = (reading_cost(measured, labels, members, as_it_is=whole).reading for whole in (False, True))
        off = f"{told:.2f} s told, {found:.2f} s found ({told / found - 1:+.0%})"
        print(f"{name}: {rows} forget rows, {members} members: {off}", flush=True)


def studies(name, members, out):
    """Compare what a forecast and an audit take with what their dry runs say."""
    task = ex.tasks.load_task(name)
    asked = {"forget": ["random:40"], "members": members, "seed": 1}
    told = estimate_forecast(task, **asked, out=out / "f")
    begin = time.perf_counter()
    ex.forecast(task, **asked, out=out / "f")
    report(f"{name}: forecast", told, time.perf_counter() - begin)
    told = estimate_audit(task, **asked, out=out / "a")
    begin = time.perf_counter()
    ex.audit(task, **asked, out=out / "a")
    report(f"{name}: audit", told, time.perf_counter() - begin)


def report(what, told, found):
    said = sum(told.seconds.values())
    parts = ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in told.seconds.items() if seconds)
    print(f"{what}: {said:.1f} s told ({parts}), {found:.1f} s found ({said / found - 1:+.0%})", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--readings", action="store_true")
    parser.add_argument("--members", type=int, default=20)
    given = parser.parse_args()
    for task_name in given.tasks:
        if given.readings:
            readings(task_name)
        else:
            with tempfile.TemporaryDirectory() as folder:
                studies(task_name, given.members, Path(folder))
