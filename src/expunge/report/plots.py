"""How figures of papers look, and how they come into a page: colours, a style of Matplotlib, SVG without side effects.

Colours are Okabe and Ito's, told apart by people with any colour vision; lines differ in dash as well.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import matplotlib
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#6b7280",
)
CYCLE = (BLUE, ORANGE, GREEN, RED, PURPLE)

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a929b",
    "axes.labelcolor": "#1c2126",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e9eaec",
    "axes.axisbelow": True,
    "xtick.color": "#4a525b",
    "ytick.color": "#4a525b",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.9,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "expunge",
    "svg.fonttype": "path",
}


def image(figure: Figure, kind: str, dpi: int = 150) -> bytes:
    """Return a figure as `png` or `svg`; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else {})
    return buffer.getvalue()


def inline(svg: bytes, name: str) -> Markup:
    """Return an SVG ready for a page: without XML header, with identifiers that no other figure uses."""
    text = svg.decode()
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    return Markup(re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body))


def paper_style() -> Markup:
    """Return the style sheet of the pages of papers."""
    return Markup(resources.files("expunge.report").joinpath("templates/paper.css").read_text(encoding="utf-8"))


def paper_page(
    package: str, template: str, *, filters: Mapping[str, Callable[..., str]] | None = None, **values: Any
) -> str:
    """Return the page of a paper as HTML; everything that came from a record is escaped.

    Args:
        package: The package whose folder `templates` holds the template.
        template: Its file name.
        filters: Filters of the template, by name.
        values: What it shows; `style` is the style sheet of the pages of papers.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(filters or {})
    text = resources.files(package).joinpath("templates", template).read_text(encoding="utf-8")
    return environment.from_string(text).render(style=paper_style(), **values)
