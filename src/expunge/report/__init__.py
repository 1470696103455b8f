"""Tables, figures and pages, drawn from records and nothing else."""

from expunge.report.compare import compare
from expunge.report.compare_page import draw_comparison
from expunge.report.forecast_page import draw_forecast, render_forecast
from expunge.report.markdown import markdown
from expunge.report.page import draw, render
from expunge.report.statement_page import draw_statement
from expunge.report.table import print_forecast, print_table

__all__ = [
    "compare",
    "draw",
    "draw_comparison",
    "draw_forecast",
    "draw_statement",
    "markdown",
    "print_forecast",
    "print_table",
    "render",
    "render_forecast",
]
