"""The study: the items that are asked for, one after the other; parts that they share are made once.

prepare     everything that can be refused is refused: names, data files, the folder
plan        what each kind of work would take here, from a few steps of it
run         items in the order of the page; each is kept as it is finished
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rich.console import Console

from expunge.core.checks import one_of, plain_arguments, seeds
from expunge.core.digest import digest_json
from expunge.ensembles.chunks import pick_device
from expunge.papers.ascent_fails_to_forget.reproduction import sets
from expunge.papers.ascent_fails_to_forget.reproduction.context import Context
from expunge.papers.ascent_fails_to_forget.reproduction.item import Found, Item
from expunge.papers.ascent_fails_to_forget.reproduction.names import ITEMS
from expunge.papers.ascent_fails_to_forget.reproduction.presets import PRESETS, Images, Preset
from expunge.papers.ascent_fails_to_forget.reproduction.record import ItemRecord, ReproductionRecord, Verdict
from expunge.studies.run.lifecycle import Run
from expunge.studies.run.parts import PartStore

NOT_RUN: Verdict = "not run at this preset"


def item(name: str) -> Item:
    """Return an item by its name."""
    module, _, attribute = ITEMS[name].partition(".")
    place = import_module(f"expunge.papers.ascent_fails_to_forget.reproduction.items.{module}")
    found: Item = getattr(place, attribute)
    return found


def wanted(only: Sequence[str]) -> dict[str, Item]:
    """Return the items of these names in the order of the page; none asks for all.

    Raises:
        InputError: If a name is unknown.
    """
    for name in only:
        one_of(ITEMS, only=name)
    return {name: item(name) for name in ITEMS if not only or name in only}


def experiments(preset: Preset, items: Sequence[Item]) -> list[Images]:
    """Return the experiments whose data the items read."""
    work = frozenset().union(*(each.work for each in items))
    found = (
        [preset.figures]
        if work & {"sets", "audits", "probe", "plain", "promising"} or (not preset.residual and "residual" in work)
        else []
    )
    found += preset.tables if "tables" in work else ()
    found += [preset.residual] if preset.residual and "residual" in work else []
    return list(dict.fromkeys(found))


def prepare(
    preset: str, only: Sequence[str], numbers: Sequence[str], root: Path | None, seed: int, device: str, out: Path,
    console: Console | None = None,
) -> tuple[Context, dict[str, Item]]:  # fmt: skip
    """Return the context and the items, with all data read and checked before anything is trained.

    Raises:
        InputError: If a name is unknown, or files are missing or not the original ones.
    """
    one_of(PRESETS, preset=preset)
    seeds(seed=seed)
    items = wanted(only)
    chosen = PRESETS[preset]
    context = Context(
        chosen,
        out,
        root,
        seed,
        pick_device(device),
        sets.read_sets(numbers or tuple(map(str, chosen.sets))),
        PartStore(out / "parts"),
        console,
    )
    for images in experiments(chosen, list(items.values())):
        context.task(images)
    if any(each.work & {"audits", "sets"} for each in items.values()):
        for number in context.numbers:
            if number in sets.PUBLISHED:
                context.choice(chosen.figures, "figures", number)
    for each in items.values():
        each.prepare(context)
    return context, items


@plain_arguments
def run(
    preset: str = "cpu",
    *,
    only: Sequence[str] = (),
    sets: Sequence[str] = (),
    data: Path | str | None = None,
    out: Path | str = "runs/ascent-fails-to-forget",
    seed: int = 0,
    resume: bool = False,
    device: str = "auto",
    console: Console | None = None,
    command: str = "",
) -> tuple[Path, ReproductionRecord]:
    """Run items of the paper and write `reproduction.json`; ensembles, audits and items are kept as they are finished.

    Args:
        preset: `tiny`, `cpu` or `paper`, of `PRESETS`.
        only: Names of items, of `names.ITEMS`; none runs all. In a folder that holds others, they are added.
        sets: Forget sets of the figures: 1 to 9 of App. K, `published-1` to `published-10`; none is the preset's.
        data: Folder with MNIST, Fashion-MNIST, CIFAR-10; the preset tiny needs none.
        out: Folder of the run.
        seed: The study's seed.
        resume: Go on with a run that was interrupted, or add items and forget sets to it.
        device: `auto`, `cpu` or `cuda`.
        console: Where progress is shown; None is silent.
        command: The shell command that runs this again.

    Raises:
        InputError: If a name is unknown, data are missing or not the original ones, or the folder cannot be written or
            holds another run.
    """
    folder = Path(out)
    context, items = prepare(preset, only, sets, None if data is None else Path(data), seed, device, folder, console)
    request = {"preset": preset, "declared": digest_json(context.preset.describe()), "seed": seed}
    kept = resume and (folder / ReproductionRecord.FILE).is_file()
    earlier = ReproductionRecord.load(folder).items if kept else []
    with Run.open(
        ReproductionRecord,
        folder,
        request,
        resume=resume,
        command=command,
        device=context.device,
        sound=lambda record: False,  # items may be added; what is finished is found
        keep_parts=True,
        preset=preset,
        declared=context.preset.describe(),
        items=earlier,
    ) as going:
        found = {each.name: each for each in earlier}
        for place, (name, each) in enumerate(items.items()):
            context.say(f"{each.title} ({place + 1} of {len(items)})")
            found[name] = _checked(name, each, context, found.get(name))
            going.record.items = [found[known] for known in ITEMS if known in found]
            going.save()
    return folder, going.record


def _checked(name: str, each: Item, context: Context, earlier: ItemRecord | None) -> ItemRecord:
    began = time.perf_counter()
    why = each.absent(context.preset)
    found = Found(NOT_RUN, [why]) if why else each.check(context)
    record = ItemRecord(
        name=name,
        rows=list(each.rows),
        title=each.title,
        claim=each.claim,
        verdict=found.verdict,
        sentences=found.sentences,
        size=found.size,
        tables=found.tables,
        charts=found.charts,
        pages=found.pages,
        seconds=time.perf_counter() - began,
    )
    if earlier is not None and record.verdict == NOT_RUN != earlier.verdict:
        return earlier  # such as what was read from data that are not given this time
    if earlier is not None and record.model_dump(exclude={"seconds"}) == earlier.model_dump(exclude={"seconds"}):
        return earlier
    return record
