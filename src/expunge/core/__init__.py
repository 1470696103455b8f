"""The nouns (Task, Recipe, ForgetSet, Ensemble, Record, Result), seeds, checks, digests and tree maths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expunge.core.lazy import reader

if TYPE_CHECKING:
    from expunge.core.ensemble import Ensemble, Network, Statistics
    from expunge.core.errors import DamagedFileError, DivergedError, InputError
    from expunge.core.forget_set import ForgetSet
    from expunge.core.interface import Interface
    from expunge.core.margins import margins_from_logits
    from expunge.core.outcomes import OUTCOMES, Outcome
    from expunge.core.outputs_alone import OutputsAlone
    from expunge.core.recipe import Recipe
    from expunge.core.record import Record
    from expunge.core.result import Result
    from expunge.core.task import Split, Task, has_statistics

__all__ = [
    "OUTCOMES",
    "DamagedFileError",
    "DivergedError",
    "Ensemble",
    "ForgetSet",
    "InputError",
    "Interface",
    "Network",
    "Outcome",
    "OutputsAlone",
    "Recipe",
    "Record",
    "Result",
    "Split",
    "Statistics",
    "Task",
    "has_statistics",
    "margins_from_logits",
]

__getattr__ = reader(
    __name__,
    {
        "Ensemble": "ensemble",
        "Network": "ensemble",
        "Statistics": "ensemble",
        "DamagedFileError": "errors",
        "DivergedError": "errors",
        "InputError": "errors",
        "ForgetSet": "forget_set",
        "Interface": "interface",
        "margins_from_logits": "margins",
        "OUTCOMES": "outcomes",
        "Outcome": "outcomes",
        "OutputsAlone": "outputs_alone",
        "Recipe": "recipe",
        "Record": "record",
        "Result": "result",
        "Split": "task",
        "Task": "task",
        "has_statistics": "task",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
