"""The verdict table of an audit as Markdown, for a README or an issue."""

from __future__ import annotations

from collections.abc import Mapping

from expunge.core.passing import passes
from expunge.core.record import SPLITS, ForgetRecord, Record, SplitName
from expunge.core.result import Result
from expunge.report import numbers, wording
from expunge.report.headline import headline


def markdown(record: Record) -> str:
    """Return what an audit found as Markdown: for each forget set the answer, and a table with a row a method.

    KLoM is the 95th percentile over examples, in nats, at the setting that was chosen without the target's oracles.

    Args:
        record: Of an audit, complete or still running.
    """
    return "\n\n".join(_forget_set(forget) for forget in record.forget_sets) + "\n"


def _forget_set(forget: ForgetRecord) -> str:
    words = headline(forget)
    lines = [
        f"| {escaped(forget.name)} | verdict | {' | '.join(SPLITS)} | cost | illusion gap |",
        "|---|---|---|---|---|---|---|",
        _row("floor (held-out oracles)", "", forget.floor, "100 %", ""),
    ]
    for row in wording.with_equal_cost(wording.rows(forget)):
        c = row.chosen
        if c is None:
            continue
        # Where there is one configuration there is nothing to choose, and no gap.
        gap = wording.gap_text(row.selection) if row.selection and row.configurations > 1 else ""
        verdict = wording.chip(c.verdict)
        label = escaped(row.label) + (" (control)" if row.control else "")
        bold = f"**{verdict}**" if passes(c) else verdict
        lines.append(_row(label, bold, c.scores, numbers.percent(c.cost), gap))
    return f"**{escaped(words.sentence)}** {escaped(words.action)}\n\n" + "\n".join(lines)


def _row(label: str, verdict: str, scores: Mapping[SplitName, Result], cost: str, gap: str) -> str:
    read = [numbers.number(scores[split].value) if split in scores else "" for split in SPLITS]
    return f"| {label} | {verdict} | {' | '.join(read)} | {cost} | {gap} |"


def escaped(words: str) -> str:
    """Write a name from a record so that it cannot become a cell or a tag."""
    return words.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
