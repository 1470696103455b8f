"""Datamodels on digits: how fast, how good, and whether matching predicted oracle margins unlearns.

    python benchmarks/datamodels.py             about four minutes of CPU
    python benchmarks/datamodels.py --ascent    and the best of the grids of ascent beside it (some minutes more)

Prints: CPU seconds (of all cores together) for 1,000 half-data models beside the same work on all the data; share of
the variance explained and linear datamodeling score (LDS) of 200 held-out subsets, by number of subsets; predicted
against true change of mean margins for four forget sets of 70; KLoM after margin matching.
"""

import argparse
import time

import numpy as np
import torch

from expunge.core.record import SPLITS
from expunge.dependence import component_forget_set, fit_lasso, fit_ridge, principal_components, train_subsets
from expunge.ensembles import build_network, train
from expunge.methods import METHODS, MarginMatching, unlearn
from expunge.papers.ascent_fails_to_forget.dependence import linear_datamodeling_score, matching_targets, memorisation
from expunge.studies.audit.judging import Bench
from expunge.studies.run.measure import Parts
from expunge.tasks import choose, digits

SUBSETS, HELD_OUT, MEMBERS = 1000, 200, 50
FORGET = ("random:70", "cluster:70", "class_part:70")


def quality(task, made, full):
    n = len(task.train)
    held_out = made[SUBSETS : SUBSETS + HELD_OUT]
    where = {"train": held_out.own >= 0, "validation": held_out.own < 0}
    print(f"\n{HELD_OUT} held-out subsets: R2, LDS with 95 % interval, by targets")
    models = {}
    for k in (250, 500, SUBSETS):
        for name, fit in (("ridge", fit_ridge), ("LASSO", fit_lasso)):
            if name == "LASSO" and k == 500:
                continue
            begin = time.process_time()
            model = models[name] = fit(made[:k], full=full)
            seconds = time.process_time() - begin
            predicted = model.predict(held_out.masks)
            unexplained = ((predicted - held_out.margins) ** 2).sum(0) / (held_out.margins.var(0) * len(held_out))
            cells = []
            for split, targets in where.items():
                lds = linear_datamodeling_score(predicted[:, targets], held_out.margins[:, targets])
                r2 = 1 - unexplained[targets].mean()
                cells.append(f"{split} {r2:.3f}, {lds.score:.3f} ({lds.low:.3f} to {lds.high:.3f})")
            print(f"  {name} {k:>5} subsets, fit {seconds:5.1f} s CPU   " + "   ".join(cells))
    found = memorisation(made[:SUBSETS])
    print(
        f"  memorisation of correct answers: mean {found.value.mean():.4f}, above .3: {(found.value > 0.3).sum()} of "
        f"{n} examples, standard error {np.sqrt((found.standard_error**2).mean()):.3f}"
    )
    return models


def components(model):
    found = principal_components(model, 5)
    shares = " ".join(f"{share:.3f}" for share in found.shares)
    print(f"\nprincipal components of the LASSO datamodel matrix: shares of the variance {shares}")
    return found


def removal(task, models, forget, oracle, pretrained):
    n = len(task.train)
    true = oracle.mean(0) - pretrained.mean(0)
    noise = np.sqrt((oracle.var(0) + pretrained.var(0)) / MEMBERS)
    inside = np.isin(np.arange(len(true)), forget.indices)
    splits = {"F": inside, "R": ~inside & (np.arange(len(true)) < n), "V": np.arange(len(true)) >= n}
    for kind, law, shrink in (
        ("LASSO", "inverse", "adaptive"),
        ("LASSO", "inverse", "none"),
        ("LASSO", "inverse", "penalty"),
        ("LASSO", "constant", "none"),
        ("ridge", "inverse", "adaptive"),
        ("ridge", "inverse", "none"),
    ):
        found = models[kind].removal(forget, law=law, shrink=shrink)
        cells = []
        for name, part in splits.items():
            p, t = found.change[part], true[part]
            slope = (p @ t) / (p @ p)
            error, se = np.sqrt(((p - t) ** 2).mean()), np.sqrt((found.standard_error[part] ** 2).mean())
            numbers = (np.corrcoef(p, t)[0, 1], slope, p.mean(), t.mean(), error, se, np.sqrt((t**2).mean()))
            cells.append(f"{name}" + "".join(f"{number:6.2f}" for number in numbers))
        print(f"  {kind} {law:>8} {shrink:<8} " + " | ".join(cells))
    print(f"  {'':23} standard error of the true change itself: {np.sqrt((noise**2).mean()):.2f}")


def excess(scores):
    return "  ".join(
        f"{split[0].upper()} {score.value:.2f} (floor {score.floor:.2f})" for split, score in scores.items()
    )


def matching(task, forget, pretrained, oracles, made, model, ascent):
    parts = Parts.of(task, forget, 0)
    oracle, held_out, third = oracles
    who = {"oracle": oracle, "held_out": held_out, "pretrained": pretrained}
    bench = Bench({name: parts.measure(ensemble) for name, ensemble in who.items()}, Bench.default_tolerance())
    print(f"  {'pretrained':<38} {excess(bench.pretrained_scores())}")
    x, y = task.train.x, task.train.y
    predicted = matching_targets(task, pretrained, forget, made, model)
    as_pretrained = matching_targets(task, pretrained, forget, made, model, widen=False)
    targets = {
        "oracles' own margins": (third.margins(x, y), 1.0),
        "datamodel": (predicted.targets, predicted.cost),
        "datamodel, pretrained spread": (as_pretrained.targets, predicted.cost),
    }
    for name, (values, cost) in targets.items():
        for method in (MarginMatching(lr=0.03 * task.recipe.lr, batch_size=task.recipe.batch_size, epochs=10),):
            done = unlearn(pretrained, task, forget, method, evaluate=parts.measure, targets=values, targets_cost=cost)
            stop = done.trace.stops[-1]
            read = bench.read(stop.measured)
            label = f"matching {name}"
            price = f"cost {stop.cost:.2f} ({cost:.2f} for targets)"
            print(f"  {label:<38} {excess(read.scores)}  {price}  {read.verdict.name}")
    if ascent:
        for name in ("gradient_ascent", "gradient_descent_ascent", "scrub"):
            best = None
            for method in METHODS[name].grid(task.recipe):
                for stop in unlearn(pretrained, task, forget, method, evaluate=parts.measure).trace.stops:
                    worst = max(bench.excess(stop.measured).values())
                    if best is None or worst < best[0]:
                        best = worst, stop, method
            read = bench.read(best[1].measured)
            where = f"{name}, best of grid"
            print(f"  {where:<38} {excess(read.scores)}  cost {best[1].cost:.2f}  {read.verdict.name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ascent", action="store_true", help="also the best of the grids of three ascent methods")
    options = parser.parse_args()
    task = digits()
    network = build_network(task)
    begin = time.process_time()
    made = train_subsets(task, subsets=SUBSETS + HELD_OUT, network=network)
    seconds = (time.process_time() - begin) * SUBSETS / (SUBSETS + HELD_OUT)
    begin = time.process_time()
    train(task, members=100, seed=9, network=network)
    full = (time.process_time() - begin) * SUBSETS / 100 * made.alpha
    print(f"{SUBSETS} half-data models: {seconds:.1f} s CPU, {seconds / full:.2f} times the same work on all the data")
    pretrained = train(task, members=MEMBERS, seed=0, network=network)
    x, y = torch.cat([task.train.x, task.validation.x]), torch.cat([task.train.y, task.validation.y])
    before = pretrained.margins(x, y).double().numpy()
    models = quality(task, made, before)
    sets = [choose(task, spec).forget for spec in FORGET]
    sets.append(component_forget_set(task, components(models["LASSO"]), 1, "top", 70))
    print(
        f"\nchange of mean margins, {MEMBERS} oracles minus {MEMBERS} pretrained, and predicted from {SUBSETS} subsets"
    )
    print("  kind, law, shrink, split: correlation, slope of true on predicted, mean predicted and true,")
    print("  root mean square of the error, its predicted standard error, root mean square of the true change")
    for forget in sets:
        oracles = [train(task, members=MEMBERS, seed=s, without=forget, network=network) for s in (1, 2, 3)]
        print(f"\n{forget.name}")
        removal(task, models, forget, oracles[0].margins(x, y).double().numpy(), before)
        print(f"  P95 of KLoM, {MEMBERS} members; matching for 10 epochs")
        matching(task, forget, pretrained, oracles, made[:SUBSETS], models["LASSO"], options.ascent)
    print(f"\n{', '.join(SPLITS)} are F, R, V; {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
