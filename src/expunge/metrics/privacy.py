"""Lower bounds on epsilon: how far unlearned and oracle models are at least from (epsilon, delta)-indistinguishable.

Unlearning is (epsilon, delta)-close to retraining when every event E has `P(E) <= e^epsilon Q(E) + delta` both ways,
with P the law of unlearned and Q that of oracle models. Any test between them then obeys

    FPR + e^epsilon FNR >= 1 - delta        e^epsilon FPR + FNR >= 1 - delta

so upper confidence bounds on both error rates give a lower bound on epsilon. A bound of 0 says that this test showed
nothing; it never proves that a method is private. Thresholds must come from other data than the counts: `audit` takes a
fixed one, splits, or corrects for the number tried, and there is no maximum over thresholds without a correction.

Sources: Nasr et al. (arXiv 2101.04535), Section III, for two samples; Nasr et al., "Tight Auditing" (arXiv 2302.07956),
Section 5, for the Gaussian route; Steinke, Nasr and Jagielski (arXiv 2305.08846), Algorithm 1 and Theorem 5.2, for one
run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy

from expunge.core import InputError
from expunge.core.checks import between, plain_arguments, whole
from expunge.core.seeds import numpy_seed
from expunge.core.trade_off import gaussian_delta as gaussian_delta
from expunge.core.trade_off import gaussian_epsilon as gaussian_epsilon
from expunge.metrics.arrays import Array, to_array
from expunge.metrics.roc import clopper_pearson_upper


@dataclass(frozen=True)
class Fixed:
    """A threshold chosen without looking at the scores that are counted."""

    threshold: float
    """Scores beyond it are called unlearned."""
    higher_is_unlearned: bool = True
    """Whether beyond means above."""


@dataclass(frozen=True)
class Split:
    """Choose threshold and side on one part of the scores, count on the rest."""

    share: float = 0.5
    """Share of scores to choose on, between 0 and 1."""
    seed: int = 0
    """Draws the parts."""


@dataclass(frozen=True)
class Bonferroni:
    """Try several thresholds fixed beforehand on all scores, each way, at a significance divided by their number."""

    thresholds: Sequence[float]
    """Thresholds; they must not be taken from the scores that are counted."""


Route = Literal["clopper-pearson", "gaussian-dp", "one-run"]


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A lower bound on epsilon that holds with probability 1 - significance; `float(bound)` is the bound."""

    epsilon: float
    """The bound; 0 says that nothing was shown."""
    delta: float
    """Additive slack of the guarantee."""
    significance: float
    """Chance of the bound exceeding the true epsilon."""
    route: Route
    """How errors were turned into a bound."""
    floor: float = 0.0
    """What oracles read in the place of unlearned members: 0, but with a probability of `significance`."""
    ideal: str = "0: nothing was shown, which does not prove that there is nothing"
    """What a perfect method would read."""
    direction: str = "lower is closer to the oracles; the larger, the more was shown"
    """Which way is better."""

    def __float__(self) -> float:
        """Return the bound."""
        return self.epsilon


@dataclass(frozen=True, kw_only=True)
class EpsilonBound(Bound):
    """A bound from counted errors between two samples of models."""

    largest: float
    """The bound that this many members would give without a single error: what the audit could show at best."""
    threshold: float
    """Threshold that was counted at."""
    higher_is_unlearned: bool
    """Which side of the threshold is called unlearned."""
    false_positives: int
    """Oracles called unlearned."""
    negatives: int
    """Oracles counted."""
    false_negatives: int
    """Unlearned members called oracle."""
    positives: int
    """Unlearned members counted."""


@dataclass(frozen=True, kw_only=True)
class OneRunBound(Bound):
    """A bound from guesses about the canaries of one model."""

    canaries: int
    """Coins thrown."""
    guesses: int
    """Coins guessed."""
    correct: int
    """Right guesses."""

    @property
    def largest(self) -> float:
        """The bound that this many guesses would give without a single error: what the audit could show at best."""
        return _one_run(self.canaries, self.guesses, self.guesses, self.delta, self.significance)


@plain_arguments
def epsilon_from_errors(
    false_positives: int,
    negatives: int,
    false_negatives: int,
    positives: int,
    *,
    delta: float = 0.0,
    significance: float = 0.05,
) -> float:
    """Return the two-sample Clopper-Pearson lower bound on epsilon for a test fixed beforehand.

    Args:
        false_positives: Oracles called unlearned.
        negatives: Oracles counted.
        false_negatives: Unlearned members called oracle.
        positives: Unlearned members counted.
        delta: From 0 to 1.
        significance: Split evenly between the two error rates.

    >>> round(epsilon_from_errors(0, 500, 0, 500), 4)
    4.9056
    """
    between(0, 1, delta=delta, significance=significance)
    fpr = clopper_pearson_upper(false_positives, negatives, significance / 2)
    fnr = clopper_pearson_upper(false_negatives, positives, significance / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        ways = [np.log((1 - b - delta) / a) if 1 - b - delta > 0 else -np.inf for a, b in ((fpr, fnr), (fnr, fpr))]
    return float(max(*ways, 0.0))


@plain_arguments
def gaussian_mu(
    false_positives: int, negatives: int, false_negatives: int, positives: int, *, significance: float = 0.05
) -> float:
    """Return a lower bound on mu, the shift of a Gaussian trade-off curve in standard deviations, from counted errors.

    Args:
        false_positives: Oracles called unlearned.
        negatives: Oracles counted.
        false_negatives: Unlearned members called oracle.
        positives: Unlearned members counted.
        significance: Split evenly between the two error rates.
    """
    fpr = clopper_pearson_upper(false_positives, negatives, significance / 2)
    fnr = clopper_pearson_upper(false_negatives, positives, significance / 2)
    return max(0.0, float(scipy.stats.norm.ppf(1 - fpr) - scipy.stats.norm.ppf(fnr)))


@plain_arguments
def one_run_epsilon(
    canaries: int, guesses: int, correct: int, *, delta: float = 0.0, significance: float = 0.05
) -> OneRunBound:
    """Return the lower bound on epsilon from guesses about one model.

    Each canary must have been put into the forget set, or left out of training altogether, by a fair coin of its own,
    drawn before training; the auditor guesses some of the coins and abstains on the rest. Without those coins the bound
    means nothing, and forget examples against arbitrary held-out ones are not canaries.

    Args:
        canaries: m, coins thrown.
        guesses: r, coins guessed; fixed before the coins are shown.
        correct: v, right guesses.
        delta: From 0 to 1.
        significance: Chance of the bound exceeding the true epsilon.

    Returns:
        The bound, with what as many right guesses would have shown.

    Source: Steinke, Nasr and Jagielski (arXiv 2305.08846), Theorem 5.2: p-value `beta + 2 m delta alpha` with
    `beta = Pr[Bin(r, q) >= v]`, `alpha = max_i Pr[v > Bin(r, q) >= v - i] / i`, `q = e^eps / (1 + e^eps)`.

    >>> round(float(one_run_epsilon(1000, 1000, 600)), 4)
    0.2975
    """
    whole(canaries=canaries, guesses=guesses, minimum=1)
    whole(correct=correct, minimum=0)
    between(0, 1, delta=delta, significance=significance)
    if not correct <= guesses <= canaries:
        raise InputError(
            f"correct = {correct}, guesses = {guesses}, canaries = {canaries}; expected correct <= guesses <= canaries."
        )
    return OneRunBound(
        epsilon=_one_run(canaries, guesses, correct, delta, significance),
        delta=delta,
        significance=significance,
        route="one-run",
        canaries=canaries,
        guesses=guesses,
        correct=correct,
    )


def _one_run(canaries: int, guesses: int, correct: int, delta: float, significance: float) -> float:
    if correct == 0:
        return 0.0

    def p_value(epsilon: float) -> float:
        q = float(scipy.stats.logistic.cdf(epsilon))
        tails = scipy.stats.binom.sf(np.arange(correct, -1, -1) - 1, guesses, q)  # Pr[Bin >= v - i], i = 0..v
        alpha = float(np.max((tails[1:] - tails[0]) / np.arange(1, correct + 1)))
        return float(tails[0] + 2 * canaries * delta * alpha)

    if p_value(0.0) >= significance:
        return 0.0
    high = 1.0
    while p_value(high) < significance:
        high *= 2
    return float(scipy.optimize.brentq(lambda epsilon: p_value(epsilon) - significance, 0.0, high, xtol=1e-10))


@plain_arguments
def audit(
    unlearned: Any,
    oracle: Any,
    rule: Fixed | Split | Bonferroni,
    *,
    delta: float = 0.0,
    significance: float = 0.05,
    route: Literal["clopper-pearson", "gaussian-dp"] = "clopper-pearson",
) -> EpsilonBound:
    """Return a lower bound on epsilon from one score a model.

    Models must be independent draws: one unlearned member and one oracle are one trial each. Scores of many examples of
    one model are not independent and do not make more trials; put them together into one score a model first, with a
    rule that was fitted on other models.

    Args:
        unlearned: One score an unlearned member, shape (members,). A failed member (NaN or infinite) is called
            unlearned whatever the threshold, since no oracle looks like it.
        oracle: One score an oracle, shape (oracles,), finite.
        rule: How the threshold was fixed: `Fixed`, `Split` or `Bonferroni`. A bare number is refused, because the bound
            holds only for a threshold that was not chosen on these scores; `Fixed(t)` is the declaration of that.
        delta: From 0 to 1; above 0 for the route `gaussian-dp`.
        significance: Chance of the bound exceeding the true epsilon.
        route: `clopper-pearson` (no assumption) or `gaussian-dp` (assumes that the trade-off curve is Gaussian; tighter
            when that holds, not valid when it does not).

    Raises:
        InputError: If the rule is none of the three, scores are too few, or an oracle's score is not finite.
    """
    if route not in ("clopper-pearson", "gaussian-dp"):
        raise InputError(f"route = {route!r}, expected one of: clopper-pearson, gaussian-dp.")
    if not isinstance(rule, Fixed | Split | Bonferroni):
        raise InputError(
            f"rule is a {type(rule).__name__}, expected Fixed(threshold), Split(...) or Bonferroni(thresholds): a "
            "threshold chosen on the scores that are counted makes the bound too large."
        )
    ours, theirs = to_array(unlearned, "unlearned", ndim=1), to_array(oracle, "oracle", ndim=1)
    if not np.isfinite(theirs).all():
        raise InputError(f"oracle has {int((~np.isfinite(theirs)).sum())} non-finite scores, expected none.")
    level = significance
    if isinstance(rule, Split):
        between(0, 1, share=rule.share)
        rng = np.random.default_rng(numpy_seed(rule.seed))
        ours, theirs = rng.permutation(ours), rng.permutation(theirs)
        cuts = round(rule.share * len(ours)), round(rule.share * len(theirs))
        if min(cuts) < 1 or cuts[0] >= len(ours) or cuts[1] >= len(theirs):
            raise InputError(
                f"{len(ours)} unlearned and {len(theirs)} oracle scores at share = {rule.share}, expected at least one "
                "of each in both parts."
            )
        candidates = [_best_threshold(ours[: cuts[0]], theirs[: cuts[1]], delta, significance, route)]
        ours, theirs = ours[cuts[0] :], theirs[cuts[1] :]
    elif isinstance(rule, Fixed):
        candidates = [(rule.threshold, rule.higher_is_unlearned)]
    else:
        if len(rule.thresholds) == 0:
            raise InputError("Bonferroni has no thresholds, expected at least one.")
        candidates = [(t, higher) for t in rule.thresholds for higher in (True, False)]
        level = significance / len(candidates)
    best: EpsilonBound | None = None
    for threshold, higher in candidates:
        x, y = _errors(ours, theirs, threshold, higher)
        bound = EpsilonBound(
            epsilon=_bound(x, len(theirs), y, len(ours), delta, level, route),
            threshold=threshold,
            higher_is_unlearned=higher,
            false_positives=x,
            negatives=len(theirs),
            false_negatives=y,
            positives=len(ours),
            delta=delta,
            significance=significance,
            largest=_bound(0, len(theirs), 0, len(ours), delta, level, route),
            route=route,
        )
        if best is None or bound.epsilon > best.epsilon:
            best = bound
    assert best is not None
    return best


@plain_arguments
def audit_margins(unlearned: Any, oracle: Any, *, delta: float = 0.0, significance: float = 0.05) -> EpsilonBound:
    """Return a lower bound on epsilon from margins: one half of the models makes a score and a threshold, one counts.

    The score of a model is its margins times the difference of the two means, each example in units of its variance
    within the two sides: what tells most between Gaussians that share a diagonal covariance.

    Args:
        unlearned: Margins (members, examples); a member whose margins are not all finite is called unlearned.
        oracle: Margins (oracles, examples) of independent models, finite.
        delta: From 0 to 1.
        significance: Chance of the bound exceeding the true epsilon.

    Raises:
        InputError: If shapes differ, or there are fewer than 4 models on a side.
    """
    ours, theirs = to_array(unlearned, "unlearned", ndim=2), to_array(oracle, "oracle", ndim=2)
    if ours.shape[1] != theirs.shape[1] or min(len(ours), len(theirs)) < 4:
        raise InputError(
            f"unlearned is {ours.shape} and oracle {theirs.shape}, expected (models, examples) with the same examples "
            "and at least 4 models each."
        )
    sound = np.asarray(np.isfinite(ours).all(1))
    half, other = len(ours) // 2, len(theirs) // 2
    first, second = ours[:half][sound[:half]], theirs[:other]
    if len(first) < 2:
        first = second
    spread = first.var(0) + second.var(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        direction = np.where(spread > 0, (first.mean(0) - second.mean(0)) / spread, 0.0)
    scores = np.where(sound, np.where(sound[:, None], ours, 0.0) @ direction, np.nan), theirs @ direction
    threshold, higher = _best_threshold(scores[0][:half], scores[1][:other], delta, significance, "clopper-pearson")
    rule = Fixed(threshold, higher)
    return audit(scores[0][half:], scores[1][other:], rule, delta=delta, significance=significance)


def _errors(ours: Array, theirs: Array, threshold: float, higher: bool) -> tuple[int, int]:
    """Return false positives and false negatives; failed members are never missed."""
    called = ours > threshold if higher else ours < threshold
    wrong = theirs > threshold if higher else theirs < threshold
    return int(wrong.sum()), int((~called & np.isfinite(ours)).sum())


def _bound(x: int, n0: int, y: int, n1: int, delta: float, level: float, route: str) -> float:
    if route == "clopper-pearson":
        return epsilon_from_errors(x, n0, y, n1, delta=delta, significance=level)
    return gaussian_epsilon(gaussian_mu(x, n0, y, n1, significance=level), delta)


def _best_threshold(ours: Array, theirs: Array, delta: float, level: float, route: str) -> tuple[float, bool]:
    values = np.unique(np.concatenate([ours[np.isfinite(ours)], theirs]))
    middle = np.concatenate([[values[0] - 1], (values[1:] + values[:-1]) / 2, [values[-1] + 1]])
    best = (-1.0, float(middle[0]), True)
    for higher in (True, False):
        for threshold in middle:
            x, y = _errors(ours, theirs, float(threshold), higher)
            found = _bound(x, len(theirs), y, len(ours), delta, level, route)
            # Equal bounds (often 0 at few members) are decided by the plain error.
            score = found - 1e-6 * (x / len(theirs) + y / len(ours))
            if score > best[0]:
                best = (score, float(threshold), higher)
    return best[1], best[2]
