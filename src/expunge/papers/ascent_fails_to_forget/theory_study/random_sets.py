"""Lemma 1, with a check on real oracles: one for each of many random forget sets."""

from __future__ import annotations

import numpy as np

from expunge.ensembles import train
from expunge.papers.ascent_fails_to_forget.theory import random_forget_sets as lemma
from expunge.papers.ascent_fails_to_forget.theory_study.outcome import PAPER, Outcome, table
from expunge.tasks import digits, random_forget_set

SETS = 40
"""Random forget sets, each with its own oracle."""
SIZE = 70


def lemma_1(seed: int = 0) -> Outcome:
    """Compare forget and test accuracy of oracles over random forget sets with the bound."""
    task = digits()
    sets = [random_forget_set(task, size=SIZE, seed=seed + k) for k in range(SETS)]
    oracles = train(task, members=SETS, examples=np.stack([forget.retain for forget in sets]), seed=seed)
    pretrained = train(task, members=SETS, seed=seed)
    test = len(task.validation)
    forget_accuracy, test_accuracy = [], []
    for ensemble in (oracles, pretrained):
        right = ensemble.logits(task.train.x).argmax(-1) == task.train.y
        forget_accuracy.append([float(right[k, sets[k].indices].double().mean()) for k in range(SETS)])
        test_accuracy.append(ensemble.accuracy(task.validation.x, task.validation.y).numpy())
    forget, held_out = np.array(forget_accuracy), np.array(test_accuracy)
    gaps = np.abs(forget - held_out)
    thresholds = np.linspace(0.0, 0.3, 121)
    bound = np.array([lemma.finite_test_bound(SIZE, test, float(t)) for t in thresholds])
    observed = (gaps[:, :, None] >= thresholds[None, None, :]).mean(1)
    # The bound is on a probability; 40 trials estimate it with a standard error of at most .08.
    allowed = bound + 3 * np.sqrt(np.maximum(bound * (1 - bound), 1e-12) / SETS)
    kept = bool(np.all(observed[0] <= allowed))
    sizes = np.unique(np.geomspace(10, 10_000, 40).round().astype(int))
    curves = [[lemma.smallest_gap(int(m), test=n) for m in sizes] for n in (None, 360, 10_000)]
    rows = []
    for gap in (0.01, 0.02, 0.05, 0.1, 0.2):
        cells: list[object] = [gap, lemma.smallest_size(gap)]
        for n in (360, 10_000, 100_000):
            try:
                cells.append(lemma.smallest_size(gap, test=n))
            except ValueError:
                cells.append("none")
        rows.append(cells)
    worst = lemma.smallest_gap(SIZE, test=test)
    return Outcome(
        title="Lemma 1: a random forget set looks like test data to the oracle",
        source=f"{PAPER}, Lemma 1",
        statement="For F drawn uniformly, P(|acc(F) - acc(test)| >= t) <= 2 exp(-2 |F| s^2) + 2 exp(-2 n (t - s)^2).",
        verdict="holds" if kept else "does not hold",
        sentence=(
            f"On {SETS} random forget sets of {SIZE} digits, each with its own oracle, the gap between forget and test "
            f"accuracy was {gaps[0].mean():.3f} on average and {gaps[0].max():.3f} at most; the bound allows "
            f"{worst:.3f} at "
            f"95 %. Models that had seen F were above test accuracy by {np.mean(forget[1] - held_out[1]):.3f} on "
            "average, oracles "
            f"by {np.mean(forget[0] - held_out[0]):.3f}. The bound is loose: it ignores that accuracy near 1 varies "
            "little."
        ),
        parameters={"task": task.name, "sets": SETS, "size": SIZE, "test": test, "seed": seed},
        tables=[
            table(
                "Smallest |F| for which a gap t is significant at 95 %",
                ["t", "population", "test set 360", "test set 10,000", "test set 100,000"],
                rows,
            ),
            table(
                "Gap between forget and test accuracy, absolute, over random forget sets",
                ["models", "mean gap", "largest gap", "share above the 95 % bound"],
                [
                    [who, gaps[i].mean(), gaps[i].max(), float((gaps[i] >= worst).mean())]
                    for i, who in enumerate(("oracles", "pretrained"))
                ],
            ),
        ],
        arrays={
            "thresholds": thresholds,
            "bound": bound,
            "observed": observed,
            "sizes": sizes.astype(float),
            "curves": np.array(curves),
        },
    )
