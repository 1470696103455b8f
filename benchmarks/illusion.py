"""The illusion gap where settings do not differ and where the chosen one is worse, by number of members.

    python benchmarks/illusion.py

40 settings, Gaussian margins of 70 forget, 100 retain and 100 validation examples. "same oracles" is the gap when the
best is picked and read on the same oracles; "other half" is what an audit prints.
"""

import numpy as np

from expunge.core.objective import objective
from expunge.core.record import SPLITS
from expunge.metrics import Ruler
from expunge.studies.audit.illusion import Halves

SIZES = {"forget": 70, "retain": 100, "validation": 100}
SETTINGS = 40
TRIALS = 60


def draw(noise, members, shift=0.0):
    """Return Gaussian margins, so many standard deviations from the oracles'."""
    return {split: noise.standard_normal((members, size)) + shift for split, size in SIZES.items()}


def same_oracles(oracle, held_out, margins):
    """Return the gap when the best is picked and read on the same oracles."""
    rulers = {split: Ruler(oracle[split]) for split in SPLITS}
    floor = {split: np.percentile(rulers[split].klom(held_out[split]), 95) for split in SPLITS}

    def read(ours):
        return objective({s: np.percentile(rulers[s].klom(ours[s]), 95) - floor[s] for s in SPLITS})

    return read(margins["0"]) - min(read(ours) for ours in margins.values())


def main():
    print(f"{TRIALS} trials; nats, mean and its standard error")
    print(
        f"{'members':>8} {'chosen off by':>14} {'same oracles':>15} {'other half':>17} {'half width':>11} {'told':>6}"
    )
    for members in (20, 50, 100):
        for shift in (0.0, 0.6):
            noise = np.random.default_rng(members)
            gaps, naive = [], []
            for _ in range(TRIALS):
                oracle, held_out = draw(noise, members), draw(noise, members)
                margins = {str(i): draw(noise, members, 0.0 if i else shift) for i in range(SETTINGS)}
                gaps.append(Halves(oracle, held_out, margins).gap("0", list(margins)))
                naive.append(same_oracles(oracle, held_out, margins))
            values = np.array([gap.value for gap in gaps])
            text = [f"{v.mean():.3f} ± {v.std(ddof=1) / np.sqrt(TRIALS):.3f}" for v in (np.array(naive), values)]
            width = np.mean([gap.high - gap.value for gap in gaps])
            told = np.mean([gap.low > 0 for gap in gaps])
            print(f"{members:>8} {shift:>11} sd {text[0]:>15} {text[1]:>17} {width:>11.3f} {told:>6.0%}", flush=True)


if __name__ == "__main__":
    main()
