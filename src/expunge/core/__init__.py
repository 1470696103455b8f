"""The nouns (Task, Recipe, ForgetSet, Ensemble, Record, Result), seeds, checks, digests and tree maths."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

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

_PLACES = {
    "ensemble": "Ensemble, Network, Statistics",
    "errors": "DamagedFileError, DivergedError, InputError",
    "forget_set": "ForgetSet",
    "interface": "Interface",
    "margins": "margins_from_logits",
    "outcomes": "OUTCOMES, Outcome",
    "outputs_alone": "OutputsAlone",
    "recipe": "Recipe",
    "record": "Record",
    "result": "Result",
    "task": "Split, Task, has_statistics",
}
"""Module and names: each is read when it is first asked for, so that an error or a record does not wait for PyTorch."""


def __getattr__(name: str) -> Any:
    for module, names in _PLACES.items():
        if name in names.split(", "):
            globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
            return globals()[name]
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
