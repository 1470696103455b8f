"""What the pages share: templates, scripts and data inside one file, and a policy that lets nothing else in.

Everything is inlined (plotly.js once, style, script, data), and a content security policy forbids a page to load
anything or to run any script but its own two, so that a name in a record can never become code.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from expunge.core.forecast import ForecastRun
from expunge.core.record import SPLITS, Record
from expunge.core.schema import RunRecord
from expunge.report import numbers
from expunge.version import __version__


def render_page(
    template: str, payload: Mapping[str, Any], record: Record | ForecastRun, costs: tuple[float, float], **values: Any
) -> str:
    """Return a page as HTML.

    Args:
        template: Name of the template.
        payload: Data for the page's script: `figures`, `hover` and `tables`.
        record: What was found.
        costs: Ends of the colour scale of cost.
        values: What the template shows.
    """
    return fill(
        template,
        [_plotly(), script()],
        payload,
        record=record,
        costs=cost_ticks(costs),
        splits=SPLITS,
        tables={
            "task": flat({k: v for k, v in record.task.items() if k not in ("architecture", "recipe")}),
            "recipe": flat(record.task.get("recipe") or {}),
            "request": flat(record.request),
            "environment": flat(record.environment),
        },
        **values,
    )


def fill_without_figures(template: str, **values: Any) -> str:
    """Return a page that shows tables alone, as HTML."""
    return fill(template, [script()], {"figures": {}, "hover": {}, "tables": {}}, **values)


def script() -> str:
    """Return the script that all pages share."""
    return _template_text("script.js")


def fill(
    template: str, scripts: Sequence[str], payload: Mapping[str, Any], *, package: str = "expunge.report", **values: Any
) -> str:
    """Return a page as HTML.

    Args:
        template: Name of the template.
        scripts: What the page runs, and nothing else.
        payload: Data for them.
        package: Where the template is looked for before the report's own are.
        values: What the template shows.
    """
    return (
        templates(package)
        .get_template(template)
        .render(
            version=__version__,
            count=numbers.count,
            marker=marker,
            style=style("style.css"),
            scripts=[Markup(text) for text in scripts],
            hashes=[_digest(text) for text in scripts],
            payload=_json(payload),
            **values,
        )
    )


def templates(package: str = "expunge.report") -> Environment:
    """Return the templates of a package and of the report, with the report's way of writing numbers as filters."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name, "templates") for name in (package, "expunge.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=numbers.number,
        signed=numbers.signed,
        percent=numbers.percent,
        accuracy=numbers.accuracy,
        duration=numbers.duration,
        interval=numbers.interval,
        listing=numbers.listing,
        value=numbers.value_text,
    )
    return environment


def style(name: str) -> Markup:
    """Return a style sheet."""
    return Markup(_template_text(name))


def cost_ticks(costs: tuple[float, float]) -> list[tuple[float, str]]:
    """Return (position from 0 to 100, text) of the ticks on the cost scale."""
    low, high = math.log10(costs[0]), math.log10(costs[1])
    return [(round(100 * i / 4, 1), numbers.percent(10 ** (low + (high - low) * i / 4))) for i in range(5)]


def flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return a nested table as lines of (name, text)."""
    found: list[tuple[str, str]] = []
    for key, item in table.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping) and item:
            found += flat(item, f"{name}.")
        elif isinstance(item, list | tuple) and any(isinstance(part, Mapping) for part in item):
            found.append((name, json.dumps(item, default=str)))
        else:
            found.append((name, numbers.value_text(item)))
    return found


def made_facts(record: RunRecord) -> list[str]:
    """Return when, from which data and with which versions a record was made."""
    day = record.started.partition("T")[0]
    found = [day] if day else []
    digest = getattr(record, "task", {}).get("fingerprint")
    if isinstance(digest, str) and digest:
        found.append(f"data {digest[:12]}")
    packages = record.environment.get("packages")
    torch = packages.get("torch") if isinstance(packages, Mapping) else None
    versions = {"expunge": record.environment.get("expunge"), "torch": torch}
    text = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return [*found, text] if text else found


def task_facts(task: Mapping[str, Any]) -> list[str]:
    """Return what the line below the title says of the task."""
    found = []
    if isinstance(task.get("train"), int):
        found.append(f"{task['train']:,} training and {task.get('validation', 0):,} validation examples")
    if isinstance(task.get("parameters"), int):
        found.append(f"{task.get('model', 'model')}, {task['parameters']:,} parameters")
    return found


_MARKERS = {
    "square": "M2 2H12V12H2Z",
    "diamond": "M7 0.5L13.5 7L7 13.5L0.5 7Z",
    "triangle-up": "M7 1L13.3 12.4H0.7Z",
    "cross": "M4.8 1H9.2V4.8H13V9.2H9.2V13H4.8V9.2H1V4.8H4.8Z",
    "pentagon": "M7 0.8L13.2 5.3L10.8 12.6H3.2L0.8 5.3Z",
    "triangle-down": "M7 13L0.7 1.6H13.3Z",
    "hexagon": "M7 0.6L12.6 3.8V10.2L7 13.4L1.4 10.2V3.8Z",
    "hourglass": "M1.5 1.5H12.5L1.5 12.5H12.5Z",
    "x": "M3.6 0.8L7 4.2L10.4 0.8L13.2 3.6L9.8 7L13.2 10.4L10.4 13.2L7 9.8L3.6 13.2L0.8 10.4L4.2 7L0.8 3.6Z",
    "bowtie": "M1.5 1.5V12.5L12.5 1.5V12.5Z",
    "diamond-wide": "M7 2.5L13.8 7L7 11.5L0.2 7Z",
    "triangle-left": "M1 7L12.4 0.7V13.3Z",
    "triangle-right": "M13 7L1.6 0.7V13.3Z",
}


def marker(symbol: str) -> str:
    """Return the SVG path of a marker in a box of 14 by 14, for the legend."""
    return _MARKERS[symbol]


def _template_text(name: str) -> str:
    text = (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")
    return text.replace("\r\n", "\n")


def _plotly() -> str:
    """Return plotly.js, as the plotly package ships it."""
    from plotly.offline import get_plotlyjs

    # A browser reads carriage returns as newlines, so they would change the digest that the policy allows.
    return str(get_plotlyjs()).replace("\r\n", "\n").replace("\r", "\n")


def _digest(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _json(payload: Any) -> Markup:
    """Write data for a script element: no character in it can end the element or start another."""
    text = json.dumps(payload, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    escaped = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return Markup(escaped)
