"""The lines of `expunge score` that need margins alone: KLoM, distances, joint tests, U-LiRA, bounds, public codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from expunge import metrics
from expunge.core.record import SplitName
from expunge.core.scoring import ScoreLine
from expunge.metrics.distances import DISTANCES, distance_score
from expunge.metrics.klom import Direction, Variant
from expunge.metrics.klom_variants import PUBLISHED
from expunge.metrics.neurips2023 import challenge_score
from expunge.metrics.privacy import Split, audit
from expunge.studies.score.lines import Array, at_equal_counts, from_joint, from_score, sample

DISTANCE_EXAMPLES = 2000
"""Examples of a split at most for distances, whose intervals take forty readings; they are means over examples."""
CHALLENGE_EXAMPLES = 300
"""Examples at most for the challenge score, which takes tens of milliseconds for each."""
DELTA = 1e-5
"""Slack of the bounds on epsilon."""

WAYS: dict[Direction, str] = {
    "unlearned_oracle": "KL(unlearned | oracle)",
    "oracle_unlearned": "KL(oracle | unlearned)",
}


def klom_lines(split: SplitName, ruler: metrics.Ruler, u: Array, h: Array | None, seed: int) -> list[ScoreLine]:
    """Return KLoM with interval and floor, and each direction of KL alone."""
    lines = [from_score(split, ruler.score(u, summary), f"KLoM, {summary}", "KLoM") for summary in ("p95", "mean")]
    for way, name in WAYS.items():
        read = partial(_klom_p95, oracle=ruler.oracle, direction=way)
        line = _read_at_equal_counts(read, u, ruler.oracle, h, seed)
        lines.append(ScoreLine(split=split, group="KLoM", metric=f"{name}, p95", ideal="the floor", **line))
    return lines


def distance_lines(split: SplitName, u: Array, o: Array, h: Array | None, seed: int) -> list[ScoreLine]:
    """Return every distance with interval and floor, which is brought to the number of unlearned members."""
    rows = sample(u.shape[1], DISTANCE_EXAMPLES, seed, "distance examples")
    failed = int(metrics.failed_members(u, o).sum())
    u, o, h = u[:, rows], o[:, rows], None if h is None else h[:, rows]
    lines = []
    for name in DISTANCES:
        line = from_score(split, distance_score(name, u, o, h), name.replace("_", " "), "distances")
        # A member may fail on examples that were not drawn.
        lines.append(line.model_copy(update={"failed": failed}))
    return lines


def joint_lines(split: SplitName, u: Array, o: Array, seed: int) -> list[ScoreLine]:
    """Return the joint tests over the examples of a split."""
    tests = [metrics.mmd(u, o, seed=seed)]
    folds = min(5, len(u), len(o))
    tests.insert(0, metrics.classifier_two_sample(u, o, folds=folds, seed=seed))
    return [from_joint(split, test) for test in tests]


def published_lines(split: SplitName, u: Array, o: Array, h: Array | None, seed: int) -> list[ScoreLine]:
    """Return KLoM as public codes compute it, at equal numbers of members."""
    lines = []
    for name in PUBLISHED:
        line = _read_at_equal_counts(partial(_klom_p95, oracle=o, variant=name), u, o, h, seed)
        lines.append(
            ScoreLine(
                split=split,
                group="published elsewhere",
                metric=f"KLoM as published ({name}), p95",
                ideal="the floor; can be fooled",
                published=True,
                **line,
            )
        )
    return lines


def _read_at_equal_counts(
    read: Callable[[Array], Sequence[float]], u: Array, o: Array, h: Array | None, seed: int
) -> dict[str, Any]:
    """Return what a line says of a divergence: its value at the number of held-out oracles, and theirs."""
    (value,) = at_equal_counts(u, h, o, read, seed)
    floor = None if h is None else read(h[: len(u)])[0]
    return {"value": value, "oracle": floor, "unit": "nats", "failed": int(metrics.failed_members(u, o).sum())}


def _klom_p95(
    margins: Array, oracle: Array, variant: Variant = "expunge", direction: Direction | None = None
) -> list[float]:
    return [float(np.percentile(metrics.klom(margins, oracle, variant, direction), 95))]


def ulira_line(u: Array, o: Array, h: Array | None, seed: int) -> ScoreLine:
    """Return U-LiRA on the forget examples."""
    attack = metrics.ulira(u, o, held_out=h, seed=seed)
    return ScoreLine(
        split="forget",
        group="attacks",
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


def epsilon_lines(u: Array, o: Array, seed: int) -> list[ScoreLine]:
    """Return lower bounds on epsilon, with and without the assumption of a Gaussian trade-off."""
    # One number a member: its mean margin on the forget set; the threshold comes from the other half of the members.
    failed = metrics.failed_members(u, o)
    scores = np.where(failed, np.nan, np.where(np.isfinite(u), u, 0).mean(1))
    lines = []
    routes: tuple[Literal["clopper-pearson", "gaussian-dp"], ...] = ("clopper-pearson", "gaussian-dp")
    for route in routes:
        bound = audit(scores, o.mean(1), Split(seed=seed), delta=DELTA, route=route)
        assumed = ", assumes a Gaussian trade-off" if route == "gaussian-dp" else ""
        lines.append(
            ScoreLine(
                split="forget",
                group="epsilon",
                metric=f"epsilon, lower bound (mean margin, {route})",
                value=bound.epsilon,
                oracle=bound.floor,
                oracle_high=bound.largest,
                unit=f"nats, 95 % confidence, delta {DELTA:g}{assumed}",
                ideal=f"0: nothing shown; {bound.positives} members could show {bound.largest:.2f} at most",
                failed=int(failed.sum()),
            )
        )
    return lines


def challenge_lines(
    u: Array, o: Array, accuracies: tuple[float, float, float, float] | None, seed: int
) -> list[ScoreLine]:
    """Return the forgetting quality of the NeurIPS 2023 challenge, and its score where accuracies are known."""
    rows = sample(u.shape[1], CHALLENGE_EXAMPLES, seed, "challenge examples")
    found = challenge_score(u[:, rows], o[:, rows], accuracies=accuracies, seed=seed)
    quality = ScoreLine(
        split="forget",
        group="published elsewhere",
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
    if accuracies is None:
        return [quality]
    # Oracles have their own accuracies: the ratios are 1, and what they earn is the calibration.
    ratio = found.score / found.forgetting if found.forgetting > 0 else 0.0
    score = {
        "metric": "score (NeurIPS 2023 challenge)",
        "value": found.score,
        "low": found.low * ratio,
        "high": found.high * ratio,
    }
    return [quality, quality.model_copy(update=score)]
