"""How forecasts rank forget sets that KLoM cannot tell apart, because both ends of its scale are reached.

    OMP_NUM_THREADS=1 python benchmarks/forecast_ties.py [--task tabular] [--members 40] [--epochs 30] [--seed 0]

Twelve forget sets of a task: at random, parts of classes and clusters, in four sizes. Plain gradient ascent is forecast
over its grid, then run, against oracles; its best setting is the one with the least objective (worst P95 KLoM above the
floor). Both readings of that setting are printed, predicted and measured: the objective, and the displacement (95th
percentile over examples of the distance of mean margins, in the oracles' standard deviations). Spearman's correlations
say how forget sets are ranked: by the predicted objective alone, and by `MethodForecast.rank`, which orders what has
the same objective by its displacement. What happened is ranked in both ways too.
"""

import argparse

import numpy as np
from scipy.stats import rankdata, spearmanr

import expunge as ex
from expunge.core.objective import objective
from expunge.core.record import SPLITS
from expunge.methods import GradientAscent
from expunge.metrics import Ruler
from expunge.studies.run.measure import Parts, margins_of
from expunge.studies.run.prediction import Subject, forecast

SIZES = (15, 30, 60, 90)


def forget_sets(task, seed):
    """The twelve sets."""
    for size in SIZES:
        yield ex.tasks.random_forget_set(task, size, seed=seed)
        yield ex.tasks.class_part(task, size, seed=seed)
        yield ex.tasks.cluster(task, size, seed=seed)


def measured(task, forget, pretrained, runs, members, seed):
    """Return objective and displacement of the best setting, doing nothing included."""
    parts = Parts.of(task, forget, seed)
    sides = [margins_of(parts.measure(ex.train(task, without=forget, members=members, seed=seed + k))) for k in (1, 2)]
    rulers = {split: Ruler(sides[0][split], sides[1][split]) for split in SPLITS}
    points = [parts.measure(pretrained)]
    for run in runs:
        done = ex.unlearn(pretrained, task, forget, run, seed=seed, evaluate=parts.measure)
        points += [stop.measured for stop in done.trace.stops]
    found = []
    for point in points:
        margins = margins_of(point)
        excess, away = {}, []
        for split, ruler in rulers.items():
            ready = ruler.prepare(margins[split])
            excess[split] = float(np.percentile(ready.klom, 95)) - ruler.floor(members)[0]
            away.append(np.percentile(np.abs(ruler.shift_by_example(ready)), 95))
        found.append((objective(excess), float(max(away))))
    return min(found)


def order(pairs):
    """Ranks by the objective as it is printed, then by the displacement."""
    distinct = sorted({(round(a, 2), b) for a, b in pairs})
    return rankdata([distinct.index((round(a, 2), b)) for a, b in pairs])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("tabular", "digits"), default="tabular")
    parser.add_argument("--members", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    task = getattr(ex.tasks, options.task)(epochs=options.epochs)
    pretrained = ex.train(task, members=options.members, seed=100 + options.seed)
    subject = Subject.of(task, pretrained)
    runs = list(GradientAscent.grid(task.recipe))
    predicted, happened = [], []
    print("forget set             predicted: nats     sd   measured: nats     sd")
    for forget in forget_sets(task, options.seed):
        found = forecast(subject, forget, runs, tolerance=0.125, seed=options.seed).record.methods[0]
        predicted.append((found.objective, found.best.displacement))
        happened.append(measured(task, forget, pretrained, runs, options.members, options.seed))
        (a, b), (c, d) = predicted[-1], happened[-1]
        print(f"{forget.name:22} {a:15.2f} {b:6.1f} {c:16.2f} {d:6.1f}", flush=True)
    objectives = [round(a, 2) for a, _ in predicted]
    print(f"\n{len(objectives) - len(set(objectives))} of {len(objectives)} predicted objectives repeat another")
    print("Spearman's correlation      with the measured objective   with its displacement   with its rank")
    goals = [[a for a, _ in happened], [b for _, b in happened], order(happened)]
    for name, values in (("predicted objective", objectives), ("predicted rank", order(predicted))):
        print(f"{name:27} " + " ".join(f"{spearmanr(values, goal).statistic:24.2f}" for goal in goals))


if __name__ == "__main__":
    main()
