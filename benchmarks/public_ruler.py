"""What a published KLoM says about real models, beside ours: read from the record of an audit.

    expunge audit digits:batchnorm --methods gradient_ascent --out runs/batchnorm
    python benchmarks/public_ruler.py runs/batchnorm

Prints two tables. Drift: rate 0 with updated statistics, so that nothing but the running statistics of batch norm can
change. Fooled: configurations that the published estimator (variant `easydub`, P95) scores no worse than an independent
set of oracles on forget, retain and validation, while ours reads a difference beyond the tolerance.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from expunge.core import Record
from expunge.core.objective import target_objective
from expunge.core.record import SPLITS, ConfigurationRecord, ForgetRecord


def numbers(values: dict) -> str:
    return " / ".join(f"{values[split]:.2f}" for split in SPLITS)


def ours(configuration: ConfigurationRecord) -> str:
    return numbers({split: score.value for split, score in configuration.scores.items()})


def add(table: Table, name: str, configuration: ConfigurationRecord, members: int) -> None:
    table.add_row(
        name,
        ours(configuration),
        numbers(configuration.public),
        numbers(configuration.accuracy),
        f"{configuration.failed}/{members}",
        configuration.verdict.name,
    )


def reference(table: Table, forget: ForgetRecord) -> None:
    floor = {split: score.value for split, score in forget.floor.items()}
    table.add_row("held-out oracles (the floor)", numbers(floor), numbers(forget.floor_public), "", "", "")


def columns(title: str) -> Table:
    return Table("", "ours, F/R/V", "easydub, F/R/V", "accuracy, F/R/V", "failed", "verdict (ours)", title=title)


def drift(forget: ForgetRecord, members: int) -> Table:
    table = columns(f"{forget.name}: rate 0, statistics updated, P95 KLoM in nats")
    reference(table, forget)
    for configuration in forget.configurations:
        if configuration.method == "do_nothing":
            add(table, "do nothing", configuration, members)
    for configuration in forget.configurations:
        if configuration.options.get("lr") == 0.0 and configuration.statistics == "updated":
            add(table, f"rate 0, epoch {configuration.epoch}", configuration, members)
    return table


def fooled(forget: ForgetRecord, members: int) -> Table:
    table = columns(f"{forget.name}: published KLoM no worse than independent oracles on F, R and V; ours disagrees")
    reference(table, forget)
    wrong = [
        c
        for c in forget.configurations
        if all(c.public[split] <= forget.floor_public[split] for split in SPLITS)
        and not -c.verdict.tolerance < target_objective(c) < c.verdict.tolerance
    ]
    for configuration in sorted(wrong, key=lambda c: max(c.public.values())):
        add(table, configuration.id, configuration, members)
    if not wrong:
        table.add_row("none in this run", "", "", "", "", "")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished audit")
    record = Record.load(parser.parse_args().run)
    console = Console(width=150)
    for forget in record.forget_sets:
        console.print(drift(forget, record.members))
        console.print(fooled(forget, record.members))


if __name__ == "__main__":
    main()
