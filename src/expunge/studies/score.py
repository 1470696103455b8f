"""Scoring saved outputs of any source: `expunge score`.

Arrays of margins (members, examples), or of logits (members, examples, classes) with labels, are read from files;
everything that they allow is computed, and what they do not allow is listed with what would. Nothing in a file is ever
executed: NumPy files with pickled objects are refused.

A file is one array (`.npy`, `.csv` with a row a member), or several (`.npz`, `.safetensors`) under the names `forget`,
`retain`, `validation` and, for logits, `labels`, `labels_retain`, `labels_validation`. `FILE:NAME` takes the arrays
under `NAME/forget` and so on, or the single array `NAME`: the margins of an audit are read as
`runs/digits/margins/random-70.safetensors:oracle`.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

from expunge import metrics
from expunge.core import InputError, Score
from expunge.core.record import SPLITS, SplitName
from expunge.core.seeds import derive
from expunge.metrics.arrays import to_labels
from expunge.metrics.distances import DISTANCES, distance_score
from expunge.metrics.joint import JointTest
from expunge.metrics.neurips2023 import challenge_score
from expunge.metrics.privacy import Split, audit
from expunge.metrics.reading import Reading

FEWEST = 5
"""Members of either side below which nothing is computed: floors then exceed what could be found."""
FEW = 20
"""Members of either side below which the result says that it is rough."""
CHALLENGE_EXAMPLES = 300
"""Examples at most for the challenge score, which takes tens of milliseconds for each."""

Path_ = str | Path


class Model(BaseModel):
    """Part of the result; NaN and infinities are written as text, so that the JSON is valid everywhere."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")


class ScoreLine(Model):
    """One metric on one split."""

    split: SplitName
    metric: str
    value: float
    low: float | None = None
    """Lower end of the 95 % interval of `value`; None where the metric has none."""
    high: float | None = None
    """Upper end of it."""
    oracle: float | None = None
    """The floor: what the metric reads for oracles."""
    oracle_low: float | None = None
    oracle_high: float | None = None
    p_value: float | None = None
    unit: str
    ideal: str
    """What a perfect method would read."""
    side: str | None = None
    """Where the value lies beside the oracle's, in words."""
    failed: int = 0
    """Unlearned members that failed."""
    published: bool = False
    """Whether it is somebody else's definition, defects included, for comparison with their tables."""


class Missing(Model):
    """What could not be computed."""

    metric: str
    needs: str
    """The input that would allow it."""


class ScoreResult(Model):
    """All that the given arrays allow."""

    files: dict[str, str]
    """What was given, by argument."""
    shapes: dict[str, list[int]]
    """Shape of each array that was read."""
    lines: list[ScoreLine]
    verdict: str | None = None
    """One word, when retain and validation were given."""
    verdict_sentence: str | None = None
    tolerance: float | None = None
    members_needed: int | None = None
    missing: list[Missing] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    """What a reader has to know, such as few members or a resampled floor."""


@dataclass
class _Side:
    """The arrays of one set of models."""

    margins: dict[SplitName, NDArray[np.float64]] = field(default_factory=dict)
    logits: dict[SplitName, NDArray[np.float64]] = field(default_factory=dict)
    raw: dict[str, NDArray[Any]] = field(default_factory=dict)


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
    given = {"unlearned": unlearned, "oracle": oracle, "held_out": held_out, "pretrained": pretrained}
    files = {who: str(path) for who, path in given.items() if path is not None}
    sides = {who: _Side(raw=_read_splits(path, who)) for who, path in given.items() if path is not None}
    for split, more in (("retain", retain), ("validation", validation)):
        for who, path in (more or {}).items():
            if who not in sides:
                raise InputError(f"{split} is given for {who!r}, but the forget set is not; give --{who} as well.")
            if split in sides[who].raw:
                raise InputError(f"{who} has {split} examples in {files[who]} and in {path}, expected one of them.")
            sides[who].raw[split] = _one_array(path, f"{who} {split}")
            files[f"{who} {split}"] = str(path)
    answers = {
        split: _labels(path, sides, split)
        for split, path in zip(SPLITS, (labels, labels_retain, labels_validation), strict=True)
    }
    for who, side in sides.items():
        _as_margins(side, who, answers)
    _check_shapes(sides)
    result = ScoreResult(
        files=files,
        shapes={
            f"{who} {split}": list(array.shape) for who, side in sides.items() for split, array in side.raw.items()
        },
        lines=[],
    )
    _score(result, sides, answers, tolerance, seed, progress or (lambda text: None))
    return result


# reading ------------------------------------------------------------------------------------------------------------


def read_arrays(path: Path_) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file by name; a single array has the name "" (empty).

    Args:
        path: `.npy`, `.npz`, `.safetensors` or `.csv`.

    Raises:
        InputError: If the file is missing, of another kind, damaged, or holds Python objects.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file} is not a file, expected .npy, .npz, .safetensors or .csv.")
    try:
        if file.suffix == ".npy":
            return {"": np.load(file, allow_pickle=False)}
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        if file.suffix == ".safetensors":
            return _read_safetensors(file)
        if file.suffix == ".csv":
            return {"": _read_csv(file)}
    except (ValueError, OSError, EOFError, SafetensorError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            raise InputError(
                f"{file} holds Python objects (a pickle), which could run code when read, so it is refused; save "
                "a plain array of numbers with numpy.save(path, array.astype('float32'))."
            ) from error
        raise InputError(f"{file} cannot be read ({error}); save it again as {file.suffix}.") from error
    raise InputError(f"{file} ends in {file.suffix or 'nothing'!r}, expected .npy, .npz, .safetensors or .csv.")


def _read_safetensors(file: Path) -> dict[str, NDArray[Any]]:
    try:
        return dict(load_file(file))
    except (TypeError, KeyError, AttributeError):
        # bfloat16 has no NumPy type.
        return {name: tensor.to(torch.float32).numpy() for name, tensor in load_torch(file).items()}


def _read_csv(file: Path) -> NDArray[np.float64]:
    rows: list[list[float]] = []
    with file.open(newline="", encoding="utf-8-sig") as handle:
        for number, row in enumerate(csv.reader(handle), 1):
            if not row:
                continue
            try:
                rows.append([float(cell) for cell in row])
            except ValueError as error:
                if number == 1 and not any(_is_number(cell) for cell in row):
                    continue  # a header; a row with some numbers is a mistake, not a header
                raise InputError(f"{file}, row {number}: {error}; expected numbers.") from error
            if len(rows[-1]) != len(rows[0]):
                raise InputError(f"{file}, row {number} has {len(rows[-1])} values, the first has {len(rows[0])}.")
    if not rows:
        raise InputError(f"{file} has no rows of numbers, expected one row a member, one column an example.")
    return np.asarray(rows)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _select(path: Path_) -> tuple[dict[str, NDArray[Any]], str]:
    """Return the arrays of FILE or FILE:NAME, with NAME stripped, and the path."""
    text = str(path)
    if not Path(text).exists() and ":" in text[2:]:
        name_at = text.rindex(":")
        file, name = text[:name_at], text[name_at + 1 :]
        arrays = read_arrays(file)
        under = {key[len(name) + 1 :]: array for key, array in arrays.items() if key.startswith(name + "/")}
        if under:
            return under, file
        if name in arrays:
            return {"": arrays[name]}, file
        raise InputError(f"{file} has no {name!r}, expected one of: {', '.join(sorted(arrays))}.")
    return read_arrays(path), text


def _read_splits(path: Path_, who: str) -> dict[str, NDArray[Any]]:
    arrays, file = _select(path)
    if len(arrays) == 1 and next(iter(arrays)) not in SPLITS:
        return {"forget": next(iter(arrays.values()))}
    known = (*SPLITS, "labels", "labels_retain", "labels_validation")
    if "forget" not in arrays:
        raise InputError(
            f"{who}: {file} has {', '.join(sorted(arrays))}, expected an array named forget (and retain, validation); "
            f"or pick one with {file}:NAME."
        )
    return {name: array for name, array in arrays.items() if name in known}


def _one_array(path: Path_, what: str) -> NDArray[Any]:
    arrays, file = _select(path)
    if len(arrays) != 1:
        raise InputError(f"{what}: {file} holds {len(arrays)} arrays, expected one; pick it with {file}:NAME.")
    return next(iter(arrays.values()))


def _labels(path: Path_ | None, sides: Mapping[str, _Side], split: str) -> NDArray[Any] | None:
    name = "labels" if split == "forget" else f"labels_{split}"
    inside = [side.raw.pop(name) for side in sides.values() if name in side.raw]
    if path is not None:
        array = _one_array(path, name)
        # A .csv of labels is a row or a column.
        return array.reshape(-1) if array.ndim == 2 and 1 in array.shape else array
    for other in inside[1:]:
        if not np.array_equal(inside[0], other):
            raise InputError(f"{name} differ between the files: the examples or their order is not the same.")
    return inside[0] if inside else None


def _as_margins(side: _Side, who: str, answers: Mapping[SplitName, NDArray[Any] | None]) -> None:
    for split in SPLITS:
        if split not in side.raw:
            continue
        array = side.raw[split]
        if not (np.issubdtype(array.dtype, np.number) and not np.iscomplexobj(array)):
            raise InputError(f"{who} {split} has dtype {array.dtype}, expected real numbers.")
        if array.ndim == 2:
            side.margins[split] = array.astype(np.float64)
        elif array.ndim == 3:
            answer = answers[split]
            if answer is None:
                name = "labels" if split == "forget" else f"labels_{split}"
                raise InputError(f"{who} {split} holds logits {array.shape}; give {name} to turn them into margins.")
            y = to_labels(answer, array.shape[1], array.shape[2])
            side.logits[split] = array.astype(np.float64)
            side.margins[split] = metrics.margins(torch.from_numpy(side.logits[split]), torch.from_numpy(y)).numpy()
        else:
            raise InputError(
                f"{who} {split} has shape {array.shape}, expected margins (members, examples) or logits (members, "
                "examples, classes)."
            )
        if len(array) < FEWEST:
            raise InputError(
                f"{who} {split} has {len(array)} members, expected at least {FEWEST}: with fewer, the floor of every "
                "metric is above what could be found. Train more members; 100 a side decide most cases."
            )


def _check_shapes(sides: Mapping[str, _Side]) -> None:
    reference = sides["oracle"]
    for who, side in sides.items():
        for split, array in side.raw.items():
            if split not in reference.raw:
                raise InputError(f"{who} has {split} examples but oracle has none; give the oracles on them as well.")
            if array.shape[1:] != reference.raw[split].shape[1:]:
                raise InputError(
                    f"{who} {split} has shape {array.shape}, oracle {split} {reference.raw[split].shape}; expected the "
                    "same examples (and classes): rows are members, columns examples."
                )
        if len({len(array) for array in side.raw.values()}) > 1:
            counts = {split: len(array) for split, array in side.raw.items()}
            raise InputError(f"{who} has {counts} members by split, expected the same members everywhere.")


# scoring ------------------------------------------------------------------------------------------------------------


def _score(
    result: ScoreResult,
    sides: Mapping[str, _Side],
    answers: Mapping[SplitName, NDArray[Any] | None],
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


def _attack(result: ScoreResult, unlearned: _Side, oracle: _Side) -> None:
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


def _outputs(result: ScoreResult, sides: Mapping[str, _Side], answers: Mapping[SplitName, NDArray[Any] | None]) -> None:
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
    sides: Mapping[str, _Side],
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


def print_scores(result: ScoreResult, console: Any) -> None:
    """Print a result as tables.

    Args:
        result: From `score_files`.
        console: A `rich.console.Console`, or anything with its `print`.
    """
    from rich.table import Table

    if result.verdict is not None:
        console.print(f"[bold]{result.verdict}[/bold]: {result.verdict_sentence}\n", highlight=False)
    for split in SPLITS:
        lines = [line for line in result.lines if line.split == split]
        if not lines:
            continue
        shapes = [result.shapes[f"{who} {split}"] for who in ("unlearned", "oracle")]
        table = Table(
            title=f"{split}: {shapes[0][1]} examples, {shapes[0][0]} unlearned members, {shapes[1][0]} oracles",
            title_justify="left",
        )
        for column, justify in (("metric", "left"), ("value", "right"), ("95 % interval", "right")):
            table.add_column(column, justify=justify)  # type: ignore[arg-type]
        table.add_column("oracles read", justify="right")
        table.add_column("reading")
        for line in lines:
            table.add_row(
                line.metric + (" (published)" if line.published and "published" not in line.metric else ""),
                _number(line.value),
                "" if line.low is None or np.isnan(line.low) else f"{_number(line.low)} to {_number(line.high)}",
                _number(line.oracle),
                "; ".join(
                    part
                    for part in (
                        line.side,
                        None if line.p_value is None else f"p = {line.p_value:.3g}",
                        f"{line.failed} failed" if line.failed else None,
                        f"ideal: {line.ideal}" if line.side is None else None,
                    )
                    if part
                ),
            )
        console.print(table)
    for note in result.notes:
        console.print(f"Note: {note}", highlight=False)
    if result.missing:
        table = Table(title="Not computed", title_justify="left")
        table.add_column("metric")
        table.add_column("needs")
        for missing in result.missing:
            table.add_row(missing.metric, missing.needs)
        console.print(table)


def _number(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}"
