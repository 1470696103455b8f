"""Time and peak memory of every metric on 100 + 100 members, 60,000 examples and 10 classes, and of repeated readings.

    OMP_NUM_THREADS=2 python benchmarks/metrics.py [--examples 60000] [--only fade zrf]

Each row runs in a process of its own; memory is the peak of that process, the arrays themselves included (96 MB of
float32 margins, or 480 MB of logits). `seconds` is the time of one call, `CPU` what the process spent on it, which is
what to look at on a machine that others use as well. A new metric is a new line in ROWS. The challenge score, whose
scan takes tens of milliseconds an example, is timed on 300 forget examples.
"""

import argparse
import resource
import subprocess
import sys
import time

import numpy as np

MARGINS = {
    "klom expunge": "m.klom(u, o)",
    "klom easydub": "m.klom(u, o, 'easydub')",
    "klom dub": "m.klom(u, o, 'dub')",
    "klom a2d": "m.klom(u, o, 'a2d')",
    "klom trail": "m.klom(u, o, 'trail')",
    "klom own-ranges": "m.klom(u, o, 'own-ranges')",
    "failed_members": "m.failed_members(u, o)",
    "ruler p95, interval, floor": "m.Ruler(o, h, replicates=100).score(u)",
    "wasserstein": "m.wasserstein(u, o)",
    "energy": "m.energy(u, o)",
    "kolmogorov_smirnov": "m.kolmogorov_smirnov(u, o)",
    "jensen_shannon": "m.jensen_shannon(u, o)",
    "gaussian_kl": "m.gaussian_kl(u, o)",
    "classifier_two_sample": "m.classifier_two_sample(u, o)",
    "mmd": "m.mmd(u, o)",
    "ulira": "m.ulira(u, o)",
    "population_attack": "m.population_attack(u[:, half:], u[:, :half], o[:, half:], o[:, :half])",
    "lira": "m.lira(u, o, inside)",
    "audit_epsilon": "m.audit_epsilon(u.mean(1), o.mean(1), Split())",
    "challenge_score, 300": "m.challenge_score(u[:, :300], o[:, :300])",
}
LOGITS = {
    "accuracy_gap": "m.accuracy_gap(u, o, labels)",
    "activation_distance": "m.activation_distance_reading(u, o)",
    "fade": "m.fade_reading(u, o)",
    "zrf": "m.zrf_reading(u, o, np.zeros((u.shape[1], u.shape[2])))",
    "svc_attack": "m.svc_attack(*(tuple(np.split(x, 3, 1)) for x in (u, o)), tuple(np.split(labels, 3)))",
}
ROWS = {**MARGINS, **LOGITS}


def one(name, members, examples, classes):
    """Time one row in this process."""
    from expunge import metrics as m
    from expunge.metrics.privacy import Split

    rng = np.random.default_rng(0)
    shape = (members, examples, classes) if name in LOGITS else (members, examples)
    u, o = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    scope = {"m": m, "np": np, "u": u, "o": o, "half": examples // 2, "Split": Split}
    if name in LOGITS:
        scope["labels"] = np.arange(examples) % classes
    else:
        scope["h"] = rng.standard_normal(shape, dtype=np.float32)
        scope["inside"] = np.arange(members)[:, None] % 2 == np.zeros((1, examples))
    start, spent = time.perf_counter(), time.process_time()
    eval(ROWS[name], scope)
    seconds, cpu = time.perf_counter() - start, time.process_time() - spent
    print(f"{seconds:8.1f} {cpu:8.1f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:8.2f}")


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
            start = time.process_time()
            ruler.score(margins, intervals=intervals)
            times.append(time.process_time() - start)
        what = f"with interval ({replicates} replicates)" if intervals else "without interval"
        print(f"ruler.score, {members} + {members} x {examples}, {what:32} {1e3 * min(times):7.1f} ms CPU")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--examples", type=int, default=60_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--row", help="run one row in this process")
    options = parser.parse_args()
    if options.row:
        one(options.row, options.members, options.examples, options.classes)
        return
    print(f"{options.members} + {options.members} members, {options.examples} examples, {options.classes} classes")
    print(f"{'':28}  seconds      CPU      GiB")
    sizes = ["--members", str(options.members), "--examples", str(options.examples), "--classes", str(options.classes)]
    for name in options.only:
        command = [sys.executable, __file__, "--row", name, *sizes]
        out = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"{name:28} {out.stdout.rstrip()}", flush=True)
    repeated(options.members, 1800, 100)


if __name__ == "__main__":
    main()
