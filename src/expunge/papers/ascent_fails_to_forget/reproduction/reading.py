"""What the items read from an audit of one forget set: settings, the best of each method, the honest choice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from expunge.core.objective import objective
from expunge.core.objective import target_objective as distance
from expunge.core.record import SPLITS, ConfigurationRecord, ForgetRecord, SelectionRecord, SplitName
from expunge.core.result import Result
from expunge.methods import FineTune

__all__ = ["Reached", "apart", "candidates", "descended", "distance", "reached", "runs", "something", "within"]


@dataclass(frozen=True)
class Reached:
    """What one method reached on one forget set; distances are the worst P95 of KLoM above the floor of F, R and V."""

    method: str
    label: str
    best: ConfigurationRecord
    """The best of the grid on the target's own oracles: biased, nobody knows it in advance."""
    chosen: ConfigurationRecord
    """What the calibration set chose."""
    selection: SelectionRecord

    @property
    def least(self) -> float:
        """Distance of the best."""
        return distance(self.best)

    @property
    def honest(self) -> float:
        """Distance of the chosen."""
        return distance(self.chosen)


def apart(scores: dict[SplitName, Result]) -> float:
    """Return the worst P95 of KLoM above the floor of other scores, such as those of the pretrained models."""
    return objective({split: scores[split].excess for split in SPLITS})


def something(forget: ForgetRecord) -> bool:
    """Return whether there is something to unlearn: pretrained models are above the floor on F, both with intervals."""
    return forget.pretrained["forget"].low > forget.floor["forget"].floor_high


def candidates(forget: ForgetRecord) -> dict[str, list[ConfigurationRecord]]:
    """Return all settings and stopping times of the methods that are no controls, by method."""
    found: dict[str, list[ConfigurationRecord]] = {}
    for each in forget.configurations:
        if not each.control:
            found.setdefault(each.method, []).append(each)
    return found


def runs(configurations: Sequence[ConfigurationRecord]) -> dict[str, list[ConfigurationRecord]]:
    """Return stopping times by run, in the order of epochs."""
    found: dict[str, list[ConfigurationRecord]] = {}
    for each in configurations:
        found.setdefault(each.run, []).append(each)
    return {run: sorted(stops, key=lambda one: one.epoch) for run, stops in found.items()}


def reached(forget: ForgetRecord) -> Iterator[Reached]:
    """Yield what each method reached."""
    for method, settings in candidates(forget).items():
        yield _reached(forget, method, settings)


def descended(forget: ForgetRecord) -> Reached | None:
    """Return what fine-tuning on R alone reached: a method that climbs and descends, without its climb."""
    settings = [each for each in forget.configurations if each.method == FineTune.name]
    return _reached(forget, FineTune.name, settings) if settings else None


def _reached(forget: ForgetRecord, method: str, settings: Sequence[ConfigurationRecord]) -> Reached:
    by_id = {each.id: each for each in forget.configurations}
    selection = next(each for each in forget.selections if each.method == method)
    best = min(settings, key=distance)
    return Reached(method, best.label, best, by_id[selection.chosen], selection)


def within(settings: Sequence[ConfigurationRecord], tolerance: float) -> int:
    """Return how many settings and stopping times are within a tolerance of the floor on all splits."""
    return sum(distance(each) <= tolerance for each in settings)
