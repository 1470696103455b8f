"""The checklist before any method (the paper's App. B): is there anything to unlearn, and are the oracles sound?"""

from __future__ import annotations

import math
from collections.abc import Mapping

from expunge.core import ForgetSet, Result, Task
from expunge.core.record import CheckRecord, SplitName
from expunge.studies.audit.judging import Bench

LEVEL = 0.01
"""Level at which a check of the oracles against chance fails."""


def run_checklist(
    task: Task,
    forget: ForgetSet,
    bench: Bench,
    floor: Mapping[SplitName, Result],
    pretrained: Mapping[SplitName, Result],
) -> list[CheckRecord]:
    """Return the checks that come before any method, for one forget set."""
    checks = [_gap(floor, pretrained, bench.tolerance), _collateral(floor, pretrained), _failed(bench)]
    if forget.chooser == "random" and task.outcome.utility_name == "accuracy":
        checks.append(_lemma_one(task, forget, bench))
    return checks


def _gap(floor: Mapping[SplitName, Result], pretrained: Mapping[SplitName, Result], tolerance: float) -> CheckRecord:
    f, zero = pretrained["forget"], floor["forget"]
    there = f.value - zero.value > tolerance
    return CheckRecord(
        name="there is something to unlearn",
        passed=there,
        detail=f"P95 KLoM of the pretrained ensemble on F is {f.value:.2f}, the floor {zero.value:.2f} nats"
        + ("" if there else "; doing nothing is already within the tolerance"),
    )


def _collateral(floor: Mapping[SplitName, Result], pretrained: Mapping[SplitName, Result]) -> CheckRecord:
    gaps = {split: pretrained[split].value - floor[split].value for split in ("retain", "validation")}
    most = max(gaps.values())
    return CheckRecord(
        name="the gap is on F, not on R and V",
        passed=most < max(pretrained["forget"].value - floor["forget"].value, 0.0) or most < 0.1,
        detail=f"excess over the floor {gaps['retain']:.2f} on R and {gaps['validation']:.2f} on V: what removing F "
        "changes elsewhere, which a method must reproduce too",
    )


def check_recipe(calibration: Bench) -> CheckRecord:
    """Return whether models that were given look like those that the recipe trains, read on the calibration set."""
    check = _collateral(calibration.floors(), calibration.pretrained_scores())
    detail = check.detail.partition(":")[0] + " against oracles of the calibration set that the recipe trained"
    return check.model_copy(update={"name": "the recipe trains models like those given", "detail": detail})


def _failed(bench: Bench) -> CheckRecord:
    failed = {who: bench.failed(who) for who in ("pretrained", "oracle", "held_out")}
    return CheckRecord(
        name="all trained members are sound",
        passed=not any(failed.values()),
        detail=", ".join(f"{who.replace('_', '-')}: {count} failed" for who, count in failed.items()),
    )


def _lemma_one(task: Task, forget: ForgetSet, bench: Bench) -> CheckRecord:
    """For a random F the oracle treats F as fresh data: |acc(F) - acc(V)| <= t with probability 1 - LEVEL (Lemma 1)."""
    bound = sum(math.sqrt(math.log(4 / LEVEL) / (2 * n)) for n in (len(forget), len(task.validation)))
    on_f, on_v = bench.accuracy["oracle"]["forget"], bench.accuracy["oracle"]["validation"]
    return CheckRecord(
        name="oracles treat F like fresh data",
        passed=abs(on_f - on_v) <= bound,
        detail=f"oracle accuracy {on_f:.3f} on F and {on_v:.3f} on V; Lemma 1 allows a difference of {bound:.3f} "
        f"(99 %). A larger one means that the oracles saw F, or that F is not random",
    )
