"""Which metrics agree on real ensembles: Kendall's tau over all configurations of an audit of the digits.

    OMP_NUM_THREADS=1 python benchmarks/agreement.py [--members 100] [--methods gradient_ascent ...]

Digits, MLP 64-128-10, one random forget set of 70, the grid of every method and control that `expunge audit` runs, each
of their stopping times a configuration. An audit keeps the margins of some configurations only, so the methods are run
here, with the logits of the forget set kept while they are read. Every metric is put on one scale, its distance from
the oracles' own value: 0 is ideal, larger is worse; a metric without a value (published codes on non-finite margins)
counts as its best, because that is how it would be read there. Printed: tau between all metrics over the configurations
whose members are all sound, and over all; and for the pairs that agree least the configurations that they rank most
differently, in both directions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import combinations

import numpy as np
import torch
from scipy.stats import kendalltau, rankdata

import expunge as ex
from expunge import metrics as m
from expunge.core.record import SPLITS
from expunge.metrics.distances import DISTANCES
from expunge.studies.run.grid import plan_runs, run_name
from expunge.studies.run.measure import Parts, margins_of


def p95(values: np.ndarray) -> float:
    return float(np.percentile(values, 95))


class Reader:
    """Every metric against one set of oracles, each as a distance from what oracles read."""

    def __init__(self, oracle: dict, held_out: dict, labels: np.ndarray, incompetent: np.ndarray) -> None:
        self.oracle, self.labels, self.incompetent = oracle, labels, incompetent
        self.margins = margins_of(oracle)
        self.floor = {name: metric(held_out) for name, metric in self.of_margins().items()}

    def of_margins(self) -> dict[str, Callable[[dict], float]]:
        """Metrics whose ideal is what held-out oracles read."""
        o = self.margins["forget"]

        def on_margins(read: Callable) -> Callable[[dict], float]:
            return lambda seen: float(read(margins_of(seen)["forget"]))

        return {
            "klom p95": on_margins(lambda u: p95(m.klom(u, o))),
            "klom mean": on_margins(lambda u: m.klom(u, o).mean()),
            **{
                f"{variant} p95": on_margins(lambda u, v=variant: p95(m.klom(u, o, v)))
                for variant in ("easydub", "dub", "a2d", "trail", "own-ranges")
            },
            **{
                name.replace("_", " "): on_margins(lambda u, f=function: f(u, o).mean())
                for name, function in DISTANCES.items()
            },
            "u-lira": on_margins(lambda u: m.ulira(u, o).accuracy),
            "mmd": on_margins(lambda u: m.mmd(u, o, permutations=19).value),
        }

    def read(self, seen: dict) -> dict[str, float]:
        """Return the distance of every metric from its ideal."""
        with np.errstate(all="ignore"):
            out = {name: max(0.0, metric(seen) - self.floor[name]) for name, metric in self.of_margins().items()}
        u, o = seen["logits"].numpy(), self.oracle["logits"].numpy()
        ours, theirs = margins_of(seen), self.margins
        attack = m.population_attack(ours["forget"], ours["validation"], theirs["forget"], theirs["validation"])
        accuracies = [{s: side[f"accuracy/{s}"].numpy() for s in SPLITS} for side in (seen, self.oracle)]
        broken = ~np.all([np.isfinite(ours[s]).all(1) for s in SPLITS], axis=0)
        accuracies[0] = {s: np.where(broken, np.nan, values) for s, values in accuracies[0].items()}
        sizes = sum(ours[s].shape[1] for s in SPLITS)
        out |= {
            "membership auc": attack.distance,
            "accuracy gap": m.accuracy_gap(u, o, self.labels).distance,
            "activation": m.activation_distance_reading(u, o).distance,
            "fade": m.fade_reading(u, o).distance,
            "zrf": m.zrf_reading(u, o, self.incompetent).distance,
            "tug-of-war": m.tug_of_war_reading(*accuracies, examples=sizes).distance,
        }
        return {name: 0.0 if np.isnan(value) else value for name, value in out.items()}


def configurations(members: int, methods: list[str] | None, seed: int) -> tuple[list[str], list[dict], list[bool]]:
    """Run every method; return names, distances and whether all members were sound, by configuration."""
    task = ex.tasks.digits()
    forget = ex.tasks.random_forget_set(task, size=70, seed=seed)
    pretrained = ex.train(task, members=members, seed=3 * seed)
    oracle = ex.train(task, without=forget, members=members, seed=3 * seed + 1)
    held_out = ex.train(task, without=forget, members=members, seed=3 * seed + 2)
    parts = Parts.of(task, forget, seed)
    x, y = parts.splits["forget"].x, parts.splits["forget"].y

    def evaluate(ensemble: ex.Ensemble) -> dict:
        return {**parts.measure(ensemble), "logits": ensemble.logits(x)}

    torch.manual_seed(seed)
    network = task.build(seed).eval()
    with torch.no_grad():
        incompetent = network(x).numpy()
    reader = Reader(evaluate(oracle), evaluate(held_out), y.numpy(), incompetent)
    names, rows, sound = [], [], []
    for method in plan_runs(task, methods):
        done = ex.unlearn(pretrained, task, forget, method, seed=seed, evaluate=evaluate)
        for stop in done.trace.stops:
            names.append(f"{run_name(method)}@{stop.epoch}")
            rows.append(reader.read(dict(stop.measured)))
            margins = margins_of(stop.measured)
            sound.append(not any(m.failed_members(margins[s], reader.margins[s]).any() for s in SPLITS))
        print(f"  {names[-1]}: {len(names)} configurations", flush=True)
    return names, rows, sound


def table(values: np.ndarray, columns: list[str]) -> np.ndarray:
    """Print tau between all metrics and return it."""
    tau = np.array([[kendalltau(a, b).statistic for b in values.T] for a in values.T])
    print(" " * 20 + "".join(f"{number:>6d}" for number in range(1, len(columns) + 1)))
    for number, (name, row) in enumerate(zip(columns, tau, strict=True), 1):
        print(f"{number:2d} {name:17}" + "".join(f"{value:6.2f}" for value in row))
    return tau


def disagreements(values: np.ndarray, columns: list[str], names: list[str], tau: np.ndarray, most: int) -> None:
    """Print, for the pairs that agree least, the configurations with the largest differences of rank."""
    pairs = sorted(combinations(range(len(columns)), 2), key=lambda pair: tau[pair])[:most]
    for a, b in pairs:
        ranks = rankdata(values[:, a]) - rankdata(values[:, b])
        print(f"\n{columns[a]} and {columns[b]}: tau {tau[a, b]:.2f}")
        for place in (int(ranks.argmin()), int(ranks.argmax())):
            better, worse = (a, b) if ranks[place] < 0 else (b, a)
            low, high = (int(rankdata(values[:, k])[place]) for k in (better, worse))
            print(
                f"  {names[place]}: {columns[better]} {values[place, better]:.3g} (rank {low} of {len(values)}), "
                f"{columns[worse]} {values[place, worse]:.3g} (rank {high})"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--methods", nargs="*", help="registry names; by default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pairs", type=int, default=8, help="pairs of metrics to look into")
    options = parser.parse_args()
    names, rows, sound = configurations(options.members, options.methods, options.seed)
    columns = list(rows[0])
    values, kept = np.array([[row[name] for name in columns] for row in rows]), np.array(sound)
    print(f"\nKendall's tau, {kept.sum()} configurations with sound members only, {options.members} members")
    tau = table(values[kept], columns)
    disagreements(
        values[kept], columns, [name for name, ok in zip(names, sound, strict=True) if ok], tau, options.pairs
    )
    print(f"\nKendall's tau, all {len(values)} configurations")
    tau = table(values, columns)
    disagreements(values, columns, names, tau, options.pairs)


if __name__ == "__main__":
    main()
