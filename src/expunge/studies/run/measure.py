"""Measuring an ensemble for an audit: what its metrics need of every member, on the examples that are scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from expunge.core import Ensemble, ForgetSet, Split, Task
from expunge.core.record import SPLITS, SplitName
from expunge.core.seeds import generator
from expunge.metrics.registry import METRICS

RETAIN_EXAMPLES = 500
"""Retain examples that are scored; a fixed random sample of R when it is larger. Intervals allow for other examples."""
VALIDATION_EXAMPLES = 1000
"""Validation examples that are scored, likewise."""


@dataclass(frozen=True)
class Parts:
    """The examples that an audit scores, by split."""

    splits: Mapping[SplitName, Split]
    positions: Mapping[SplitName, Tensor]
    """Where they are in the task's training data, or in its validation data."""

    @classmethod
    def of(cls, task: Task, forget: ForgetSet, seed: int) -> Parts:
        """Return all forget examples, and at most the stated numbers of retain and validation examples."""
        retain = _sample(torch.from_numpy(forget.retain), RETAIN_EXAMPLES, seed, "retain")
        validation = _sample(torch.arange(len(task.validation)), VALIDATION_EXAMPLES, seed, "validation")
        positions: dict[SplitName, Tensor] = {
            "forget": torch.from_numpy(forget.indices),
            "retain": retain,
            "validation": validation,
        }
        splits = {s: (task.validation if s == "validation" else task.train)[positions[s]] for s in SPLITS}
        return cls(splits, positions)

    def by_name(self) -> dict[str, Split]:
        """Return the splits under plain names."""
        return {name: self.splits[name] for name in SPLITS}

    def measure(self, ensemble: Ensemble) -> dict[str, Tensor]:
        """Return `margins/<split>` (members, examples), float32, and `accuracy/<split>` (members,), float64.

        Where an audited metric needs them, `logits/<split>` (members, examples, classes), float32, as well.
        """
        out: dict[str, Tensor] = {}
        for name in SPLITS:
            split = self.splits[name]
            logits, outcome = ensemble.logits(split.x), ensemble.network.outcome
            out[f"margins/{name}"] = outcome.statistic(logits, split.y).float()
            out[f"accuracy/{name}"] = outcome.utility(logits, split.y)
            if "logits" in kinds():
                out[f"logits/{name}"] = logits.float()
        return out


def kinds() -> list[str]:
    """Return what is measured: margins and accuracy, and what else the audited metrics of the registry need.

    It belongs to the key under which measurements are kept.
    """
    needed = {need.partition("/")[0] for metric in METRICS.values() if metric.audited for need in metric.needs}
    return ["accuracy", *sorted({"margins"} | needed)]


def margins_of(measured: Mapping[str, Tensor]) -> dict[SplitName, np.ndarray]:
    """Return the margins of a measurement by split, each (members, examples)."""
    return {name: measured[f"margins/{name}"].numpy() for name in SPLITS}


def accuracy_of(measured: Mapping[str, Tensor]) -> dict[SplitName, float]:
    """Return the mean accuracy over members by split, from 0 to 1."""
    return {name: float(measured[f"accuracy/{name}"].mean()) for name in SPLITS}


def _sample(positions: Tensor, most: int, seed: int, purpose: str) -> Tensor:
    if len(positions) <= most:
        return positions
    order = torch.randperm(len(positions), generator=generator(seed, "scored examples", purpose))[:most]
    return positions[order.sort().values]
