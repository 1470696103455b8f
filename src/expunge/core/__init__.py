"""The nouns (Task, Recipe, ForgetSet, Ensemble, Record, Result), seeds, checks, digests and tree maths."""

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
