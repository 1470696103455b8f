"""Compositions that run and write records: the audit and the forecast."""

from expunge.studies.audit import audit
from expunge.studies.forecast import forecast_run

__all__ = ["audit", "forecast_run"]
