"""What a reproduction of the paper found, item by item: claim, answer, tables and charts; all that its page reads.

A run is a folder: `reproduction.json` (this schema), and beside it the folders of the audits and of the theory study
that items were read from, each with a page of its own.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from expunge.core.schema import RunRecord, Strict
from expunge.papers.ascent_fails_to_forget.finding import Table

Verdict = Literal["holds", "holds under conditions", "does not hold", "new result", "not run at this preset"]


class Series(Strict):
    """Points of a chart that belong together."""

    label: str
    """For the legend; the same label has the same look in all panels."""
    x: list[float]
    y: list[float]
    mark: Literal["dots", "line", "pretrained", "oracle"] = "dots"
    """A line joins its points; `pretrained` is a ring and `oracle` a star, as in the paper."""
    colours: list[float] = Field(default_factory=list)
    """A number for each point that its colour stands for, such as a cost; none for one colour."""
    low: list[float] = Field(default_factory=list)
    """Lower ends of the points' intervals; none where there are none."""
    high: list[float] = Field(default_factory=list)


class Panel(Strict):
    """One pair of axes."""

    title: str
    x: str
    y: str
    series: list[Series]
    log_x: bool = False
    log_y: bool = False
    levels: list[float] = Field(default_factory=list)
    """Heights of dotted lines across, such as a floor."""


class Chart(Strict):
    """Panels that are read together."""

    caption: str
    """What is drawn, in a sentence; also what a screen reader says."""
    panels: list[Panel]
    colours: str = ""
    """What the colours of points stand for, with the unit."""
    log_colours: bool = False


class ItemRecord(Strict):
    """One item of the paper: what it claims, and what was found."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")
    """Name on the command line, such as `table-1`."""
    rows: list[str]
    """Rows of the list of things to build that it answers, such as `P12`."""
    title: str
    claim: str
    """What the paper says, or what the public record shows, in our words."""
    verdict: Verdict
    sentences: list[str] = Field(min_length=1)
    """What was found, the answer first."""
    size: str = ""
    """What stands behind it: data, members, examples, seeds."""
    tables: list[Table] = Field(default_factory=list)
    charts: list[Chart] = Field(default_factory=list)
    pages: dict[str, str] = Field(default_factory=dict)
    """Pages it was read from, by what they are: paths relative to the run's folder."""
    seconds: float = 0.0
    """Wall-clock seconds, without what an earlier start or another item had done."""


class ReproductionRecord(RunRecord):
    """One run of `expunge reproduce ascent-fails-to-forget`."""

    FILE: ClassVar[str] = "reproduction.json"
    KIND: ClassVar[str] = "reproduction"
    schema_version: int = 1
    study: Literal["reproduction"] = "reproduction"
    preset: str
    declared: dict[str, Any] = Field(default_factory=dict)
    """The preset's table, as it was declared."""
    items: list[ItemRecord] = Field(default_factory=list)
