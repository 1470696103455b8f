"""The report's words: how numbers are written, what a verdict means, what to do about it, and the definitions.

Everything here is a pure function from parts of a record to text, so that the page and the terminal say the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expunge.core.record import (
    MOVED_ENOUGH,
    SPLITS,
    ConfigurationRecord,
    ForgetRecord,
    SelectionRecord,
    SplitName,
    VerdictName,
)
from expunge.core.result import Result
from expunge.report import numbers


@dataclass(frozen=True)
class VerdictWords:
    """How one verdict is explained."""

    short: str
    """One word for narrow places."""
    meaning: str
    """What was seen, for someone who has not read the paper."""
    action: str
    """What to do about it."""


VERDICTS: dict[VerdictName, VerdictWords] = {
    "indistinguishable": VerdictWords(
        "matches",
        "On forget, retain and validation examples alike, the models cannot be told from retrained ones, within the "
        "stated tolerance.",
        "Usable at this tolerance and this number of models.",
    ),
    "under-forgotten": VerdictWords(
        "under",
        "The models still treat the forget examples as something they were trained on, or have not followed retraining "
        "elsewhere: they lie on the pretrained side.",
        "Do not rely on it: the examples are still visible in the models' behaviour. Retrain, or try another method.",
    ),
    "over-forgotten": VerdictWords(
        "over",
        "The models do worse on the forget examples than models that never saw them; that mistake is itself a trace.",
        "Stop earlier or lower the rate; otherwise retrain.",
    ),
    "damaged": VerdictWords(
        "damaged",
        "Behaviour on retain or validation examples is further from retraining than it was before unlearning.",
        "Do not deploy: what was to be kept has changed. Retrain.",
    ),
    "diverged": VerdictWords(
        "diverged",
        "Too many models ended in non-finite or absurd numbers, or give one answer to everything.",
        "Do not deploy. Lower the rate, or retrain.",
    ),
    "undecided": VerdictWords(
        "undecided",
        "The interval contains both acceptable and unacceptable values: these models are too few to decide.",
        "Repeat the audit with more members.",
    ),
}
"""Every verdict of the record's schema, in the order in which a page lists them."""

AS_DEAR = 0.995
"""Share of the cost of retraining from which on it is written as 100 %: nothing is saved."""

OPTION_NAMES = {"msteps": "ascent epochs (msteps)"}
"""Options whose name in Python says little to somebody who does not know the code that it comes from."""


def options_text(options: Mapping[str, Any], keys: Sequence[str] | None = None) -> str:
    """Write options as `name value` pairs; the rate also in units of the recipe's peak rate.

    >>> options_text({"lr": 0.02, "relative_lr": 0.05, "epochs": 10, "momentum": 0.0}, ["lr", "relative_lr", "epochs"])
    'rate 0.02 (0.05 of the recipe peak), epochs 10'

    Args:
        options: All options of a configuration.
        keys: Which to write; all by default.
    """
    parts = []
    shown = [key for key in options if keys is None or key in keys]
    for key in shown:
        if key == "lr":
            relative = options.get("relative_lr")
            beside = f" ({numbers.value_text(relative)} of the recipe peak)" if relative is not None else ""
            parts.append(f"rate {numbers.value_text(options[key])}{beside}")
        elif key == "relative_lr":
            if "lr" not in shown:
                parts.append(f"rate {numbers.value_text(options[key])} of the recipe peak")
        else:
            parts.append(f"{OPTION_NAMES.get(key, key.replace('_', ' '))} {numbers.value_text(options[key])}")
    return ", ".join(parts)


def varying(configurations: Sequence[ConfigurationRecord]) -> list[str]:
    """Return the options that differ between configurations of a method; the rate always."""
    keys = list(dict.fromkeys(key for c in configurations for key in c.options))
    first = configurations[0].options if configurations else {}
    return [
        key
        for key in keys
        if key in ("lr", "relative_lr")
        or any(c.options.get(key, "absent") != first.get(key, "absent") for c in configurations)
    ]


def short_label(label: str, statistics: str) -> str:
    """Write a method's label, with its choice of normalisation statistics where that is not the default."""
    return label if statistics in ("frozen", "retrained") else f"{label} (statistics {statistics})"


def worst_excess(configuration: ConfigurationRecord) -> float:
    """Return the largest excess over the floor among the splits; infinite where a score is not a number."""
    excesses = [score.excess for score in configuration.scores.values()]
    return max((math.inf if math.isnan(excess) else excess for excess in excesses), default=math.inf)


@dataclass(frozen=True)
class Headline:
    """The most important thing about one forget set."""

    tone: str
    """`good`, `bad`, `open` or `empty`; decides the colour."""
    sentence: str
    """The finding."""
    action: str
    """What this means and what to do."""


@dataclass(frozen=True)
class Row:
    """A method with the configuration that was chosen for it, if any."""

    method: str
    label: str
    control: bool
    selection: SelectionRecord | None
    chosen: ConfigurationRecord | None
    best: ConfigurationRecord | None
    configurations: int


def rows(forget: ForgetRecord) -> list[Row]:
    """Return one row a method, candidates before controls, in the order of the record."""
    by_id = {c.id: c for c in forget.configurations}
    selections = {s.method: s for s in forget.selections}
    found: list[Row] = []
    for method in dict.fromkeys([*selections, *(c.method for c in forget.configurations)]):
        own = [c for c in forget.configurations if c.method == method]
        selection = selections.get(method)
        chosen = by_id.get(selection.chosen) if selection else None
        best = by_id.get(selection.best) if selection else None
        some = chosen or best or (own[0] if own else None)
        control = some.control if some else False
        found.append(Row(method, some.label if some else method, control, selection, chosen, best, len(own)))
    return sorted(found, key=lambda row: row.control)


def other_results(forget: ForgetRecord) -> list[tuple[Row, str, Mapping[SplitName, Result]]]:
    """Return what metrics beside KLoM read of each chosen configuration, by metric, then by method."""
    chosen = [(row, row.chosen.others) for row in rows(forget) if row.chosen and row.selection]
    names = dict.fromkeys(name for _, others in chosen for name in others)
    return [(row, name, others[name]) for name in names for row, others in chosen if name in others]


def beside_floor(result: Result | None) -> str:
    """Write a value with what oracles read; nothing where it was not read."""
    return "" if result is None else f"{numbers.number(result.value)} ({numbers.number(result.floor)})"


def is_noise(selection: SelectionRecord) -> bool:
    """Return whether an illusion gap cannot be told from 0; unknown, so no, where it has no interval."""
    low, high = selection.gap_low, selection.gap_high
    return low is not None and high is not None and low <= 0 <= high and low < high


def gap_text(selection: SelectionRecord) -> str:
    """Write an illusion gap; one within its interval is called noise."""
    return "noise" if is_noise(selection) else numbers.number(selection.illusion_gap)


def gap_interval(selection: SelectionRecord) -> str:
    """Write the interval of an illusion gap, or why there is none."""
    if selection.gap_low is None or selection.gap_high is None:
        return "no interval, at least 0"
    if selection.gap_low == selection.gap_high:
        return ""
    return f"{numbers.number(selection.gap_low)} to {numbers.number(selection.gap_high)}"


def headline(forget: ForgetRecord) -> Headline:
    """Say in two sentences what an engineer with a deletion request must know about one forget set."""
    score, floor = forget.pretrained.get("forget"), forget.floor.get("forget")
    if forget.nothing_to_unlearn:
        seen = (
            f" (KLoM on forget {numbers.number(score.value)}, floor {numbers.number(floor.value)})"
            if score and floor
            else ""
        )
        return Headline(
            "empty",
            "There is nothing to unlearn: before any method, the pretrained models already behave on the forget "
            f"examples like models that never saw them{seen}.",
            "No unlearning is needed for the behaviour to match retraining, and this forget set cannot tell a working "
            "method from an idle one. Whether the data themselves must be deleted is a separate question.",
        )
    all_rows = rows(forget)
    judged = [row for row in all_rows if not row.control and row.chosen]
    if not judged:
        return Headline(
            "open",
            "No method has been chosen and judged for this forget set yet.",
            "Finish or repeat the audit; until then, retrain if the examples have to be forgotten.",
        )
    passing = sorted((row for row in judged if _passes(row.chosen)), key=lambda row: _cost(row.chosen))
    rivals = [row for row in all_rows if row.control and _passes(row.chosen) and _cost(row.chosen) < AS_DEAR]
    if passing and _cost(passing[0].chosen) >= AS_DEAR:
        return _dear_news(passing, rivals, len(judged))
    if passing:
        return _good_news(passing, rivals, len(judged))
    return _bad_news(judged, rivals, [row for row in judged if _inert(forget, row.method)])


def _inert(forget: ForgetRecord, method: str) -> bool:
    """Return whether no setting of a method moved the forget examples enough to be judged."""
    return all(
        any(check.name == MOVED_ENOUGH and not check.passed for check in c.checks)
        for c in forget.configurations
        if c.method == method
    )


def _good_news(passing: list[Row], rivals: list[Row], judged: int) -> Headline:
    first = passing[0]
    assert first.chosen is not None
    who = f"{first.label} cannot be told from retraining, at {numbers.percent(first.chosen.cost)} of its cost"
    cautions = _cautions(first, rivals)
    action = "Use the setting listed below, for this task and forget sets of this kind"
    action += "; but " + "; ".join(cautions) + "." if cautions else "; keep this report as the evidence."
    return Headline("good", f"{who} ({_count_passing(passing, judged)}).", action)


def _dear_news(passing: list[Row], rivals: list[Row], judged: int) -> Headline:
    """Say that what passes saves nothing, `passing[0]` being the cheapest."""
    first = passing[0]
    assert first.chosen is not None
    cost = numbers.percent(first.chosen.cost)
    who = f"{first.label} matches retraining, but saves nothing: it costs {cost} of retraining"
    action = (
        "Retrain instead, unless the models at hand must be kept for another reason: retraining is certain, has no "
        "setting to find, and costs no more."
    )
    cautions = _cautions(first, rivals)
    if cautions:
        caution = "; ".join(cautions)
        action += f" If you use it all the same: {caution}."
    return Headline("open", f"{who} ({_count_passing(passing, judged)}).", action)


def _count_passing(passing: list[Row], judged: int) -> str:
    if judged == 1:
        return "the only candidate"
    total = f"{len(passing)} of {judged} candidates {'passes' if len(passing) == 1 else 'pass'}"
    others = numbers.listing([row.label for row in passing[1:]])
    return f"{total}; the others that do: {others}" if others else total


def _cautions(row: Row, rivals: list[Row]) -> list[str]:
    """Return what somebody must know who wants to use a method that passes."""
    assert row.chosen is not None
    cautions = []
    if any(not check.passed for check in row.chosen.checks):
        cautions.append("a runtime check of the method failed: read it before trusting the score")
    if row.selection and row.selection.edge:
        cautions.append("its setting lies on the edge of the grid, so widen the grid")
    cheaper = [rival for rival in rivals if _cost(rival.chosen) <= _cost(row.chosen) * 1.001]
    if cheaper:
        cautions.append(
            f"the control {cheaper[0].label} passes at no greater cost, so the method itself earns no credit"
        )
    return cautions


def _bad_news(judged: list[Row], rivals: list[Row], inert: list[Row]) -> Headline:
    closest = min(judged, key=lambda row: worst_excess(row.chosen) if row.chosen else math.inf)
    assert closest.chosen is not None
    forget_score = closest.chosen.scores.get("forget")
    near = f"The closest is {closest.label}: {closest.chosen.verdict.name}"
    if forget_score:
        read, retrained = numbers.number(forget_score.value), numbers.number(forget_score.floor)
        near += f", KLoM on forget {read} where retraining reads {retrained}"
    undecided = [row for row in judged if row.chosen and row.chosen.verdict.name == "undecided"]
    illusions = [row for row in judged if _passes(row.best) and row.selection and not is_noise(row.selection)]
    if rivals:
        cost = numbers.percent(_cost(rivals[0].chosen))
        action = f"The control {rivals[0].label} does match, at {cost} of the cost of retraining."
    elif undecided:
        names = numbers.listing([row.label for row in undecided])
        action = f"{names}: too few members to decide. Repeat with more members, or retrain."
    else:
        action = "Retrain without the forget examples; it is the only thing here that is known to work."
    if illusions:
        names = numbers.listing([row.label for row in illusions])
        action += (
            f" A setting of {names} would have looked successful had it been picked with the retrained models at hand; "
            "without them nobody would have known to pick it."
        )
    if inert:
        names = numbers.listing([row.label for row in inert])
        action += f" No setting of {names} moved the forget examples: try larger rates before you conclude anything."
    tone = "open" if undecided or len(inert) == len(judged) else "bad"
    # Undecided is not a failure: the claim must not be stronger than the evidence.
    claim = "No candidate has been shown to match retraining" if undecided else "No candidate matches retraining"
    return Headline(tone, f"{claim}. {near}.", action)


def _passes(configuration: ConfigurationRecord | None) -> bool:
    return configuration is not None and configuration.verdict.name == "indistinguishable"


def _cost(configuration: ConfigurationRecord | None) -> float:
    return configuration.cost if configuration and math.isfinite(configuration.cost) else math.inf


def starts_pretrained(configuration: ConfigurationRecord) -> bool:
    """Return whether a configuration is a stopping time of a run from the pretrained models on.

    Retraining, whole or cut short, starts from nothing, and doing nothing has no time.
    """
    return configuration.statistics != "retrained" and configuration.epoch > 0


def timing_sentence(forget: ForgetRecord, method: str) -> str:
    """Count how many runs of a method ever match retraining on forget, and how many still do at their last epoch."""
    runs: dict[str, list[ConfigurationRecord]] = {}
    for c in forget.configurations:
        if c.method == method:
            runs.setdefault(c.run, []).append(c)
    if not runs:
        return "No run of this method is on record."

    def close(c: ConfigurationRecord) -> bool:
        scores = [c.scores.get(split) for split in SPLITS]
        return all(s is not None and s.excess <= c.verdict.tolerance for s in scores)

    ever = [run for run in runs.values() if any(close(c) for c in run)]
    last = [run for run in ever if close(max(run, key=lambda c: c.epoch))]
    stops = sum(len(run) for run in runs.values())
    hits = sum(close(c) for run in runs.values() for c in run)
    text = f"{numbers.count(len(runs), 'run')}, {numbers.count(stops, 'stopping time')}: "
    if not ever:
        return text + "none comes within the tolerance of the floor on all three splits at any time."
    return text + (
        f"{hits} of {stops} stopping times come within the tolerance of the floor on all three splits. "
        f"{len(ever)} of {numbers.count(len(runs), 'run')} {'pass' if len(ever) != 1 else 'passes'} through at some "
        "time, "
        f"{len(last) or 'none'} {'are' if len(last) > 1 else 'is'} still there at the end. To use the method one must "
        "know the setting and the stopping time beforehand."
    )


@dataclass(frozen=True)
class Disagreement:
    """A run that the public estimator likes and ours does not."""

    configuration: ConfigurationRecord
    """The stopping time at which the two disagree on most splits."""
    splits: list[str]
    """Splits on which the public variant reads no more than its own floor."""
    stops: int
    """Stopping times of the run at which they disagree."""


def disagreements(forget: ForgetRecord) -> list[Disagreement]:
    """Return runs that the public variant puts at or below its floor while ours says damaged or diverged.

    Worst first: by the number of splits that look perfect, then by our largest excess.
    """
    runs: dict[str, list[tuple[ConfigurationRecord, list[str]]]] = {}
    for c in forget.configurations:
        if c.verdict.name not in ("damaged", "diverged"):
            continue
        fooled = [
            split
            for split in SPLITS
            if split in c.public and split in forget.floor_public and c.public[split] <= forget.floor_public[split]
        ]
        if fooled:
            runs.setdefault(c.run, []).append((c, list(fooled)))

    def weight(item: tuple[ConfigurationRecord, list[str]]) -> tuple[int, float]:
        return len(item[1]), worst_excess(item[0])

    found = [Disagreement(*max(stops, key=weight), len(stops)) for stops in runs.values()]
    return sorted(found, key=lambda d: weight((d.configuration, d.splits)), reverse=True)


SPLITS_TERM = "Forget set (F), retain set (R), validation (V)"
SETTING_TERM = "Setting, run, configuration"

DEFINITIONS: list[tuple[str, str]] = [
    (
        SPLITS_TERM,
        "The forget set is the part of the training data that is to be forgotten, the retain set all the rest. "
        "Validation examples were never trained on. A method must change behaviour on the first as retraining "
        "would, and must leave the other two as retraining would leave them. Tables and checks call them F, R and V.",
    ),
    (
        "Pretrained, oracle, member",
        "A pretrained model was trained on everything. An oracle was trained by the same recipe on the retain set "
        "only: it is what a perfect deletion would give. Training is random, so each is an ensemble of many "
        "models, called members, that differ in their random numbers only.",
    ),
    (
        "Margin",
        "For one model and one example: the logit of the true class minus the log-sum-exp of the other classes. "
        "It equals log(p / (1 - p)), with p the probability given to the true class. Above 0 the true class has "
        "more than half of the probability; models that memorised an example give it a large margin.",
    ),
    (
        "KLoM",
        "Kullback-Leibler (KL) divergence of margins, in nats (units of the natural logarithm). For each example the "
        "margins of all unlearned members are compared, as a distribution, with those of all oracles, in both "
        "directions, and the two divergences are averaged. Bins are placed at quantiles of the oracles with open ends, "
        "so that no outlier can stretch them; margins of failed members are put where they do most harm. A split is "
        "summarised by its 95th percentile (P95): 95 % of its examples score lower. KLoM saturates (near 2.3 with 100 "
        "members on each side) when no margin is left among the oracles'.",
    ),
    (
        "Floor",
        "What KLoM reads when both sides are oracles, so what a perfect method would score. It is above 0 because "
        "the number of members is finite, and it falls as members are added. Compare every score with its floor, "
        "never with 0. It is measured with a second, independent set of oracles (held out).",
    ),
    (
        "Excess",
        "KLoM less its floor: how much further from retraining the models are than other retrained models would be. "
        "Perfect is 0. The excess on the worst of the three splits decides a verdict and the choice of a setting.",
    ),
    (
        "Interval",
        "The 95 % bootstrap interval: other members would have given other numbers. On retain and validation it "
        "also allows for other examples; the forget examples are all there are.",
    ),
    (
        "Tolerance and verdict",
        "The tolerance is the largest excess over the floor that still counts as the same. For scale: margins of "
        "one example shifted by d standard deviations of the oracles are d x d / 2 nats away. Indistinguishable "
        "has to be shown: two one-sided tests at 5 % must place the excess within the tolerance on forget, retain "
        "and validation, all three. Otherwise a method is under-forgotten (on the pretrained side of the oracles), "
        "over-forgotten (beyond them), damaged (retain or validation further away than before), diverged (members "
        "failed), or undecided (too few members to say).",
    ),
    (
        "Cost",
        "Training examples pushed forward and backward through the model, as a share of what retraining on the "
        "retain set takes. 100 % is as dear as retraining; a method that costs more has no purpose.",
    ),
    (
        "Shift",
        "How far the mean margin of the unlearned members lies from that of the oracles, in standard deviations "
        "of the oracles, averaged over examples. On the forget set a positive shift means too little forgetting, "
        "a negative one too much.",
    ),
    (
        "Chosen, best of grid, illusion gap",
        "The grid is all settings of a method. The chosen one was found without looking at the oracles of this forget "
        "set: on a calibration forget set of the same kind, with its own oracles. The best of the grid was picked by "
        "looking at the answer; it is biased, and nobody with a real request could find it. The illusion gap is what "
        "such a look gains: the best is picked with half of the models and read with the other half, and the reverse, "
        "so that luck gains nothing; a gap whose 95 % interval holds 0 is called noise. Records of earlier versions "
        "have no interval: the best was read on the oracles that it was picked on, at least 0 by luck alone.",
    ),
    (
        SETTING_TERM,
        "A setting is a method's options, by their names in Python: lr is the learning rate, batch_size and "
        "forget_batch_size (batch and forget_batch in old records) are the examples that a step takes, msteps the "
        "epochs in which SCRUB pushes away from the forget set. A method with one setting is a run; a run stopped "
        "after some epoch is a configuration.",
    ),
    (
        "Normalisation statistics",
        "Batch norm keeps running means and variances. Running a model in training mode on forget examples "
        "changes them even if no weight moves. Frozen leaves them alone, updated lets them drift, recalibrated "
        "measures them again on the retain set.",
    ),
    (
        "Control",
        "A row that should not work, or works for a known reason: doing nothing, a rate of 0, fine-tuning on the "
        "retain set, retraining cut short at the same cost. A method deserves credit only for what it does beyond "
        "its controls.",
    ),
    (
        "Lemma 1",
        'A result of the paper "Ascent Fails to Forget" (arXiv 2509.26427): if F was drawn at random, an oracle '
        "treats it like fresh data, so its accuracies on F and on V differ by no more than chance in drawing "
        "examples allows.",
    ),
]
"""Terms and their explanation, for someone who has not read the paper."""


def definitions(statistic: str) -> list[tuple[str, str]]:
    """Return the terms of a report on an outcome whose compared number has this name."""
    other = (
        statistic.capitalize(),
        f"The number that is compared, for one model and one example: {STATISTICS.get(statistic, OTHER)}. What is said "
        "of margins elsewhere on this page is said of this number.",
    )
    return [other if term == "Margin" and statistic != "margin" else (term, text) for term, text in DEFINITIONS]


OTHER = "larger where the model fits the example's target better"
STATISTICS = {
    "fit": "minus the distance between prediction and target, in standard deviations of the training targets",
    "mean margin": "the logit of each label, negated where the label is absent, averaged over labels",
    "log-likelihood a token": "the mean log-probability of its tokens under the model, in nats, at most 0",
}
"""How the compared number of outcomes without a single margin is made."""
