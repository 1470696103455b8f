"""Models that an audit or a forecast was given, as files or ensembles, instead of training them itself.

What is missing is trained by the task's recipe, except held-out oracles where oracles were given: these are halved,
since oracles of another origin would put the difference of origins into the floor. What a reader must know of all this
is said in notes of the record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.core import Ensemble, InputError, Task
from expunge.core.checkpoints import read
from expunge.core.digest import digest_json, digest_tensors
from expunge.tasks import Choice

Models = Ensemble | str | Path | Sequence[str | Path]
"""An ensemble, the folder of a saved one, or checkpoints: a folder, a pattern, a list of files."""

ONLY = ""
"""The name under which models for the only forget set are kept until its own is known, and the pretrained ones."""


@dataclass(frozen=True)
class Given:
    """The models that were given."""

    models: Mapping[tuple[str, str], Ensemble]
    """By what they are (`pretrained`, `oracle`, `held-out oracle`), and the forget set that they never saw."""
    halved: tuple[str, ...] = ()
    """Forget sets of whose oracles every other one is held out."""

    @classmethod
    def of(cls, task: Task, pretrained: Any, oracles: Any, held_out: Any, fewest: int) -> Given:
        """Read models, and hold them against the task.

        Args:
            task: Whose architecture they must have.
            pretrained: `Models` that were trained on all training examples, or None.
            oracles: `Models` that were trained without the forget set, or a mapping from names of forget sets to such,
                or None.
            held_out: More of these, for the floor.
            fewest: Least number of members.

        Raises:
            InputError: If some cannot be read, are of another architecture, or are too few.
        """
        models: dict[tuple[str, str], Ensemble] = {}
        asked = [
            ("pretrained", "pretrained", pretrained),
            ("oracle", "oracles", oracles),
            ("held-out oracle", "held_out", held_out),
        ]
        for kind, argument, value in asked:
            by_set = value if isinstance(value, Mapping) and kind != "pretrained" else {ONLY: value}
            for name, each in by_set.items():
                if each is not None:
                    what = f"{argument}[{name!r}]" if name else argument
                    models[kind, name] = _enough(_known(read(each, task, what)), fewest, what)
        return cls(models)

    def of_sets(self, task: Task, choices: Sequence[Choice], fewest: int) -> Given:
        """Return the same by the names of the forget sets that were chosen, with held-out oracles for all oracles.

        Raises:
            InputError: If a name is none of theirs or is lacking, held-out oracles come alone, oracles are too few to
                be halved, two models are the same, or a forget set changes the training data.
        """
        names = [choice.forget.name for choice in choices]
        found = {name for kind, name in self.models if kind != "pretrained"}
        wrong = found - {ONLY, *names}
        if wrong or (ONLY in found and len(names) > 1):
            came = f"for {', '.join(map(repr, sorted(wrong)))}" if wrong else "without the name of a forget set"
            raise InputError(f"oracles were given {came}, expected a mapping with names among {', '.join(names)}.")
        planted = [choice.forget.name for choice in choices if choice.task.fingerprint != task.fingerprint]
        if self.models and planted:
            raise InputError(
                f"{planted[0]} plants wrong labels before training, which models that are given have not seen; "
                "expected another forget set, or to train all models."
            )
        models = {(k, n if k == "pretrained" else n or names[0]): each for (k, n), each in self.models.items()}
        halved = []
        for kind, name in list(models):
            if kind == "held-out oracle" and ("oracle", name) not in models:
                raise InputError("held_out was given without oracles of the same forget set, expected both.")
            if kind == "oracle" and ("held-out oracle", name) not in models:
                every = _enough(models[kind, name], 2 * fewest, "oracles, to be halved for want of held_out,")
                models[kind, name], models["held-out oracle", name] = every[::2].clone(), every[1::2].clone()
                halved.append(name)
        _refuse_copies(models)
        return Given(models, tuple(halved))

    def digests(self) -> dict[str, str]:
        """Return what the run's request says of the models, so that it is not gone on with for others."""
        return {f"{kind} {name}".strip(): digest_json(_digests(models)) for (kind, name), models in self.models.items()}

    def notes(self, task: Task) -> list[str]:
        """Return what a reader must know."""
        given = [f"{kind} models {f'of {name}' * bool(name)}".strip() for kind, name in self.models]
        if not given:
            return []
        how = "recipe" if task.fit is None else "own loop"
        return [
            f"Given, not trained here: {', '.join(given)}. {ON_TRUST}; the checklist shows what speaks against it.",
            "All other models (calibration oracles, on which settings are chosen, and the retraining among the "
            f"methods) are by the task's {how}; where the given ones are not, the difference counts as a gap on every "
            "split.",
            *(
                f"No held-out oracles of {name} were given: every other oracle is held out, so the floor and all "
                f"scores rest on {len(self.models['oracle', name])} oracles on one side and "
                f"{len(self.models['held-out oracle', name])} on the other."
                for name in self.halved
            ),
        ]


ON_TRUST = "What they were trained on is taken on trust"


def _known(ensemble: Ensemble) -> Ensemble:
    """Let an ensemble say what it is: how it was trained where that is known, else its weights."""
    how = ensemble.provenance.get("specification") or {"given": digest_json(_digests(ensemble))}
    kept = {"provenance": {"specification": how}, "states": ensemble.states}
    return ensemble.with_state(ensemble.params, ensemble.buffers, **kept)


def _enough(ensemble: Ensemble, fewest: int, what: str) -> Ensemble:
    if len(ensemble) < fewest:
        why = "the floor is as high as the effects to be seen" if fewest > 2 else "a prediction has no scale"
        raise InputError(f"{what} has {len(ensemble)} members, expected at least {fewest}: with fewer, {why}.")
    return ensemble


def _digests(ensemble: Ensemble) -> list[str]:
    state = {**ensemble.params, **ensemble.buffers}
    return [digest_tensors({name: tensor[row] for name, tensor in state.items()}) for row in range(len(ensemble))]


def _refuse_copies(models: Mapping[tuple[str, str], Ensemble]) -> None:
    """Refuse the same model in two places: ensembles that are compared must be independent."""
    seen: dict[str, str] = {}
    for (kind, name), ensemble in models.items():
        for row, digest in enumerate(_digests(ensemble)):
            here = f"{kind} {row}" + f" of {name}" * bool(name)
            if digest in seen:
                raise InputError(
                    f"{seen[digest]} and {here} are the same model, expected independent ones: leave one out, or "
                    "give the files that were meant."
                )
            seen[digest] = here
