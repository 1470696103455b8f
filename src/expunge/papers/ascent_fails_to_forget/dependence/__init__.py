"""Measures of dependence that no forecast reads: products in place of a kernel, memorisation, datamodels' scores."""

from expunge.papers.ascent_fails_to_forget.dependence.cross_influence import CrossInfluence, Singular
from expunge.papers.ascent_fails_to_forget.dependence.lds import LinearScore, linear_datamodeling_score
from expunge.papers.ascent_fails_to_forget.dependence.matching import (
    MatchingTargets,
    matching_targets,
    paper_forget_sets,
)
from expunge.papers.ascent_fails_to_forget.dependence.memorisation import (
    Difference,
    memorisation,
    subset_influence,
    unseen_spread,
)
from expunge.papers.ascent_fails_to_forget.dependence.projection import ProjectedSet, Projection
from expunge.papers.ascent_fails_to_forget.dependence.removal import RemovalEffect, removal
from expunge.papers.ascent_fails_to_forget.dependence.solving import Solution, conjugate_gradients, dense_curvature

__all__ = [
    "CrossInfluence",
    "Difference",
    "LinearScore",
    "MatchingTargets",
    "ProjectedSet",
    "Projection",
    "RemovalEffect",
    "Singular",
    "Solution",
    "conjugate_gradients",
    "dense_curvature",
    "linear_datamodeling_score",
    "matching_targets",
    "memorisation",
    "paper_forget_sets",
    "removal",
    "subset_influence",
    "unseen_spread",
]
