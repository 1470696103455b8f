"""Compositions that run and write records: the audit and the forecast."""

from expunge.studies.audit import audit
from expunge.studies.forecast import forecast_run
from expunge.studies.request.unlearn import unlearn_checkpoint

__all__ = ["audit", "forecast_run", "unlearn_checkpoint"]
