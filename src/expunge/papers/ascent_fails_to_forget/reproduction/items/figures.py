"""Figures 1, 2, 3, 6 and 7: gradient ascent, descent-ascent and SCRUB, every setting and stopping time of the grid.

    fig-1       KLoM on F against KLoM on validation, one random and one component set
    fig-2       the ascent forgets illusion: KLoM over unlearning time on the smallest random set
    fig-3       fig-1 over all forget sets
    fig-6-7     the same against the retain set

All are read from the audits of the forget sets, over the paper's grid of rates and above it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.core.record import ConfigurationRecord, ForgetRecord, SplitName
from expunge.papers.ascent_fails_to_forget.finding import Table
from expunge.papers.ascent_fails_to_forget.reproduction import sets
from expunge.papers.ascent_fails_to_forget.reproduction.context import Context
from expunge.papers.ascent_fails_to_forget.reproduction.grid import upward
from expunge.papers.ascent_fails_to_forget.reproduction.item import Found, Item
from expunge.papers.ascent_fails_to_forget.reproduction.reading import (
    Reached,
    apart,
    candidates,
    descended,
    distance,
    reached,
    runs,
    something,
    within,
)
from expunge.papers.ascent_fails_to_forget.reproduction.record import Chart, Panel, Series, Verdict

NEAR = 0.25
"""Nats above the floor below which a figure would call a setting successful; twice the tolerance of a verdict."""

FIG_1_SETS, FIG_2_SETS = ("2", "5"), ("1",)


def plane(title: str, forget: ForgetRecord, other: SplitName) -> Panel:
    """Return KLoM on F against that of another split: a dot a setting, pretrained a ring, oracles a star."""
    series = [
        Series(
            label=settings[0].label,
            x=[each.scores[other].value for each in settings],
            y=[each.scores["forget"].value for each in settings],
            colours=[each.cost for each in settings],
        )
        for settings in candidates(forget).values()
    ]
    for label, mark, scores in (
        ("pretrained", "pretrained", forget.pretrained),
        ("other oracles", "oracle", forget.floor),
    ):
        series.append(Series(label=label, x=[scores[other].value], y=[scores["forget"].value], mark=mark))
    return Panel(
        title=title,
        x=f"KLoM on {other}, P95, nats",
        y="KLoM on forget, P95, nats",
        series=series,
        log_x=True,
        log_y=True,
    )


def planes(caption: str, forgets: Mapping[str, ForgetRecord], other: SplitName) -> Chart:
    """Return one plane a forget set."""
    return Chart(
        caption=caption,
        panels=[plane(sets.words(number), forget, other) for number, forget in forgets.items()],
        colours="cost relative to retraining",
        log_colours=True,
    )


def table(forgets: Mapping[str, ForgetRecord], context: Context) -> Table:
    """Return doing nothing, best and honest choice of each method on each forget set."""
    rows: list[list[str | int | float | None]] = []
    recipe = context.task(context.preset.figures).recipe
    for number, forget in forgets.items():
        control = descended(forget)
        for place, each in enumerate([*reached(forget), *([control] if control else [])]):
            rate = float(each.best.options["lr"])
            above = each is not control and upward(rate, each.method, context.preset.grid, recipe)
            gap = each.selection
            rows.append(
                [
                    sets.words(number) if place == 0 else "",
                    f"{each.label} (control)" if each is control else each.label,
                    round(apart(forget.pretrained), 2),
                    round(each.least, 2),
                    f"{rate:.2g}{' (above the paper)' if above else ''}, epoch {each.best.epoch}",
                    f"{each.best.cost:.2g}",
                    round(each.honest, 2),
                    _gap(gap.illusion_gap, gap.gap_low, gap.gap_high),
                    each.chosen.verdict.name,
                ]
            )
    header = [
        "forget set",
        "method",
        "doing nothing",
        "best of grid",
        "its rate and epoch",
        "cost",
        "honest choice",
        "illusion gap [95 %]",
        "verdict",
    ]
    return Table(title="Worst P95 of KLoM above the floor over F, R and V, nats", columns=header, rows=rows)


def _gap(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def told(forgets: Mapping[str, ForgetRecord], context: Context) -> tuple[Verdict, list[str]]:
    """Return whether it holds that no method gets there, and the sentences that say how far each gets."""
    there = {number: forget for number, forget in forgets.items() if something(forget)}
    every = [(number, forget, each) for number, forget in there.items() for each in reached(forget)]
    if not there:
        return "not run at this preset", [
            f"On none of {len(forgets)} forget sets is there anything to unlearn: nothing can be shown."
        ]
    passed = [each for _, _, each in every if each.chosen.verdict.name == "indistinguishable"]
    counts = [sum(len(settings) for settings in candidates(forget).values()) for forget in there.values()]
    near = [sum(within(settings, NEAR) for settings in candidates(forget).values()) for forget in there.values()]
    sentences = [
        f"Of {sum(counts):,} settings and stopping times on {len(there)} forget sets with something to unlearn, "
        f"{sum(near):,} come within {NEAR} nats of the floor on F, R and validation at once; chosen without the "
        f"oracles, {len(passed)} of {len(every)} pass the verdict."
    ]
    for method in dict.fromkeys(each.method for _, _, each in every):
        own = [(forget, each) for _, forget, each in every if each.method == method]
        sentences.append(_share_sentence(own))
    controls = [(forget, descended(forget)) for forget in there.values()]
    alone = [(forget, each) for forget, each in controls if each is not None]
    if alone:
        sentences.append(f"Without any climbing: {_share_sentence(alone)}")
    recipe = context.task(context.preset.figures).recipe
    above = [
        each for _, _, each in every if upward(float(each.best.options["lr"]), each.method, context.preset.grid, recipe)
    ]
    if above:
        sentences.append(f"The best rate lies above the paper's grid in {len(above)} of {len(every)} cases.")
    return verdict_of(len(passed), len(every)), sentences


def verdict_of(passed: int, tried: int) -> Verdict:
    """Return whether it holds that no method gets there, from how many of the honest choices do.

    >>> verdict_of(0, 6), verdict_of(1, 6), verdict_of(6, 6)
    ('holds', 'holds under conditions', 'does not hold')
    """
    return "holds" if not passed else "holds under conditions" if passed < tried else "does not hold"


def _share_sentence(own: list[tuple[ForgetRecord, Reached]]) -> str:
    def share(value: float, forget: ForgetRecord) -> float:
        return value / max(apart(forget.pretrained), 1e-9)

    best = sorted(share(each.least, forget) for forget, each in own)
    honest = sorted(share(each.honest, forget) for forget, each in own)
    return (
        f"{own[0][1].label}: its best setting leaves {_range(best)} of the distance that doing nothing leaves, its "
        f"honest choice {_range(honest)}."
    )


def _range(values: list[float]) -> str:
    low, high = f"{values[0]:.0%}", f"{values[-1]:.0%}"
    return low if low == high else f"{low} to {high}"


def _check(other: SplitName, caption: str, numbers: tuple[str, ...]) -> Any:
    def check(context: Context) -> Found:
        forgets = context.figures(numbers)
        if not forgets:
            return Found("not run at this preset", [f"None of its forget sets ({', '.join(numbers)}) was asked for."])
        verdict, sentences = told(forgets, context)
        return Found(
            verdict,
            sentences,
            size=context.setting(context.preset.figures, context.preset.members),
            tables=[table(forgets, context)],
            charts=[planes(caption, forgets, other)],
            pages={f"audit of set {number}": context.page("figures", number) for number in forgets},
        )

    return check


def illusion(context: Context) -> Found:
    """Draw KLoM over unlearning time, and say what stopping elsewhere costs."""
    forgets = context.figures(FIG_2_SETS)
    if not forgets:
        return Found("not run at this preset", [f"Its forget set ({', '.join(FIG_2_SETS)}) was not asked for."])
    ((number, forget),) = forgets.items()
    panels, sentences = [], []
    for each in reached(forget):
        curves = runs(candidates(forget)[each.method])
        panels.append(_over_time(each, curves, forget))
        own = [distance(stop) for stop in curves[each.best.run]]
        elsewhere = max(own)
        sentences.append(
            f"{each.label}: the best stopping time (epoch {each.best.epoch} of {len(own)}, {_setting(each.best)}) is "
            f"{each.least:.2f} nats above the floor, the worst of the same run {elsewhere:.2f}; what can be chosen "
            f"without the oracles {each.honest:.2f}, doing nothing {apart(forget.pretrained):.2f}. Its illusion gap is "
            f"{_gap(each.selection.illusion_gap, each.selection.gap_low, each.selection.gap_high)}."
        )
    real = [each.label for each in reached(forget) if each.selection.gap_low is not None and each.selection.gap_low > 0]
    first = (
        f"The gap between the best setting and the one that can be chosen is larger than chance for {', '.join(real)}."
        if real
        else "No gap between the best setting and the one that can be chosen is larger than chance."
    )
    verdict: Verdict = "holds" if real else "does not hold"
    if not something(forget):
        verdict, first = (
            "not run at this preset",
            "There is nothing to unlearn that could be seen: nothing can be shown.",
        )
    return Found(
        verdict,
        [first, *sentences],
        size=f"{forget.size} forget rows; " + context.setting(context.preset.figures, context.preset.members),
        charts=[Chart(caption="Distance from the oracles over unlearning time, one line a rate", panels=panels)],
        pages={f"audit of set {number}": context.page("figures", number)},
    )


def _over_time(each: Reached, curves: Mapping[str, list[ConfigurationRecord]], forget: ForgetRecord) -> Panel:
    nothing = apart(forget.pretrained)
    series = [
        Series(
            label=_setting(stops[0]),
            x=[0.0, *(float(stop.epoch) for stop in stops)],
            y=[nothing, *(distance(stop) for stop in stops)],
            mark="line",
        )
        for stops in curves.values()
    ]
    return Panel(
        title=each.label,
        x="epochs of unlearning",
        y="worst P95 above the floor, nats",
        series=series,
        levels=[0.0, nothing],
    )


def _setting(configuration: ConfigurationRecord) -> str:
    return f"rate {float(configuration.options['lr']):.2g}"


FIG_1 = Item(
    ("P2", "P4"),
    "Fig. 1: KLoM on the forget set against validation",
    "Ascent-based methods either hardly move the models or break them: no setting is near the oracles on the forget "
    "set and on validation.",
    _check("validation", "KLoM on F against validation, a dot a setting and stopping time", FIG_1_SETS),
    work=frozenset({"audits"}),
    sets=FIG_1_SETS,
)
FIG_2 = Item(
    ("P5",),
    "Fig. 2: the ascent forgets illusion",
    "On a few random points some setting looks successful, but only whoever knows its rate and its stopping time in "
    "advance could use it.",
    illusion,
    work=frozenset({"audits"}),
    sets=FIG_2_SETS,
)
FIG_3 = Item(
    ("P2", "P6"),
    "Fig. 3: all forget sets, against validation",
    "The same over nine forget sets: random ones and those along principal components of the datamodel matrix.",
    _check("validation", "KLoM on F against validation, all forget sets", ()),
    work=frozenset({"audits"}),
)
FIG_6_7 = Item(
    ("P2", "P6"),
    "Fig. 6 and 7: all forget sets, against what is retained",
    "The same with the retain set on the other axis.",
    _check("retain", "KLoM on F against what is retained, all forget sets", ()),
    work=frozenset({"audits"}),
)
