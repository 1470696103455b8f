"""expunge: does this model behave as if it had never seen that data?"""

from expunge.core import Ensemble, ForgetSet, Recipe, Task
from expunge.version import __version__

__all__ = ["Ensemble", "ForgetSet", "Recipe", "Task", "__version__"]
