"""The verdict on one model: is it compatible with retraining, told from it, or is that more than N oracles can say?

One model has no distribution, but among N oracles it has a rank: if it was retrained, it is as likely as any of them to
be the oddest (`expunge.metrics.oddness`), so being told at level a happens with a chance of at most a. In this order:

    told from retraining          it is non-finite, collapsed or exploded; or a copy of an oracle, but for rounding; or
                                  its rank gives p <= a
    compatible with retraining    it is not told, and the test has power: the share of pretrained models that it tells
                                  has the lower end of its 95 % interval (Clopper and Pearson) at `power` or above
    cannot tell                   neither, with what would help: more oracles, more pretrained models, or nothing

Not being told is never called compatible by itself: power has to be shown. Each pretrained model is put in the place of
the model; the direction to the pretrained ones is then made without it. p is at least 1 / (N + 1), so that fewer than
1 / a - 1 oracles (19 at 0.05) tell nothing but failures and copies. Beside the power, `sees` is the least share of the
difference between pretrained and retrained that is told 8 times in 10 when it is put on an oracle that was left out.

The number of oracles that would do is an estimate: power is read at half of the oracles too, and followed to others as
Phi(u - v / N), which tends to a limit, for a model that lies among the oracles is told by no number of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import scipy

from expunge.core import InputError, Result
from expunge.core.checks import between, plain_arguments
from expunge.core.limits import LEVEL, POWER
from expunge.core.schema import SPLITS, SplitName
from expunge.core.seeds import derive
from expunge.metrics import one_model_words
from expunge.metrics.arrays import Array, pair, to_array
from expunge.metrics.copies import Copies
from expunge.metrics.failures import failed_members
from expunge.metrics.oddness import SAME, Oddness, leave_one_out, oddness

OneModelName = Literal["compatible", "told", "cannot tell"]

SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of the difference between pretrained and retrained that are tried."""
TRIED = 100
"""Pretrained models that are tried at most, evenly spaced."""
LEFT_OUT = 50
"""Oracles that are left out, likewise."""
HALVES = 4
"""Draws of half of the oracles at which power is read."""
NAMED = 6
"""Rows that are named."""
MOST_ORACLES = 100_000
"""A larger answer to "how many oracles would" is not given."""


@dataclass(frozen=True)
class OddRow:
    """One forget row of a model."""

    position: int
    """Position in the forget set, from 0."""
    shift: float
    """Margin less the oracles' mean, in their (predictive) standard deviations."""
    p_value: float
    """Adjusted for all forget rows: rank of the shift among the largest shifts of all models."""


@dataclass(frozen=True)
class OneModel:
    """What can be said of one model."""

    name: OneModelName
    p_value: float
    """Rank of the model's oddness among the oracles' over N + 1; 1 / (N + 1) for one that failed."""
    level: float
    """Nominal level; what is told falsely is at most floor(level (N + 1)) / (N + 1)."""
    oracles: int
    reason: str = ""
    """The statistic that is the oddest; see `expunge.metrics.oddness`."""
    size: float = math.nan
    """What it reads, in standard deviations of the same statistic among oracles."""
    outright: str = ""
    """Why the model is told whatever its rank: that it failed, or is a copy."""
    repeated: int = 0
    """Oracles that are copies of others: then their number says nothing."""
    rows: tuple[OddRow, ...] = ()
    """The forget rows that are told one by one, or else those furthest from the oracles; at most six."""
    shifts: Mapping[SplitName, float] = field(default_factory=dict)
    """Mean shift by split, oracle standard deviations; NaN for one that failed."""
    power: float | None = None
    """Share of the pretrained models that are told; None without any, or with too few oracles."""
    power_low: float | None = None
    power_high: float | None = None
    """Ends of its 95 % interval, for these oracles."""
    pretrained: int = 0
    """Pretrained models that were tried."""
    sees: float | None = None
    """Least share of the difference between pretrained and retrained that is told 8 times in 10; None if none is."""
    oracles_needed: int | None = None
    """Oracles that would give the power, estimated; None where no number can be named, or none is needed."""
    asked: float = POWER
    """Power that must be shown before anything is compatible."""
    result: Result | None = field(default=None, repr=False)
    """The oddness as a result: its floor is the oracles' median, and the floor's high end what is told above."""

    @property
    def sentence(self) -> str:
        """The verdict with its numbers."""
        return one_model_words.sentence(self)

    def __str__(self) -> str:
        """Return the sentence."""
        return self.sentence


@plain_arguments
def one_model(
    model: Any,
    oracle: Any,
    pretrained: Any = None,
    *,
    level: float = LEVEL,
    power: float = POWER,
    seed: int = 0,
) -> OneModel:
    """Return the verdict on one model among oracles; see the module.

    Args:
        model: Its margins by split (`forget`, and where there are, `retain` and `validation`), each (examples,) or
            (1, examples); or of the forget set alone.
        oracle: Margins of models retrained without the forget set, each (oracles, examples), finite, at least 5.
        pretrained: Margins of models trained on everything, by the same recipe, each (models, examples); without them
            no power is shown, and nothing is compatible. Members that failed are left out.
        level: Chance that a retrained model is told, 0.001 to 0.5.
        power: Share of pretrained models that must be told before a model is compatible, 0.5 to 0.99.
        seed: Draws halves of the oracles for the estimate of how many would do.

    Returns:
        The verdict.

    Raises:
        InputError: If splits or shapes disagree, there are fewer than 5 oracles, or one of them is not finite.

    >>> draw = np.random.default_rng(0)
    >>> common = draw.normal(size=(61, 1))
    >>> oracle = common + draw.normal(size=(61, 40))
    >>> one_model(oracle[0] + 5, oracle[1:]).name, one_model(oracle[0], oracle[1:]).name
    ('told', 'cannot tell')
    """
    between(0.001, 0.5, level=level)
    between(0.5, 0.99, power=power)
    ours, theirs, before = _sides(model, oracle, pretrained)
    found = OneModel("cannot tell", 1.0, level, len(theirs["forget"]), asked=power)
    found = replace(found, **_rank_of(ours, theirs, before, level))
    able = found.oracles >= fewest_oracles(level)
    if before is not None and able:
        found = replace(found, **_power(theirs, before, level))
    if found.repeated and not found.outright:
        return found
    if found.outright or found.p_value <= level:
        return replace(found, name="told")
    if found.power_low is not None and found.power_low >= power:
        return replace(found, name="compatible")
    if not able:
        return replace(found, oracles_needed=fewest_oracles(level))
    if before is not None and found.power is not None and found.power < power:
        return replace(found, oracles_needed=_needed(theirs, before, found, seed))
    return found


def fewest_oracles(level: float) -> int:
    """Return the least number of oracles at which a rank can reach a level.

    >>> fewest_oracles(0.05)
    19
    """
    return math.ceil(1 / level - 1e-9) - 1


Sides = dict[SplitName, Array]


def _rank_of(ours: Sides, theirs: Sides, before: Sides | None, level: float) -> dict[str, Any]:
    """Return what the rank of the model says, or that it is told outright."""
    joined, sound = _joined(ours), _joined(theirs)
    n = len(sound)
    if failed_members(joined, sound)[0] or any(failed_members(ours[split], theirs[split])[0] for split in ours):
        shifts = dict.fromkeys(ours, math.nan)
        return {
            "p_value": 1 / (n + 1),
            "outright": "its margins are non-finite, collapsed or exploded",
            "shifts": shifts,
        }
    copies = Copies(sound)
    repeated = int(copies.among_oracles().sum())
    copied = bool(copies.of_oracles(joined)[0]) and not repeated
    seen = _seen(ours, theirs, _towards(before))
    z = {split: leave_one_out(np.concatenate([ours[split], theirs[split]])) for split in ours}
    others = np.sort(seen.total[1:])[::-1]
    allowed = int(level * (n + 1) + 1e-9)
    reason, size = seen.reason()
    return {
        "p_value": seen.p_value(),
        "reason": reason,
        "size": size,
        "outright": "it is a copy of an oracle, but for rounding" if copied else "",
        "repeated": repeated,
        "rows": _rows(z["forget"], level),
        "shifts": {split: float(values[0].mean()) for split, values in z.items()},
        "result": Result(
            metric="one model",
            summary="rank",
            value=float(seen.total[0]),
            floor=float(np.median(others)),
            floor_high=float(others[allowed - 1]) if allowed else math.inf,
            members=1,
            oracles=n,
            examples=joined.shape[1],
            unit="oracle sd",
            ideal="no odder than most oracles",
            p_value=seen.p_value(),
        ),
    }


def _seen(model: Sides, oracle: Sides, towards: Sides | None) -> Oddness:
    return oddness({split: np.concatenate([model[split], oracle[split]]) for split in oracle}, towards)


def _towards(pretrained: Sides | None, without: int | None = None) -> Sides | None:
    """Return the mean margins of the pretrained models, without one of them.

    With a single one there is no direction without it, so the power would be that of another test: None.
    """
    if pretrained is None or len(pretrained["forget"]) < 2:
        return None
    rows = np.arange(len(pretrained["forget"])) != without
    return {split: values[rows].mean(0) for split, values in pretrained.items()}


def _rows(z: Array, level: float) -> tuple[OddRow, ...]:
    largest = np.abs(z).max(1)
    order = np.argsort(-np.abs(z[0]), kind="stable")[:NAMED]
    rows = [OddRow(int(j), float(z[0, j]), float(np.mean(largest >= abs(z[0, j]) * (1 - SAME)))) for j in order]
    return tuple(row for row in rows if row.p_value <= level) or tuple(rows)


def _power(oracle: Sides, pretrained: Sides, level: float) -> dict[str, Any]:
    told, tried = _told(oracle, pretrained, level)
    ends = scipy.stats.binomtest(told, tried).proportion_ci(0.95, "exact")
    sees = _sees(oracle, pretrained, level) if len(oracle["forget"]) > fewest_oracles(level) else None
    found = {"power": told / tried, "power_low": float(ends.low), "power_high": float(ends.high)}
    return {**found, "pretrained": tried, "sees": sees}


def _told(oracle: Sides, pretrained: Sides, level: float) -> tuple[int, int]:
    """Return how many pretrained models are told, and how many were tried."""
    places, told = _spaced(len(pretrained["forget"]), TRIED), 0
    for place in places:
        model = {split: values[place : place + 1] for split, values in pretrained.items()}
        told += _seen(model, oracle, _towards(pretrained, place)).p_value() <= level
    return told, len(places)


def _sees(oracle: Sides, pretrained: Sides, level: float) -> float | None:
    """Return the least share of the difference to the pretrained models that is told 8 times in 10."""
    gap = {split: values.mean(0) - oracle[split].mean(0) for split, values in pretrained.items()}
    towards, places, told = _towards(pretrained), _spaced(len(oracle["forget"]), LEFT_OUT), np.zeros(len(SHARES))
    for place in places:
        rest = {split: np.delete(values, place, axis=0) for split, values in oracle.items()}
        for row, share in enumerate(SHARES):
            moved = {split: values[place : place + 1] + share * gap[split] for split, values in oracle.items()}
            told[row] += _seen(moved, rest, towards).p_value() <= level
    enough = np.flatnonzero(told >= 0.8 * len(places))
    return SHARES[enough[0]] if len(enough) else None


def _needed(oracle: Sides, pretrained: Sides, found: OneModel, seed: int) -> int | None:
    """Return how many oracles would give the power: Phi(u - v / N) through power at N and at N / 2."""
    size = found.oracles
    half = size // 2
    if half < fewest_oracles(found.level) or found.power is None:
        return None
    rng, told, tried = np.random.default_rng(derive(seed, "half of the oracles")), 0, 0
    for _ in range(HALVES):
        rows = np.sort(rng.permutation(size)[:half])
        more, of = _told({split: values[rows] for split, values in oracle.items()}, pretrained, found.level)
        told, tried = told + more, tried + of
    whole, least = _probit(found.power, found.pretrained), _probit(told / tried, tried)
    v = (whole - least) / (1 / half - 1 / size)
    u, aim = whole + v / size, float(scipy.special.ndtri(found.asked))
    if v <= 0 or u <= aim:
        return None
    needed = math.ceil(v / (u - aim))
    return needed if size < needed <= MOST_ORACLES else None


def _probit(share: float, tried: int) -> float:
    return float(scipy.special.ndtri((share * tried + 0.5) / (tried + 1)))


def _sides(
    model: Any, oracle: Any, pretrained: Any
) -> tuple[dict[SplitName, Array], dict[SplitName, Array], dict[SplitName, Array] | None]:
    """Return checked margins by split: of the model (1, examples), the oracles, and sound pretrained models."""
    one, theirs, before = (
        _by_split(each, what) for each, what in ((model, "model"), (oracle, "oracle"), (pretrained, "pretrained"))
    )
    assert one is not None
    assert theirs is not None
    for what, side in (("oracle", theirs), ("pretrained", before)):
        if side is not None and set(side) != set(one):
            raise InputError(
                f"model has splits {', '.join(one)} and {what} {', '.join(side)}, expected the same: all models are "
                "compared on the same examples."
            )
    ours: dict[SplitName, Array] = {}
    for split in one:
        raw = to_array(one[split], f"model {split}")
        row = raw[None] if raw.ndim == 1 else raw
        if row.ndim != 2 or len(row) != 1:
            raise InputError(
                f"model {split} has shape {raw.shape}, expected margins of one model (examples,); several are an "
                "ensemble, for expunge.metrics.judge."
            )
        try:
            ours[split], theirs[split] = pair(row, theirs[split], minimum=5)
            if before is not None:
                before[split], _ = pair(before[split], theirs[split])
        except InputError as error:
            raise InputError(f"on {split} examples: {error}") from None
    for what, side in (("oracle", theirs), ("pretrained", before)):
        if side is not None and len({len(values) for values in side.values()}) > 1:
            raise InputError(f"{what} has {[len(v) for v in side.values()]} models on its splits, expected the same.")
    if before is not None:
        failed = failed_members(_joined(before), _joined(theirs))
        before = {split: values[~failed] for split, values in before.items()}
        if failed.all():
            raise InputError("no pretrained model is sound, expected at least one with finite margins.")
    return ours, theirs, before


def _by_split(side: Any, what: str) -> dict[SplitName, Any] | None:
    if side is None:
        if what == "pretrained":
            return None
        raise InputError(f"{what} is None, expected margins, or a mapping of them by split.")
    given = dict(side) if isinstance(side, Mapping) else {"forget": side}
    if "forget" not in given or not set(given) <= set(SPLITS):
        raise InputError(f"{what} has {list(given)}, expected forget and, if there are, retain and validation.")
    return {split: given[split] for split in SPLITS if split in given}


def _spaced(size: int, most: int) -> list[int]:
    return [int(place) for place in np.unique(np.linspace(0, size - 1, min(size, most)).round())]


def _joined(margins: Mapping[SplitName, Array]) -> Array:
    return np.concatenate(list(margins.values()), axis=1)
