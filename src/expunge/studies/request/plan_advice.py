"""What a plan means for somebody who has to decide, in sentences, and the commands that come next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from expunge.core.plan import Plan
from expunge.studies.run.check import span

PATIENT = 600.0
"""Seconds of one retraining up to which it is the first thing to try."""
HOUR = 3600.0
"""Seconds that a forecast should take at most, where numbers of members leave a choice."""
ANY = ("TASK.py", "--forget", "ROWS.csv")
"""Stands for the words that say task and rows, where none were typed."""


def advise(plan: Plan) -> list[str]:
    """Return what a plan means, the most urgent first."""
    return [*_twins(plan), _matters(plan), *_deployed(plan), _accuracy(plan), _dear(plan), *_memory(plan)]


def commands(plan: Plan, typed: Sequence[str]) -> list[str]:
    """Return the commands that come next, the first before the others."""
    words = shlex.join(typed or ANY)
    model = shlex.quote(plan.deployed.path) if plan.deployed else "MODEL"
    retrain = f"expunge unlearn {model} {words} --method retrain"
    if plan.influence is not None and plan.influence.can_matter is False:
        return [retrain]
    costs = {scale.members: scale.jobs["forecast"].seconds for scale in plan.scales if "forecast" in scale.jobs}
    if costs and plan.influence is not None:
        members = max((count for count, seconds in costs.items() if seconds <= HOUR), default=min(costs))
        learn = f"expunge forecast {words} --members {members}"
    else:
        learn = f"expunge audit {words} --members {plan.scales[0].members}"
    return [retrain, learn] if plan.one_model <= PATIENT else [learn, retrain]


def _twins(plan: Plan) -> list[str]:
    said = []
    rows = sorted({twin.row for twin in plan.twins if twin.same_target})
    if rows:
        said.append(
            f"{_count(len(rows), 'row')} to be forgotten {'has' if len(rows) == 1 else 'have'} twins that stay: "
            "retraining learns from these what was to be forgotten. Add them to the request, or know why they stay."
        )
    others = sorted({twin.row for twin in plan.twins if not twin.same_target})
    if others:
        said.append(
            f"{_count(len(others), 'row')} to be forgotten {'has' if len(others) == 1 else 'have'} twins with another "
            "target: one of the two labels may be wrong, and their margins say little."
        )
    return said


def _matters(plan: Plan) -> str:
    found = plan.influence
    if found is None:
        return f"Whether the rows can matter was not predicted: {plan.no_influence.rstrip('.')}."
    size = f"{found.largest:+.2f}"
    if found.spread is None or found.together is None:
        return f"Without the rows, the {plan.statistic} of row {found.row} is predicted to change most, by {size}."
    one = f"row {found.row} changes most, by {size} ({found.largest / found.spread:+.1f} sd between models)"
    if found.can_matter is None:
        return (
            f"Whether the rows can matter is not sure: {one}, but that is predicted from the end of training alone and "
            f"can be several times too large.{_above(plan)}"
        )
    if found.can_matter:
        return (
            f"The rows can matter. Without them, it is predicted, {one}; all of them together by at most "
            f"{_sd(found.together)}.{_above(plan)}"
        )
    return (
        f"The rows are predicted to matter too little to be seen: {one}, and all of them together by at most "
        f"{_sd(found.together)}. Whatever is done, models behave as if they had not seen them; if the rows must leave "
        "the weights as well, retrain."
    )


def _above(plan: Plan) -> str:
    found = plan.influence
    if found is None or found.above_validation is None or found.spread is None:
        return ""
    return (
        f" As measured, their {plan.statistic} lies {found.above_validation:+.2f} "
        f"({found.above_validation / found.spread:+.1f} sd) from that of validation rows of their class on average."
    )


def _deployed(plan: Plan) -> list[str]:
    found = plan.deployed
    if found is None:
        return []
    if found.share is None:
        return ["The deployed model's numbers were not compared: no validation row has a class of the rows."]
    seen = (
        f"in {found.share:.0%} of pairs a row to be forgotten has a larger {plan.statistic} than a validation row of "
        f"its class (p = {found.p_value:.2g}; 50 % is chance)"
    )
    if found.remembered:
        return [f"The deployed model looks trained on the rows: {seen}."]
    return [f"The deployed model does not look trained on the rows: {seen}. That is no proof that it was not."]


def _accuracy(plan: Plan) -> str:
    if plan.smallest_gap >= 1:
        return f"Accuracy says nothing: {_count(plan.rows, 'row')} are too few (Lemma 1)."
    return (
        f"Accuracy says little: on {_count(plan.rows, 'row')} drawn at random a retrained model's may differ from that "
        f"on validation by {plan.smallest_gap:.2f}, by chance alone (95 %, Lemma 1)."
    )


def _dear(plan: Plan) -> str:
    least = plan.scales[0]
    return (
        f"Retraining this one model takes about {span(plan.one_model)}, evidence that something cheaper works about "
        f"{span(least.jobs['audit'].seconds)} (an audit with {least.members} members): for one request retraining is "
        "often the answer, and many requests share an audit's method."
    )


def _memory(plan: Plan) -> list[str]:
    over = [
        scale.members
        for scale in plan.scales
        if plan.memory_free is not None and max(job.memory for job in scale.jobs.values()) > plan.memory_free
    ]
    return [f"With {over[0]} members and more, the memory that is free now may not do."] if over else []


def _sd(value: float) -> str:
    return f"{value:.1f} sd"


def _count(amount: int, noun: str) -> str:
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"
