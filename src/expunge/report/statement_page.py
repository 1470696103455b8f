"""The page for the person who signs: request, what was done, verdicts, numbers, what they show and what they do not."""

from __future__ import annotations

from dataclasses import dataclass

from expunge.core.evidence import Checkpoint, Statement
from expunge.core.record import SPLITS, ConfigurationRecord, ForgetRecord, Record, SplitName
from expunge.core.result import Result
from expunge.report import numbers, wording
from expunge.report.headline import Headline, headline
from expunge.report.html import made_facts, style, task_facts, templates
from expunge.version import __version__

TONES = {"compatible": "good", "told": "bad", "cannot tell": "open"}
"""Colour of each verdict on one model."""


@dataclass(frozen=True)
class Line:
    """One method in the table of numbers."""

    label: str
    setting: str
    control: bool
    configuration: ConfigurationRecord
    scores: dict[SplitName, Result]
    failed_checks: list[str]
    used: bool
    """Whether the checkpoint was made in this way."""


@dataclass(frozen=True)
class Sheet:
    """What the page says of one forget set."""

    forget: ForgetRecord
    headline: Headline
    lines: list[Line]


def draw_statement(statement: Statement, record: Record, released: Checkpoint | None, root: str) -> str:
    """Return the page as HTML; the same arguments always give the same bytes.

    Args:
        statement: The words.
        record: The run's record as it stands in the bundle, for the numbers.
        released: Of the checkpoint that was made for the request, if it was handed in.
        root: The root digest of the bundle.
    """
    parts = {
        "Shown": [("", sentence) for sentence in statement.shown],
        "Assumed": [("", sentence) for sentence in statement.assumed],
        "Not shown": [_led(sentence) for sentence in statement.not_shown],
    }
    return (
        templates()
        .get_template("statement.html.j2")
        .render(
            version=__version__,
            style=style("statement.css"),
            record=record,
            statement=statement,
            released=None if released is None else released.record,
            one=None if released is None else released.verdict,
            tones=TONES,
            root=root,
            splits=SPLITS,
            sheets=[_sheet(forget, released) for forget in record.forget_sets],
            # The fingerprint of the data stands under a key in a bundle, so it would be found nowhere else.
            facts=[*task_facts(record.task), *(f for f in made_facts(record) if not f.startswith("data "))],
            parts=parts,
            chip=wording.chip,
            count=numbers.count,
        )
    )


def _used(released: Checkpoint | None, configuration: ConfigurationRecord) -> bool:
    if released is None:
        return False
    made = released.record
    if made.audit is not None:
        return made.audit.configuration == configuration.id
    return made.source == "retraining" and configuration.method == "retrain"


def _led(sentence: str) -> tuple[str, str]:
    """Return what a sentence is about, and the rest: `Copies. Backups, logs, ...`."""
    lead, stop, rest = sentence.partition(". ")
    return (lead + stop.strip(), rest) if stop else ("", sentence)


def _sheet(forget: ForgetRecord, released: Checkpoint | None) -> Sheet:
    lines = [
        Line(
            wording.short_label(row.label, row.chosen.statistics),
            wording.setting(forget, row.chosen),
            row.control,
            row.chosen,
            row.chosen.scores,
            [check.name for check in row.chosen.checks if not check.passed],
            _used(released, row.chosen),
        )
        for row in wording.rows(forget)
        if row.chosen is not None
    ]
    return Sheet(forget, headline(forget), lines)
