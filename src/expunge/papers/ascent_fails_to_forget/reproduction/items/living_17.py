"""ResNet-18 on Living-17, of the paper's appendix: the whole way, on images that are made up here.

The images are those of ImageNet, which nobody may pass on, and ensembles of ResNet-18 on 44,000 of them want a GPU. So
the preset `tiny` makes up a folder of images, one colour a kind and noise, and goes the whole way on them: the loader,
a narrow ResNet-18, a forget set from a file of rows, gradient ascent, the ruler. On one's own copy the same is

    task = ex.tasks.living17("ILSVRC2012")
    ex.audit(task, forget="rows.npy", methods=["gradient_ascent"])
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from expunge.core import ForgetSet, Task
from expunge.core.record import SPLITS
from expunge.core.result import Result
from expunge.core.seeds import derive
from expunge.ensembles import train
from expunge.methods import GradientAscent
from expunge.methods.unlearning import unlearn
from expunge.metrics.ruler import Ruler
from expunge.papers.ascent_fails_to_forget.finding import Table
from expunge.papers.ascent_fails_to_forget.reproduction.context import Context
from expunge.papers.ascent_fails_to_forget.reproduction.item import Found, Item
from expunge.papers.ascent_fails_to_forget.reproduction.presets import Preset
from expunge.papers.ascent_fails_to_forget.reproduction.record import Chart, Panel, Series
from expunge.studies.run.measure import Parts, margins_of
from expunge.tasks import from_file, living17, resnet18
from expunge.tasks.breeds import LIVING17, classes_of

FOLDER = "living-17"
SIZE, TRAIN, VALIDATION = 8, 3, 1
"""Pixels of a side, and images of each folder, of those that are made up."""
WIDTH, MEMBERS, EPOCHS, RATE = 4, 8, 2, 0.01
ROWS = (0, 17, 34, 51, 68)
"""The forget set."""


def made_up(folder: Path) -> None:
    """Write a folder as ILSVRC2012 has them, of the source domain: one colour a kind, and noise.

    Args:
        folder: Gets `train/` and `val/`.
    """
    for name, kind in classes_of("source").items():
        rng = np.random.default_rng([17, int(name[1:])])
        colour = np.random.default_rng([18, kind]).integers(0, 256, 3)
        for part, count in (("train", TRAIN), ("val", VALIDATION)):
            place = folder / part / name
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                noise = rng.integers(-60, 61, (SIZE, SIZE + 2, 3))
                pixels = np.clip(colour + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{name}_{number}.PNG")


def prepared(folder: Path) -> tuple[Task, ForgetSet]:
    """Return task and forget set of a folder of made-up images."""
    made_up(folder / "images")
    model = partial(resnet18, classes=len(LIVING17), width=WIDTH)
    task = living17(folder / "images", size=SIZE, model=model, epochs=EPOCHS, batch_size=34, lr=0.1)
    np.save(folder / "rows.npy", np.array(ROWS))
    return task, from_file(task, folder / "rows.npy")


def check(context: Context) -> Found:
    """Go the whole way on images that are made up."""
    task, forget = prepared(context.folder / FOLDER)
    key = {"item": FOLDER, "task": task.fingerprint, "members": MEMBERS, "seed": context.seed}
    earlier = context.parts.read(key)
    if earlier is None:
        scores = {name: asdict(result) for name, result in measured(context, task, forget).items()}
        context.parts.write(key, {}, {"scores": json.dumps(scores)})
    else:
        scores = json.loads(earlier[1]["scores"])
    results = {name: Result(**found) for name, found in scores.items()}
    rows: list[list[Any]] = [
        [who, *(f"{results[f'{who}/{split}'].value:.2f}" for split in SPLITS)] for who in ("pretrained", "ascent")
    ]
    rows.append(["floor", *(f"{results[f'ascent/{split}'].floor:.2f}" for split in SPLITS)])
    series = [
        Series(
            label=who,
            x=[1.0, 2.0, 3.0],
            y=[results[f"{who}/{split}"].value for split in SPLITS],
            low=[results[f"{who}/{split}"].low for split in SPLITS],
            high=[results[f"{who}/{split}"].high for split in SPLITS],
        )
        for who in ("pretrained", "ascent")
    ]
    panel = Panel(title="made-up images", x="forget, retain, validation", y="KLoM, P95, nats", series=series)
    return Found(
        "not run at this preset",
        [
            "No image of ImageNet was seen. The same steps went the whole way on made-up images: the loader of "
            "Living-17, ResNet-18, a forget set from a file of rows, gradient ascent, the ruler.",
            "With ILSVRC2012 at hand, `ex.tasks.living17(root)` is the task; the numbers say nothing of the paper.",
        ],
        size=f"{len(task.train)} made-up training and {len(task.validation)} validation images of {SIZE} pixels a "
        f"side, {len(classes_of('source'))} classes of ImageNet in {len(LIVING17)} kinds; ResNet-18 of width {WIDTH}, "
        f"{EPOCHS} epochs; {MEMBERS} members; {len(forget)} rows forgotten; seed {context.seed}",
        tables=[Table(title="P95 of KLoM on made-up images, nats", columns=["models", *SPLITS], rows=rows)],
        charts=[Chart(caption="That the way is whole; no finding", panels=[panel])],
    )


def measured(context: Context, task: Task, forget: ForgetSet) -> dict[str, Result]:
    """Return scores of the pretrained and the unlearned models, by who and split."""

    def models(role: str, without: ForgetSet | None) -> Any:
        seed = derive(context.seed, FOLDER, role) % 2**31
        store = context.folder / FOLDER / "models"
        return train(task, members=MEMBERS, without=without, seed=seed, store=store, device=context.device)

    pretrained = models("pretrained", None)
    method = GradientAscent(lr=RATE, epochs=EPOCHS, optimizer="sgd")
    unlearned = unlearn(pretrained, task, forget, method, seed=context.seed)
    parts = Parts.of(task, forget, context.seed)
    oracle, held_out = (margins_of(parts.measure(models(role, forget))) for role in ("oracle", "held-out oracle"))
    found = {}
    for who, ensemble in (("pretrained", pretrained), ("ascent", unlearned)):
        margins = margins_of(parts.measure(ensemble))
        for split in SPLITS:
            ruler = Ruler(oracle[split], held_out[split], seed=context.seed, resample_examples=split != "forget")
            found[f"{who}/{split}"] = ruler.score(margins[split])
    return found


def _absent(preset: Preset) -> str:
    if preset.figures.data == "digits":
        return ""
    return (
        "It needs the images of ImageNet (ILSVRC2012), which nobody may pass on, and a GPU for ensembles of ResNet-18 "
        "on 44,000 of them. With both, ex.tasks.living17(root) is the task, and expunge.audit runs it; the preset tiny "
        "goes the whole way on made-up images."
    )


ITEM = Item(
    ("P17",),
    "ResNet-18 on Living-17",
    "The same holds of ResNet-18 on Living-17, 17 kinds of animals of ImageNet (appendix).",
    check,
    absent=_absent,
)
