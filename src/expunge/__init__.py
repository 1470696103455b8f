"""expunge: does this model behave as if it had never seen that data?"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from expunge.version import __version__

if TYPE_CHECKING:
    from expunge import dependence, methods, metrics, papers, tasks
    from expunge.api import (
        Evidence,
        Forecast,
        Run,
        Scores,
        Unlearned,
        Verified,
        audit,
        compare,
        evidence,
        forecast,
        judge,
        plan,
        score,
        unlearn_checkpoint,
        verify,
    )
    from expunge.core import Ensemble, ForgetSet, OutputsAlone, Recipe, Task
    from expunge.ensembles import train
    from expunge.methods import unlearn
    from expunge.papers.ascent_fails_to_forget import theory
    from expunge.studies.request.ledger import Ledger
    from expunge.studies.run.check import Check, check

__all__ = [
    "Check",
    "Ensemble",
    "Evidence",
    "Forecast",
    "ForgetSet",
    "Ledger",
    "OutputsAlone",
    "Recipe",
    "Run",
    "Scores",
    "Task",
    "Unlearned",
    "Verified",
    "__version__",
    "audit",
    "check",
    "compare",
    "dependence",
    "evidence",
    "forecast",
    "judge",
    "methods",
    "metrics",
    "papers",
    "plan",
    "score",
    "tasks",
    "theory",
    "train",
    "unlearn",
    "unlearn_checkpoint",
    "verify",
]

_PLACES = {
    "expunge": "core, dependence, ensembles, methods, metrics, papers, report, studies, tasks",
    "expunge.api": "Evidence, Forecast, Run, Scores, Unlearned, Verified, audit, compare, evidence, forecast, judge, "
    "plan, score, unlearn_checkpoint, verify",
    "expunge.core": "Ensemble, ForgetSet, OutputsAlone, Recipe, Task",
    "expunge.ensembles": "train",
    "expunge.methods": "unlearn",
    "expunge.papers.ascent_fails_to_forget": "theory",
    "expunge.studies.request.ledger": "Ledger",
    "expunge.studies.run.check": "Check, check",
}
"""Where each name lives; it is read when it is first asked for, so that a command which only prints is not kept waiting
for PyTorch."""


def __getattr__(name: str) -> Any:
    if name in __all__:
        import_module("expunge.ensembles")  # tells tasks how their models are computed
    for module, names in _PLACES.items():
        if name in names.split(", "):
            found = None if module == __name__ else getattr(import_module(module), name, None)
            globals()[name] = import_module(f"{module}.{name}") if found is None else found
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
