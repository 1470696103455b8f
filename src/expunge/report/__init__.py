"""Tables, figures and pages, drawn from records and nothing else."""

from expunge.report.forecast_page import draw_forecast, render_forecast
from expunge.report.markdown import markdown
from expunge.report.page import draw, render
from expunge.report.table import print_forecast, print_table

__all__ = ["draw", "draw_forecast", "markdown", "print_forecast", "print_table", "render", "render_forecast"]
