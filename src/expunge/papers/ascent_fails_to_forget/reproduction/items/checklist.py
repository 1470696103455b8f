"""App. B: two questions before any method is believed.

(i)   how far are pretrained models from oracles on F, compared with R and V?
(ii)  how sensitive is the result to rate and stopping time?
"""

from __future__ import annotations

from expunge.core.record import SPLITS
from expunge.papers.ascent_fails_to_forget.finding import Table
from expunge.papers.ascent_fails_to_forget.reproduction import sets
from expunge.papers.ascent_fails_to_forget.reproduction.context import Context
from expunge.papers.ascent_fails_to_forget.reproduction.item import Found, Item
from expunge.papers.ascent_fails_to_forget.reproduction.reading import candidates, distance, something
from expunge.papers.ascent_fails_to_forget.reproduction.record import Chart, Panel, Series


def check(context: Context) -> Found:
    """Answer both for every forget set."""
    forgets = context.figures()
    rows: list[list[str | int | float | None]] = []
    for number, forget in forgets.items():
        ranges = {}
        for settings in candidates(forget).values():
            values = sorted(map(distance, settings))
            ranges[settings[0].label] = f"{values[0]:.2f} to {values[-1]:.2f}"
        scores = [f"{forget.pretrained[split].value:.2f} / {forget.floor[split].value:.2f}" for split in SPLITS]
        rows.append([sets.words(number), *scores, *ranges.values()])
    labels = list(ranges) if forgets else []
    header = [
        "forget set",
        *(f"{split}: pretrained / floor" for split in SPLITS),
        *(f"{label}: range" for label in labels),
    ]
    there = sum(map(something, forgets.values()))
    beside = [
        number
        for number, forget in forgets.items()
        if forget.pretrained["forget"].excess
        > 2 * max(0.0, forget.pretrained["retain"].excess, forget.pretrained["validation"].excess)
    ]
    series = [
        Series(
            label=split,
            x=[float(place + 1) for place in range(len(forgets))],
            y=[forget.pretrained[split].excess for forget in forgets.values()],
            low=[forget.pretrained[split].low - forget.floor[split].value for forget in forgets.values()],
            high=[forget.pretrained[split].high - forget.floor[split].value for forget in forgets.values()],
        )
        for split in SPLITS
    ]
    panel = Panel(
        title="Pretrained models against oracles",
        x=f"forget set ({', '.join(forgets)})",
        y="KLoM above the floor, P95, nats",
        series=series,
        levels=[0.0],
    )
    return Found(
        "holds" if there else "does not hold",
        [
            f"There is something to unlearn on {there} of {len(forgets)} forget sets, and on {len(beside)} of them the "
            "gap on F is more than twice that on R and validation.",
            "Over rate and stopping time the distance to the oracles spans the ranges of the table: a result without "
            "its selection says nothing.",
        ],
        size=context.setting(context.preset.figures, context.preset.members),
        tables=[
            Table(title="P95 of KLoM, nats; ranges are worst excesses over all settings", columns=header, rows=rows)
        ],
        charts=[Chart(caption="The distance that unlearning has to cover", panels=[panel])],
    )


ITEM = Item(
    ("P14",),
    "App. B: the checklist",
    "Before anything else: is the gap between pretrained models and oracles larger on F than on R and validation, and "
    "how much hangs on rate and stopping time?",
    check,
    work=frozenset({"audits"}),
)
