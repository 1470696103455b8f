"""Time and peak memory of the margin metrics on 100 + 100 members and 60,000 examples, and of repeated readings.

    OMP_NUM_THREADS=2 python benchmarks/metrics.py [--examples 60000]

Each row runs in a process of its own; memory is the peak of that process, the arrays themselves (96 MB of float32)
included. Time is the best of two calls. A new metric is a new line in ROWS.
"""

import argparse
import resource
import subprocess
import sys
import time

import numpy as np

ROWS = {
    "klom expunge": "metrics.klom(u, o)",
    "klom easydub": "metrics.klom(u, o, 'easydub')",
    "klom dub": "metrics.klom(u, o, 'dub')",
    "klom a2d": "metrics.klom(u, o, 'a2d')",
    "klom trail": "metrics.klom(u, o, 'trail')",
    "failed_members": "metrics.failed_members(u, o)",
    "ruler p95, interval, floor": "metrics.Ruler(o, h, replicates=100).score(u)",
}


def one(call, members, examples):
    from expunge import metrics

    rng = np.random.default_rng(0)
    u, o, h = (rng.normal(size=(members, examples)).astype(np.float32) for _ in range(3))
    scope = {"metrics": metrics, "u": u, "o": o, "h": h, "np": np}
    times = []
    for _ in range(2):
        start = time.perf_counter()
        eval(call, scope)
        times.append(time.perf_counter() - start)
    print(f"{min(times):9.2f} s {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:8.2f} GiB")


def repeated(members, examples, replicates):
    """Seconds a reading when the ruler is prepared, as in an audit."""
    from expunge.metrics import Ruler

    rng = np.random.default_rng(0)
    ruler = Ruler(rng.normal(size=(members, examples)), rng.normal(size=(members, examples)), replicates=replicates)
    unlearned = [rng.normal(size=(members, examples)) for _ in range(6)]
    ruler.score(unlearned[0])
    for intervals in (True, False):
        times = []
        for margins in unlearned[1:]:
            start = time.perf_counter()
            ruler.score(margins, intervals=intervals)
            times.append(time.perf_counter() - start)
        what = f"with interval ({replicates} replicates)" if intervals else "without interval"
        print(f"ruler.score, {members} + {members} x {examples}, {what:32} {1e3 * min(times):7.1f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--examples", type=int, default=60_000)
    parser.add_argument("--row", help="run one row in this process")
    options = parser.parse_args()
    if options.row:
        one(ROWS[options.row], options.members, options.examples)
        return
    print(f"{options.members} + {options.members} members, {options.examples} examples, float32 in")
    for name in ROWS:
        command = [sys.executable, __file__, "--row", name, "--members", str(options.members)]
        out = subprocess.run(
            [*command, "--examples", str(options.examples)], capture_output=True, text=True, check=True
        )
        print(f"{name:28} {out.stdout.strip()}")
    repeated(options.members, 1800, 100)
    repeated(options.members, 1800, 200)


if __name__ == "__main__":
    main()
