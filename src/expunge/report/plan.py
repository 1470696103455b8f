"""What `expunge plan` says in a terminal."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table
from rich.text import Text

from expunge.core.plan import JOBS, Plan
from expunge.core.schema import SPLITS
from expunge.report import numbers
from expunge.report.fitting import print_fitting

LISTED = 10
"""Twins that are listed; all of them are in the JSON."""


def print_plan(plan: Plan, console: Console) -> None:
    """Print a plan.

    Args:
        plan: What `expunge plan` found.
        console: Where to print; nothing is cut at 80 columns.
    """
    console.print(
        Text(f"{numbers.count(plan.rows, 'row')} of {plan.examples:,} to forget", "bold").append(
            f"  {plan.how}; task {plan.task}", "not bold dim"
        )
    )
    for sentence in plan.advice:
        console.print(Text(f"- {sentence}"))
    console.print()
    print_fitting(console, _costs(plan))
    console.print(
        Text(
            "Time, disk; memory is the most that any of them takes, and "
            + ("" if plan.memory_free is None else f"{_size(plan.memory_free)} of it and ")
            + f"{_size(plan.disk_free)} of disk are free. Measured: {plan.measured}.",
            "dim",
        )
    )
    if plan.influence is not None:
        found = plan.influence
        moves = ", ".join(f"{split} {found.mean[split]:+.2f}" for split in SPLITS)
        console.print(Text(f"Predicted mean change of the {plan.statistic}: {moves}; from {found.rests_on}.", "dim"))
    if plan.deployed is not None:
        medians = ", ".join(f"{split} {plan.deployed.median[split]:.2f}" for split in SPLITS)
        console.print(Text(f"Median {plan.statistic} of the deployed model: {medians}.", "dim"))
    if plan.twins:
        console.print()
        print_fitting(console, _twins(plan))
        rest = len(plan.twins) - LISTED
        more = f"{numbers.count(rest, 'more pair')} in --json. " if rest > 0 else ""
        console.print(
            Text(
                f"{more}Distances in medians of that between a retain row and its nearest neighbour; below "
                f"{plan.twins_limit:.2g} rows are twins.",
                "dim",
            )
        )
    for word, command in zip(("Next:", "Or:"), plan.next, strict=False):
        console.print(Text(f"\n{word}", "bold").append(f" {command}", "not bold"), soft_wrap=True)


def plan_text(plan: Plan, width: int = 80) -> str:
    """Return what `print_plan` prints in a terminal of a width, without colours."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    print_plan(plan, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _costs(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("members", justify="right", no_wrap=True)
    for job in JOBS:
        table.add_column(job, justify="right", no_wrap=True)
    table.add_column("memory", justify="right", no_wrap=True)
    for scale in plan.scales:
        cells = [_cell(scale.jobs[job].seconds, scale.jobs[job].disk) if job in scale.jobs else "none" for job in JOBS]
        table.add_row(str(scale.members), *cells, _size(max(job.memory for job in scale.jobs.values())))
    if plan.machines > 1:
        table.add_row(f"on {plan.machines}:")
        for scale in plan.scales:
            shared = {job: cost.shared_seconds for job, cost in scale.jobs.items()}
            cells = [numbers.duration(shared[job] or 0.0) if job in shared else "none" for job in JOBS]
            table.add_row(str(scale.members), *cells, "")
    return table


def _twins(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("row to forget", "its twin that stays", "distance", "target"):
        table.add_column(column, justify="right", no_wrap=True)
    for twin in plan.twins[:LISTED]:
        distance = "equal" if twin.distance == 0 else f"{twin.distance:.2g}"
        table.add_row(str(twin.row), str(twin.twin), distance, "same" if twin.same_target else "another")
    return table


def _cell(seconds: float, disk: int) -> str:
    return f"{numbers.duration(seconds)}, {_size(disk)}"


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{max(count / 2**20, 1):.0f} MiB"
