"""How the forget set and the rest depend on one another, and what follows for unlearning, before it is tried."""

from expunge.dependence.components import (
    Components,
    component_forget_set,
    paper_forget_sets,
    principal_components,
)
from expunge.dependence.curvature import Solution, conjugate_gradients, damped, dense_curvature
from expunge.dependence.datamodels import Datamodel, Removal, RidgeDatamodel, fit_ridge
from expunge.dependence.lasso import LassoDatamodel, fit_lasso
from expunge.dependence.lds import LinearScore, linear_datamodeling_score
from expunge.dependence.linearised import Linearised
from expunge.dependence.memorisation import Difference, memorisation, subset_influence
from expunge.dependence.subsets import SubsetEnsemble, Targets, subset_masks, train_subsets

__all__ = [
    "Components",
    "Datamodel",
    "Difference",
    "LassoDatamodel",
    "LinearScore",
    "Linearised",
    "Removal",
    "RidgeDatamodel",
    "Solution",
    "SubsetEnsemble",
    "Targets",
    "component_forget_set",
    "conjugate_gradients",
    "damped",
    "dense_curvature",
    "fit_lasso",
    "fit_ridge",
    "linear_datamodeling_score",
    "memorisation",
    "paper_forget_sets",
    "principal_components",
    "subset_influence",
    "subset_masks",
    "train_subsets",
]
