"""The public benchmark's own table, read again: what its numbers say, and what they cannot say.

The table has a row for every setting of gradient ascent (`ascent_forget`), descent-ascent (`scrub`) and SCRUB
(`scrubnew`) on nine forget sets of CIFAR-10, with KLoM over 100 models. Nothing is trained here.

    ascent        do two rates, ten times apart, damage differently?
    SCRUB         does any number change with the rate?
    the floor     what does doing nothing read where nothing is to be forgotten?
    the edge      at which rates does descent-ascent begin to work?

Source: https://github.com/RoyRin/data-unlearning-bench, klom_results.csv.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median

from expunge.core import InputError
from expunge.core.record import SPLITS, SplitName
from expunge.papers.ascent_fails_to_forget.finding import Table
from expunge.papers.ascent_fails_to_forget.reproduction import sets
from expunge.papers.ascent_fails_to_forget.reproduction.context import BENCHMARK, Context
from expunge.papers.ascent_fails_to_forget.reproduction.item import Found, Item
from expunge.papers.ascent_fails_to_forget.reproduction.items import klom
from expunge.papers.ascent_fails_to_forget.reproduction.presets import PAPER_GRID
from expunge.papers.ascent_fails_to_forget.reproduction.record import Chart, Panel, Series

FILE = "klom_results.csv"
ASCENT, JOINT, SCRUB, NOTHING = "ascent_forget", "scrub", "scrubnew", "do_nothing"
LABELS = {ASCENT: "gradient ascent", JOINT: "descent-ascent", SCRUB: "SCRUB", NOTHING: "doing nothing"}
"""Methods by the table's names; its code shows which is which."""
EPOCHS = {ASCENT: (1, 3, 5, 7, 10), JOINT: (5, 7, 10), SCRUB: (5, 7, 10)}
SMALL = (1e-5, 1e-4)
"""Two rates of ascent, far below the .4 of training."""
SAME = 0.1
"""Nats within which two readings are called the same."""
USEFUL = 0.75
"""Share of what doing nothing reads on its worst split, below which a setting has done something."""
PARTS: dict[SplitName, str] = {"forget": "forget_klom", "retain": "retain_klom", "validation": "val_klom"}
STATISTICS = ("95", "99", "mean", "std")
COLUMNS = (
    "dataset",
    "method",
    "lr",
    "epoch",
    "forget_id",
    "ascent_epochs",
    *(f"{part}_{statistic}" for part in PARTS.values() for statistic in STATISTICS),
)


@dataclass(frozen=True)
class Key:
    """A cell of the table: a method's setting on a forget set; 0 where the method has no such option."""

    method: str
    forget_set: str
    rate: float = 0.0
    epoch: int = 1
    ascent_epochs: int = 0


@dataclass(frozen=True)
class Cell:
    """What the table says of one setting."""

    written: tuple[str, ...]
    """All its twelve numbers, digit by digit."""
    p95: Mapping[SplitName, float]

    @property
    def worst(self) -> float:
        """Of the three splits."""
        return max(self.p95.values())


Cells = Mapping[Key, Cell]


def expected() -> Iterator[Key]:
    """Yield every cell that the published table has of these methods."""
    for number in sets.NINE:
        yield Key(NOTHING, number)
        for rate, epoch in product(PAPER_GRID.ascent_rates, EPOCHS[ASCENT]):
            yield Key(ASCENT, number, rate, epoch)
        for method in (JOINT, SCRUB):
            for rate, epoch, climbing in product(PAPER_GRID.joint_rates, EPOCHS[method], PAPER_GRID.ascent_epochs):
                yield Key(method, number, rate, epoch, climbing)


def read(path: Path) -> tuple[Cells, str]:
    """Return the cells of the published table, and the SHA-256 of the file.

    Args:
        path: The benchmark's `klom_results.csv`.

    Raises:
        InputError: If it is not this table, or not all of it; the message names the line or the cell.
    """
    content = path.read_bytes()
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""))
        header = rows.fieldnames or []
        lacking = [name for name in COLUMNS if name not in header]
        if lacking:
            raise InputError(_unlike(path, f"has no column {lacking[0]!r} (it has {', '.join(header[:6]) or 'none'})"))
        found: dict[Key, Cell] = {}
        for row in rows:
            where = f"line {rows.line_num}"
            if row["dataset"] != "cifar10" or row["method"] not in LABELS:
                continue
            key, cell = _cell(row, path, where)
            if key in found:
                raise InputError(_unlike(path, f"{where} is a second row of {_words(key)}"))
            found[key] = cell
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(_unlike(path, f"cannot be read as text with commas: {error}")) from error
    missing = [key for key in expected() if key not in found]
    if missing:
        every = sum(1 for _ in expected())
        why = f"lacks {len(missing)} of {every} rows, such as {_words(missing[0])}; it may have been cut off"
        raise InputError(_unlike(path, why))
    return found, hashlib.sha256(content).hexdigest()


def _cell(row: Mapping[str, str | None], path: Path, line: str) -> tuple[Key, Cell]:
    names = [name for name in COLUMNS if "_klom_" in name]
    numbers = {}
    for name in ("lr", "epoch", "ascent_epochs", *names):
        text = row[name]
        blank = name in ("lr", "ascent_epochs") and text == ""
        try:
            value = 0.0 if blank else float(text or "")
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0:
            raise InputError(_unlike(path, f"{line}: {name} is {text!r}, expected a number of at least 0"))
        numbers[name] = value
    key = Key(
        str(row["method"]),
        str(row["forget_id"]),
        numbers["lr"],
        int(numbers["epoch"]),
        int(numbers["ascent_epochs"]),
    )
    p95 = {split: numbers[f"{part}_95"] for split, part in PARTS.items()}
    return key, Cell(tuple(str(row[name]) for name in names), p95)


def _words(key: Key) -> str:
    return f"{LABELS[key.method]} at rate {key.rate:g}, epoch {key.epoch}, forget set {key.forget_set}"


def _unlike(path: Path, what: str) -> str:
    return (
        f"{path} {what}; expected {FILE} of https://github.com/RoyRin/data-unlearning-bench as it is published. "
        "Download it again, or leave published-table out."
    )


def where(context: Context) -> Path:
    """Return where the table is looked for.

    Raises:
        InputError: If there is none; the message says what to download.
    """
    path = context.benchmark() / FILE
    if not path.is_file():
        raise InputError(
            f"{path} is not there. Download it from https://github.com/RoyRin/data-unlearning-bench into "
            f"{BENCHMARK}/ of the folder that --data names."
        )
    return path


def prepare(context: Context) -> None:
    """Refuse a table that is there and cannot be read.

    Raises:
        InputError: If it is not the published one.
    """
    try:
        path = where(context)
    except InputError:
        return
    read(path)


def check(context: Context) -> Found:
    """Read the table, and say what each finding does to what the paper says."""
    try:
        path = where(context)
    except InputError as error:
        return Found("not run at this preset", [str(error)])
    cells, digest = read(path)
    floor = klom.floors(100, context.seed)["published (EasyDUB)"][1]
    same, sentence = _ascent(cells)
    alike, scrub = _scrub(cells)
    return Found(
        "holds under conditions" if same or alike else "holds",
        [sentence, scrub, _floor(cells, floor), _edge(cells)],
        size=f"{len(cells):,} rows of {FILE} (SHA-256 {digest[:16]}), 100 models, forget sets 1 to 9 of CIFAR-10",
        tables=[_table(cells)],
        charts=[_chart(cells, floor)],
    )


def differences(cells: Cells, rates: tuple[float, float] = SMALL) -> dict[SplitName, list[float]]:
    """Return how far two rates of ascent are apart, over all sets and epochs, by split."""
    pairs = [
        [cells[Key(ASCENT, number, rate, epoch)] for rate in rates]
        for number, epoch in product(sets.NINE, EPOCHS[ASCENT])
    ]
    return {split: [abs(one.p95[split] - other.p95[split]) for one, other in pairs] for split in SPLITS}


def unchanged(cells: Cells, method: str) -> tuple[int, int]:
    """Return in how many settings all numbers are the same, digit by digit, at every rate; and how many there are."""
    settings = list(product(sets.NINE, EPOCHS[method], PAPER_GRID.ascent_epochs))
    same = [
        len({cells[Key(method, number, rate, epoch, climbing)].written for rate in PAPER_GRID.joint_rates}) == 1
        for number, epoch, climbing in settings
    ]
    return sum(same), len(settings)


def useful(cells: Cells, method: str) -> list[Key]:
    """Return the settings whose worst split is well below that of doing nothing."""
    return [
        key
        for key, cell in cells.items()
        if key.method == method and cell.worst < USEFUL * cells[Key(NOTHING, key.forget_set)].worst
    ]


def _ascent(cells: Cells) -> tuple[bool, str]:
    apart = differences(cells)
    most = {split: max(values) for split, values in apart.items()}
    damage = {
        split: max(cells[Key(ASCENT, number, SMALL[0], 10)].p95[split] for number in sets.NINE)
        for split in ("retain", "validation")
    }
    same = max(most["retain"], most["validation"]) < SAME < max(damage.values())
    told = (
        f"Gradient ascent at rates {SMALL[0]:g} and {SMALL[1]:g} differs, over all {len(apart['retain'])} sets and "
        f"epochs, by at most {most['retain']:.3f} nats on retain and {most['validation']:.3f} on validation, where "
        f"ten epochs do damage of up to {damage['retain']:.1f} and {damage['validation']:.1f}"
    )
    if same:
        told += (
            ": what does not change with the rate is not the climb, and these points of the figures say nothing "
            "about it (its code passes forget batches through in training mode, which moves the statistics of batch "
            "norm: see that item)"
        )
    return same, told + "."


def _scrub(cells: Cells) -> tuple[bool, str]:
    same, every = unchanged(cells, SCRUB)
    rates = f"{min(PAPER_GRID.joint_rates):g} to {max(PAPER_GRID.joint_rates):g}"
    told = f"In {same} of {every} settings of SCRUB all twelve numbers are the same, digit by digit, at rates {rates}"
    other, _ = unchanged(cells, JOINT)
    told += f" (descent-ascent: {other} of {every})"
    if same == every:
        told += (
            ": no weight was moved, and that SCRUB stays close to the pretrained models was not tested (its optimiser "
            "holds the teacher's weights: see the item on SCRUB)"
        )
    return same == every, told + "."


def _floor(cells: Cells, floor: float) -> str:
    kept = [cells[Key(NOTHING, number)].p95[split] for number in sets.NINE for split in ("retain", "validation")]
    return (
        f"Doing nothing reads {min(kept):.2f} to {max(kept):.2f} on retain and validation; two sets of 100 models of "
        f"one kind read {floor:.2f} by the same estimator. That is the floor and no damage: models that were never "
        "touched are as near to the oracles there as other oracles are, and a star at 0 cannot be reached."
    )


def _edge(cells: Cells) -> str:
    found, largest = useful(cells, JOINT), max(PAPER_GRID.joint_rates)
    at_edge = sum(key.rate == largest for key in found)
    climbing = useful(cells, ASCENT)
    told = (
        f"Descent-ascent brings the worst split to less than {USEFUL:.0%} of doing nothing in {len(found)} settings, "
        f"on {len({key.forget_set for key in found})} of 9 sets; {at_edge} of them have the largest rate tried, "
        f"{largest:g}, where training peaked at 0.4"
    )
    if found and at_edge == len(found):
        told += ": the grid ends where the method begins to work, and says nothing of rates above it"
    told += f". Gradient ascent does so in {len(climbing)} settings"
    if climbing:
        rates = ", ".join(f"{rate:g}" for rate in sorted({key.rate for key in climbing}))
        told += f" (rates {rates}; largest tried {max(PAPER_GRID.ascent_rates):g})"
    return told + "."


def _table(cells: Cells) -> Table:
    rows: list[list[str | int | float | None]] = []
    for method in (NOTHING, ASCENT, JOINT, SCRUB):
        for rate in sorted({key.rate for key in cells if key.method == method}):
            own = [cell for key, cell in cells.items() if (key.method, key.rate) == (method, rate)]
            spans = [_span([cell.p95[split] for cell in own]) for split in SPLITS]
            rows.append([LABELS[method], f"{rate:g}" if rate else "", len(own), *spans])
    header = ["method", "rate", "settings", *(f"{split}: median (range)" for split in SPLITS)]
    return Table(title="Published P95 of KLoM over sets and epochs, nats", columns=header, rows=rows)


def _span(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _chart(cells: Cells, floor: float) -> Chart:
    panels = []
    for split in ("retain", "forget"):
        series = []
        for method, epochs in ((ASCENT, (1, 5, 10)), (JOINT, (10,)), (SCRUB, (10,))):
            for epoch in epochs:
                rates = sorted({key.rate for key in cells if key.method == method})
                own = [
                    [cell.p95[split] for key, cell in cells.items() if (key.method, key.rate, key.epoch) == at]
                    for at in ((method, rate, epoch) for rate in rates)
                ]
                label = f"{LABELS[method]}, {epoch} epoch{'s' if epoch > 1 else ''}"
                series.append(
                    Series(
                        label=label,
                        x=rates,
                        y=list(map(median, own)),
                        low=list(map(min, own)),
                        high=list(map(max, own)),
                        mark="line",
                    )
                )
        panels.append(
            Panel(title=split, x="rate", y="published P95 of KLoM, nats", series=series, log_x=True, levels=[floor])
        )
    return Chart(
        caption="The public table over the rate: median over nine forget sets, bands from the least to the most; "
        "dotted the floor",
        panels=panels,
    )


ITEM = Item(
    ("P2", "P4"),
    "The public table of the benchmark, read again",
    "Over the grids of the public benchmark gradient ascent breaks the models, SCRUB stays close to the pretrained "
    "ones, and no setting of descent-ascent reaches the oracles.",
    check,
    work=frozenset({"public"}),
    prepare=prepare,
)
