"""expunge: does this model behave as if it had never seen that data?"""

from expunge import methods, metrics, tasks
from expunge.api import Forecast, Run, audit, forecast
from expunge.core import Ensemble, ForgetSet, Recipe, Task
from expunge.ensembles import train
from expunge.methods import unlearn
from expunge.version import __version__

__all__ = [
    "Ensemble",
    "Forecast",
    "ForgetSet",
    "Recipe",
    "Run",
    "Task",
    "__version__",
    "audit",
    "forecast",
    "methods",
    "metrics",
    "tasks",
    "train",
    "unlearn",
]
