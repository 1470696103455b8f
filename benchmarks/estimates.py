"""What a dry run says beside what it then takes.

    OMP_NUM_THREADS=1 python benchmarks/estimates.py --readings digits       readings, followed from smaller ones
    OMP_NUM_THREADS=1 python benchmarks/estimates.py --forecasts digits      a forecast, from the trial of its parts
    OMP_NUM_THREADS=1 python benchmarks/estimates.py digits tabular          a forecast and an audit of 20 members
    OMP_NUM_THREADS=1 python benchmarks/estimates.py --members 100 digits    of 100 members

Processor seconds of readings and forecasts, wall-clock seconds of studies: on a machine that does other things as well
these say little.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

import expunge as ex
from expunge.ensembles.chunks import worker_count
from expunge.studies.audit import estimate_audit
from expunge.studies.audit.reading_costs import reading_cost
from expunge.studies.forecast import estimate_forecast
from expunge.studies.run.forecast_costs import forecast_cost
from expunge.studies.run.grid import plan_runs
from expunge.studies.run.measure import Parts
from expunge.studies.run.prediction import FOLLOWED, Subject, forecast
from expunge.studies.run.trying import try_training


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


def forecasts(name, members):
    """Compare what the trial of its parts says of a forecast with the forecast."""
    task, device = ex.tasks.load_task(name), torch.device("cpu")
    forget = ex.tasks.random_forget_set(task, 40)
    runs = plan_runs(task, None, predicted=True)
    followed = min(FOLLOWED, members)
    trial = try_training(task, members, device, None, 0)
    begin = time.process_time()
    told = forecast_cost(task, forget, runs, trial, members=members, followed=followed, seed=0)
    tried = time.process_time() - begin
    begin = time.process_time()
    models = ex.train(task, members=members)
    training = time.process_time() - begin
    begin = time.process_time()
    forecast(Subject.of(task, models, followed=followed), forget, runs, tolerance=0.125)
    found = time.process_time() - begin
    seconds = (told.once + told.each) * worker_count(device)
    off = f"{seconds:.1f} s told, {found:.1f} s found ({seconds / found - 1:+.0%})"
    share = found / training * members / 100
    print(f"{name}: {off}; {share:.1f} trainings of 100 members; the trial takes {tried:.1f} s", flush=True)


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
    parser.add_argument("--forecasts", action="store_true")
    parser.add_argument("--members", type=int, default=20)
    given = parser.parse_args()
    for task_name in given.tasks:
        if given.readings:
            readings(task_name)
        elif given.forecasts:
            forecasts(task_name, given.members)
        else:
            with tempfile.TemporaryDirectory() as folder:
                studies(task_name, given.members, Path(folder))
