"""SCRUB as the public benchmark published it, beside SCRUB.

There the optimiser is built on the teacher's weights, and the teacher's outputs are computed without gradients: its
steps find no gradients, and neither teacher nor student ever moves. The student is in training mode, so the batches of
both passes move its normalisation statistics, and nothing else. `AsPublished` does that and no more: it takes every
batch of both passes at rate 0, whatever rate it is given. Differs from the public code: orders are shuffled (there the
batches come in the order of the file in every epoch).

Source of what the public code does: https://github.com/RoyRin/data-unlearning-bench, `scrub_new`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from expunge.core import Ensemble
from expunge.core.record import SPLITS
from expunge.core.seeds import derive
from expunge.methods import Scrub
from expunge.methods.problem import Checkpoint, Problem, Treatment
from expunge.methods.unlearning import unlearn
from expunge.papers.ascent_fails_to_forget.finding import Table
from expunge.papers.ascent_fails_to_forget.reproduction import sets
from expunge.papers.ascent_fails_to_forget.reproduction.context import Context
from expunge.papers.ascent_fails_to_forget.reproduction.grid import PEAK
from expunge.papers.ascent_fails_to_forget.reproduction.item import Found, Item
from expunge.papers.ascent_fails_to_forget.reproduction.items.batch_norm import SET, probe_of, with_norm
from expunge.papers.ascent_fails_to_forget.reproduction.presets import UPWARD_JOINT
from expunge.papers.ascent_fails_to_forget.reproduction.probe import Probe, Reading
from expunge.papers.ascent_fails_to_forget.reproduction.record import Chart, Panel, Series

PUBLISHED_RATES = (5e-5, 5e-3)
"""The ends of the published grid."""


@dataclass(frozen=True, kw_only=True)
class AsPublished(Scrub):
    """SCRUB whose optimiser holds the weights of the teacher."""

    statistics: Treatment = "updated"
    """The student is in training mode."""

    name: ClassVar[str] = "scrub_as_published"
    label: ClassVar[str] = "SCRUB as published"
    checks: ClassVar[tuple[str, ...]] = ("still", "finite", "visited")
    order: ClassVar[str] = Scrub.name

    def stops(self, problem: Problem) -> Iterator[Checkpoint]:
        """Yield a checkpoint after every epoch; the rate has gone to the teacher, which has no gradients."""
        student = self.descent(problem)
        for epoch in range(1, self.epochs + 1):
            noise = problem.noise(epoch)
            if epoch <= (self.msteps or 0):
                problem.take_pass(student, "forget", epoch, self.forget_batch_size, 0.0, noise=noise)
            problem.take_pass(student, "retain", epoch, self.batch_size, 0.0, noise=noise)
            yield problem.checkpoint(epoch, student, self.statistics)


def read(context: Context, probe: Probe, kind: type[Scrub], rate: float) -> Reading:
    """Return what is read of one of the two at one rate.

    Args:
        context: The run.
        probe: Task and forget set.
        kind: `Scrub` or `AsPublished`.
        rate: For a peak rate of .4.
    """
    grid = context.preset.grid
    method = kind(
        lr=rate * probe.images.lr / PEAK,
        epochs=grid.joint_stop,
        msteps=min(grid.joint_stop, *grid.ascent_epochs),
        forget_batch_size=64,
        optimizer="sgd",
    )
    what = [method.name, method.lr, method.epochs, method.msteps, method.statistics]
    seed = derive(context.seed, "scrub") % 2**31

    def changed(models: Ensemble) -> Ensemble:
        return unlearn(models, probe.task, probe.forget, method, seed=seed)

    return probe.read(what, changed)


def rates(context: Context) -> tuple[float, ...]:
    """Return the rates at which SCRUB is run: the preset's and those above the paper's."""
    return (*context.preset.grid.joint_rates, *UPWARD_JOINT)


def check(context: Context) -> Found:
    """Read both, at the same rates, and say what of the published one is a finding about SCRUB."""
    probe = probe_of(context, with_norm(context.preset.figures))
    nothing = probe.read("pretrained", lambda models: models)
    published = {rate: read(context, probe, AsPublished, rate) for rate in PUBLISHED_RATES}
    repaired = {rate: read(context, probe, Scrub, rate) for rate in rates(context)}
    ends = list(published.values())
    leaving = [rate for rate, each in repaired.items() if leaves(each, nothing)]
    within = [rate for rate in leaving if rate not in UPWARD_JOINT]
    grid = context.preset.grid
    return Found(
        "does not hold" if within else "holds under conditions" if leaving else "holds",
        _sentences(nothing, ends, repaired, leaving),
        size=context.setting(probe.images, context.preset.members)
        + f"; forget set {sets.words(SET)}, {len(probe.forget)} rows; {grid.joint_stop} epochs, "
        f"{min(grid.joint_stop, *grid.ascent_epochs)} of them begin by climbing",
        tables=[_table(nothing, published, repaired, context)],
        charts=[_chart(nothing, ends[0], repaired)],
    )


def leaves(reading: Reading, nothing: Reading) -> bool:
    """Return whether models are apart from the pretrained ones: on some split their intervals share nothing."""
    pairs = [(reading.scores[split], nothing.scores[split]) for split in SPLITS]
    return any(one.low > other.high or one.high < other.low for one, other in pairs)


def _sentences(
    nothing: Reading, ends: list[Reading], repaired: dict[float, Reading], leaving: list[float]
) -> list[str]:
    def p95(reading: Reading) -> str:
        return " / ".join(f"{reading.scores[split].value:.2f}" for split in SPLITS)

    def moved(reading: Reading) -> str:
        return " / ".join(f"{reading.moved[split]:.2g}" for split in SPLITS)

    low, high = PUBLISHED_RATES
    found = [
        "As published, SCRUB takes no step: every number is "
        + ("the same to the last bit" if ends[0] == ends[1] else "nearly the same")
        + f" at rates {low:g} and {high:g}, and what it changes are the statistics of batch norm alone (P95 of KLoM on "
        f"F / R / validation {p95(ends[0])} nats; pretrained {p95(nothing)}).",
    ]
    if leaving:
        best = min(repaired, key=lambda rate: repaired[rate].excess)
        found.append(
            f"With an optimiser that holds the student it leaves the pretrained models from rate {min(leaving):g} on; "
            f"its best rate, {best:g}, reads {p95(repaired[best])}."
        )
    else:
        found.append(
            f"With an optimiser that holds the student it stays with them up to rate {max(repaired):g} as well."
        )
    found.append(
        f"Margins of a member move by {moved(ends[0])} nats (root mean square) as published; repaired by "
        + ", ".join(f"{moved(each)} at {rate:g}" for rate, each in repaired.items())
        + "."
    )
    return found


def _table(
    nothing: Reading, published: dict[float, Reading], repaired: dict[float, Reading], context: Context
) -> Table:
    rows: list[list[Any]] = [
        ["floor (other oracles)", "", *nothing.floor_cells()],
        ["pretrained", "", *nothing.cells()],
    ]
    for label, found in (("as published", published), ("repaired", repaired)):
        rows += [[label, f"{rate:g}", *each.cells()] for rate, each in found.items()]
    scale = context.preset.figures.lr / PEAK
    return Table(
        title=f"P95 of KLoM, nats; rates for a peak of {PEAK:g}, here times {scale:g}",
        columns=["SCRUB", "rate", *Reading.columns()],
        rows=rows,
    )


def _chart(nothing: Reading, published: Reading, repaired: dict[float, Reading]) -> Chart:
    at = list(repaired)
    panels = []
    for split in SPLITS:
        floor = nothing.scores[split].floor
        lines = {
            "repaired": [each.scores[split] for each in repaired.values()],
            "as published": [published.scores[split]] * len(at),
            "pretrained": [nothing.scores[split]] * len(at),
        }
        series = [
            Series(
                label=label,
                x=at,
                y=[each.value - floor for each in found],
                low=[each.low - floor for each in found],
                high=[each.high - floor for each in found],
                mark="line",
            )
            for label, found in lines.items()
        ]
        panels.append(
            Panel(title=split, x="rate", y="KLoM above the floor, P95, nats", series=series, log_x=True, levels=[0.0])
        )
    return Chart(caption="SCRUB over its rate; as published no rate changes anything", panels=panels)


ITEM = Item(
    ("P2", "P6"),
    "SCRUB as published, and SCRUB",
    "SCRUB stays close to the pretrained models, whatever its setting (Fig. 6).",
    check,
    work=frozenset({"probe", "scrub"}),
)
