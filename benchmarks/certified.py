"""Do certificates hold? Claims beside what an attack measures, over many runs on logistic regressions.

    OMP_NUM_THREADS=1 python benchmarks/certified.py [--runs 200] [--members 100] [--only perturbation]

Each run has a table, a forget set (the rows that are fitted worst) and models of its own. An attack on the margins of
the forgotten rows is fitted on one half of the models and counted on the other; the significance of each bound is 5 %
divided by the number of runs, so that all bounds hold together in 95 % of repetitions. Then the same with something
broken on purpose.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.methods.certified_runs import QuietFit, one_task, run

from expunge.methods import CertifiedRemoval, DescentToDelete, RewindToDelete

SOUND = {
    "descent_to_delete, 1 step, little noise": (DescentToDelete(steps=1), {"noise": 0.01}),
    "descent_to_delete, 40 steps": (DescentToDelete(steps=40), {"noise": 0.1}),
    "descent_to_delete, 100 steps": (DescentToDelete(steps=100), {"noise": 0.1}),
    "certified_removal, 1 step, noise on the weights": (CertifiedRemoval(steps=1, budget=1e9), {"noise": 0.1}),
    "certified_removal, 2 steps, noise on the weights": (CertifiedRemoval(steps=2, budget=1e9), {"noise": 0.1}),
    "certified_removal, 2 steps, perturbation": (CertifiedRemoval(steps=2, budget=1e9), {"perturbation": 1.0}),
    "rewind_to_delete, 1 of 40 steps, little noise": (RewindToDelete(share=0.975), {"noise": 0.03, "steps": 40}),
    "rewind_to_delete, half of 40 steps": (RewindToDelete(share=0.5), {"noise": 0.1, "steps": 40}),
    "rewind_to_delete, three quarters of 40 steps": (RewindToDelete(share=0.25), {"noise": 0.1, "steps": 40}),
}
BROKEN = {
    "rows four times too long": (DescentToDelete(steps=100), {"noise": 0.1, "scale": 4.0}),
    "a ten-thousandth of the noise that is claimed": (
        DescentToDelete(steps=10),
        {"noise": 0.1, "l2": 0.2, "fit": QuietFit},
    ),
    "steps twice as long as those that contract": (
        RewindToDelete(share=0.25),
        {"noise": 0.1, "steps": 40, "rate": 4 / 0.6},
    ),
    "rewind_to_delete, a thousandth of the noise that is claimed": (
        RewindToDelete(share=0.75),
        {"noise": 0.1, "steps": 40, "fit": QuietFit},
    ),
    "a residual above the budget": (CertifiedRemoval(steps=1, budget=0.01), {"perturbation": 1.0}),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--broken-runs", type=int, default=5)
    parser.add_argument("--only", default="", help="part of the names of the cases that are run")
    asked = parser.parse_args()
    print("| method | claimed epsilon, median | measured at least, largest | measured above 0 | void | contradicted |")
    print("|---|---|---|---|---|---|")
    for cases, runs in ((SOUND, asked.runs), (BROKEN, asked.broken_runs)):
        for name, (method, options) in cases.items():
            if asked.only not in name:
                continue
            found = [
                run(one_task(n, **options), method, members=asked.members, seed=10 * n, significance=0.05 / asked.runs)
                for n in range(runs)
            ]
            claimed, measured = (np.array(v) for v in ([r.claim.epsilon for r in found], [r.measured for r in found]))
            void = sum(not r.claim.holds for r in found)
            print(
                f"| {name} | {np.median(claimed):.3g} | {measured.max():.3g} | {(measured > 0).sum()} of {runs} | "
                f"{void} of {runs} | {(measured > claimed).sum()} of {runs} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
