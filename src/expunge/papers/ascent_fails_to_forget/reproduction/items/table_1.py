"""Table 1: how far are pretrained models from retrained ones, on MNIST and Fashion-MNIST?

For each data set and size of a random forget set F: P95 of KLoM between models of all examples and models retrained
without F, on F, on what is retained and on validation; beside it the floor, which the paper's table does not have.
All examples are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from expunge.core import Ensemble, ForgetSet
from expunge.core.record import SPLITS
from expunge.core.result import Result
from expunge.core.seeds import derive
from expunge.metrics.klom import klom
from expunge.metrics.rows import row_test
from expunge.metrics.ruler import Ruler
from expunge.papers.ascent_fails_to_forget.finding import Table
from expunge.papers.ascent_fails_to_forget.reproduction import data
from expunge.papers.ascent_fails_to_forget.reproduction.context import Context
from expunge.papers.ascent_fails_to_forget.reproduction.item import Found, Item
from expunge.papers.ascent_fails_to_forget.reproduction.presets import Images
from expunge.papers.ascent_fails_to_forget.reproduction.record import Chart, Panel, Series
from expunge.tasks import random_forget_set

PUBLISHED: Mapping[tuple[str, float], tuple[float, float, float]] = {
    ("mnist", 0.0002): (0.5, 0.7, 0.71),
    ("mnist", 0.002): (2.72, 2.88, 2.9),
    ("mnist", 0.1): (1.79, 1.65, 1.71),
    ("fashion_mnist", 0.0002): (4.13, 1.87, 2.76),
    ("fashion_mnist", 0.002): (2.72, 1.79, 2.7),
    ("fashion_mnist", 0.1): (2.69, 2.0, 3.31),
}
"""The paper's table 1: P95 on forget, retain and validation, by data and share; its KLoM, without a floor."""

Scores = dict[str, Any]


def size_of(share: float, examples: int) -> int:
    """Return how many examples a share is.

    >>> size_of(0.0002, 60_000)
    12
    """
    return max(5, round(share * examples))


def check(context: Context) -> Found:
    """Train, or find, the models of every row, and read them."""
    cells = [
        (images, share, measured(context, images, share))
        for images in context.preset.tables
        for share in context.preset.shares
    ]
    rows: list[list[Any]] = []
    name = ""
    for images, share, scores in cells:
        published = PUBLISHED.get((images.data, share))
        for place, split in enumerate(SPLITS):
            ours = Result(**scores[split])
            rows.append(
                [
                    "" if data.title(images) == name else data.title(images),
                    f"{share:.2%} ({scores['size']:,})" if place == 0 else "",
                    split,
                    f"{ours.value:.2f} [{ours.low:.2f}, {ours.high:.2f}]",
                    f"{ours.floor:.2f} [{ours.floor_low:.2f}, {ours.floor_high:.2f}]",
                    f"{scores['told']:,} of {ours.examples:,}" if split == "forget" else "",
                    f"{scores['public'][split]:.2f}",
                    f"{scores['public_floor'][split]:.2f}",
                    f"{published[place]:.2f}" if published else "",
                ]
            )
            name = data.title(images)
    title = "P95 of KLoM between pretrained and retrained models, nats"
    header = [
        "data",
        "share (rows)",
        "split",
        "KLoM [95 %]",
        "floor [95 %]",
        "told rows",
        "easydub",
        "its floor",
        "paper",
    ]
    separated = [
        (images, share, scores)
        for images, share, scores in cells
        if Result(**scores["forget"]).low > scores["forget"]["floor_high"]
    ]
    return Found(
        "holds" if not separated else "holds under conditions" if len(separated) < len(cells) else "does not hold",
        _sentences(cells, separated),
        size="; ".join(context.setting(images, context.preset.table_members) for images in context.preset.tables)
        + "; all examples read; every forget set random",
        tables=[Table(title=title, columns=header, rows=rows)],
        charts=[_chart(cells)],
    )


def measured(context: Context, images: Images, share: float) -> Scores:
    """Return scores of one row of the table, kept as it is made."""
    task, members = context.task(images), context.preset.table_members
    size = size_of(share, len(task.train))
    key = {"item": "table-1", "task": task.fingerprint, "size": size, "members": members, "seed": context.seed}
    earlier = context.parts.read(key)
    if earlier is not None:
        found: Scores = json.loads(earlier[1]["scores"])
        return found
    forget = random_forget_set(task, size, seed=derive(context.seed, "table-1", size) % 2**31)
    store = context.folder / "table-1"
    sides = {
        role: _margins(
            context.models(images, store, role, members, None if role == "pretrained" else forget), context, images
        )
        for role in ("pretrained", "oracle", "held-out oracle")
    }
    scores = read(sides, forget, len(task.train), context.seed)
    context.parts.write(key, {}, {"scores": json.dumps(scores)})
    return scores


def read(sides: Mapping[str, np.ndarray[Any, Any]], forget: ForgetSet, train: int, seed: int) -> Scores:
    """Return scores by split from margins on all training examples, then all validation examples.

    Args:
        sides: `pretrained`, `oracle` and `held-out oracle`, each (members, examples).
        forget: Which rows were forgotten.
        train: Number of training examples.
        seed: Of the bootstrap.
    """
    everything = next(iter(sides.values())).shape[1]
    columns = {"forget": forget.indices, "retain": forget.retain, "validation": np.arange(train, everything)}
    scores: Scores = {"size": len(forget), "public": {}, "public_floor": {}}
    for split in SPLITS:
        pretrained, oracle, held_out = (margins[:, columns[split]] for margins in sides.values())
        ruler = Ruler(oracle, held_out, seed=seed, resample_examples=split != "forget")
        scores[split] = asdict(ruler.score(pretrained))
        if split == "forget":
            # A percentile can be low while single rows are far off: each is tested, at 5 % over all of them.
            scores["told"] = int(row_test(pretrained, np.concatenate([oracle, held_out]), seed=seed).told(0.05).sum())
        for name, side in (("public", pretrained), ("public_floor", held_out)):
            scores[name][split] = float(np.percentile(klom(side, oracle, variant="easydub"), 95))
    return scores


def _margins(models: Ensemble, context: Context, images: Images) -> np.ndarray[Any, Any]:
    task = context.task(images)
    parts = [models.margins(split.x, split.y).numpy() for split in (task.train, task.validation)]
    return np.concatenate(parts, 1)


def _sentences(cells: list[tuple[Images, float, Scores]], separated: list[tuple[Images, float, Scores]]) -> list[str]:
    def excess(scores: Scores, split: str) -> float:
        return Result(**scores[split]).excess

    largest = max(cells, key=lambda cell: excess(cell[2], "forget"))
    found = [
        f"On {len(cells) - len(separated)} of {len(cells)} forget sets the models that saw the forget set cannot be "
        "told from retrained ones by the percentile; such data can show nothing about forgetting."
        if len(separated) < len(cells)
        else f"On all {len(cells)} forget sets the models that saw the forget set are above the floor."
    ]
    images, share, scores = largest
    found.append(
        f"The largest distance that there is to cover is {excess(scores, 'forget'):.2f} nats above the floor "
        f"({data.title(images)}, {share:.2%})."
    )
    floors = [scores["public_floor"]["forget"] for _, _, scores in cells]
    found.append(
        f"The published estimator reads {min(floors):.2f} to {max(floors):.2f} for two sets of retrained models: "
        "numbers of that size in the paper's table are its floor."
    )
    return found


def _chart(cells: list[tuple[Images, float, Scores]]) -> Chart:
    panels = []
    for name in dict.fromkeys(data.title(images) for images, _, _ in cells):
        own = [(share, scores) for images, share, scores in cells if data.title(images) == name]
        shares = [share for share, _ in own]
        series = []
        for split in SPLITS:
            results = [Result(**scores[split]) for _, scores in own]
            series.append(
                Series(
                    label=split,
                    x=shares,
                    y=[each.excess for each in results],
                    low=[each.low - each.floor for each in results],
                    high=[each.high - each.floor for each in results],
                    mark="line",
                )
            )
        panels.append(
            Panel(
                title=name, x="share forgotten", y="KLoM above the floor, nats", series=series, log_x=True, levels=[0.0]
            )
        )
    return Chart(caption="Distance of pretrained from retrained models over the size of the forget set", panels=panels)


ITEM = Item(
    ("P12",),
    "Table 1: MNIST and Fashion-MNIST",
    "On MNIST and Fashion-MNIST pretrained and retrained models are barely apart, so that these data cannot show "
    "whether a method forgets.",
    check,
    work=frozenset({"tables"}),
)
