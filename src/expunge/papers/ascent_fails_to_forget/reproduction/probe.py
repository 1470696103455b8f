"""One forget set without an audit: models, and what becomes of them, read against two sets of retrained ones.

Each reading is kept as it is made; models are trained, or found, when a reading needs them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from expunge.core import Ensemble, ForgetSet, Task
from expunge.core.record import SPLITS, SplitName
from expunge.core.result import Result
from expunge.metrics.failures import failed_members
from expunge.metrics.klom import klom
from expunge.metrics.ruler import Ruler
from expunge.papers.ascent_fails_to_forget.reproduction.context import Context
from expunge.papers.ascent_fails_to_forget.reproduction.presets import Images
from expunge.studies.run.measure import Parts, margins_of

Margins = dict[SplitName, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class Reading:
    """What is known of one set of models, by split."""

    scores: dict[SplitName, Result]
    """P95 of KLoM with its floor."""
    public: dict[SplitName, float]
    """P95 by the published estimator."""
    public_floor: dict[SplitName, float]
    """What it reads for the other retrained models."""
    moved: dict[SplitName, float]
    """How far a member's margins are from those it had before, root mean square over members and examples, nats."""
    lost: int
    """Retrained models that did not train and are left out, of both sets."""

    @property
    def excess(self) -> float:
        """Worst P95 of KLoM above the floor."""
        return max(self.scores[split].excess for split in SPLITS)

    def cells(self) -> list[str]:
        """Return this as cells of a table with `columns`."""
        found = [self.scores[split] for split in SPLITS]
        return [
            *(f"{each.value:.2f} [{each.low:.2f}, {each.high:.2f}]" for each in found),
            " / ".join(f"{self.public[split]:.2f}" for split in SPLITS),
            " / ".join(f"{self.moved[split]:.3g}" for split in SPLITS),
        ]

    def floor_cells(self) -> list[str]:
        """Return the floors likewise."""
        public = " / ".join(f"{self.public_floor[split]:.2f}" for split in SPLITS)
        return [*(f"{self.scores[split].floor:.2f}" for split in SPLITS), public, ""]

    @staticmethod
    def columns() -> list[str]:
        """Return the titles of the cells."""
        return [*(f"{split} [95 %]" for split in SPLITS), "easydub, F / R / V", "moved, F / R / V"]


class Probe:
    """Models of one experiment, of one forget set, read on all its rows and a sample of the others.

    Args:
        context: The run.
        images: The experiment.
        number: The forget set.
        part: Folder of the models in the run's folder.
    """

    def __init__(self, context: Context, images: Images, number: str, part: str) -> None:
        self.context, self.images, self.part = context, images, part
        self.task: Task = context.task(images)
        self.forget: ForgetSet = context.choice(images, part, number).forget

    @cached_property
    def pretrained(self) -> Ensemble:
        """Models of all training examples."""
        return self.context.pretrained(self.images, self.part)

    def read(self, what: Any, change: Callable[[Ensemble], Ensemble]) -> Reading:
        """Return what is known of the pretrained models once they are changed.

        Args:
            what: All that the change depends on besides data, forget set, members and seed; a JSON value.
            change: From the pretrained models to those that are read.
        """
        key = {
            "item": "probe",
            "task": self.task.fingerprint,
            "forget": self.forget.indices.tolist(),
            "members": self.context.preset.members,
            "seed": self.context.seed,
            "what": what,
        }
        earlier = self.context.parts.read(key)
        if earlier is not None:
            return _from_json(json.loads(earlier[1]["reading"]))
        found = self._reading(margins_of(self._parts.measure(change(self.pretrained))))
        self.context.parts.write(key, {}, {"reading": json.dumps(asdict(found))})
        return found

    @cached_property
    def _parts(self) -> Parts:
        return Parts.of(self.task, self.forget, self.context.seed)

    @cached_property
    def _before(self) -> Margins:
        return margins_of(self._parts.measure(self.pretrained))

    @cached_property
    def _retrained(self) -> tuple[Margins, Margins]:
        made = [
            self.context.models(
                self.images,
                self.context.folder / self.part / f"without-{self.forget.name}",
                role,
                self.context.preset.members,
                self.forget,
            )
            for role in ("oracle", "held-out oracle")
        ]
        oracle, held_out = (margins_of(self._parts.measure(models)) for models in made)
        return sound(oracle, oracle), sound(held_out, oracle)

    @cached_property
    def _rulers(self) -> dict[SplitName, Ruler]:
        oracle, held_out = self._retrained
        seed = self.context.seed
        return {
            split: Ruler(oracle[split], held_out[split], seed=seed, resample_examples=split != "forget")
            for split in SPLITS
        }

    def _reading(self, margins: Margins) -> Reading:
        oracle, held_out = self._retrained
        change = {split: margins[split].astype(float) - self._before[split] for split in SPLITS}
        return Reading(
            {split: self._rulers[split].score(margins[split]) for split in SPLITS},
            {split: _public(margins[split], oracle[split]) for split in SPLITS},
            {split: _public(held_out[split], oracle[split]) for split in SPLITS},
            {split: float(np.sqrt(np.mean(change[split] ** 2))) for split in SPLITS},
            2 * self.context.preset.members - len(oracle["forget"]) - len(held_out["forget"]),
        )


def sound(margins: Margins, oracle: Margins) -> Margins:
    """Return retrained models without those that did not train: without norm a few collapse at any rate that is useful.

    Args:
        margins: Of each split (members, examples).
        oracle: What they are compared with, likewise.
    """
    whole, reference = (np.concatenate([side[split] for split in SPLITS], 1) for side in (margins, oracle))
    kept = ~failed_members(whole, reference)
    return {split: margins[split][kept] for split in SPLITS}


def _public(margins: np.ndarray[Any, Any], oracle: np.ndarray[Any, Any]) -> float:
    return float(np.percentile(klom(margins, oracle, variant="easydub"), 95))


def _from_json(found: dict[str, Any]) -> Reading:
    scores = {split: Result(**found["scores"][split]) for split in SPLITS}
    return Reading(scores, found["public"], found["public_floor"], found["moved"], found["lost"])
