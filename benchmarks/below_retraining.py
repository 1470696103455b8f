"""How many forget sets of the proof does retraining in small batches pass, at a half and at a quarter of the cost?

    OMP_NUM_THREADS=1 python benchmarks/below_retraining.py [digits digits:cnn tabular] [--half judged] [--every 1]
        [--settings 1 0.5 0.5:0.8 0.25] [--members 100] [--store FOLDER]

Settings are COST or COST:TIME of `small_batch_retrain`; 1 is the control `retrain`, s:COST is `early_stopped_retrain`.
Each setting is judged by itself on each forget set, with the verdict of an audit (tolerance 0.125), against oracles and
held-out oracles; none is chosen by anything that the run reads. One line a forget set and setting, then the shares that
are indistinguishable, on how many the largest excess is within the tolerance, and its median over sets. Models are kept
in --store and found again.
"""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

import expunge as ex
from expunge.core.limits import DEFAULT_TOLERANCE
from expunge.core.seeds import derive
from expunge.ensembles import train
from expunge.methods import EarlyStoppedRetrain, Retrain, SmallBatchRetrain, unlearn
from expunge.metrics import Judge
from expunge.papers.ascent_fails_to_forget.forecast_proof.sets import cases
from expunge.studies.run.measure import Parts, margins_of
from expunge.studies.run.seeds import pretrained_seed, unlearning_seed

SEED = 0


def method(setting):
    """The method of a setting on the command line."""
    if setting == "1":
        return Retrain()
    if setting.startswith("s:"):
        return EarlyStoppedRetrain(cost=float(setting[2:]))
    cost, _, time = setting.partition(":")
    return SmallBatchRetrain(cost=float(cost), time=float(time or 1))


def measured(case, members, store):
    """The parts of a forget set, its pretrained members, and the judge of an audit."""
    task, parts = case.task, Parts.of(case.task, case.forget, SEED)
    before = train(task, members=members, seed=pretrained_seed(SEED), store=store)
    sides = [
        train(task, members=members, without=case.forget, seed=derive(SEED, "audit", kind) % 2**31, store=store)
        for kind in ("oracle", "held-out oracle")
    ]
    return parts, before, Judge(*(margins_of(parts.measure(side)) for side in (*sides, before)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=["digits", "digits:cnn", "tabular"])
    parser.add_argument("--half", choices=("development", "judged", "both"), default="judged")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--settings", nargs="+", default=["1", "0.5", "0.5:0.8", "0.25"])
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--store", type=Path, default=Path(tempfile.gettempdir()) / "below_retraining")
    asked = parser.parse_args()
    for name in asked.tasks:
        task = ex.tasks.load_task(name)
        found = cases(task, asked.store / "subsets" / name.replace(":", "-"), SEED)
        sets = [case for case in found if asked.half in ("both", case.half)][:: asked.every]
        verdicts, excesses = defaultdict(list), defaultdict(list)
        for case in sets:
            parts, before, judge = measured(case, asked.members, asked.store)
            for setting in asked.settings:
                done = unlearn(
                    before,
                    case.task,
                    case.forget,
                    method(setting),
                    seed=unlearning_seed(SEED, case.forget),
                    evaluate=parts.measure,
                )
                stop = done.trace.stops[-1]
                verdict = judge(margins_of(stop.measured))
                split, worst = max(verdict.splits.items(), key=lambda pair: pair[1].excess)
                verdicts[setting].append(verdict.name)
                excesses[setting].append(worst.excess)
                print(
                    f"{name:11} {case.forget.name:34} {setting:9} cost {stop.cost:.2f}  {verdict.name:18} "
                    f"largest excess {worst.excess:+.3f} ({split})",
                    flush=True,
                )
        for setting in asked.settings:
            names = verdicts[setting]
            told = ", ".join(f"{names.count(each)} {each}" for each in sorted(set(names)))
            print(
                f"== {name}, {setting}: indistinguishable {names.count('indistinguishable')} of {len(names)} ({told}); "
                f"largest excess within the tolerance on {sum(e <= DEFAULT_TOLERANCE for e in excesses[setting])}, "
                f"median {np.median(excesses[setting]):+.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
