"""Scoring saved outputs of any source: `expunge score`.

Everything that the given arrays allow is computed, and what they do not allow is listed with what would. What a file
may hold is in `inputs`, what comes out in `core.scoring`; the lines are those of the registry `metrics.METRICS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from expunge import metrics
from expunge.core import ForgetSet, InputError, Task
from expunge.core.checks import instance, plain_arguments, positive, seeds
from expunge.core.errors import noted
from expunge.core.ranks import spearman
from expunge.core.record import SPLITS, SplitName
from expunge.core.result import Result
from expunge.core.scoring import Missing, ScoreLine, ScoreResult
from expunge.metrics.arrays import Array
from expunge.metrics.copies import Copies, copies_said
from expunge.metrics.from_margins import CHALLENGE_EXAMPLES, DISTANCE_EXAMPLES
from expunge.metrics.from_outputs import ATTACK_EXAMPLES, SVC_EXAMPLES
from expunge.metrics.metric import KLOM_EXAMPLES, SUBSAMPLES
from expunge.studies.run.measure import Parts
from expunge.studies.score.inputs import Inputs, Path_, Side, read_inputs, take_inputs

FEW = 20
"""Members of either side below which the result says that it is rough."""
ALIKE = 0.5
"""Rank correlation between two halves of the oracles from which examples can be told apart by their margins."""


@plain_arguments
def score_files(
    unlearned: Path_,
    oracle: Path_,
    *,
    held_out: Path_ | None = None,
    pretrained: Path_ | None = None,
    retain: Mapping[str, Path_] | None = None,
    validation: Mapping[str, Path_] | None = None,
    labels: Path_ | None = None,
    labels_retain: Path_ | None = None,
    labels_validation: Path_ | None = None,
    tolerance: float | None = None,
    row_tolerance: float | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> ScoreResult:
    """Score saved margins or logits of unlearned members against oracles.

    Args:
        unlearned: File of the unlearned members on the forget set, or of all splits.
        oracle: File of the oracles on the same examples, in the same order.
        held_out: File of other oracles, for an honest floor.
        pretrained: File of the members before unlearning, for the side of a verdict.
        retain: Files of single arrays on retain examples, by `unlearned`, `oracle`, `held_out`, `pretrained`.
        validation: The same on validation examples.
        labels: Labels of the forget examples; needed with logits.
        labels_retain: Labels of the retain examples.
        labels_validation: Labels of the validation examples.
        tolerance: Largest excess that the verdict counts as indistinguishable, nats.
        row_tolerance: Shift of a single forget row that must not be missed, oracle standard deviations.
        seed: Seed of everything random.
        progress: Called with a line of text before each slower step.

    Raises:
        InputError: If a file cannot be read or holds objects, shapes disagree, or there are fewer than 5 members.
    """
    tolerances = _tolerances(tolerance, row_tolerance)
    inputs = read_inputs(
        {"unlearned": unlearned, "oracle": oracle, "held_out": held_out, "pretrained": pretrained},
        {"retain": retain, "validation": validation},
        {"forget": labels, "retain": labels_retain, "validation": labels_validation},
    )
    return _score(
        inputs, tolerances, seed, noted(progress or (lambda text: None), "progress, which score_files called")
    )


def score_arrays(
    unlearned: Any,
    oracle: Any,
    *,
    held_out: Any = None,
    pretrained: Any = None,
    task: Task | None = None,
    forget: ForgetSet | None = None,
    labels: Any = None,
    tolerance: float | None = None,
    row_tolerance: float | None = None,
    seed: int = 0,
) -> ScoreResult:
    """Score arrays or ensembles of unlearned members against oracles; the arguments are those of `expunge.score`."""
    tolerances = _tolerances(tolerance, row_tolerance)
    seeds(seed=seed)
    if (task is None) != (forget is None):
        raise InputError("one of task and forget was given, expected both, with ensembles, or none, with arrays.")
    parts = None
    if task is not None and forget is not None:
        instance(Task, "an expunge.Task", task=task)
        instance(ForgetSet, "a forget set, as tasks.random_forget_set makes", forget=forget)
        forget.check(task)
        parts = Parts.of(task, forget, seed)
    given = {"unlearned": unlearned, "oracle": oracle, "held_out": held_out, "pretrained": pretrained}
    for who in ("unlearned", "oracle"):
        if given[who] is None:
            raise InputError(f"{who} is None, expected an array, a mapping of arrays by split, or an ensemble.")
    return _score(take_inputs(given, labels, parts), tolerances, seed, lambda text: None)


def _tolerances(tolerance: float | None, row_tolerance: float | None) -> tuple[float, float]:
    """Return what a judge takes, checked, with the defaults in place of None."""
    tolerance = metrics.DEFAULT_TOLERANCE if tolerance is None else tolerance
    row_tolerance = metrics.DEFAULT_ROW_TOLERANCE if row_tolerance is None else row_tolerance
    positive(tolerance=tolerance, row_tolerance=row_tolerance)
    return tolerance, row_tolerance


def _score(inputs: Inputs, tolerances: tuple[float, float], seed: int, progress: Callable[[str], None]) -> ScoreResult:
    result, sides, labels = ScoreResult(files=inputs.files, shapes=inputs.shapes, lines=[]), inputs.sides, inputs.labels
    held_out = sides["held_out"].margins if "held_out" in sides else {}
    samples = {
        split: metrics.Sample(split, sides["unlearned"], sides["oracle"], held_out.get(split), labels, seed)
        for split in SPLITS
        if split in sides["unlearned"].margins
    }
    progress("verdict")
    _verdict(result, sides, samples, tolerances, seed)
    for split, sample in samples.items():
        group = ""
        for metric in metrics.METRICS.values():
            if metric.group != group:
                group = metric.group
                progress(f"metrics on {split}: {group}")
            found = metric.measured(sample)
            if found is not None:
                fields = {each.name: getattr(found, each.name) for each in dataclasses.fields(Result)}
                fields |= {"metric": metric.name, "split": split, "group": metric.group}
                result.lines.append(ScoreLine(**fields, published=metric.published))
    _missing(result, sides)
    _notes(result, sides)
    return result


def _verdict(
    result: ScoreResult,
    sides: Mapping[str, Side],
    samples: Mapping[SplitName, metrics.Sample],
    tolerances: tuple[float, float],
    seed: int,
) -> None:
    """Judge where all splits are given; samples then share what the judge made, which is slow."""
    if not _complete(sides["unlearned"].margins):
        result.notes += _copies(sides, samples)
        return
    complete = {
        who: {split: side.margins[split][:, samples[split].klom_rows] for split in SPLITS}
        for who, side in sides.items()
        if _complete(side.margins)
    }
    for who in ("held_out", "pretrained"):
        if who in sides and who not in complete:
            result.notes.append(f"{who} lacks a split, so the verdict does not use it.")
    judge = metrics.Judge(
        complete["oracle"],
        complete.get("held_out"),
        complete.get("pretrained"),
        tolerance=tolerances[0],
        row_tolerance=tolerances[1],
        seed=seed,
    )
    # Held-out oracles that lack a split have no part in the verdict, but have one in the lines of the other splits.
    if "held_out" in complete or "held_out" not in sides:
        for split, sample in samples.items():
            sample.shared["ruler"] = judge.rulers[split]
        verdict = judge({split: sample.ready for split, sample in samples.items()})
    else:
        verdict = judge(complete["unlearned"])
    result.verdict, result.verdict_sentence = verdict.name, verdict.sentence
    result.tolerance, result.members_needed = verdict.tolerance, verdict.members_needed


def _copies(sides: Mapping[str, Side], samples: Mapping[SplitName, metrics.Sample]) -> list[str]:
    """Say so when models are copies of others, where no verdict does."""
    joined = {
        who: np.concatenate([side.margins[split] for split in samples], axis=1)
        for who, side in sides.items()
        if set(samples) <= set(side.margins)
    }
    said = copies_said(Copies(joined["oracle"], joined.get("held_out")), joined["unlearned"])
    return [f"Nothing here is a finding: {said}"] if said else []


def _complete(margins: Mapping[SplitName, Array]) -> bool:
    return all(split in margins for split in SPLITS)


def _missing(result: ScoreResult, sides: Mapping[str, Side]) -> None:
    """List what could not be computed, with the input that would allow it."""
    unlearned = sides["unlearned"]
    margins = [split for split in SPLITS if split in unlearned.margins]
    logits = [split for split in SPLITS if split in unlearned.logits and split in sides["oracle"].logits]
    needs: dict[str, str] = {}
    if len(margins) < len(SPLITS):
        lacking = " and ".join(split for split in SPLITS if split not in margins)
        needs["verdict"] = f"margins on {lacking} examples, of both sides"
        needs[f"KLoM, distances and joint tests on {lacking}"] = needs["verdict"]
    elif "pretrained" not in sides or not _complete(sides["pretrained"].margins):
        needs["side of the verdict from the model before unlearning"] = "pretrained margins"
    if "held_out" not in sides:
        needs["floor from independent oracles"] = "held-out oracles"
        needs["floors of published variants and of KL in one direction"] = "held-out oracles"
    if "validation" not in margins:
        needs["membership attack (loss)"] = "margins on validation examples, of both sides"
    if not {"forget", "validation"} <= set(logits):
        needs["membership attacks (entropy, modified entropy, confidence)"] = (
            "logits and labels on forget and validation examples in place of margins"
        )
    if len(logits) < len(SPLITS):
        lacking = " and ".join(split for split in SPLITS if split not in logits)
        needs[f"accuracy, activation distance, FADE on {lacking}"] = (
            "logits (members, examples, classes) and labels in place of margins"
        )
        needs["tug-of-war, membership attack (SVC)"] = "logits and labels on forget, retain and validation"
    if not {"retain", "validation"} <= set(logits):
        needs["score of the challenge (with accuracies)"] = "logits and labels on retain and validation"
    needs |= {
        "epsilon from one run (Steinke et al.)": "canaries put into the forget set by fair coins before training; then "
        "expunge.metrics.one_run_epsilon",
        "ZRF": "logits of a randomly initialised network; then expunge.metrics.zrf_reading",
        "relearning time": "loss curves of an attack; then expunge.metrics.relearning",
        "GUS": "input gradients and the noise of a poisoned training; then expunge.metrics.gus",
        "LiRA": "margins of shadow models and who was trained on what; then expunge.metrics.lira",
        "FADE of generated text": "log-probabilities of generations; then expunge.metrics.fade_from_samples",
    }
    result.missing += [Missing(metric=metric, needs=need) for metric, need in needs.items()]


def _notes(result: ScoreResult, sides: Mapping[str, Side]) -> None:
    """Say what a reader has to know about numbers of members, samples of examples, and their order."""
    unlearned, oracle = sides["unlearned"], sides["oracle"]
    members, oracles = len(unlearned.margins["forget"]), len(oracle.margins["forget"])
    if min(members, oracles) < FEW:
        result.notes.append(f"{members} members and {oracles} oracles: intervals are wide; 100 of each decide most.")
    if "held_out" not in sides:
        result.notes.append("Floors are resampled from the oracles; held-out oracles would give them honestly.")
    else:
        others = len(sides["held_out"].margins["forget"])
        if others < members:
            result.notes.append(
                f"{others} held-out oracles for {members} unlearned members: KL in one direction and published "
                f"variants are read at {others} members (averages over {SUBSAMPLES} subsets), as their floors are; "
                f"other floors are brought to {members} members."
            )
    result.notes += _sampled(result, unlearned)
    for who, side in sides.items():
        kind, given = ("logits", side.logits) if side.logits else ("margins", side.margins)
        if all(((values >= 0) & (values <= 1)).all() for values in given.values()):
            result.notes.append(
                f"{who}: all {kind} lie between 0 and 1, as probabilities do, whose distances near 0 and 1 say little. "
                f"If they are, give {kind} instead: a margin is log(p / (1 - p)) of the true class's probability p."
            )
    for who, side in sides.items():
        for split, margins in side.margins.items():
            if who != "oracle" and _looks_permuted(margins, oracle.margins[split], who, split):
                result.notes.append(
                    f"{who} {split}: which examples have large margins has nothing to do with which have them for "
                    "oracles. The examples are in another order, or these models are ruined; check the order first."
                )


def _sampled(result: ScoreResult, unlearned: Side) -> list[str]:
    most = max(margins.shape[1] for margins in unlearned.margins.values())
    groups = {line.group for line in result.lines}
    limits = {
        f"{KLOM_EXAMPLES} for KLoM and the verdict": most > KLOM_EXAMPLES,
        f"{DISTANCE_EXAMPLES} for distances": most > DISTANCE_EXAMPLES,
        f"{ATTACK_EXAMPLES} for population attacks": most > ATTACK_EXAMPLES and "validation" in unlearned.margins,
        f"{SVC_EXAMPLES} for the SVC attack": most > SVC_EXAMPLES and "outputs" in groups,
        f"{CHALLENGE_EXAMPLES} for the challenge score": unlearned.margins["forget"].shape[1] > CHALLENGE_EXAMPLES,
    }
    used = [text for text, cut in limits.items() if cut]
    return [f"Of larger splits examples are drawn at random: at most {', '.join(used)}."] if used else []


def _looks_permuted(margins: Array, oracle: Array, who: str, split: SplitName) -> bool:
    """Return whether a side's examples seem to be in another order than the oracles'.

    Training on the forget set can undo the order of its margins, so there only other oracles are looked at. Elsewhere
    sound models find the same examples hard. Two halves of the oracles say how far that can be seen at all; under
    another order the rank correlation of mean margins is 0 with a standard error of 1 / sqrt(examples - 1).
    """
    if split == "forget" and who != "held_out":
        return False
    alive = margins[np.isfinite(margins).all(1)]
    examples = margins.shape[1]
    if not len(alive) or examples < 3 or np.ptp(alive.mean(0)) == 0 or np.ptp(oracle.mean(0)) == 0:
        return False
    within = spearman(oracle[::2].mean(0), oracle[1::2].mean(0))
    across = spearman(alive.mean(0), oracle.mean(0))
    return bool(within > ALIKE and across + 3 / np.sqrt(examples - 1) < within / 2)
