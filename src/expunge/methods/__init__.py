"""Unlearning algorithms, one a file; to add one, write its file and its line in `names`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expunge.core.lazy import reader
from expunge.methods.names import ALL_METHODS, CANDIDATES, CONTROLS, DEFAULT_METHODS

if TYPE_CHECKING:
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
    from expunge.methods.gradient_ascent import GradientAscent
    from expunge.methods.gradient_descent_ascent import GradientDescentAscent
    from expunge.methods.l1_sparse import L1Sparse
    from expunge.methods.last_layers import CFk, EUk
    from expunge.methods.margin_matching import MarginMatching
    from expunge.methods.method import Method, Trained
    from expunge.methods.neg_grad_plus import NegGradPlus
    from expunge.methods.newton import Newton
    from expunge.methods.noisy_descent import NoisyDescent
    from expunge.methods.own_function import from_function
    from expunge.methods.perturb_and_repair import PerturbAndRepair
    from expunge.methods.primal_dual import PrimalDual
    from expunge.methods.problem import Checkpoint, Problem, Treatment
    from expunge.methods.random_labels import RandomLabels
    from expunge.methods.recall_inputs import RecallInputs
    from expunge.methods.registry import METHODS
    from expunge.methods.replay import Replay
    from expunge.methods.retrain import Retrain
    from expunge.methods.rewind import Rewind
    from expunge.methods.rewind_to_delete import RewindToDelete
    from expunge.methods.rfe import RFE
    from expunge.methods.salun import SalUn
    from expunge.methods.scrub import Scrub
    from expunge.methods.sisa import Sisa
    from expunge.methods.small_batch_retrain import SmallBatchRetrain
    from expunge.methods.ssd import SSD
    from expunge.methods.statistics_alone import StatisticsAlone
    from expunge.methods.unlearning import Stop, Trace, check_fits, unlearn
    from expunge.methods.unsir import UNSIR

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
    "RewindToDelete",
    "SalUn",
    "Scrub",
    "Sisa",
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

_CLASSES = [place.split(".") for place in (CONTROLS | CANDIDATES).values()]

__getattr__ = reader(
    __name__,
    {
        "Method": "method",
        "Trained": "method",
        "from_function": "own_function",
        "Checkpoint": "problem",
        "Problem": "problem",
        "Treatment": "problem",
        "METHODS": "registry",
        "Stop": "unlearning",
        "Trace": "unlearning",
        "check_fits": "unlearning",
        "unlearn": "unlearning",
        **{name: module for module, name in _CLASSES},
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
