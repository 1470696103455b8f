"""Unlearning algorithms, one a file; to add one, write its file and its line in `METHODS`."""

from expunge.methods.bad_teacher import BadTeacher
from expunge.methods.certified_removal import CertifiedRemoval
from expunge.methods.clipped_noisy import ClippedNoisy
from expunge.methods.deltagrad import DeltaGrad
from expunge.methods.descent_to_delete import DescentToDelete
from expunge.methods.do_nothing import DoNothing
from expunge.methods.early_stopped_retrain import EarlyStoppedRetrain
from expunge.methods.evidential_repair import EvidentialRepair
from expunge.methods.fine_tune import FineTune
from expunge.methods.fisher_noise import FisherNoise
from expunge.methods.from_function import from_function
from expunge.methods.gradient_ascent import GradientAscent
from expunge.methods.gradient_descent_ascent import GradientDescentAscent
from expunge.methods.l1_sparse import L1Sparse
from expunge.methods.last_layers import CFk, EUk
from expunge.methods.margin_matching import MarginMatching
from expunge.methods.method import Method, Trained
from expunge.methods.neg_grad_plus import NegGradPlus
from expunge.methods.newton import Newton
from expunge.methods.noisy_descent import NoisyDescent
from expunge.methods.perturb_and_repair import PerturbAndRepair
from expunge.methods.primal_dual import PrimalDual
from expunge.methods.problem import Checkpoint, Problem, Treatment
from expunge.methods.random_labels import RandomLabels
from expunge.methods.recall_inputs import RecallInputs
from expunge.methods.replay import Replay
from expunge.methods.retrain import Retrain
from expunge.methods.rewind import Rewind
from expunge.methods.rfe import RFE
from expunge.methods.salun import SalUn
from expunge.methods.scrub import Scrub
from expunge.methods.small_batch_retrain import SmallBatchRetrain
from expunge.methods.ssd import SSD
from expunge.methods.statistics_alone import StatisticsAlone
from expunge.methods.unlearn import Stop, Trace, check_fits, unlearn
from expunge.methods.unsir import UNSIR

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        DoNothing,
        Retrain,
        EarlyStoppedRetrain,
        FineTune,
        StatisticsAlone,
        GradientAscent,
        GradientDescentAscent,
        UNSIR,
        Scrub,
        BadTeacher,
        MarginMatching,
        Newton,
        CertifiedRemoval,
        DescentToDelete,
        NoisyDescent,
        ClippedNoisy,
        CFk,
        EUk,
        EvidentialRepair,
        SSD,
        FisherNoise,
        L1Sparse,
        NegGradPlus,
        RecallInputs,
        Replay,
        RFE,
        RandomLabels,
        SalUn,
        PerturbAndRepair,
        PrimalDual,
        Rewind,
        DeltaGrad,
        SmallBatchRetrain,
    )
}
"""Every method by its name."""

DEFAULT_METHODS: tuple[str, ...] = tuple(
    method.name for method in (GradientAscent, GradientDescentAscent, Scrub, MarginMatching)
)
"""The candidates that an audit or a forecast tries where none are named: a declared list, so that a new method changes
neither what an audit takes nor what it finds."""

ALL_METHODS = "all"
"""What stands for every method of the registry."""

__all__ = [
    "ALL_METHODS",
    "DEFAULT_METHODS",
    "METHODS",
    "RFE",
    "SSD",
    "UNSIR",
    "BadTeacher",
    "CFk",
    "CertifiedRemoval",
    "Checkpoint",
    "ClippedNoisy",
    "DeltaGrad",
    "DescentToDelete",
    "DoNothing",
    "EUk",
    "EarlyStoppedRetrain",
    "EvidentialRepair",
    "FineTune",
    "FisherNoise",
    "GradientAscent",
    "GradientDescentAscent",
    "L1Sparse",
    "MarginMatching",
    "Method",
    "NegGradPlus",
    "Newton",
    "NoisyDescent",
    "PerturbAndRepair",
    "PrimalDual",
    "Problem",
    "RandomLabels",
    "RecallInputs",
    "Replay",
    "Retrain",
    "Rewind",
    "SalUn",
    "Scrub",
    "SmallBatchRetrain",
    "StatisticsAlone",
    "Stop",
    "Trace",
    "Trained",
    "Treatment",
    "check_fits",
    "from_function",
    "unlearn",
]
