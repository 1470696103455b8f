"""What a comparison of runs is made of: the runs, a line a method and run, and what follows of each forget set."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from expunge.core.forecast import ForecastRun
from expunge.core.record import SPLITS, Record, SplitName, VerdictName
from expunge.core.result import Result
from expunge.report import numbers, wording

NOT_RUN: Final = "not run"
NOT_CHOSEN: Final = "not chosen"
"""In a verdict's place: the run has no such method on that forget set; it has, and no setting was chosen."""


@dataclass(frozen=True)
class ComparedRun:
    """One run, with what two runs may differ in."""

    name: str
    """Its folder's name, or its path where two have one name."""
    folder: Path
    audit: Record | None
    forecast: ForecastRun | None

    @property
    def record(self) -> Record | ForecastRun:
        """The audit where there is one, else the forecast."""
        found = self.audit or self.forecast
        assert found is not None
        return found

    @property
    def kind(self) -> str:
        """What was run."""
        return " and ".join(record.KIND for record in (self.audit, self.forecast) if record)

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self.record.task.get("name") or "unnamed task")

    @property
    def seed(self) -> int | None:
        """The study's seed, where it is on record."""
        seed = self.record.request.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def facts(self) -> dict[str, str]:
        """What runs may differ in, by name."""
        packages = self.record.environment.get("packages")
        audit = self.audit
        return {
            "members": str(self.record.members),
            "seed": "" if self.seed is None else str(self.seed),
            "tolerance": f"{self.record.tolerance:g}",
            # A record names it where it is not the default, 1.
            "row tolerance": numbers.value_text(audit.request.get("row_tolerance", 1)) if audit else "",
            "statistic": audit.statistic if audit else "",
            "rule of verdicts": ", ".join(sorted(_rules(audit))) if audit else "",
            "version of expunge": str(self.record.environment.get("expunge", "")),
            "version of torch": str(packages.get("torch", "")) if isinstance(packages, Mapping) else "",
            "device": str(self.record.environment.get("device", "")),
        }


@dataclass(frozen=True)
class Line:
    """One method on one forget set in one run, at the setting that was chosen for it."""

    task: str
    forget_set: str
    method: str
    label: str
    control: bool
    run: str
    verdict: VerdictName | Literal["not run", "not chosen"]
    """A verdict's name, `not chosen` or `not run`."""
    setting: str = ""
    cost: float = math.nan
    """Relative to retraining on R; NaN where there is no verdict, and so all numbers."""
    scores: Mapping[SplitName, Result] = field(default_factory=dict)
    """KLoM, 95th percentile over examples, by split."""
    failed_checks: Sequence[str] = ()
    failed_members: int = 0
    members: int | None = None
    seed: int | None = None
    forecast: str = ""
    """What was expected of the method before anything was unlearned; empty where no forecast speaks of this set."""
    forecast_excess: float = math.nan
    """Predicted KLoM above the floor on the worst split at the best setting, nats."""

    @property
    def passes(self) -> bool:
        """Whether the method cannot be told from retraining."""
        return self.verdict == "indistinguishable"

    def excess(self, split: SplitName) -> tuple[float, float, float]:
        """Return the score above the floor, and the ends of the score's 95 % interval above it; NaN where unscored."""
        found = self.scores.get(split)
        if found is None:
            return math.nan, math.nan, math.nan
        return found.excess, found.low - found.floor, found.high - found.floor

    @property
    def worst(self) -> float:
        """The largest excess of the splits; NaN where nothing was scored."""
        return max((self.excess(split)[0] for split in self.scores), default=math.nan)

    def flat(self) -> dict[str, Any]:
        """Return everything as a flat table: texts and numbers by name, None where there is none."""
        found: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("task", "forget_set", "method", "label", "control", "run", "verdict", "setting", "cost")
        }
        for split in SPLITS:
            names = (f"excess_{split}", f"excess_{split}_low", f"excess_{split}_high")
            found |= dict(zip(names, self.excess(split), strict=True))
            found[f"floor_{split}"] = self.scores[split].floor if split in self.scores else None
        found |= {"failed_checks": "; ".join(self.failed_checks), "failed_members": self.failed_members}
        found |= {"members": self.members, "seed": self.seed}
        found |= {"forecast": self.forecast, "forecast_excess": self.forecast_excess}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in found.items()}


@dataclass(frozen=True)
class Answer:
    """What the runs together say of one forget set."""

    task: str
    forget_set: str
    tone: str
    """`good`, `bad`, `open` or `empty`."""
    sentence: str
    """The cheapest that passes, in every run and in each."""
    audits: int
    """Runs that have audited it."""
    differing: Sequence[str]
    """A sentence for each method of which the runs conclude differently."""
    methods: Sequence[str]
    """Those methods."""


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; printed, it is the table of `expunge compare`."""

    runs: Sequence[ComparedRun]
    answers: Sequence[Answer]
    """One for each task and forget set."""
    differences: Sequence[str]
    """What was not the same for all runs, in sentences."""
    lines: Sequence[Line]
    """One for each forget set, method and audit, whether it was run or not; where all are forecasts, and run."""

    @property
    def columns(self) -> list[str]:
        """Names of the runs that have lines."""
        return list(dict.fromkeys(line.run for line in self.lines))

    @property
    def table(self) -> list[dict[str, Any]]:
        """Every line as a flat table, for a data frame."""
        return [line.flat() for line in self.lines]

    def csv(self) -> str:
        """Return the table as CSV, with a line of names."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.lines[0].flat())
        writer.writerows([numbers.cell(value) for value in row.values()] for row in self.table)
        return out.getvalue()

    def as_json(self) -> dict[str, Any]:
        """Return everything as a JSON value."""
        return {
            "runs": [
                {"name": r.name, "folder": str(r.folder), "kind": r.kind, "task": r.task, "status": r.record.status}
                | r.facts
                for r in self.runs
            ],
            "answers": [
                {"task": a.task, "forget_set": a.forget_set, "answer": a.sentence, "differing": list(a.differing)}
                for a in self.answers
            ],
            "differences": list(self.differences),
            "lines": self.table,
        }

    def __str__(self) -> str:
        from expunge.report.compare_table import comparison_text  # which imports this module

        return comparison_text(self)


def _rules(audit: Record) -> set[str]:
    rows = [row for forget in audit.forget_sets for row in wording.rows(forget)]
    return {row.chosen.verdict.rule for row in rows if row.chosen}
