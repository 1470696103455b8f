"""What the intervals of the ruler cover, in full; the tests hold a smaller version with binomial tolerances.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py [--runs 400] [--quick]

Oracles, held-out oracles and unlearned members are drawn again in each run; examples are shifted by 0 to 2 d oracle
standard deviations. `shared` is the share of variance that a member's margins have in common over all examples.
Covered means: the 95 % interval of a run holds the average reading (or average excess) over all runs.
Laws: Gaussian; skewed (log-normal); heavy (sinh of 1.5 Gaussians).
"""

import argparse

import numpy as np

from expunge.metrics import Ruler

LAWS = {"gaussian": lambda z: z, "skewed": np.exp, "heavy": lambda z: np.sinh(1.5 * z)}


def simulate(law, members, examples, shared, shift, summary, runs, resample, replicates=100, seed=0):
    """Return shares of runs covered for value and excess, and their standard deviations, true and estimated."""
    rng = np.random.default_rng([seed, members])
    rows = []
    for run in range(runs):
        moved = shift * (rng.uniform(0, 2, examples) if resample else np.linspace(0, 2, examples))

        def draw(by=0.0):
            common, own = rng.normal(size=(members, 1)), rng.normal(size=(members, examples))
            return LAWS[law](np.sqrt(1 - shared) * own + np.sqrt(shared) * common + by)

        ruler = Ruler(draw(), draw(), resample_examples=resample, replicates=replicates, seed=run)
        unlearned = ruler.prepare(draw(moved))
        score = ruler.score(unlearned, summary)
        spread = (ruler.replicate(unlearned, summary) - ruler.replicate_floor(members, summary)).std(ddof=1)
        rows.append((score.value, score.low, score.high, score.excess, spread))
    value, low, high, excess, spread = np.array(rows).T
    covered = ((low <= value.mean()) & (value.mean() <= high)).mean()
    covered_excess = (np.abs(excess - excess.mean()) <= 1.96 * spread).mean()
    return value.mean(), covered, excess.mean(), covered_excess, excess.std(), spread.mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--quick", action="store_true", help="Gaussian only")
    options = parser.parse_args()
    print("law       N  shared shift examples   summary  reading covered   excess covered  (sd, estimated sd)")
    for law in ["gaussian"] if options.quick else LAWS:
        for members in (20, 50, 100):
            for shared in (0.0, 0.3):
                for shift in (0.0, 0.25, 0.5, 1.0):
                    for resample, summary in ((False, "p95"), (False, "mean"), (True, "mean")):
                        got = simulate(law, members, 70, shared, shift, summary, options.runs, resample)
                        kind = "resampled" if resample else "fixed"
                        print(
                            f"{law:8} {members:3d}  {shared:4.1f}  {shift:4.2f}  {kind:9}  {summary:5}   "
                            f"{got[0]:6.3f}  {got[1]:6.1%}  {got[2]:+7.3f}  {got[3]:6.1%}  "
                            f"({got[4]:.3f}, {got[5]:.3f})",
                            flush=True,
                        )


if __name__ == "__main__":
    main()
