"""Tables, figures and pages, drawn from records and nothing else."""

from expunge.report.page import draw, render
from expunge.report.table import print_table

__all__ = ["draw", "print_table", "render"]
