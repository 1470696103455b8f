"""Is it the ascent that damages, or the statistics of batch norm? Decided at rate 0.

The public code passes forget batches through in training mode, so that batch norm's running statistics become those of
the forget set, whatever the rate. Gradient ascent on one random set, ten epochs, plain SGD:

    updated         as the public code does: batches in training mode move the statistics
    frozen          the stored statistics are used, and stay
    recalibrated    frozen, and at the end the statistics are computed afresh on what is retained
    no norm         the same network without batch norm, trained at a quarter of the rate

At rate 0 no weight moves: what is then read with `updated` is the statistics alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from expunge.core import Ensemble
from expunge.core.record import SPLITS, SplitName
from expunge.core.seeds import derive
from expunge.ensembles import recalibrate
from expunge.methods import GradientAscent
from expunge.methods.unlearning import unlearn
from expunge.papers.ascent_fails_to_forget.finding import Table
from expunge.papers.ascent_fails_to_forget.reproduction import sets
from expunge.papers.ascent_fails_to_forget.reproduction.context import Context
from expunge.papers.ascent_fails_to_forget.reproduction.grid import PEAK
from expunge.papers.ascent_fails_to_forget.reproduction.item import Found, Item
from expunge.papers.ascent_fails_to_forget.reproduction.presets import Images
from expunge.papers.ascent_fails_to_forget.reproduction.probe import Probe, Reading
from expunge.papers.ascent_fails_to_forget.reproduction.record import Chart, Panel, Series

RATES = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
"""The paper's, for a peak rate of .4, and 0."""
SMALL = (1e-5, 1e-4)
EPOCHS = 10
"""The last of the paper's grid."""
SET = "2"
"""Random."""
Kind = Literal["updated", "frozen", "recalibrated", "no norm"]
KINDS: tuple[Kind, ...] = ("updated", "frozen", "recalibrated", "no norm")
KEPT: tuple[SplitName, ...] = ("retain", "validation")
ALIKE = 0.05
"""Share of a movement within which two movements are called the same."""

Readings = dict[tuple[Kind, float], Reading]


def with_norm(images: Images) -> Images:
    """Return the experiment with batch norm."""
    return images if images.norm else replace(images, norm="batch")


def without_norm(images: Images) -> Images:
    """Return the experiment without batch norm, at a rate at which it trains."""
    return replace(images, norm=None, lr=images.lr / 4) if images.norm else images


def probe_of(context: Context, images: Images) -> Probe:
    """Return the set in one of the two; the models of the figures are taken where they are of that kind."""
    part = "figures" if images == context.preset.figures else "norm" if images.norm else "plain"
    return Probe(context, images, SET, part)


def change(probe: Probe, kind: Kind, rate: float) -> Callable[[Ensemble], Ensemble]:
    """Return what takes pretrained models to unlearned ones.

    Args:
        probe: Task and forget set.
        kind: What becomes of the statistics.
        rate: In units of the recipe at hand.
    """
    statistics: Literal["updated", "frozen"] = "updated" if kind == "updated" else "frozen"
    method = GradientAscent(lr=rate, epochs=EPOCHS, statistics=statistics, optimizer="sgd")
    seed = derive(probe.context.seed, "batch-norm") % 2**31

    def changed(models: Ensemble) -> Ensemble:
        found = unlearn(models, probe.task, probe.forget, method, seed=seed)
        # The method would do so after every epoch; only the last is read.
        return recalibrate(found, probe.task.train.x[probe.forget.retain]) if kind == "recalibrated" else found

    return changed


def readings(context: Context) -> tuple[Readings, Reading]:
    """Return what is read of every kind and rate, and of the pretrained models."""
    images = context.preset.figures
    probes = {"norm": probe_of(context, with_norm(images)), "plain": probe_of(context, without_norm(images))}
    found: Readings = {}
    for kind in KINDS:
        probe = probes["plain" if kind == "no norm" else "norm"]
        for rate in RATES:
            scaled = rate * images.lr / PEAK
            what = ["ascent", kind, scaled, EPOCHS]
            found[kind, rate] = probe.read(what, change(probe, kind, scaled))
    return found, probes["norm"].read("pretrained", lambda models: models)


def check(context: Context) -> Found:
    """Read all kinds and rates, and hold rate 0 against the others."""
    found, nothing = readings(context)
    images = context.preset.figures
    drift = drifts(found)
    lost = found["no norm", 0.0].lost
    return Found(
        "does not hold" if drift else "holds",
        _sentences(found, nothing, drift),
        size=context.setting(with_norm(images), context.preset.members)
        + f"; forget set {sets.words(SET)}, {sets.size_of(SET, len(context.task(images).train))} rows; {EPOCHS} epochs"
        + (f"; {lost} retrained models without norm did not train and are left out" if lost else ""),
        tables=[_table(found, nothing, context)],
        charts=[_chart(found)],
    )


def drifts(found: Readings) -> bool:
    """Return whether ascent at small rates moves members no further than the statistics alone do."""
    at_rest, frozen = found["updated", 0.0].moved, found["frozen", 0.0].moved
    return all(
        frozen[split] < ALIKE * at_rest[split]
        and abs(found["updated", rate].moved[split] - at_rest[split]) < ALIKE * at_rest[split]
        for split in KEPT
        for rate in SMALL
    )


def _sentences(found: Readings, nothing: Reading, drift: bool) -> list[str]:
    rest, frozen = found["updated", 0.0], found["frozen", 0.0]
    climbing = [found["updated", rate] for rate in SMALL]

    def pair(values: dict[SplitName, float]) -> str:
        return " / ".join(f"{values[split]:.2g}" for split in KEPT)

    def p95(reading: Reading) -> str:
        return pair({split: reading.scores[split].value for split in KEPT})

    spread = max(abs(each.moved[split] / rest.moved[split] - 1) for each in climbing for split in KEPT)
    sentences = [
        f"In training mode rate 0, where no weight moves, takes P95 of KLoM on retain / validation from {p95(nothing)} "
        f"to {p95(rest)} nats, and rates 1e-5 and 1e-4 to {p95(climbing[0])} and {p95(climbing[1])}"
        + (
            ": at these rates the damage is that of the statistics, and none of it that of ascent."
            if drift
            else ": the damage at these rates is not that of the statistics alone."
        ),
        f"Margins of a member move by {pair(rest.moved)} nats (root mean square) at rate 0, and by the same to "
        f"{spread:.2%} at the two small rates.",
        "With frozen statistics rate 0 changes "
        + ("nothing at all" if not any(frozen.moved.values()) else f"margins by {pair(frozen.moved)}")
        + f", and rate 1e-4 moves them by {pair(found['frozen', SMALL[1]].moved)}; in the network without norm by "
        f"{pair(found['no norm', SMALL[1]].moved)}.",
        f"Computed afresh on what is retained, the statistics bring P95 after rate 1e-4 to "
        f"{p95(found['recalibrated', SMALL[1]])}; at the largest rate, {RATES[-1]:g}, it is "
        + ", ".join(f"{p95(found[kind, RATES[-1]])} ({kind})" for kind in KINDS)
        + ".",
    ]
    return sentences


def _table(found: Readings, nothing: Reading, context: Context) -> Table:
    rows: list[list[Any]] = [
        ["floor (other oracles)", "", *nothing.floor_cells()],
        ["pretrained", "", *nothing.cells()],
    ]
    for kind in KINDS:
        rows += [[kind if rate == RATES[0] else "", f"{rate:g}", *found[kind, rate].cells()] for rate in RATES]
    scale = context.preset.figures.lr / PEAK
    return Table(
        title=f"P95 of KLoM by statistics and rate, nats; rates for a peak of {PEAK:g}, here times {scale:g}; the "
        "network without norm has a floor of its own",
        columns=["statistics", "rate", *Reading.columns()],
        rows=rows,
    )


def _chart(found: Readings) -> Chart:
    panels = []
    for split in SPLITS:
        series = [
            Series(
                label=kind,
                x=[rate or RATES[1] / 10 for rate in RATES],
                y=[found[kind, rate].scores[split].excess for rate in RATES],
                low=[found[kind, rate].scores[split].low - found[kind, rate].scores[split].floor for rate in RATES],
                high=[found[kind, rate].scores[split].high - found[kind, rate].scores[split].floor for rate in RATES],
                mark="line",
            )
            for kind in KINDS
        ]
        panels.append(
            Panel(
                title=split,
                x=f"rate (0 is drawn at {RATES[1] / 10:g})",
                y="KLoM above the floor, P95, nats",
                series=series,
                log_x=True,
                levels=[0.0],
            )
        )
    return Chart(
        caption="Gradient ascent over its rate, by what becomes of the statistics of batch norm", panels=panels
    )


ITEM = Item(
    ("P2", "P4", "P14"),
    "Batch norm: is it the ascent that damages?",
    "Gradient ascent damages what should be kept at all rates of its grid, down to 1e-5, a 40,000th of the rate of "
    "training.",
    check,
    work=frozenset({"probe", "plain"}),
)
