"""How each margin metric answers a shift, a change of spread and a contamination: value, power, what it misses.

    OMP_NUM_THREADS=1 python benchmarks/sensitivity.py [--members 100] [--runs 60]

Gaussian margins, 70 examples. `excess` is the average reading minus the floor. `power` is the share of runs in which
the reading exceeds the 95th percentile of the readings of fresh oracles: 5 % is blind. The last lines translate the
default tolerance of the verdict into a shift.
"""

import argparse

import numpy as np

from expunge.metrics import DEFAULT_TOLERANCE, klom
from expunge.metrics.distances import energy, gaussian_kl, jensen_shannon, kolmogorov_smirnov, wasserstein

EXAMPLES = 70


def p95(values):
    return np.percentile(values, 95)


METRICS = {
    "klom p95": lambda u, o: p95(klom(u, o)),
    "klom mean": lambda u, o: klom(u, o).mean(),
    "easydub p95": lambda u, o: p95(klom(u, o, "easydub")),
    "trail mean": lambda u, o: klom(u, o, "trail").mean(),
    "wasserstein": lambda u, o: wasserstein(u, o).mean(),
    "energy": lambda u, o: energy(u, o).mean(),
    "kolmogorov-smirnov": lambda u, o: kolmogorov_smirnov(u, o).mean(),
    "jensen-shannon": lambda u, o: jensen_shannon(u, o).mean(),
    "gaussian kl": lambda u, o: gaussian_kl(u, o).mean(),
}


def contaminate(z, rng):
    """5 % of the members are still the pretrained ones, 3 standard deviations up."""
    return np.where(rng.random((len(z), 1)) < 0.05, z + 3, z)


CHANGES = {
    "none": lambda z, rng: z,
    "shift 0.25": lambda z, rng: z + 0.25,
    "shift 0.5": lambda z, rng: z + 0.5,
    "shift 1": lambda z, rng: z + 1,
    "shift 2": lambda z, rng: z + 2,
    "shift 8": lambda z, rng: z + 8,
    "shift 16": lambda z, rng: z + 16,
    "spread x0.7": lambda z, rng: z * 0.7,
    "spread x1.5": lambda z, rng: z * 1.5,
    "5 % pretrained": contaminate,
    "5 % of examples by 3": lambda z, rng: z + 3 * (np.arange(z.shape[1]) % 20 == 0),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--runs", type=int, default=60)
    options = parser.parse_args()
    n = options.members

    def readings(change):
        out = {name: [] for name in METRICS}
        for run in range(options.runs):
            rng = np.random.default_rng([run, n, len(change)])
            oracle = rng.normal(size=(n, EXAMPLES))
            unlearned = CHANGES[change](rng.normal(size=(n, EXAMPLES)), rng)
            for name, metric in METRICS.items():
                out[name].append(metric(unlearned, oracle))
        return {name: np.array(values) for name, values in out.items()}

    floor = readings("none")
    limit = {name: np.percentile(values, 95) for name, values in floor.items()}
    print(f"{n} + {n} members, {EXAMPLES} examples, {options.runs} runs: excess over the floor (power)")
    print(f"{'':21}" + "".join(f"{name:>21}" for name in METRICS))
    print(f"{'floor':21}" + "".join(f"{floor[name].mean():>21.3f}" for name in METRICS))
    for change in list(CHANGES)[1:]:
        seen = readings(change)
        cells = [f"{seen[m].mean() - floor[m].mean():.3f} ({(seen[m] > limit[m]).mean():.0%})" for m in METRICS]
        print(f"{change:21}" + "".join(f"{cell:>21}" for cell in cells))
    print()
    for share, who in ((1.0, "all examples"), (0.1, "a tenth of the examples")):
        moved = np.arange(2000) < share * 2000
        rng = np.random.default_rng(n)
        oracle, members, other = rng.normal(size=(3, n, 2000))
        zero = p95(klom(other, oracle))
        for d in np.arange(0.05, 2, 0.01):
            if p95(klom(members + d * moved, oracle)) - zero > DEFAULT_TOLERANCE:
                print(f"P95 excess reaches {DEFAULT_TOLERANCE} nats when {who} shift by {d:.2f} standard deviations")
                break


if __name__ == "__main__":
    main()
