"""An item of the paper, and what its check returns: adding one is a file in `items` and a line in `names.ITEMS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from expunge.papers.ascent_fails_to_forget.finding import Table
from expunge.papers.ascent_fails_to_forget.reproduction.presets import Preset
from expunge.papers.ascent_fails_to_forget.reproduction.record import Chart, Verdict

if TYPE_CHECKING:
    from expunge.papers.ascent_fails_to_forget.reproduction.context import Context

Work = Literal["sets", "audits", "probe", "plain", "scrub", "promising", "tables", "residual", "theory", "public"]
"""What an item reads: the nine forget sets (and the models on halves of the data that they come from), their audits,
one random set without an audit, the same for the network without norm, runs of SCRUB there, audits of what is named as
promising, the models of Table 1, those of the residual network, the theory study, the benchmark's published tables."""


@dataclass(frozen=True)
class Found:
    """What was found of one item."""

    verdict: Verdict
    sentences: list[str]
    size: str = ""
    tables: list[Table] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    pages: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Item:
    """One thing that the paper claims or shows."""

    rows: tuple[str, ...]
    """Rows of the list of things to build, such as `P12`."""
    title: str
    claim: str
    """In our words."""
    check: Callable[[Context], Found]
    work: frozenset[Work] = frozenset()
    sets: tuple[str, ...] = ()
    """Forget sets whose audits it reads; empty reads all that are asked for."""
    absent: Callable[[Preset], str] = lambda preset: ""
    """Why it cannot be run at a preset; nothing where it can."""
    prepare: Callable[[Context], None] = lambda context: None
    """Refuses data of its own that cannot be used, before anything is trained."""
