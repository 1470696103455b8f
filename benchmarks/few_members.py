"""How far 20 or 30 members get: bias and rank correlation of the corrected KLoM against 1,000 members.

    OMP_NUM_THREADS=1 python benchmarks/few_members.py

25 pretended methods on 70 examples: shifts, changes of spread and of single examples. For each number of members the
excess over the floor (20 repetitions) is compared with the excess at 1,000 + 1,000 members with the same number of
cells, and ranks with the ranks there (Spearman), for ours and for the published histogram.
"""

import numpy as np
from scipy.stats import spearmanr

from expunge.metrics import default_bins, klom

EXAMPLES, METHODS = 70, 25


def methods():
    rng = np.random.default_rng(0)
    for number in range(METHODS):
        shift = 1.2 * number / METHODS * np.where(number % 3 == 0, rng.uniform(0, 2, EXAMPLES), 1)
        yield shift, 1 + 0.5 * (number % 5 == 0)


def excesses(members, seed, read):
    rng = np.random.default_rng([members, seed])
    oracle, other = rng.normal(size=(2, members, EXAMPLES))
    floor = read(other, oracle)
    return np.array([read(shift + s * rng.normal(size=(members, EXAMPLES)), oracle) - floor for shift, s in methods()])


def main():
    print("members  summary   truth   bias (mean)   spread   rank correlation: expunge, easydub")
    for members in (20, 30, 50, 100):
        bins = default_bins(members)
        for summary, reduce in (("p95", lambda v: np.percentile(v, 95)), ("mean", np.mean)):

            def ours(u, o, reduce=reduce, bins=bins):
                return reduce(klom(u, o, bins=bins))

            def public(u, o, reduce=reduce):
                return reduce(klom(u, o, "easydub"))

            truth, public_truth = excesses(1000, 0, ours), excesses(1000, 0, public)
            seen = np.array([excesses(members, seed, ours) for seed in range(20)])
            public_seen = np.array([excesses(members, seed, public) for seed in range(20)])
            ranks = [
                np.mean([spearmanr(row, t).statistic for row in rows])
                for rows, t in ((seen, truth), (public_seen, public_truth))
            ]
            print(
                f"{members:7d}  {summary:7}  {truth.mean():6.3f}   {(seen - truth).mean():+11.3f}   "
                f"{seen.std(0).mean():6.3f}   {ranks[0]:.3f}, {ranks[1]:.3f}"
            )


if __name__ == "__main__":
    main()
