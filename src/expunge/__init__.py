"""expunge: does this model behave as if it had never seen that data?"""

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
from expunge.version import __version__

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
