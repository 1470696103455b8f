"""The advice of a forecast: what its numbers mean for somebody who has to decide, in sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from expunge.core import ForgetSet
from expunge.core.forecast import MethodForecast, PathPoint, settings_of
from expunge.core.objective import objective
from expunge.core.record import SplitName


def advise(
    forget: ForgetSet,
    nothing: PathPoint,
    methods: Sequence[MethodForecast],
    repairing: Collection[str],
    removal: Mapping[SplitName, float],
    deviations: Mapping[SplitName, float],
    tolerance: float,
) -> list[str]:
    """Return advice, the most important sentence first.

    Args:
        forget: The forget set.
        nothing: The pretrained members against the predicted oracles.
        methods: Forecast of every method.
        repairing: Names of those that descend on R as well as they climb on F.
        removal: Predicted mean change of margins by retraining, by split, in natural-log units.
        deviations: The same in standard deviations over members.
        tolerance: Excess over the floor that counts as indistinguishable, nats.
    """
    way = (
        f"Retraining without {forget.name} is predicted to change the margins of its examples by "
        f"{removal['forget']:+.2f} on average ({deviations['forget']:+.1f} standard deviations), those of validation "
        f"by {removal['validation']:+.2f} ({deviations['validation']:+.1f})."
    )
    if objective(nothing.excess) <= tolerance:
        first = (
            f"Nothing to unlearn: the models are predicted to be within {tolerance:g} nats of retrained ones already."
        )
        return [first, way]
    tried = [method for method in methods if not method.control]
    working = [method for method in methods if method.outlook == "can work"]
    sentences = [_first(tried or methods, working, nothing, tolerance), way]
    sentences += [_about(method, nothing, method.method in repairing) for method in tried]
    return sentences


def _first(
    tried: Sequence[MethodForecast], working: Sequence[MethodForecast], nothing: PathPoint, tolerance: float
) -> str:
    if working:
        cheapest = min(working, key=lambda method: method.best.cost)
        reached = (
            f"{_stop(cheapest.best)}, is predicted {cheapest.objective:.2f} "
            f"nats from retraining (tolerance {tolerance:g}), at {cheapest.best.cost:.0%} of its cost"
        )
        if cheapest.best.cost >= 1:
            return f"Retrain: {cheapest.label} can work, but is no cheaper ({reached})."
        return f"{cheapest.label} can work: {reached}. Check it with an audit."
    if not tried:
        return "No method that was asked for could be followed; retrain, or audit one."
    best = min(tried, key=lambda method: method.rank)
    return (
        f"Retrain, or match predicted margins: the best that any method is predicted to reach is "
        f"{best.objective:.2f} nats from retraining ({best.label}, {_stop(best.best)}); doing "
        f"nothing is at {objective(nothing.excess):.2f}, the tolerance is {tolerance:g}."
    )


def _about(method: MethodForecast, nothing: PathPoint, repairs: bool) -> str:
    best = (
        f"best is {_stop(method.best)}, at forget / retain / validation "
        + " / ".join(f"{method.best.excess[split]:.2f}" for split in ("forget", "retain", "validation"))
        if method.best.run != nothing.run
        else "no setting is predicted to be better than doing nothing"
    )
    if method.at_target is None or method.damage is None:
        # The linearised model makes the descent too strong: docs/dependence/forecast-proof.md, "Damage on the way".
        undone = ", since its descent on the retain set undoes the ascent (real runs may get there)"
        why = undone if repairs else ""
        return f"{method.label}: no setting brings the forget margins down to the retrained level{why}; {best}."
    return (
        f"{method.label}: where the forget margins reach the retrained level ({settings_of(method.at_target.run)}, by "
        f"epoch {method.at_target.epoch}), validation is {method.damage:.2f} nats off on average; {best}."
    )


def _stop(point: PathPoint) -> str:
    """Write a setting and its stopping time in words."""
    return ", ".join(part for part in (settings_of(point.run), f"stopped after epoch {point.epoch}") if part)
