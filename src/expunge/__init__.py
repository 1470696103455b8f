"""expunge: does this model behave as if it had never seen that data?"""

from expunge import dependence, methods, metrics, papers, tasks
from expunge.api import Forecast, Run, Scores, Unlearned, audit, forecast, judge, score, unlearn_checkpoint
from expunge.core import Ensemble, ForgetSet, OutputsAlone, Recipe, Task
from expunge.ensembles import train
from expunge.methods import unlearn
from expunge.papers.ascent_fails_to_forget import theory
from expunge.studies.run.check import Check, check
from expunge.version import __version__

__all__ = [
    "Check",
    "Ensemble",
    "Forecast",
    "ForgetSet",
    "OutputsAlone",
    "Recipe",
    "Run",
    "Scores",
    "Task",
    "Unlearned",
    "__version__",
    "audit",
    "check",
    "dependence",
    "forecast",
    "judge",
    "methods",
    "metrics",
    "papers",
    "score",
    "tasks",
    "theory",
    "train",
    "unlearn",
    "unlearn_checkpoint",
]
