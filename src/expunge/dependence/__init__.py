"""How the forget set and the rest depend on one another, and what follows for unlearning, before it is tried."""

from expunge.dependence.components import (
    Components,
    component_forget_set,
    paper_forget_sets,
    principal_components,
)
from expunge.dependence.curvature import Solution, conjugate_gradients, damped, dense_curvature
from expunge.dependence.datamodels import Datamodel, Removal
from expunge.dependence.influence import RemovalEffect, removal, training_ridge
from expunge.dependence.kernel import Kernel, MemberKernel
from expunge.dependence.lasso import LassoDatamodel, fit_lasso
from expunge.dependence.lds import LinearScore, linear_datamodeling_score
from expunge.dependence.linearised import Linearised
from expunge.dependence.losses import CrossEntropy, SquaredError
from expunge.dependence.memorisation import Difference, memorisation, subset_influence
from expunge.dependence.ridge_datamodel import RidgeDatamodel, fit_ridge
from expunge.dependence.subsets import SubsetEnsemble, Targets, subset_masks, train_subsets

__all__ = [
    "Components",
    "CrossEntropy",
    "Datamodel",
    "Difference",
    "Kernel",
    "LassoDatamodel",
    "LinearScore",
    "Linearised",
    "MemberKernel",
    "Removal",
    "RemovalEffect",
    "RidgeDatamodel",
    "Solution",
    "SquaredError",
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
    "removal",
    "subset_influence",
    "subset_masks",
    "train_subsets",
    "training_ridge",
]
