"""The floor of KLoM by number of members: what two sets of oracles read, ours and the published histogram.

    python benchmarks/floor.py

Both sides are independent standard Gaussians, 4,000 examples. The reading of any continuous margins is the same for our
estimator (its cells are quantiles), and close to it for the histogram.
"""

import numpy as np

from expunge.metrics import default_bins, klom

EXAMPLES = 4000


def main():
    print("KLoM of oracles against oracles, mean / P95 over examples, in nats")
    print(f"{'members':>8} {'easydub histogram':>20} {'expunge':>16} {'cells':>6}")
    for members in (10, 20, 50, 80, 100, 200, 500):
        unlearned, oracle = np.random.default_rng(members).normal(size=(2, members, EXAMPLES))
        public, ours = klom(unlearned, oracle, "easydub"), klom(unlearned, oracle)
        cells = [f"{v.mean():.3f} / {np.percentile(v, 95):.3f}" for v in (public, ours)]
        print(f"{members:>8} {cells[0]:>20} {cells[1]:>16} {default_bins(members):>6}")
    print()
    print("Largest relative change of the floor (P95) when 20 members are added, by estimator:")
    for start in (20, 60, 80, 100, 180):
        ratios = []
        for variant in ("easydub", "expunge"):
            readings = []
            for members in (start, start + 20):
                unlearned, oracle = np.random.default_rng([members, 1]).normal(size=(2, members, EXAMPLES))
                readings.append(np.percentile(klom(unlearned, oracle, variant), 95))
            ratios.append(1 - readings[1] / readings[0])
        print(f"  {start:>4} to {start + 20:<4} easydub -{ratios[0]:.0%}, expunge -{ratios[1]:.0%}")


if __name__ == "__main__":
    main()
