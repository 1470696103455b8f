"""Time and peak memory of every metric on 100 + 100 members.

    python benchmarks/metrics_more.py [--examples 60000] [--classes 10]

Each metric runs in a process of its own, so that the peak is its own. The arrays are float32; logits alone take
100 + 100 members x examples x classes x 4 bytes.
"""

import argparse
import multiprocessing
import resource
import time

import numpy as np


def margins(examples, shift=0.5):
    rng = np.random.default_rng(0)
    return tuple(rng.normal(d, 1, (100, examples)).astype(np.float32) for d in (shift, 0.0))


def logits(examples, classes):
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal((100, examples, classes), dtype=np.float32) for _ in range(2))


def run(name, examples, classes):
    import expunge.metrics as m
    from expunge.metrics.distances import DISTANCES

    if name in DISTANCES:
        u, o = margins(examples)
        return lambda: DISTANCES[name](u, o)
    if name in ("classifier_two_sample", "mmd", "ulira"):
        u, o = margins(examples)
        return lambda: getattr(m, name)(u, o)
    if name == "population_attack":
        u, o = margins(examples)
        half = examples // 2
        return lambda: m.population_attack(u[:, :half], u[:, half:], o[:, :half], o[:, half:])
    if name == "lira":
        u, o = margins(examples)
        inside = np.arange(100)[:, None] % 2 == np.zeros((1, examples))
        return lambda: m.lira(u, o, inside)
    u, o = logits(examples, classes)
    labels = np.zeros(examples, dtype=int)
    if name == "accuracy":
        return lambda: m.accuracy(u, labels)
    if name == "zrf_reading":
        teacher = np.zeros((examples, classes))
        return lambda: m.zrf_reading(u, o, teacher)
    return lambda: getattr(m, name)(u, o)


def measure(name, examples, classes, queue):
    work = run(name, examples, classes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    queue.put((seconds, before / 2**20, peak / 2**20))


NAMES = [
    "wasserstein",
    "energy",
    "kolmogorov_smirnov",
    "jensen_shannon",
    "gaussian_kl",
    "classifier_two_sample",
    "mmd",
    "ulira",
    "population_attack",
    "lira",
    "accuracy",
    "activation_distance_reading",
    "fade_reading",
    "zrf_reading",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=60_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("names", nargs="*", default=NAMES)
    options = parser.parse_args()
    print(f"{'metric':30} seconds   GiB before   GiB peak   ({options.examples} examples, {options.classes} classes)")
    for name in options.names or NAMES:
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        process = context.Process(target=measure, args=(name, options.examples, options.classes, queue))
        process.start()
        process.join()
        if process.exitcode:
            print(f"{name:30} failed with exit code {process.exitcode}")
            continue
        seconds, before, peak = queue.get()
        print(f"{name:30} {seconds:7.1f}   {before:10.2f}   {peak:8.2f}", flush=True)


if __name__ == "__main__":
    main()
