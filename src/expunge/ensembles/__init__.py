"""Stacked training and prediction; where members are computed and kept."""

from expunge.core import Task
from expunge.ensembles.descent import Descent, Loss, Steps, cross_entropy
from expunge.ensembles.statistics import recalibrate
from expunge.ensembles.train import train
from expunge.ensembles.trial import build_network

Task.network_builder = staticmethod(build_network)

__all__ = ["Descent", "Loss", "Steps", "build_network", "cross_entropy", "recalibrate", "train"]
