"""KLoM and its floor: what two sets of models of one kind read, by their number.

The paper says that KLoM is stable from 80 models on. For two independent sets of N models of the same kind, whose
margins follow one normal law, the published estimator (20 cells of equal width over both, shares plus 1e-5) and ours
are read over many examples: where the curve flattens, it flattens towards a number that is not 0 and depends on N.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from expunge.core.seeds import numpy_seed
from expunge.metrics.klom import Variant, klom
from expunge.papers.ascent_fails_to_forget.finding import Table
from expunge.papers.ascent_fails_to_forget.reproduction.context import Context
from expunge.papers.ascent_fails_to_forget.reproduction.item import Found, Item
from expunge.papers.ascent_fails_to_forget.reproduction.record import Chart, Panel, Series

COUNTS = (20, 35, 50, 80, 100, 150, 200)
EXAMPLES = 2000
STEADY = 0.1
"""Share by which the floor may fall from 80 to 100 models and still be called stable."""
ESTIMATORS: Mapping[str, Variant] = {"published (EasyDUB)": "easydub", "ours": "expunge"}


def floors(members: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return mean and 95th percentile over examples of every estimator, for two sets of normal margins of one law.

    Args:
        members: Models on each side.
        seed: Of the margins.
    """
    rng = np.random.default_rng([numpy_seed(seed), members])
    one, other = rng.normal(size=(2, members, EXAMPLES))
    found = {}
    for label, variant in ESTIMATORS.items():
        values = klom(one, other, variant=variant)
        found[label] = float(values.mean()), float(np.percentile(values, 95))
    return found


def check(context: Context) -> Found:
    """Read the floor at several numbers of models."""
    read = {count: floors(count, context.seed) for count in COUNTS}
    rows: list[list[str | int | float | None]] = [
        [count, *(round(value, 2) for label in ESTIMATORS for value in read[count][label])] for count in COUNTS
    ]
    header = ["models a side", *(f"{label}: {what}" for label in ESTIMATORS for what in ("mean", "P95"))]
    public = {count: read[count]["published (EasyDUB)"] for count in COUNTS}
    panel = Panel(
        title="Two sets of models of one kind",
        x="models on each side",
        y="P95 of KLoM, nats",
        series=[
            Series(label=label, x=list(map(float, COUNTS)), y=[read[count][label][1] for count in COUNTS], mark="line")
            for label in ESTIMATORS
        ],
        levels=[0.0],
    )
    falls = 1 - public[100][1] / public[80][1]
    return Found(
        "does not hold" if falls > STEADY else "holds",
        [
            f"Two sets of 100 models of one kind read a mean of {public[100][0]:.2f} and a 95th percentile of "
            f"{public[100][1]:.2f} nats by the published estimator, and {public[20][1]:.1f} at 20 models: the floor.",
            f"From 80 to 100 models that percentile falls by {falls:.0%}, from {public[80][1]:.2f} to "
            f"{public[100][1]:.2f}, and to {public[200][1]:.2f} at 200: a score means nothing without the floor at its "
            "own number of models.",
        ],
        size=f"{EXAMPLES:,} simulated examples, margins standard normal on both sides; seed {context.seed}",
        tables=[Table(title="KLoM where there is no difference, nats", columns=header, rows=rows)],
        charts=[Chart(caption="What KLoM reads for two sets of models of one kind, by their number", panels=[panel])],
    )


ITEM = Item(
    ("P1", "P15"),
    "KLoM, and from how many models on it is stable",
    "KLoM compares the margins of 100 unlearned and 100 retrained models example by example; it is stable from 80 "
    "models on.",
    check,
)
