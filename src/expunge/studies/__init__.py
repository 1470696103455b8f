"""Compositions that run and write records: the audit."""

from expunge.studies.audit import audit

__all__ = ["audit"]
