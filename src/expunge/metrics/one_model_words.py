"""What a verdict on one model says, in a sentence or two with its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from expunge.metrics.one_model import OneModel

WORDS = {
    "forget": "its forget margins on average",
    "retain": "its retain margins on average",
    "validation": "its validation margins on average",
    "forget beside rest": "its forget margins beside its others",
    "retain beside validation": "its retain margins beside its validation margins",
    "forget distance": "its distance from the oracles' mean on forget examples",
    "retain distance": "its distance from the oracles' mean on retain examples",
    "validation distance": "its distance from the oracles' mean on validation examples",
    "furthest row": "its furthest forget row",
    "nearest": "its distance to the nearest oracle",
    "pattern": "its distance from the oracles' pattern over all examples",
    "direction": "its place between the oracles and the pretrained models",
}
"""The statistics of `expunge.metrics.oddness`."""
FAR = 100.0
"""Larger sizes are not numbered."""


def sentence(found: OneModel) -> str:
    """Return the verdict with its numbers."""
    if found.name == "told":
        return _told(found)
    if found.name == "compatible":
        return (
            f"Compatible with retraining (level {found.level:g}, power {_power(found)}): p = {found.p_value:.2f} among "
            f"{found.oracles} oracles; {_pretrained(found)}.{_sees(found)}"
        )
    return f"Cannot tell with {found.oracles} oracles: {_cannot_tell(found)}"


def reason(found: OneModel) -> str:
    """Return the statistic that is the oddest with its size; "" for a model that failed."""
    if not found.reason:
        return ""
    where = f"{abs(found.size):.1f} standard deviations" if abs(found.size) < FAR else "far"
    side = "above" if found.size > 0 else "below"
    if found.reason == "direction":
        side = "towards the pretrained models" if found.size > 0 else "away from the pretrained models"
        return f"{WORDS[found.reason]} is {where} from the oracles', {side}"
    if "distance" in found.reason or found.reason in ("nearest", "pattern", "furthest row"):
        side = "larger" if found.size > 0 else "smaller"
    return f"{WORDS[found.reason]}: {where} {side} than among oracles"


def _told(found: OneModel) -> str:
    if found.outright:
        return f"Told from retraining: {found.outright}."
    alone = any(row.p_value <= found.level for row in found.rows)
    listed = ", ".join(f"{row.position} ({row.shift:+.1f})" for row in found.rows)
    which = "Told one by one are" if alone else "No row is told alone; furthest are"
    rows = f" {which} forget rows {listed}, in oracle standard deviations."
    # What is nearer to the oracles than they are to each other is told by no row.
    near = not alone and all(abs(row.shift) < 1 for row in found.rows)
    head = f"Told from retraining (p = {found.p_value:.3f}, {found.oracles} oracles): {reason(found)}."
    return head if near else head + rows


def _cannot_tell(found: OneModel) -> str:
    if found.repeated:
        return f"{found.repeated} of them are copies of others, so that their number says nothing."
    least = 1 / (found.oracles + 1)
    if least > found.level:
        return (
            f"a rank among {found.oracles + 1} models cannot reach the level {found.level:g} (p is at least "
            f"{least:.3f}); it takes at least {found.oracles_needed}."
        )
    head = f"it is not told (p = {found.p_value:.2f})"
    if found.power is None or found.power_low is None:
        return f"{head}, and without pretrained models it is unknown whether one that remembers would be."
    head += f", and the power shown is {_power(found)}, {_pretrained(found)}; {found.asked:g} is asked for."
    if found.power >= found.asked:
        return f"{head} More pretrained models would narrow that interval.{_sees(found)}"
    if found.oracles_needed is not None:
        return f"{head} About {found.oracles_needed} oracles would do, by an estimate from half of these.{_sees(found)}"
    return f"{head} No number of oracles that would do can be named: judge an ensemble instead.{_sees(found)}"


def _power(found: OneModel) -> str:
    return f"{found.power:.2f} [{found.power_low:.2f}, {found.power_high:.2f}]"


def _pretrained(found: OneModel) -> str:
    assert found.power is not None
    return f"{round(found.power * found.pretrained)} of {found.pretrained} pretrained models are told"


def _sees(found: OneModel) -> str:
    if found.sees is None:
        return ""
    return f" {found.sees:.0%} of what sets them apart from retrained models would be told 8 times in 10."
