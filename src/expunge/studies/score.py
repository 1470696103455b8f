"""Scoring saved outputs of any source: `expunge score`.

Everything that the given arrays allow is computed, and what they do not allow is listed with what would. What a file
may hold is in `score_inputs`, what comes out in `score_result`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge import metrics
from expunge.core import Score
from expunge.core.record import SPLITS, SplitName
from expunge.core.seeds import derive
from expunge.metrics.distances import DISTANCES, distance_score
from expunge.metrics.joint import JointTest
from expunge.metrics.neurips2023 import challenge_score
from expunge.metrics.privacy import Split, audit
from expunge.metrics.reading import Reading
from expunge.studies.score_inputs import Labels, Path_, Side, read_inputs
from expunge.studies.score_result import Missing, ScoreLine, ScoreResult

FEW = 20
"""Members of either side below which the result says that it is rough."""
CHALLENGE_EXAMPLES = 300
"""Examples at most for the challenge score, which takes tens of milliseconds for each."""


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
    answers: Labels,
    tolerance: float | None,
    seed: int,
    progress: Callable[[str], None],
) -> None:
    unlearned, oracle = sides["unlearned"], sides["oracle"]
    held_out = sides["held_out"].margins if "held_out" in sides else {}
    members, oracles = len(unlearned.margins["forget"]), len(oracle.margins["forget"])
    if min(members, oracles) < FEW:
        result.notes.append(f"{members} members and {oracles} oracles: intervals are wide; 100 of each decide most.")
    if not held_out:
        result.notes.append("Floors are resampled from the oracles; held-out oracles would give them honestly.")
        result.missing.append(Missing(metric="floor from independent oracles", needs="held-out oracles"))
    for split in SPLITS:
        if split not in unlearned.margins:
            continue
        u, o, h = unlearned.margins[split], oracle.margins[split], held_out.get(split)
        progress(f"KLoM and distances on {split}")
        ruler = metrics.Ruler(o, h, seed=seed, resample_examples=split != "forget")
        for summary in ("p95", "mean"):
            result.lines.append(_from_score(split, ruler.score(u, summary), f"KLoM, {summary}"))
        public = metrics.klom(u, o, variant="easydub")
        result.lines.append(
            ScoreLine(
                split=split,
                metric="KLoM as published (easydub), p95",
                value=float(np.percentile(public, 95)),
                oracle=None if h is None else float(np.percentile(metrics.klom(h, o, variant="easydub"), 95)),
                unit="nats",
                ideal="the floor; drops samples and can be fooled",
                published=True,
            )
        )
        for name in DISTANCES:
            result.lines.append(_from_score(split, distance_score(name, u, o, h), name.replace("_", " ")))
    u, o, h = unlearned.margins["forget"], oracle.margins["forget"], held_out.get("forget")
    progress("joint tests, U-LiRA, bounds on epsilon")
    for test in (metrics.classifier_two_sample(u, o, seed=seed), metrics.mmd(u, o, seed=seed)):
        result.lines.append(_from_joint(test))
    attack = metrics.ulira(u, o, held_out=h, seed=seed)
    result.lines.append(
        ScoreLine(
            split="forget",
            metric="U-LiRA, balanced accuracy",
            value=attack.accuracy,
            low=attack.low,
            high=attack.high,
            oracle=attack.floor,
            oracle_low=attack.floor_low,
            oracle_high=attack.floor_high,
            unit="share",
            ideal=attack.ideal,
            side=attack.side,
            failed=attack.failed,
        )
    )
    _epsilon(result, u, o, seed)
    _challenge(result, u, o, seed, progress)
    _attack(result, unlearned, oracle)
    _outputs(result, sides, answers)
    _verdict(result, sides, tolerance, seed, progress)


def _epsilon(result: ScoreResult, u: NDArray[Any], o: NDArray[Any], seed: int) -> None:
    # One number a member: its mean margin on the forget set; the threshold comes from the other half of the members.
    failed = metrics.failed_members(u, o)
    scores = np.where(failed, np.nan, np.where(np.isfinite(u), u, 0).mean(1))
    bound = audit(scores, o.mean(1), Split(seed=seed), delta=1e-5)
    result.lines.append(
        ScoreLine(
            split="forget",
            metric="epsilon, lower bound (mean margin, delta 1e-5)",
            value=bound.epsilon,
            oracle=0.0,
            oracle_high=bound.largest,
            unit="nats, 95 % confidence",
            ideal=f"0: nothing shown; {bound.positives} members could show {bound.largest:.2f} at most",
            failed=int(failed.sum()),
        )
    )
    result.missing.append(
        Missing(
            metric="epsilon from one run (Steinke et al.)",
            needs="canaries put into the forget set by fair coins before training (one_run_epsilon)",
        )
    )


def _challenge(
    result: ScoreResult, u: NDArray[Any], o: NDArray[Any], seed: int, progress: Callable[[str], None]
) -> None:
    progress("challenge score")
    examples = np.arange(u.shape[1])
    if len(examples) > CHALLENGE_EXAMPLES:
        rng = np.random.default_rng(derive(seed, "challenge examples"))
        examples = np.sort(rng.permutation(len(examples))[:CHALLENGE_EXAMPLES])
        result.notes.append(f"Challenge score on {CHALLENGE_EXAMPLES} of {u.shape[1]} forget examples, at random.")
    found = challenge_score(u[:, examples], o[:, examples], seed=seed)
    result.lines.append(
        ScoreLine(
            split="forget",
            metric="forgetting quality (NeurIPS 2023 challenge)",
            value=found.forgetting,
            low=found.low,
            high=found.high,
            oracle=found.calibration,
            oracle_low=found.calibration_low,
            oracle_high=found.calibration_high,
            unit="points",
            ideal=found.ideal,
            failed=found.failed,
            published=True,
        )
    )


def _attack(result: ScoreResult, unlearned: Side, oracle: Side) -> None:
    if "validation" not in unlearned.margins:
        result.missing.append(
            Missing(metric="membership attack (loss)", needs="margins on validation examples, of both sides")
        )
        return
    reading = metrics.population_attack(
        unlearned.margins["forget"],
        unlearned.margins["validation"],
        oracle.margins["forget"],
        oracle.margins["validation"],
    )
    result.lines.append(_from_reading("forget", reading))


def _outputs(result: ScoreResult, sides: Mapping[str, Side], answers: Labels) -> None:
    unlearned, oracle = sides["unlearned"], sides["oracle"]
    for split in SPLITS:
        if split in unlearned.logits and split in oracle.logits:
            u, o = unlearned.logits[split], oracle.logits[split]
            readings = [metrics.accuracy_gap(u, o, answers[split])]
            readings += [metrics.activation_distance_reading(u, o), metrics.fade_reading(u, o)]
            result.lines += [_from_reading(split, reading) for reading in readings]
    if "forget" not in unlearned.logits or "forget" not in oracle.logits:
        result.missing.append(
            Missing(
                metric="accuracy gap, activation distance, FADE",
                needs="logits (members, examples, classes) and labels in place of margins",
            )
        )
    both = [split for split in SPLITS if split in unlearned.logits and split in oracle.logits]
    if set(both) == set(SPLITS):
        accuracies: list[dict[str, NDArray[np.float64]]] = [
            {split: metrics.accuracy(side.logits[split], answers[split]) for split in SPLITS}
            for side in (unlearned, oracle)
        ]
        for split in SPLITS:
            broken = ~np.isfinite(unlearned.logits[split]).all((1, 2))
            accuracies[0][split] = np.where(broken, np.nan, accuracies[0][split])
        examples = sum(unlearned.logits[split].shape[1] for split in SPLITS)
        result.lines.append(_from_reading("forget", metrics.tug_of_war_reading(*accuracies, examples=examples)))
    else:
        result.missing.append(Missing(metric="tug-of-war", needs="logits and labels on forget, retain and validation"))
    result.missing += [
        Missing(metric="ZRF", needs="logits of a randomly initialised network; then expunge.metrics.zrf_reading"),
        Missing(metric="relearning time", needs="loss curves of an attack; then expunge.metrics.relearning"),
        Missing(metric="GUS", needs="input gradients and the noise of a poisoned training; then expunge.metrics.gus"),
        Missing(metric="LiRA", needs="margins of shadow models and who was trained on what; then expunge.metrics.lira"),
    ]


def _verdict(
    result: ScoreResult,
    sides: Mapping[str, Side],
    tolerance: float | None,
    seed: int,
    progress: Callable[[str], None],
) -> None:
    lacking = [split for split in SPLITS if split not in sides["unlearned"].margins]
    if lacking:
        result.missing.append(
            Missing(metric="verdict", needs=f"margins on {' and '.join(lacking)} examples, of both sides")
        )
        return
    progress("verdict")
    complete = {who: side.margins for who, side in sides.items() if all(split in side.margins for split in SPLITS)}
    for who in ("held_out", "pretrained"):
        if who in sides and who not in complete:
            result.notes.append(f"{who} lacks a split, so the verdict does not use it.")
    verdict = metrics.judge(
        complete["unlearned"],
        complete["oracle"],
        complete.get("held_out"),
        complete.get("pretrained"),
        tolerance=metrics.DEFAULT_TOLERANCE if tolerance is None else tolerance,
        seed=seed,
    )
    if "pretrained" not in complete:
        result.missing.append(
            Missing(metric="side of the verdict from the model before unlearning", needs="pretrained margins")
        )
    result.verdict, result.verdict_sentence = verdict.name, verdict.sentence
    result.tolerance, result.members_needed = verdict.tolerance, verdict.members_needed


def _from_score(split: SplitName, score: Score, name: str) -> ScoreLine:
    if not np.isfinite(score.value):
        side = "failed"
    elif score.low > score.floor_high:
        side = "off the oracle"
    else:
        side = "not told from the oracle"
    return ScoreLine(
        split=split,
        metric=name,
        value=score.value,
        low=score.low,
        high=score.high,
        oracle=score.floor,
        oracle_low=score.floor_low,
        oracle_high=score.floor_high,
        unit=score.unit,
        ideal=score.ideal,
        side=side,
        failed=score.failed,
    )


def _from_reading(split: SplitName, reading: Reading) -> ScoreLine:
    return ScoreLine(
        split=split,
        metric=reading.metric,
        value=reading.value,
        low=reading.low,
        high=reading.high,
        oracle=reading.oracle,
        oracle_low=reading.oracle_low,
        oracle_high=reading.oracle_high,
        unit=reading.unit,
        ideal=reading.ideal,
        side=reading.side,
        failed=reading.failed,
    )


def _from_joint(test: JointTest) -> ScoreLine:
    return ScoreLine(
        split="forget",
        metric=test.metric,
        value=test.value,
        oracle=test.floor,
        oracle_high=test.floor_high,
        p_value=test.p_value,
        unit="share" if test.metric.startswith("classifier") else "squared kernel distance",
        ideal=test.ideal,
        side="off the oracle" if test.p_value <= 0.05 else "not told from the oracle",
        failed=test.failed,
    )
