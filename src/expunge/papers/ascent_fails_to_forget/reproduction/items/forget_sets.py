"""The nine forget sets of App. K: sizes, classes, and how much of the datamodel matrix their components explain."""

from __future__ import annotations

import numpy as np

from expunge.papers.ascent_fails_to_forget.finding import Table
from expunge.papers.ascent_fails_to_forget.reproduction import sets
from expunge.papers.ascent_fails_to_forget.reproduction.context import BENCHMARK, Context
from expunge.papers.ascent_fails_to_forget.reproduction.item import Found, Item


def check(context: Context) -> Found:
    """Make every set that is asked for, and hold it beside the benchmark's list where that is at hand."""
    images = context.preset.figures
    task = context.task(images)
    labels = task.train.y.numpy()
    published = _published(context)
    rows: list[list[str | int | float | None]] = []
    components: dict[int, float] = {}
    for number in context.numbers:
        forget = context.choice(images, "figures", number).forget
        counts = np.bincount(labels[forget.indices], minlength=task.classes)
        component = sets.component_of(number)
        if component:
            components[component] = float(context.principal(images, "figures").shares[component - 1])
        theirs = published.get(number)
        rows.append(
            [
                sets.words(number),
                len(forget),
                f"{counts.max() / len(forget):.0%} of class {counts.argmax()}",
                "" if theirs is None else len(theirs),
                "" if theirs is None else _class_share(labels[theirs]),
                "" if theirs is None else len(np.intersect1d(theirs, forget.indices)),
            ]
        )
    header = ["forget set", "rows", "largest class", "published rows", "its largest class", "rows in common"]
    if not published:
        rows, header = [row[:3] for row in rows], header[:3]
    sentences = [
        f"{len(rows)} forget sets were made by the rule of App. K, at the paper's shares of the training data."
    ]
    if components:
        parts = " and ".join(f"{share:.1%}" for _, share in sorted(components.items()))
        sentences.append(
            f"The components come from {context.preset.subsets} models on random halves of the data and explain "
            f"{parts} of the variance of the datamodel matrix; with more models they would be less noisy."
        )
    if published:
        sentences.append(
            "The published lists come from datamodels of another network, so their rows differ. The published third "
            "set has 1,000 rows where the text says 500; here it has the text's size, and published-3 runs the list "
            "itself."
        )
    return Found(
        "holds",
        sentences,
        size=context.setting(images, context.preset.members),
        tables=[Table(title="Forget sets", columns=header, rows=rows)],
    )


def _published(context: Context) -> dict[str, np.ndarray]:
    """Return the benchmark's lists by our numbers, where they are at hand and belong to these data."""
    folder = (context.root or context.folder / "nowhere") / BENCHMARK / "forget_set_indices" / "CIFAR10"
    task = context.task(context.preset.figures)
    if context.preset.figures.data != "cifar10" or len(task.train) != 50_000 or not folder.is_dir():
        return {}
    return {
        number: context.choice(context.preset.figures, "figures", f"published-{number}").forget.indices
        for number in sets.NINE
    }


def _class_share(labels: np.ndarray) -> str:
    counts = np.bincount(labels)
    return f"{counts.max() / len(labels):.0%} of class {counts.argmax()}"


ITEM = Item(
    ("P3",),
    "App. K: nine forget sets",
    "Three random sets, and three sets on each of the first two principal components of the datamodel matrix, of 10, "
    "100 and 500 of 50,000 examples.",
    check,
    work=frozenset({"sets"}),
)
