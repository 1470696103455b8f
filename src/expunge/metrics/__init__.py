"""Metrics: pure functions from arrays to numbers, each with the oracle's own value beside it."""

from expunge.core.limits import DEFAULT_ROW_TOLERANCE, DEFAULT_TOLERANCE
from expunge.metrics.distances import (
    distance_floor,
    distance_score,
    energy,
    gaussian_kl,
    jensen_shannon,
    kolmogorov_smirnov,
    wasserstein,
)
from expunge.metrics.fade import fade, fade_from_samples, fade_reading
from expunge.metrics.failures import failed_members
from expunge.metrics.gus import gus
from expunge.metrics.joint import classifier_two_sample, mmd
from expunge.metrics.klom import default_bins, klom
from expunge.metrics.lira import lira, lira_roc
from expunge.metrics.membership import member_scores, population_attack, svc_attack
from expunge.metrics.metric import Metric, Sample, Side
from expunge.metrics.neurips2023 import challenge_score
from expunge.metrics.one_model import OneModel, one_model
from expunge.metrics.outputs import (
    accuracy,
    accuracy_gap,
    activation_distance,
    activation_distance_reading,
    margins,
    tug_of_war,
    tug_of_war_reading,
    zrf,
    zrf_reading,
)
from expunge.metrics.privacy import audit as audit_epsilon
from expunge.metrics.privacy import gaussian_epsilon, one_run_epsilon
from expunge.metrics.registry import METRICS
from expunge.metrics.relearning import relearning
from expunge.metrics.roc import roc
from expunge.metrics.ruler import Ruler
from expunge.metrics.ulira import ulira
from expunge.metrics.verdict import Judge, SplitVerdict, Verdict, judge

__all__ = [
    "DEFAULT_ROW_TOLERANCE",
    "DEFAULT_TOLERANCE",
    "METRICS",
    "Judge",
    "Metric",
    "OneModel",
    "Ruler",
    "Sample",
    "Side",
    "SplitVerdict",
    "Verdict",
    "accuracy",
    "accuracy_gap",
    "activation_distance",
    "activation_distance_reading",
    "audit_epsilon",
    "challenge_score",
    "classifier_two_sample",
    "default_bins",
    "distance_floor",
    "distance_score",
    "energy",
    "fade",
    "fade_from_samples",
    "fade_reading",
    "failed_members",
    "gaussian_epsilon",
    "gaussian_kl",
    "gus",
    "jensen_shannon",
    "judge",
    "klom",
    "kolmogorov_smirnov",
    "lira",
    "lira_roc",
    "margins",
    "member_scores",
    "mmd",
    "one_model",
    "one_run_epsilon",
    "population_attack",
    "relearning",
    "roc",
    "svc_attack",
    "tug_of_war",
    "tug_of_war_reading",
    "ulira",
    "wasserstein",
    "zrf",
    "zrf_reading",
]
