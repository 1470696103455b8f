"""Scoring saved outputs of any source: `expunge score`.

Everything that the given arrays allow is computed, and what they do not allow is listed with what would. What a file
may hold is in `inputs`, what comes out in `core.scoring`; the lines are made in `margins` and
`outputs`. A value stands beside a floor at the same numbers of members (`at_equal_counts`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from expunge import metrics
from expunge.core.checks import positive
from expunge.core.ranks import spearman
from expunge.core.record import SPLITS, SplitName
from expunge.core.scoring import Missing, ScoreResult
from expunge.studies.score.inputs import Labels, Path_, Side, read_inputs
from expunge.studies.score.lines import SUBSAMPLES, Array, sample
from expunge.studies.score.margins import (
    CHALLENGE_EXAMPLES,
    DISTANCE_EXAMPLES,
    challenge_lines,
    distance_lines,
    epsilon_lines,
    joint_lines,
    klom_lines,
    published_lines,
    ulira_line,
)
from expunge.studies.score.outputs import (
    ATTACK_EXAMPLES,
    SVC_EXAMPLES,
    accuracies,
    attack_lines,
    challenge_accuracies,
    output_lines,
    svc_line,
    tug_of_war_line,
)

FEW = 20
"""Members of either side below which the result says that it is rough."""
KLOM_EXAMPLES = 5000
"""Examples of a split at most for KLoM and the verdict, whose intervals take hundreds of readings."""
ALIKE = 0.5
"""Rank correlation between two halves of the oracles from which examples can be told apart by their margins."""


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
        seed: Seed of everything random.
        progress: Called with a line of text before each slower step.

    Raises:
        InputError: If a file cannot be read or holds objects, shapes disagree, or there are fewer than 5 members.
    """
    if tolerance is not None:
        positive(tolerance=tolerance)
    inputs = read_inputs(
        {"unlearned": unlearned, "oracle": oracle, "held_out": held_out, "pretrained": pretrained},
        {"retain": retain, "validation": validation},
        {"forget": labels, "retain": labels_retain, "validation": labels_validation},
    )
    result = ScoreResult(files=inputs.files, shapes=inputs.shapes, lines=[])
    _score(result, inputs.sides, inputs.labels, tolerance, seed, progress or (lambda text: None))
    return result


def _score(
    result: ScoreResult,
    sides: Mapping[str, Side],
    labels: Labels,
    tolerance: float | None,
    seed: int,
    progress: Callable[[str], None],
) -> None:
    unlearned, oracle = sides["unlearned"], sides["oracle"]
    held_out = sides["held_out"].margins if "held_out" in sides else {}
    progress("verdict")
    rows = {
        split: sample(margins.shape[1], KLOM_EXAMPLES, seed, f"klom {split}")
        for split, margins in oracle.margins.items()
    }
    cut = {who: {split: m[:, rows[split]] for split, m in side.margins.items()} for who, side in sides.items()}
    rulers = _verdict(result, cut, tolerance, seed)
    for split in SPLITS:
        if split not in unlearned.margins:
            continue
        u, o, h = unlearned.margins[split], oracle.margins[split], held_out.get(split)
        progress(f"KLoM, distances, joint tests and outputs on {split}")
        some = {who: margins[split] for who, margins in cut.items() if split in margins}
        ruler = rulers.get(split) or metrics.Ruler(
            some["oracle"], some.get("held_out"), seed=seed, resample_examples=split != "forget"
        )
        result.lines += klom_lines(split, ruler, some["unlearned"], some.get("held_out"), seed)
        result.lines += distance_lines(split, u, o, h, seed)
        result.lines += joint_lines(split, u, o, seed)
        result.lines += output_lines(split, unlearned, oracle, labels)
        result.lines += published_lines(split, u, o, h, seed)
    progress("attacks, bounds on epsilon and challenge score")
    _forget_lines(result, unlearned, oracle, held_out.get("forget"), labels, seed)
    _missing(result, sides)
    _notes(result, sides)


def _forget_lines(
    result: ScoreResult, unlearned: Side, oracle: Side, held_out: Array | None, labels: Labels, seed: int
) -> None:
    u, o = unlearned.margins["forget"], oracle.margins["forget"]
    result.lines.append(ulira_line(u, o, held_out, seed))
    result.lines += attack_lines(unlearned, oracle, labels, seed)
    svc = svc_line(unlearned, oracle, labels, seed)
    if svc is not None:
        result.lines.append(svc)
    found = accuracies(unlearned, oracle, labels)
    if found is not None:
        examples = sum(unlearned.logits[split].shape[1] for split in SPLITS)
        result.lines.append(tug_of_war_line(found, examples))
    result.lines += epsilon_lines(u, o, seed)
    result.lines += challenge_lines(u, o, challenge_accuracies(unlearned, oracle, labels), seed)


def _verdict(
    result: ScoreResult, sides: Mapping[str, Mapping[SplitName, Array]], tolerance: float | None, seed: int
) -> dict[SplitName, metrics.Ruler]:
    """Judge where all splits are given; return the rulers that were made, which are the slow part."""
    if not _complete(sides["unlearned"]):
        return {}
    complete = {who: margins for who, margins in sides.items() if _complete(margins)}
    for who in ("held_out", "pretrained"):
        if who in sides and who not in complete:
            result.notes.append(f"{who} lacks a split, so the verdict does not use it.")
    judge = metrics.Judge(
        complete["oracle"],
        complete.get("held_out"),
        complete.get("pretrained"),
        tolerance=metrics.DEFAULT_TOLERANCE if tolerance is None else tolerance,
        seed=seed,
    )
    verdict = judge(complete["unlearned"])
    result.verdict, result.verdict_sentence = verdict.name, verdict.sentence
    result.tolerance, result.members_needed = verdict.tolerance, verdict.members_needed
    # Held-out oracles that lack a split had no part in the verdict, but have one in the lines of the other splits.
    return dict(judge.rulers) if "held_out" in complete or "held_out" not in sides else {}


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
