"""What a method claims of its result, the assumptions behind it as they were found, and the measurement beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from expunge.core.schema import Strict

Side = Literal["at most", "at least"]


class Assumption(Strict):
    """One thing that must be true for a claim to hold, as it was found on the problem at hand."""

    name: str
    """What it is about, such as `distance of the start from the optimum of R`."""
    value: float
    """What was found; of several members the worst."""
    side: Side
    """Whether `bound` is the most or the least that it may be."""
    bound: float
    """The bound that the value was compared with; of several members that of the worst."""

    @property
    def holds(self) -> bool:
        """Whether it holds; a value that is not a number does not."""
        return self.value <= self.bound if self.side == "at most" else self.value >= self.bound

    @property
    def slack(self) -> float:
        """How far the value is inside its bound, negative outside; -inf where it is no number."""
        found = self.bound - self.value if self.side == "at most" else self.value - self.bound
        return -math.inf if math.isnan(found) else found

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.name} is {self.value:.3g}, {self.side} {self.bound:.3g} is needed"


class Claim(Strict):
    """A guarantee: unlearned and reference models are (epsilon, delta)-indistinguishable."""

    epsilon: float = Field(ge=0)
    delta: float = Field(ge=0, le=1)
    mechanism: str
    """What hides the difference, in words."""
    reference: str
    """Models from which the unlearned ones cannot be told, in words."""
    retraining: bool
    """Whether the reference is the task's own retraining on R, so that an audit's oracles are drawn from it."""
    assumptions: list[Assumption]

    @property
    def broken(self) -> list[Assumption]:
        """The assumptions that do not hold."""
        return [each for each in self.assumptions if not each.holds]

    @property
    def holds(self) -> bool:
        """Whether all assumptions hold: if not, nothing is claimed."""
        return not self.broken

    @property
    def sentence(self) -> str:
        """The claim in one sentence, or why there is none."""
        said = (
            f"(epsilon, delta) = ({self.epsilon:.3g}, {self.delta:.3g}) against {self.reference}, by {self.mechanism}"
        )
        if self.holds:
            return f"certified: {said}; all {len(self.assumptions)} assumptions hold"
        return f"VOID, nothing is certified: {'; '.join(map(str, self.broken))} (would be {said})"


class EpsilonRecord(Strict):
    """The lower bound on epsilon that an audit measured."""

    epsilon: float
    """The bound; 0 says that nothing was shown."""
    delta: float
    significance: float
    """Chance of the bound exceeding the true epsilon."""
    largest: float
    """What this many members could have shown at best."""
    members: int
    """Unlearned members that were counted."""
    oracles: int
    """Oracles that were counted."""


def worst(claims: Sequence[Claim]) -> Claim:
    """Return what holds of all members, from what holds of some: the largest epsilon, the worst of every assumption.

    Args:
        claims: Of one method and setting, at least one.
    """
    first = claims[0]
    rows = zip(*(claim.assumptions for claim in claims), strict=True)
    assumptions = [min(row, key=lambda each: each.slack) for row in rows]
    epsilon = max(claim.epsilon for claim in claims)
    return first.model_copy(update={"epsilon": epsilon, "assumptions": assumptions})


def beside(claim: Claim, measured: EpsilonRecord | None) -> str:
    """Return the claim and what was measured, in one sentence each.

    Args:
        claim: What is claimed.
        measured: The audit's lower bound; None where none was measured.
    """
    if measured is None:
        return f"{claim.sentence}. No lower bound was measured."
    found = (
        f"measured: epsilon is at least {measured.epsilon:.3g} ({1 - measured.significance:.0%} confidence, at best "
        f"{measured.largest:.3g} with {measured.members} + {measured.oracles} models)"
    )
    if not claim.retraining:
        return f"{claim.sentence}. {found} against retraining, which is not what is claimed."
    if measured.epsilon > claim.epsilon:
        return f"{claim.sentence}. CONTRADICTED, {found}."
    return f"{claim.sentence}. {found}."
