"""Stacked training and prediction; where members are computed and kept."""

from expunge.core import Task
from expunge.ensembles.descent import Descent, Steps
from expunge.ensembles.losses import (
    Loss,
    Objective,
    Weighted,
    WrittenLoss,
    cross_entropy,
    cross_entropy_with_gradient,
    weighted,
)
from expunge.ensembles.on_ray import RayRunner
from expunge.ensembles.rule import Rule
from expunge.ensembles.runners import Runner
from expunge.ensembles.statistics import recalibrate
from expunge.ensembles.train import train
from expunge.ensembles.trial import build_network

Task.network_builder = staticmethod(build_network)

__all__ = [
    "Descent",
    "Loss",
    "Objective",
    "RayRunner",
    "Rule",
    "Runner",
    "Steps",
    "Weighted",
    "WrittenLoss",
    "build_network",
    "cross_entropy",
    "cross_entropy_with_gradient",
    "recalibrate",
    "train",
    "weighted",
]
