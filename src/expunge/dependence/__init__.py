"""How the forget set and the rest depend on one another, and what follows for unlearning, before it is tried."""

from expunge.dependence.curvature import Solution, conjugate_gradients, damped, dense_curvature
from expunge.dependence.linearised import Linearised

__all__ = [
    "Linearised",
    "Solution",
    "conjugate_gradients",
    "damped",
    "dense_curvature",
]
