"""How the forget set and the rest depend on one another, and what follows for unlearning, before it is tried."""

from expunge.core.discrepancy import mmd
from expunge.dependence.angles import Angles, angles
from expunge.dependence.components import (
    Components,
    component_forget_set,
    principal_components,
)
from expunge.dependence.cross_influence import Blocks, blocks, largest_singular_value
from expunge.dependence.curvature import damped
from expunge.dependence.datamodels import Datamodel, Removal
from expunge.dependence.entanglement import Entanglement, entanglement
from expunge.dependence.features import penultimate
from expunge.dependence.kernel import Kernel, MemberKernel
from expunge.dependence.lasso import LassoDatamodel, fit_lasso
from expunge.dependence.leverage import Leverage, canonical_correlations, leverage
from expunge.dependence.linearised import Linearised
from expunge.dependence.losses import CrossEntropy, SquaredError
from expunge.dependence.measures import (
    MEASURES,
    Dependence,
    Measure,
    default_damping,
    measure_dependence,
    measure_kernel,
)
from expunge.dependence.ridge import training_ridge
from expunge.dependence.ridge_datamodel import RidgeDatamodel, fit_ridge
from expunge.dependence.subsets import SubsetEnsemble, Targets, subset_masks, train_subsets
from expunge.dependence.two_sample import (
    TwoSample,
    hsic,
    member_dependence,
    within_class_classifier,
    within_class_mmd,
)

__all__ = [
    "MEASURES",
    "Angles",
    "Blocks",
    "Components",
    "CrossEntropy",
    "Datamodel",
    "Dependence",
    "Entanglement",
    "Kernel",
    "LassoDatamodel",
    "Leverage",
    "Linearised",
    "Measure",
    "MemberKernel",
    "Removal",
    "RidgeDatamodel",
    "SquaredError",
    "SubsetEnsemble",
    "Targets",
    "TwoSample",
    "angles",
    "blocks",
    "canonical_correlations",
    "component_forget_set",
    "damped",
    "default_damping",
    "entanglement",
    "fit_lasso",
    "fit_ridge",
    "hsic",
    "largest_singular_value",
    "leverage",
    "measure_dependence",
    "measure_kernel",
    "member_dependence",
    "mmd",
    "penultimate",
    "principal_components",
    "subset_masks",
    "train_subsets",
    "training_ridge",
    "within_class_classifier",
    "within_class_mmd",
]
