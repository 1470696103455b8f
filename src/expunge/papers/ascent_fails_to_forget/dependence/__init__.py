"""Measures of dependence that no forecast reads: a datamodel's score, and projected gradients."""

from expunge.papers.ascent_fails_to_forget.dependence.lds import LinearScore, linear_datamodeling_score
from expunge.papers.ascent_fails_to_forget.dependence.projection import ProjectedSet, Projection

__all__ = ["LinearScore", "ProjectedSet", "Projection", "linear_datamodeling_score"]
