"""The most important thing about a forget set: the cheapest that is known to work, controls included."""

from __future__ import annotations

import math
from dataclasses import dataclass

from expunge.core.passing import AS_DEAR, cost, failed_checks, passes, working
from expunge.core.record import MOVED_ENOUGH, ForgetRecord
from expunge.report import numbers
from expunge.report.wording import Row, chip, is_noise, rows, setting, worst_excess


@dataclass(frozen=True)
class Headline:
    """The most important thing about one forget set."""

    tone: str
    """`good`, `bad`, `open` or `empty`; decides the colour."""
    sentence: str
    """The finding."""
    action: str
    """What this means and what to do."""


def headline(forget: ForgetRecord) -> Headline:
    """Say in a few sentences what an engineer with a deletion request must know about one forget set."""
    score, floor = forget.pretrained.get("forget"), forget.floor.get("forget")
    if forget.nothing_to_unlearn:
        seen = (
            f" (KLoM on forget {numbers.number(score.value)}, floor {numbers.number(floor.value)})"
            if score and floor
            else ""
        )
        return Headline(
            "empty",
            "There is nothing to unlearn: before any method, the pretrained models already behave on the forget "
            f"examples like models that never saw them{seen}.",
            "No unlearning is needed for the behaviour to match retraining, and this forget set cannot tell a working "
            "method from an idle one. Whether the data themselves must be deleted is a separate question.",
        )
    all_rows = rows(forget)
    judged = [row for row in all_rows if not row.control and row.chosen]
    if not judged:
        return Headline(
            "open",
            "No method has been chosen and judged for this forget set yet.",
            "Finish or repeat the audit; until then, retrain if the examples have to be forgotten.",
        )
    by_method = {row.method: row for row in all_rows}
    found = [by_method[each.method] for each in working(forget)]
    cheaper = [row for row in found if cost(row.chosen) < AS_DEAR]
    passing = [row for row in found if not row.control]
    if cheaper:
        return _works(forget, cheaper[0], judged, passing)
    if passing:
        return _dear_news(passing, len(judged))
    return _bad_news(forget, judged)


def _works(forget: ForgetRecord, first: Row, judged: list[Row], passing: list[Row]) -> Headline:
    """Name the cheapest that works, what it needs, and what else does."""
    assert first.chosen is not None
    found = setting(forget, first.chosen)
    how = f" ({found})" if found else ""
    sentence = (
        f"{first.label} is the cheapest known to work: it cannot be told from retraining, at "
        f"{numbers.percent(first.chosen.cost)} of its cost."
    )
    if first.control:
        who = _count_passing(passing, len(judged)) if passing else f"No unlearning method matches. {_closest(judged)}"
        earned = " A control does as well for less, so no method earns credit." if passing else ""
        return Headline("good", sentence, f"Use it as it was chosen{how}, or retrain. {_capital(who)}.{earned}")
    cautions = _cautions(first)
    use = f"Use the setting that was chosen{how}, for this task and forget sets of this kind"
    use += "; but " + "; ".join(cautions) + "." if cautions else "."
    return Headline("good", sentence, f"{use} {_capital(_count_passing(passing, len(judged)))}.")


def _dear_news(passing: list[Row], judged: int) -> Headline:
    """Say that what passes saves nothing, `passing[0]` being the cheapest."""
    first = passing[0]
    assert first.chosen is not None
    action = (
        f"{first.label} matches, but saves nothing: it costs {numbers.percent(first.chosen.cost)} of retraining, which "
        f"is certain and has no setting to find. {_capital(_count_passing(passing, judged))}."
    )
    cautions = _cautions(first)
    if cautions:
        action += f" If you use it all the same: {'; '.join(cautions)}."
    return Headline("open", "Retrain: nothing cheaper is known to work.", action)


def _bad_news(forget: ForgetRecord, judged: list[Row]) -> Headline:
    undecided = [row for row in judged if row.chosen and row.chosen.verdict.name == "undecided"]
    illusions = [row for row in judged if passes(row.best) and row.selection and not is_noise(row.selection)]
    inert = [row for row in judged if _inert(forget, row.method)]
    # Undecided is not a failure: the claim must not be stronger than the evidence.
    claim = "No candidate has been shown to match retraining" if undecided else "No candidate matches retraining"
    action = f"{claim}. {_closest(judged)}."
    if undecided:
        names = numbers.listing([row.label for row in undecided])
        action += f" {names}: too few members to decide; more would."
    if illusions:
        names = numbers.listing([row.label for row in illusions])
        action += (
            f" A setting of {names} would have looked successful had it been picked with the retrained models at hand; "
            "without them nobody would have known to pick it."
        )
    if inert:
        names = numbers.listing([row.label for row in inert])
        action += f" No setting of {names} moved the forget examples: try larger rates before you conclude anything."
    tone = "open" if undecided or len(inert) == len(judged) else "bad"
    return Headline(tone, "Retrain: nothing cheaper is known to work.", action)


def _closest(judged: list[Row]) -> str:
    row = min(judged, key=lambda row: worst_excess(row.chosen) if row.chosen else math.inf)
    assert row.chosen is not None
    near = f"The closest is {row.label} at {numbers.percent(row.chosen.cost)} of the cost: {chip(row.chosen.verdict)}"
    score = row.chosen.scores.get("forget")
    if score is None:
        return near
    return f"{near}, KLoM on forget {numbers.number(score.value)} where retraining reads {numbers.number(score.floor)}"


def _count_passing(passing: list[Row], judged: int) -> str:
    if judged == 1:
        return "it is the only candidate" if passing else "the only candidate does not pass"
    total = f"{len(passing)} of {judged} candidates {'passes' if len(passing) == 1 else 'pass'}"
    names = [f"{row.label} at {numbers.percent(cost(row.chosen))}" for row in passing]
    return f"{total}: {numbers.listing(names)}"


def _cautions(row: Row) -> list[str]:
    """Return what somebody must know who wants to use a method that passes."""
    assert row.chosen is not None
    cautions = []
    if failed_checks(row.chosen):
        cautions.append("a runtime check of the method failed: read it before trusting the score")
    if row.selection and row.selection.edge:
        cautions.append("its setting lies on the edge of the grid, so widen the grid")
    return cautions


def _inert(forget: ForgetRecord, method: str) -> bool:
    """Return whether no setting of a method moved the forget examples enough to be judged."""
    return all(
        any(check.name == MOVED_ENOUGH and not check.passed for check in c.checks)
        for c in forget.configurations
        if c.method == method
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
