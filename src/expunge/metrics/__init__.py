"""Metrics: pure functions from arrays to numbers, each with the oracle's own value beside it."""

from expunge.core.margins import margins_from_logits as margins
from expunge.metrics.failures import failed_members
from expunge.metrics.klom import default_bins, klom
from expunge.metrics.outputs import accuracy, accuracy_gap
from expunge.metrics.ruler import Ruler
from expunge.metrics.verdict import DEFAULT_TOLERANCE, Judge, SplitVerdict, Verdict, judge

__all__ = [
    "DEFAULT_TOLERANCE",
    "Judge",
    "Ruler",
    "SplitVerdict",
    "Verdict",
    "accuracy",
    "accuracy_gap",
    "default_bins",
    "failed_members",
    "judge",
    "klom",
    "margins",
]
