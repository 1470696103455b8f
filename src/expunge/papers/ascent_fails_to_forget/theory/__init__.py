"""Closed forms and small exact problems: every lemma of the paper, and a solvable model that goes further.

One file a result; nothing here plots or trains networks.
"""

from expunge.dependence import random_forget_sets
from expunge.papers.ascent_fails_to_forget.theory import (
    alternating,
    lambert,
    logistic,
    low_dimensional,
    one_direction,
    ridge,
    simulated_mixture,
    skew,
    teacher_mixture,
    two_directions,
)

__all__ = [
    "alternating",
    "lambert",
    "logistic",
    "low_dimensional",
    "one_direction",
    "random_forget_sets",
    "ridge",
    "simulated_mixture",
    "skew",
    "teacher_mixture",
    "two_directions",
]
