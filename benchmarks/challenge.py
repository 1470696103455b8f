"""What identical laws earn in the NeurIPS 2023 challenge score, by scan of thresholds, members and spread of margins.

    OMP_NUM_THREADS=1 python benchmarks/challenge.py [--examples 60]

Both sides are Gaussians of the given spread. Scans: one threshold alone; the published rules on their grid (100 a unit)
and on exact thresholds (between neighbouring margins); the published rules without the buffer of 2 units that ties the
width of an interval to the narrower sample, so that every interval is tried.
"""

import argparse

import numpy as np

from expunge.metrics.neurips2023 import _between_neighbours as between_neighbours
from expunge.metrics.neurips2023 import _double as double
from expunge.metrics.neurips2023 import _largest as largest
from expunge.metrics.neurips2023 import _single as single
from expunge.metrics.neurips2023 import challenge_points


def every_interval(u, o):
    """Epsilon over all intervals between exact thresholds, the narrower sample positive."""
    cuts = between_neighbours(np.sort(np.concatenate([u, o])))
    positive, negative = (o, u) if np.ptp(u) >= np.ptp(o) else (u, o)
    left, right = np.triu_indices(len(cuts), 1)
    taken, kept = (np.searchsorted(s, cuts) / len(s) for s in (negative, positive))
    return largest(taken[right] - taken[left], 1 - (kept[right] - kept[left]))


SCANS = {
    "one threshold, grid": lambda u, o: single(u, o, "grid"),
    "one threshold, exact": lambda u, o: single(u, o, "exact"),
    "published, grid": lambda u, o: max(single(u, o, "grid"), double(u, o, "grid")),
    "published, exact": lambda u, o: max(single(u, o, "exact"), double(u, o, "exact")),
    "every interval, exact": lambda u, o: max(single(u, o, "exact"), every_interval(u, o)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=60)
    options = parser.parse_args()
    print("members  spread  scan                     mean epsilon  points (standard error)")
    for members in (100, 512):
        for spread in (1.0, 0.3):
            rng = np.random.default_rng(members)
            pairs = np.sort(spread * rng.normal(size=(options.examples, 2, members)), axis=2)
            for name, scan in SCANS.items():
                epsilons = np.array([scan(u, o) for u, o in pairs])
                points = challenge_points(epsilons, members)
                error = points.std(ddof=1) / np.sqrt(len(points))
                numbers = f"{epsilons.mean():12.2f}  {points.mean():6.3f} ({error:.3f})"
                print(f"{members:7d}  {spread:6.1f}  {name:24} {numbers}")


if __name__ == "__main__":
    main()
