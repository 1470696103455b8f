"""Runtime checks (property 6): did the method do what it says it does.

Each check reads the facts that the ledger wrote down; what fails is printed beside the score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from expunge.core.record import MOVED_ENOUGH, CheckRecord
from expunge.methods.method import Method

Facts = Mapping[str, Tensor]

INERT = 0.1
"""Movement of the forget margins, in standard deviations between pretrained members, below which nothing was done: KLoM
cannot tell it from none (a tenth of a deviation is .005 nats), and a score says nothing about the method."""

MOST = 0.9
"""Share of members that must behave as declared."""


def run_checks(method: Method, facts: Facts) -> list[CheckRecord]:
    """Return the checks of one stopping time.

    Args:
        method: What ran, with its declarations.
        facts: Per-member facts, as in `Checkpoint.facts`, joined over all members.
    """
    return [CHECKS[name](method, facts) for name in method.checks]


def _moved(method: Method, facts: Facts) -> CheckRecord:
    moved = facts["moved"] != 0  # NaN counts as moved; finiteness is a check of its own
    typical = float(torch.nanmedian(facts["moved"]))
    return CheckRecord(
        name="weights moved",
        passed=bool(moved.all()),
        detail=f"{int(moved.sum())} of {len(moved)} members moved, median distance {typical:.3g}"
        if bool(moved.any())
        else f"0 of {len(moved)} members moved: {method.name} neither changed the model that it was given nor returned "
        "another",
    )


def _enough(method: Method, facts: Facts) -> CheckRecord:
    moved = movement(facts["forget-margins"], facts["forget-margins-start"])
    if len(facts["forget-margins"]) == 1:
        return CheckRecord(name=MOVED_ENOUGH, passed=True, detail="no scale: one model has no spread between members")
    if math.isnan(moved):
        return CheckRecord(name=MOVED_ENOUGH, passed=True, detail="no scale: members do not differ, or none is finite")
    return CheckRecord(
        name=MOVED_ENOUGH,
        passed=moved >= INERT,
        detail=f"forget margins moved by {moved:.2g} of the standard deviation between pretrained members, "
        f"expected at least {INERT:g}",
    )


def movement(margins: Tensor, start: Tensor, spread: Tensor | None = None) -> float:
    """Return the root mean square movement of margins in standard deviations between members; NaN without any.

    Args:
        margins: Shape (members, examples).
        start: The same before.
        spread: Standard deviations (examples,); by default those of `start`.
    """
    sound = start.isfinite().all(1)
    if spread is None and int(sound.sum()) < 2:
        return math.nan
    spread = start[sound].std(0) if spread is None else spread
    moved = ((margins - start) / spread)[:, spread > 0]
    return float(moved.square().nanmean().sqrt())


def _still(method: Method, facts: Facts) -> CheckRecord:
    moved = facts["moved"] != 0
    return CheckRecord(
        name="weights unchanged",
        passed=not bool(moved.any()),
        detail=f"{int(moved.sum())} of {len(moved)} members moved, none expected",
    )


def _statistics(method: Method, facts: Facts) -> CheckRecord:
    declared = method.statistics
    statistics, weights = facts["statistics_moved"] != 0, facts["moved"] != 0
    only = int((statistics & ~weights).sum())
    if declared == "frozen":
        moved = int(statistics.sum())
        return CheckRecord(
            name="statistics frozen", passed=moved == 0, detail=f"normalisation statistics of {moved} members moved"
        )
    return CheckRecord(
        name="not only statistics moved",
        passed=only == 0,
        detail=f"statistics {declared}; in {only} of {len(weights)} members they are all that moved",
    )


def _finite(method: Method, facts: Facts) -> CheckRecord:
    finite = facts["finite"]
    broken = len(finite) - int(finite.sum())
    return CheckRecord(
        name="weights finite", passed=broken == 0, detail=f"{broken} of {len(finite)} members have non-finite weights"
    )


def _visited(method: Method, facts: Facts) -> CheckRecord:
    visits = facts["visits"]
    missed = int((visits == 0).sum())
    return CheckRecord(
        name="every forget example visited",
        passed=missed == 0,
        detail=f"{missed} of {visits.numel()} (member, forget example) pairs never used in a step",
    )


def _ascended(method: Method, facts: Facts) -> CheckRecord:
    passes = sum(name.endswith("-before") for name in facts)
    if passes == 0:
        return CheckRecord(name=f"{method.raises} rose", passed=False, detail="no ascent pass was made")
    rose = torch.stack([facts[f"ascent-{n}-after"] > facts[f"ascent-{n}-before"] for n in range(passes)])
    # A pass that starts where the objective is at its minimum cannot raise it (SCRUB's first); it is not counted.
    start = torch.stack([facts[f"ascent-{n}-before"] for n in range(passes)])
    still = (start.abs() < 1e-6) if method.raises == "forget divergence" else torch.zeros_like(start, dtype=torch.bool)
    counted = ~still.all(1)
    if not bool(counted.any()):
        return CheckRecord(
            name=f"{method.raises} rose",
            passed=True,
            detail="the only ascent pass started at the objective's minimum, where its gradient is zero",
        )
    share = float(rose[counted].double().mean())
    first = facts["ascent-0-before"]
    last = facts[f"ascent-{passes - 1}-after"]
    return CheckRecord(
        name=f"{method.raises} rose",
        passed=share >= MOST,
        detail=f"in {share:.0%} of the (pass, member) pairs; median {float(first.median()):.3g} before the first pass, "
        f"{float(last.nanmedian()):.3g} after the last",
    )


def _solved(method: Method, facts: Facts) -> CheckRecord:
    left, most = facts["residual"], facts["solved-at"]
    good = left <= most
    return CheckRecord(
        name="equation solved",
        passed=float(good.double().mean()) >= MOST,
        detail=f"relative residual at most {float(most[0]):.3g} in {int(good.sum())} of {len(good)} members, median "
        f"{float(left.nanmedian()):.3g}",
    )


def _approached(method: Method, facts: Facts) -> CheckRecord:
    start, now = facts["target-distance-start"], facts["target-distance"]
    # A member whose forget margins are where they should be already has nothing to approach.
    good = (now < start) | (start < 1e-6)
    return CheckRecord(
        name="distance to targets fell",
        passed=float(good.double().mean()) >= MOST,
        detail=f"in {int(good.sum())} of {len(good)} members; median over F {float(start.nanmedian()):.3g} at the "
        f"start, {float(now.nanmedian()):.3g} now",
    )


def _bounded(method: Method, facts: Facts) -> CheckRecord:
    said, passed = [], True
    for split, head in (("retain", ""), ("validation", "validation-")):
        if f"{split}-rise" not in facts:
            continue
        rise, price = facts[f"{split}-rise"], facts[f"{head}multiplier"]
        tolerance = float(method.options()[f"{head}tolerance".replace("-", "_")])
        kept = rise <= tolerance
        passed &= float(kept.double().mean()) >= MOST
        said.append(
            f"{'' if split == 'retain' else 'of the validation rows, which it trained on, '}in {int(kept.sum())} of "
            f"{len(kept)} members; median rise {float(rise.nanmedian()):.3g}, allowed {tolerance:g}; median multiplier "
            f"{float(price.nanmedian()):.3g} (forget term per unit of {split} loss)"
        )
    return CheckRecord(name="retain loss within its bound", passed=passed, detail="; ".join(said))


CHECKS: dict[str, Callable[[Method, Facts], CheckRecord]] = {
    "moved": _moved,
    "enough": _enough,
    "still": _still,
    "statistics": _statistics,
    "finite": _finite,
    "visited": _visited,
    "ascended": _ascended,
    "approached": _approached,
    "bounded": _bounded,
    "solved": _solved,
}
"""Every runtime check by the name under which methods declare it."""
