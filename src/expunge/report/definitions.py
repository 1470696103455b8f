"""The terms that a report explains, for someone who has not read the paper."""

from __future__ import annotations

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
        "Rows that count",
        "A verdict looks at every single row as well. A row counts against it when its margins are told from the "
        "oracles' by a test that allows for the number of rows, and differ by more than the tolerance. One such "
        "forget row is enough to be under-forgotten (remembered) or over-forgotten; on retain and validation such "
        "rows are shown as damage, and the percentile decides.",
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
