"""Metrics: pure functions from arrays to numbers, each with the oracle's own value beside it."""

from expunge.core.margins import margins_from_logits as margins
from expunge.metrics.outputs import accuracy, accuracy_gap

__all__ = [
    "accuracy",
    "accuracy_gap",
    "margins",
]
