"""The main jobs as one call each: run the study, then draw its page."""

from expunge.api.audits import Forecast, Run, audit, compare, forecast
from expunge.api.bundles import Evidence, Verified, evidence, verify
from expunge.api.requests import RequestPlan, Unlearned, judge, plan, unlearn_checkpoint
from expunge.api.scores import Scores, score

__all__ = [
    "Evidence",
    "Forecast",
    "RequestPlan",
    "Run",
    "Scores",
    "Unlearned",
    "Verified",
    "audit",
    "compare",
    "evidence",
    "forecast",
    "judge",
    "plan",
    "score",
    "unlearn_checkpoint",
    "verify",
]
